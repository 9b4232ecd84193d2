"""A model of ours for other programs: a Hugging Face folder, or a GGUF file for llama.cpp."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from groundup.config import UserError, require
from groundup.models.adapters import t5
from groundup.models.folder import (
    config_at,
    dtype_of,
    kind_at,
    load_any,
    load_model,
    resolve_model,
    save_any,
    save_model,
)
from groundup.models.gguf.write import Precision, write_gguf
from groundup.models.huggingface import family_of
from groundup.models.kinds import build, layout_for
from groundup.models.pull import copy_whole

Target = Literal["hf", "gguf"]
TARGETS = ("hf", "gguf")


def export(name: str, to: Target, path: str | Path, precision: Precision = "f16") -> Path:
    """Write the model a user calls `name` at `path`; returns it.

    "hf" keeps the number format of the weights; "gguf" stores matrices in `precision`. Raises
    UserError when the path is taken, or when others have no architecture that computes the same.
    """
    path = Path(path).expanduser()
    if to not in TARGETS:
        raise UserError(f"A model is exported to {' or '.join(TARGETS)}, not {to!r}.")
    if path.exists() and (path.is_file() or any(path.iterdir())):
        raise UserError(f"{path} exists already. Choose another path, or delete it.")
    folder = resolve_model(name)
    kind = kind_at(folder)
    if to == "gguf":
        instead = "Use --to hf." if kind.layouts else kind.advice
        require(
            kind.name == "decoder",
            f"GGUF is written of decoders alone, but {folder} holds {kind.what}. {instead}",
        )
        model, tokenizer, _ = load_model(folder)
        write_gguf(path, model, tokenizer, precision, name=Path(name).name)
    elif kind.name == "decoder":
        model, tokenizer, meta = load_model(folder, dtype=dtype_of(folder))
        family_of(model.config)  # raises where transformers could not read it
        save_model(path, model, tokenizer, meta)
    elif layout_for(config_at(folder))[0] is not None:
        copy_whole(folder, path)  # with what others keep beside the model, such as its pooling
    elif kind.name == "encoder_decoder":
        _write_t5(folder, path)
    else:
        _refuse(folder)
    return path


def _write_t5(folder: Path, path: Path) -> None:
    """An encoder-decoder with scales of its own as the T5 that computes the same."""
    loaded = load_any(folder, dtype=dtype_of(folder))
    config, state = t5.with_its_scales(loaded.model.config, loaded.model.state_dict())
    model = build(config).to(next(loaded.model.parameters()).dtype)
    model.load_state_dict(state)
    save_any(path, model, loaded.tokenizer, loaded.meta)


def _refuse(folder: Path) -> None:
    """Raise UserError, naming the field, where transformers could not read the folder."""
    config, kind = config_at(folder), kind_at(folder)
    for layout in kind.layouts.values():
        layout.to_hf_config(config)  # raises
    raise UserError(
        f"transformers has no architecture for this model: it is {kind.what}. {kind.advice}"
    )
