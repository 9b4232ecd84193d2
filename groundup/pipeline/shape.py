"""From a recipe to the model's shape and its learning rates: the dial, and what overrides it.

A run that starts from a model takes that model's shape, and gentler rates.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from groundup.config import UserError
from groundup.models.dial import Dial, from_depth, learning_rates
from groundup.models.presets import PRESETS
from groundup.optim.config import OptimizerConfig
from groundup.pipeline.start import (
    RATE_SHARE,
    TOKENS_PER_STEP,
    row_length,
    start_folder,
    start_shape,
)

if TYPE_CHECKING:
    from groundup.data.loader import Loader
    from groundup.models.config import DecoderConfig
    from groundup.pipeline.recipe import ModelSection, RunConfig
    from groundup.pipeline.training import TrainingSection


def model_shape(config: RunConfig, vocab_size: int) -> DecoderConfig:
    """The decoder of a recipe: what `size` gives, with the model section's values over it.

    With `model.start` it is that model's. Raises UserError for a recipe that contradicts itself.
    """
    if folder := start_folder(config):
        return start_shape(config, folder)
    dial, section = _dial(config, vocab_size).model, config.model
    width = section.width or dial.width
    heads = section.num_heads or _heads(width)
    shape: dict[str, Any] = {
        "vocab_size": vocab_size,
        "width": width,
        "num_layers": section.num_layers or dial.num_layers,
        "num_heads": heads,
        "context_length": dial.context_length,
        "dropout": section.dropout,
    }
    if section.feed_forward_width:
        shape["feed_forward_width"] = section.feed_forward_width
    if section.tie_embeddings is not None:
        shape["tie_embeddings"] = section.tie_embeddings
    if section.family in ("gpt2", "pythia", "phi"):
        _refuse(section, "num_kv_heads", "head_width")
    else:
        shape["head_width"] = section.head_width or None
        shape["num_kv_heads"] = section.num_kv_heads or None
        if heads == dial.attention.num_heads and not section.num_kv_heads:
            shape["num_kv_heads"] = dial.attention.num_kv_heads
    if section.family in ("mistral", "gemma2", "gemma3"):
        # The published windows are as long as the contexts of small models, or longer.
        shape["window"] = max(1, dial.context_length // 4)
    return _placed(PRESETS[section.family](**shape), section)


def rows_per_step(config: RunConfig, section: TrainingSection, model: DecoderConfig) -> int:
    """Rows of one optimizer step: the section's, else the dial's."""
    if section.rows_per_step or not config.model.start:
        return section.rows_per_step or _dial(config, model.vocab_size).rows_per_step
    return max(1, TOKENS_PER_STEP // row_length(config.model, model))


def default_steps(config: RunConfig, loader: Loader, vocab_size: int) -> int:
    """Steps for the number of tokens that the dial gives."""
    tokens = _dial(config, vocab_size).tokens
    return max(1, round(tokens / (loader.rows_per_step * loader.length)))


def settled_optimizer(
    config: RunConfig, section: TrainingSection, model: DecoderConfig
) -> OptimizerConfig:
    """The section's optimizer with the rates for its batch and width, times `rate_scale`.

    With `rate_scale` 0 the section's own rates stand.
    """
    if section.rate_scale == 0:
        return section.optimizer
    tokens = rows_per_step(config, section, model) * row_length(config.model, model)
    rates = learning_rates(model.width, tokens)
    scale = section.rate_scale * (RATE_SHARE if config.model.start else 1.0)
    return dataclasses.replace(
        section.optimizer,
        learning_rate=rates.adamw * scale,
        embedding_learning_rate=rates.embedding * scale,
        head_learning_rate=rates.embedding * scale,
        muon_learning_rate=rates.muon * scale,
    )


def _placed(model: DecoderConfig, section: ModelSection) -> DecoderConfig:
    if section.norm_placement is None:
        return model
    norm = dataclasses.replace(model.norm, placement=section.norm_placement)
    return dataclasses.replace(model, norm=norm)


def _dial(config: RunConfig, vocab_size: int) -> Dial:
    return from_depth(config.size, vocab_size, config.model.context_length or None)


def _heads(width: int) -> int:
    """Heads of 64 where the width divides so, else one."""
    return width // 64 if width % 64 == 0 else 1


def _refuse(section: ModelSection, *names: str) -> None:
    for name in names:
        if getattr(section, name):
            raise UserError(f"model.{name} has no effect on the {section.family} family; leave it.")
