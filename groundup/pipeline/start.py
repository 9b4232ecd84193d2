"""Starting from a model that is there already: its shape, its tokenizer and its weights.

`model.start` names a pulled model, a model folder or a run folder. A run from it trains no
tokenizer, and pretrains only when asked to; what it fine-tunes and leaves behind is of that
model's family and chats in its format.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundup.config import UserError, require
from groundup.files import sha256_file
from groundup.text.config import TokenizerConfig

if TYPE_CHECKING:
    from groundup.models.config import DecoderConfig
    from groundup.pipeline.recipe import ModelSection, RunConfig
    from groundup.text.tokenizer import Tokenizer

LONGEST_ROW = 1024
"""Tokens of a training row where the recipe gives no context_length: some models have room for
100,000, which no small machine could train on."""
TOKENS_PER_STEP = 2**13
"""The batch of an optimizer step where the recipe gives no rows_per_step."""
RATE_SHARE = 0.1
"""Of the learning rates that would train a model of this width from nothing: what it has learned
should be changed, not overwritten."""


def start_folder(config: RunConfig) -> Path | None:
    """The folder of the model a run starts from; None for one from scratch.

    Raises UserError when there is no such model.
    """
    from groundup.models.folder import resolve_model

    return resolve_model(config.model.start) if config.model.start else None


def start_shape(config: RunConfig, folder: Path) -> DecoderConfig:
    """The shape of the model in `folder`. Raises UserError where the recipe contradicts it."""
    from groundup.models.folder import config_at, kind_at

    name, shape = config.model.start, config_at(folder)
    require(
        kind_at(folder).name == "decoder",
        f"A run trains decoders, but model.start '{name}' is {kind_at(folder).what}.",
    )
    for key, asked, theirs in _claims(config, shape):
        require(
            asked == theirs,
            f"{key} = {asked!r} contradicts model.start: '{name}' has {theirs!r}. Leave {key} out.",
        )
    require(
        config.size == type(config)().size,
        f"size = {config.size} contradicts model.start: '{name}' is as large as it is. Leave it "
        "out.",
    )
    context = config.model.context_length
    require(
        context <= shape.context_length,
        f"model.context_length is {context}, but '{name}' has positions for "
        f"{shape.context_length} tokens. Shorten it.",
    )
    require(
        config.tokenizer == TokenizerConfig(),
        f"A run from '{name}' uses its tokenizer and trains none: leave the recipe's tokenizer "
        "section out.",
    )
    return shape


def row_length(section: ModelSection, model: DecoderConfig) -> int:
    """Tokens in a training row: all that the model has positions for, unless it came with many."""
    if not section.start:
        return model.context_length
    return section.context_length or min(model.context_length, LONGEST_ROW)


def identity(config: RunConfig) -> dict[str, str] | None:
    """The SHA-256 of the files that make the start model what it is; None where there is none."""
    folder = start_folder(config)
    if folder is None:
        return None
    named = ("config.json", "groundup.json", "tokenizer.json", "tokenizer_config.json")
    files = [folder / name for name in named if (folder / name).exists()]
    files += sorted(folder.glob("*.safetensors"))
    return {file.name: sha256_file(file) for file in files}


def start_tokenizer(folder: Path, name: str) -> tuple[Tokenizer, list[str]]:
    """The tokenizer of the model in `folder`, and what could not be had of it, in sentences.

    Raises UserError when no document could be told from the next with it.
    """
    from groundup.text.foreign import read_tokenizer

    tokenizer, notes = read_tokenizer(folder)
    require(
        "<|bos|>" in tokenizer.special,
        f"The tokenizer of '{name}' has no token that documents begin with, which training needs.",
    )
    return tokenizer, notes


def check_place(config: RunConfig, run_folder: Path) -> None:
    """Raise UserError where a run would start from a model that it is about to replace."""
    folder = start_folder(config)
    if folder is not None and run_folder.resolve() in folder.resolve().parents:
        raise UserError(
            f"model.start is {folder}, which lies in this run's own folder {run_folder}. Choose "
            "another folder with --run FOLDER, or another name."
        )


def _claims(config: RunConfig, shape: DecoderConfig) -> list[tuple[str, Any, Any]]:
    """(key, what the recipe says, what the model has), where the recipe says anything."""
    from groundup.models.huggingface import family_of

    section, heads = config.model, shape.attention
    default = type(section)()
    theirs = {
        "width": shape.width,
        "num_layers": shape.num_layers,
        "num_heads": heads.num_heads,
        "num_kv_heads": heads.num_kv_heads,
        "head_width": heads.head_width,
        "feed_forward_width": shape.feed_forward.width,
        "dropout": heads.dropout,
        "tie_embeddings": shape.tie_embeddings,
        "norm_placement": shape.norm.placement,
    }
    claims: list[tuple[str, Any, Any]] = [
        (f"model.{name}", getattr(section, name), value)
        for name, value in theirs.items()
        if getattr(section, name) != getattr(default, name)
    ]
    if section.family != default.family:
        names = {"pythia": "gpt_neox", "gemma3": "gemma3_text"}  # as transformers calls them
        family = names.get(section.family, section.family)
        claims.append(("model.family", family, family_of(shape)))
    return claims
