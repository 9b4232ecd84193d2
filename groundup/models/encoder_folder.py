"""Encoders on disk: Hugging Face's layout for BERT, with the pooling of sentence-transformers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from groundup.config import UserError, from_dict, require, to_dict
from groundup.files import atomic_folder, read_json
from groundup.models.adapters import bert
from groundup.models.encoder import Encoder
from groundup.models.encoder_config import EncoderConfig, Pooling
from groundup.models.state_dict import mismatch
from groundup.text.tokenizer import load_tokenizer
from groundup.text.wordpiece import WordPieceTokenizer

_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Embedding:
    """How a vector for a text is made of an encoder's output."""

    pooling: Pooling
    normalize: bool
    """Scale it to length 1, so that a dot product is a cosine."""
    max_tokens: int
    """Of a text, [CLS] and [SEP] included; what is beyond is not read."""


def save_encoder(
    folder: str | Path, model: Encoder, tokenizer: WordPieceTokenizer, meta: Mapping[str, Any]
) -> None:
    """Write the whole folder, or leave the old one untouched; transformers loads it as BERT.

    Raises UserError when the model is not a BERT.
    """
    config = model.config
    require(
        tokenizer.vocab_size <= config.vocab_size,
        f"The tokenizer has {tokenizer.vocab_size} ids, the model {config.vocab_size}.",
    )
    fields = bert.to_hf_config(config) | {"pad_token_id": tokenizer.special["[PAD]"]}
    facts = {
        "format": _FORMAT,
        "encoder": to_dict(config),
        "tokenizer": {"kind": tokenizer.kind, "fingerprint": tokenizer.fingerprint},
        "meta": dict(meta),
    }
    state = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    tensors = {k: v.contiguous() for k, v in bert.to_hf_state(config, state).items()}
    with atomic_folder(folder) as temporary:
        tokenizer.save(temporary)
        for name, data in (("config.json", fields), ("groundup.json", facts)):
            (temporary / name).write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
        save_file(tensors, temporary / "model.safetensors", metadata={"format": "pt"})


def load_encoder(
    folder: str | Path, device: torch.device | str = "cpu"
) -> tuple[Encoder, WordPieceTokenizer]:
    """Read a folder of ours, or of Hugging Face's BERT; the model is in evaluation mode, in fp32.

    Raises UserError for one that is incomplete, damaged, or no encoder.
    """
    folder = Path(folder)
    data = read_json(folder / "config.json")
    if data.get("model_type") != "bert":
        raise UserError(
            f"{folder} is no encoder: its model_type is {data.get('model_type')!r}, and only "
            "'bert' is read."
        )
    tokenizer = load_tokenizer(folder)
    if not isinstance(tokenizer, WordPieceTokenizer):
        raise UserError(f"{folder}: the tokenizer is {tokenizer.kind}, but BERT's is WordPiece.")
    path = folder / "model.safetensors"
    require(path.is_file(), f"{path} does not exist. Only safetensors files are read.")
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            header = {name: name for name in file.keys()}  # noqa: SIM118  (not a dict)
            config = _config(folder, data, header)
            with torch.device("meta"):
                model = Encoder(config)
            stored = bert.drop_redundant(config, header)
            expected = bert.to_hf_state(config, model.state_dict())
            found = {name: file.get_slice(key).get_shape() for name, key in stored.items()}
            if problem := mismatch({k: list(v.shape) for k, v in expected.items()}, found):
                raise UserError(f"{path} does not fit its config: it {problem}.")
            tensors = {name: file.get_tensor(key).float() for name, key in stored.items()}
    except SafetensorError as error:
        raise UserError(
            f"{path} is damaged or cut off ({error}). Fetch or save it again."
        ) from None
    model.to_empty(device=device)
    model.load_state_dict(bert.from_hf_state(config, tensors))
    return model.eval(), tokenizer


def read_embedding(folder: str | Path, config: EncoderConfig) -> Embedding:
    """How texts are embedded, as sentence-transformers writes it; else as the config says."""
    folder = Path(folder)
    pooling, modules = config.pooling, []
    max_tokens = config.context_length
    if (folder / "modules.json").is_file():
        listed = json.loads((folder / "modules.json").read_text("utf-8"))
        modules = [str(module.get("type", "")).rpartition(".")[2] for module in listed]
    if (folder / "1_Pooling" / "config.json").is_file():
        data = read_json(folder / "1_Pooling" / "config.json")
        modes = [mode for mode, chosen in data.items() if "pooling_mode" in mode and chosen is True]
        known: dict[str, Pooling] = {
            "pooling_mode_mean_tokens": "mean",
            "pooling_mode_cls_token": "first",
        }
        if len(modes) != 1 or modes[0] not in known:
            raise UserError(f"{folder}/1_Pooling/config.json: {modes} is not supported.")
        pooling = known[modes[0]]
    if (folder / "sentence_bert_config.json").is_file():
        limit = read_json(folder / "sentence_bert_config.json").get("max_seq_length")
        max_tokens = min(max_tokens, limit) if isinstance(limit, int) else max_tokens
    normalize = "Normalize" in modules
    return Embedding(pooling=pooling, normalize=normalize, max_tokens=max_tokens)


def _config(folder: Path, data: Mapping[str, Any], names: Mapping[str, str]) -> EncoderConfig:
    ours = folder / "groundup.json"
    if ours.exists():
        facts = read_json(ours)
        version = facts.get("format")
        require(
            version == _FORMAT,
            f"{ours} has format {version!r}, but this version reads {_FORMAT}. Upgrade groundup.",
        )
        if "encoder" in facts:
            return from_dict(EncoderConfig, facts["encoder"], "encoder")
    pooled = any(name.endswith("pooler.dense.weight") for name in names)
    config = bert.from_hf_config(data)
    # What the architecture's class has, a file may have left out, unless its head reads it.
    return bert.from_hf_config(data, pooler=pooled) if config.head is None else config
