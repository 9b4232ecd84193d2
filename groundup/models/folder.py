"""The model folder, the artifact everything reads: Hugging Face's layout plus `groundup.json`.

    config.json  model.safetensors  tokenizer.json  tokenizer_config.json
    generation_config.json  groundup.json

Where transformers knows the architecture, the first three are what its `Auto` classes load.
Otherwise config.json says model_type "groundup" and the tensors keep our own names. Nothing here
reads or writes a pickle.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from groundup.config import UserError, did_you_mean, from_dict, require, to_dict
from groundup.files import atomic_folder, cache_folder, read_json
from groundup.models.config import DecoderConfig
from groundup.models.decoder import Decoder
from groundup.models.huggingface import (
    drop_redundant,
    family_of,
    from_hf_config,
    from_hf_state,
    to_hf_config,
    to_hf_state,
)
from groundup.models.state_dict import mismatch, strip_wrappers
from groundup.text.tokenizer import Tokenizer, load_tokenizer

STAGES = ("rl", "sft", "mid", "base")
"""Where a run keeps its models, the furthest stage first."""
TEXT_STAGES = ("mid", "base", "sft", "rl")
"""The same for continuing and scoring text, which a chat model has half forgotten."""
LONGEST_CONTEXT = 1 << 22
"""Beyond this a config is taken for damaged: the tables of RoPE grow with it."""
_FORMAT = 1


def save_model(
    folder: str | Path, model: Decoder, tokenizer: Tokenizer, meta: Mapping[str, Any]
) -> None:
    """Write the whole folder, or leave the old one untouched. `meta` is any JSON: what made it."""
    config = model.config
    require(
        tokenizer.vocab_size <= config.vocab_size,
        f"The model has {config.vocab_size} token ids, but the tokenizer {tokenizer.vocab_size}. "
        "It must not have more.",
    )
    begin, end = tokenizer.special.get("<|bos|>"), tokenizer.special.get("<|end|>")
    facts = {
        "format": _FORMAT,
        "model": to_dict(config),
        "tokenizer": {"kind": tokenizer.kind, "fingerprint": tokenizer.fingerprint},
        "meta": dict(meta),
    }
    # A document of the base model ends where the next begins; a reply ends with <|end|>.
    ends = [id for id in (end, begin) if id is not None]
    generation = {"bos_token_id": begin, "eos_token_id": ends, "pad_token_id": (*ends, None)[0]}
    dtype = str(model.embedding.weight.dtype).removeprefix("torch.")
    ids = {"bos_token_id": begin, "eos_token_id": end, "dtype": dtype}
    with atomic_folder(folder) as temporary:
        tokenizer.save(temporary)
        _write_json(temporary / "config.json", _config_json(config) | ids)
        _write_json(temporary / "generation_config.json", generation)
        _write_json(temporary / "groundup.json", facts)
        state = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
        tensors = {k: v.contiguous() for k, v in _to_file(config, state).items()}
        path = temporary / "model.safetensors"
        try:
            save_file(tensors, path, metadata={"format": "pt"})
        except SafetensorError as error:  # the library's wrapping of a full disk and the like
            raise OSError(f"Could not write {path}: {error}") from None


def load_model(
    folder: str | Path, device: str = "cpu", dtype: str = "float32"
) -> tuple[Decoder, Tokenizer, dict[str, Any]]:
    """Read a model folder, ours or one of a Hugging Face architecture we know.

    Returns the model in evaluation mode, its tokenizer, and the `meta` it was saved with. Raises
    UserError for a folder that is incomplete, damaged, or whose tokenizer is not the model's.
    """
    folder = Path(folder)
    config, facts = _read_config(folder)
    state = _read_weights(folder, config)
    with torch.device("meta"):
        model = Decoder(config)
    model.to_empty(device=device)
    model.load_state_dict(state)
    tokenizer = load_tokenizer(folder)
    _check_tokenizer(folder, tokenizer, config, facts)
    meta = facts.get("meta", {})
    return model.to(getattr(torch, dtype)).eval(), tokenizer, meta


def dtype_of(folder: Path) -> str:
    """The number format of a model folder's weights, by its config.json."""
    config = read_json(folder / "config.json")
    named = str(config.get("dtype") or config.get("torch_dtype") or "float32")
    return named if named in ("float32", "bfloat16", "float16") else "float32"


def resolve_model(name: str | Path, stages: Sequence[str] = STAGES) -> Path:
    """The model folder a user means: a model folder, a run folder, or the name of a pulled model.

    Of a run, the first of `stages` that has left a model is taken; as it stands, the furthest one.
    """
    path = Path(name).expanduser()
    if path.is_file():
        raise UserError(f"{path} is a file; a model is a folder that holds config.json.")
    for candidate in (path, cache_folder() / "models" / str(name)):
        for folder in (candidate, *(candidate / stage for stage in stages)):
            if (folder / "config.json").is_file():
                return folder
    if path.is_dir():
        raise UserError(
            f"{path} holds no model: neither config.json nor one of {', '.join(STAGES)}/. "
            "If it is a run, no stage of it has finished yet."
        )
    neighbours = [str(path.parent / entry) for entry in _folders_in(path.parent)]
    pulled = _folders_in(cache_folder() / "models")
    raise UserError(f"There is no model '{name}'.{did_you_mean(str(name), neighbours + pulled)}")


def _config_json(config: DecoderConfig) -> dict[str, Any]:
    if _is_known_to_transformers(config):
        return to_hf_config(config)
    return {"model_type": "groundup", "architectures": ["Decoder"]} | to_dict(config)


def _to_file(config: DecoderConfig, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return to_hf_state(config, state) if _is_known_to_transformers(config) else dict(state)


def _is_known_to_transformers(config: DecoderConfig) -> bool:
    try:
        family_of(config)
    except UserError:
        return False
    return True


def _read_config(folder: Path) -> tuple[DecoderConfig, dict[str, Any]]:
    require(folder.is_dir(), f"There is no model folder {folder}.")
    ours = folder / "groundup.json"
    if not ours.exists():
        return from_hf_config(read_json(folder / "config.json")), {}
    facts = read_json(ours)
    version = facts.get("format")
    require(
        version == _FORMAT,
        f"{ours} has format {version!r}, but this version reads {_FORMAT}. Upgrade groundup.",
    )
    if "encoder" in facts:
        return from_hf_config(read_json(folder / "config.json")), {}  # refused there, by name
    return from_dict(DecoderConfig, facts.get("model", {}), "model"), facts


def _read_weights(folder: Path, config: DecoderConfig) -> dict[str, Tensor]:
    """Tensors under our names, after checking every name and shape against the files' headers."""
    paths = _weight_files(folder)
    where = paths[0] if len(paths) == 1 else folder
    known = _is_known_to_transformers(config)
    with ExitStack() as stack:
        files: dict[str, Any] = {}
        for path in paths:
            with _readable(path):
                file = stack.enter_context(safe_open(path, framework="pt"))
                files |= {name: file for name in file.keys()}  # noqa: SIM118  (not a dict)
        _check_size(config, len(files), where)
        with torch.device("meta"):
            expected = _to_file(config, Decoder(config).state_dict())
        header = strip_wrappers({name: name for name in files})
        stored = drop_redundant(config, header) if known else header
        found = {name: files[key].get_slice(key).get_shape() for name, key in stored.items()}
        if problem := mismatch({name: list(t.shape) for name, t in expected.items()}, found):
            raise UserError(f"{where} does not fit its config: it {problem}.")
        with _readable(where):
            tensors = {name: files[key].get_tensor(key) for name, key in stored.items()}
    return from_hf_state(config, tensors) if known else tensors


def _weight_files(folder: Path) -> list[Path]:
    """model.safetensors, or the files that a large model's index names."""
    path, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if path.is_file():
        return [path]
    if index.is_file():
        parts = read_json(index).get("weight_map")
        names = sorted({str(part) for part in parts.values()}) if isinstance(parts, dict) else []
        for name in names:
            require(
                Path(name).name == name and name.endswith(".safetensors"),
                f"{index} names {name!r}, which is not a .safetensors file beside it.",
            )
            require((folder / name).is_file(), f"{folder / name} does not exist, but {index} is.")
        if names:
            return [folder / name for name in names]
    pickles = [p.name for p in folder.glob("*") if p.suffix in (".bin", ".pt", ".pth", ".ckpt")]
    note = f" {pickles[0]} is a pickle, which can run code when read." if pickles else ""
    raise UserError(f"{path} does not exist.{note} Only safetensors files are read.")


def _check_size(config: DecoderConfig, num_tensors: int, where: Path) -> None:
    """Refuse a config that would build more than the weights can fill."""
    require(
        config.num_layers <= num_tensors,
        f"{where} does not fit its config: {num_tensors} tensors cannot fill "
        f"{config.num_layers:,} layers.",
    )
    require(
        config.context_length <= LONGEST_CONTEXT,
        f"{where}: its config has a context_length of {config.context_length:,}, which is absurd.",
    )


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except SafetensorError as error:
        raise UserError(
            f"{path} is damaged or cut off ({error}). Fetch or save it again."
        ) from None


def _check_tokenizer(
    folder: Path, tokenizer: Tokenizer, config: DecoderConfig, facts: Mapping[str, Any]
) -> None:
    fingerprint = facts.get("tokenizer", {}).get("fingerprint", tokenizer.fingerprint)
    require(
        tokenizer.fingerprint == fingerprint,
        f"{folder}: tokenizer.json is not the tokenizer this model was trained with "
        f"({tokenizer.fingerprint[:12]}, not {fingerprint[:12]}). Restore the original file.",
    )
    # Other people's models may pad their vocabulary; a tokenizer must never exceed it.
    require(
        tokenizer.vocab_size <= config.vocab_size,
        f"{folder}: the tokenizer has {tokenizer.vocab_size} ids, the model {config.vocab_size}.",
    )


def _write_json(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _folders_in(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
