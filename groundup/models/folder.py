"""The model folder, the artifact everything reads; writing, reading and finding one.

    config.json  model.safetensors  groundup.json  [tokenizer.json  tokenizer_config.json]
    [generation_config.json]

Where transformers knows the architecture, config.json and the tensors are in its layout, and its
`Auto` classes load the folder. Otherwise config.json says model_type "groundup", and the tensors
keep our own names. groundup.json holds the config in our terms, and what was said of the making.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from groundup.config import UserError, did_you_mean, from_dict, require, to_dict
from groundup.files import atomic_folder, cache_folder, read_json
from groundup.models import generation
from groundup.models.decoder import Decoder
from groundup.models.encoder_config import EncoderConfig
from groundup.models.kinds import (
    KIND_BY_MODEL_TYPE,
    KINDS,
    Kind,
    Layout,
    kind_of,
    layout_for,
    vocab_size,
)
from groundup.models.weights import open_weights, write_weights
from groundup.text.tokenizer import Tokenizer, has_tokenizer, load_tokenizer

STAGES = ("rl", "sft", "mid", "base", "model")
"""Where a run keeps its models, the furthest stage first."""
TEXT_STAGES = ("mid", "base", "sft", "rl", "model")
"""The same for continuing and scoring text, which a chat model has half forgotten."""
LONGEST_CONTEXT = 1 << 22
"""Beyond this a config is taken for damaged: the tables of RoPE grow with it."""
_OURS = "groundup"  # the model_type of what transformers has no architecture for
_FORMAT = 1


class Loaded(NamedTuple):
    """A model folder in memory. The model is in evaluation mode."""

    model: Any
    tokenizer: Tokenizer | None
    kind: str
    meta: dict[str, Any]
    """What it was saved with."""


def save_any(
    folder: str | Path, model: nn.Module, tokenizer: Tokenizer | None, meta: Mapping[str, Any]
) -> None:
    """Write the whole folder, or leave the old one untouched. `meta` is any JSON: what made it.

    Its "generation" is how the model should be sampled, and goes into generation_config.json.
    """
    config: Any = model.config
    kind, (layout, data) = kind_of(config), layout_for(config)
    if layout is None:
        data = {"model_type": _OURS, "architectures": [kind.model.__name__]} | to_dict(config)
    facts = {"format": _FORMAT, "kind": kind.name, "model": to_dict(config)}
    facts |= {"tokenizer": None, "meta": dict(meta)}
    if tokenizer is not None:
        size = vocab_size(config)
        require(
            tokenizer.vocab_size <= size,
            f"The model has {size} token ids, but the tokenizer {tokenizer.vocab_size}. "
            "It must not have more.",
        )
        facts["tokenizer"] = {"kind": tokenizer.kind, "fingerprint": tokenizer.fingerprint}
        data |= _token_ids(kind, tokenizer)
    data["dtype"] = str(next(model.parameters()).dtype).removeprefix("torch.")
    state = model.state_dict()
    with atomic_folder(folder) as temporary:
        if tokenizer is not None:
            tokenizer.save(temporary)
        _write_json(temporary / "config.json", data)
        if kind.name == "decoder" and tokenizer is not None:
            recommended = meta.get("generation") or {}
            _write_json(temporary / generation.FILE, _generation(tokenizer) | recommended)
        _write_json(temporary / "groundup.json", facts)
        write_weights(temporary, layout.to_hf_state(config, state) if layout else state)


def load_any(
    folder: str | Path,
    device: str = "cpu",
    dtype: str = "float32",
    kinds: Collection[str] = tuple(KINDS),
) -> Loaded:
    """Read a model folder, ours or one of a Hugging Face architecture we know.

    Raises UserError for a folder that is incomplete, damaged, whose tokenizer is not the model's,
    or whose model is none of `kinds`. Where no tokenizer belongs to it, that is None.
    """
    folder = Path(folder)
    kind, config, layout, facts = _read_config(folder)
    require(kind.name in kinds, f"{folder} holds {kind.what}. {kind.advice}")
    with open_weights(folder) as weights:
        if not facts:
            config = _with_what_is_there(config, weights.names)
        _check_size(config, len(weights.names), weights.where)
        model = _empty(kind, config, weights.where)
        expected = model.state_dict()
        chosen = weights.names
        if layout is not None:
            expected = layout.to_hf_state(config, expected)
            chosen = layout.drop_redundant(config, chosen)
        shapes = {name: tensor.shape for name, tensor in expected.items()}
        state = weights.read(chosen, shapes)
    model.to_empty(device=device)
    model.load_state_dict(state if layout is None else layout.from_hf_state(config, state))
    tokenizer = _read_tokenizer(folder, config, facts)
    return Loaded(
        model.to(getattr(torch, dtype)).eval(), tokenizer, kind.name, facts.get("meta", {})
    )


def kind_at(folder: str | Path) -> Kind:
    """The kind of model a folder holds, by its small files alone."""
    return _read_config(Path(folder))[0]


def config_at(folder: str | Path) -> Any:
    """The config of the model a folder holds, by its small files alone."""
    return _read_config(Path(folder))[1]


def save_model(
    folder: str | Path, model: Decoder, tokenizer: Tokenizer, meta: Mapping[str, Any]
) -> None:
    """Write the whole folder, or leave the old one untouched. `meta` is any JSON: what made it."""
    save_any(folder, model, tokenizer, meta)


def load_model(
    folder: str | Path, device: str = "cpu", dtype: str = "float32"
) -> tuple[Decoder, Tokenizer, dict[str, Any]]:
    """Read a decoder's folder, ours or one of a Hugging Face architecture we know.

    Returns the model in evaluation mode, its tokenizer, and the `meta` it was saved with. Raises
    UserError for a folder that is incomplete, damaged, of another kind, or whose tokenizer is not
    the model's.
    """
    loaded = load_any(folder, device, dtype, kinds=("decoder",))
    return loaded.model, loaded.tokenizer or load_tokenizer(folder), loaded.meta


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


def _read_config(folder: Path) -> tuple[Kind, Any, Layout | None, dict[str, Any]]:
    """Kind, config, layout of the tensors and the content of groundup.json, if there is one."""
    require(folder.is_dir(), f"There is no model folder {folder}.")
    data, ours = read_json(folder / "config.json"), folder / "groundup.json"
    model_type = str(data.get("model_type"))
    facts: dict[str, Any] = {}
    if ours.exists():
        facts = read_json(ours)
        version = facts.get("format")
        require(
            version == _FORMAT,
            f"{ours} has format {version!r}, but this version reads {_FORMAT}. Upgrade groundup.",
        )
    elif model_type not in KIND_BY_MODEL_TYPE:
        hint = did_you_mean(model_type, KIND_BY_MODEL_TYPE)
        raise UserError(
            f"Unknown architecture: {folder}/config.json says model_type = {model_type!r}.{hint}"
        )
    name = str(facts.get("kind", "decoder")) if facts else KIND_BY_MODEL_TYPE[model_type].name
    require(name in KINDS, f"{ours}: there is no kind of model {name!r}.")
    kind = KINDS[name]
    layout = kind.layouts.get(model_type)
    require(
        layout is not None or model_type == _OURS,
        f"{folder}/config.json says model_type = {model_type!r}, but groundup.json {name!r}.",
    )
    if facts:
        return kind, from_dict(kind.config, facts.get("model", {}), "model"), layout, facts
    assert layout is not None
    return kind, layout.from_hf_config(data), layout, facts


def _with_what_is_there(config: Any, names: Collection[str]) -> Any:
    """An encoder's files may lack the pooler its architecture has, unless its head reads it."""
    if isinstance(config, EncoderConfig) and config.pooler and config.head is None:
        return replace(config, pooler=any(".pooler." in f".{name}" for name in names))
    return config


def _check_size(config: Any, num_tensors: int, where: Path) -> None:
    """Refuse a config that would build more than the weights can fill."""
    numbers = list(_numbers(config))
    shared = dict(numbers).get("distinct_layers", 0)
    layers = shared or sum(value for name, value in numbers if name.endswith("layers"))
    require(
        layers <= num_tensors,
        f"{where} does not fit its config: {num_tensors} tensors cannot fill {layers:,} layers.",
    )
    context = max((value for name, value in numbers if name == "context_length"), default=0)
    require(
        context <= LONGEST_CONTEXT,
        f"{where}: its config has a context_length of {context:,}, which is absurd.",
    )


def _numbers(config: Any) -> Iterator[tuple[str, int]]:
    """Every whole number of a config and of the configs inside it, with its name."""
    for part in fields(config):
        value = getattr(config, part.name)
        if is_dataclass(value):
            yield from _numbers(value)
        elif isinstance(value, int):
            yield part.name, value


def _empty(kind: Kind, config: Any, where: Path) -> nn.Module:
    """The model without memory for its weights."""
    try:
        with torch.device("meta"):
            return kind.model(config)
    except (RuntimeError, TypeError) as error:  # a size that torch cannot count to
        reason = str(error).partition("\n")[0]
        raise UserError(f"{where} does not fit its config, which is absurd: {reason}") from None


def _read_tokenizer(folder: Path, config: Any, facts: Mapping[str, Any]) -> Tokenizer | None:
    """The tokenizer the model was saved with; of others' folders, the one there is."""
    belongs = facts.get("tokenizer")
    if belongs is None and (facts or not has_tokenizer(folder)):
        return None
    tokenizer = load_tokenizer(folder)
    fingerprint = (belongs or {}).get("fingerprint", tokenizer.fingerprint)
    require(
        tokenizer.fingerprint == fingerprint,
        f"{folder}: tokenizer.json is not the tokenizer this model was trained with "
        f"({tokenizer.fingerprint[:12]}, not {fingerprint[:12]}). Restore the original file.",
    )
    # Other people's models may pad their vocabulary; a tokenizer must never exceed it.
    require(
        tokenizer.vocab_size <= vocab_size(config),
        f"{folder}: the tokenizer has {tokenizer.vocab_size} ids, the model {vocab_size(config)}.",
    )
    return tokenizer


def _token_ids(kind: Kind, tokenizer: Tokenizer) -> dict[str, Any]:
    """What config.json says of special tokens."""
    begin, end = tokenizer.special.get("<|bos|>"), tokenizer.special.get("<|end|>")
    if kind.name == "encoder":
        return {"pad_token_id": tokenizer.special.get("[PAD]", begin)}
    return {"eos_token_id": end} | ({"bos_token_id": begin} if kind.name == "decoder" else {})


def _generation(tokenizer: Tokenizer) -> dict[str, Any]:
    begin, end = tokenizer.special.get("<|bos|>"), tokenizer.special.get("<|end|>")
    # A document of the base model ends where the next begins; a reply ends with <|end|>.
    ends = [id for id in (end, begin) if id is not None]
    return {"bos_token_id": begin, "eos_token_id": ends, "pad_token_id": (*ends, None)[0]}


def _write_json(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _folders_in(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
