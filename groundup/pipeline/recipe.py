"""The whole configuration of a run: shared sections plus one section per stage."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from groundup.config import UserError, did_you_mean, from_dict, load_toml, require
from groundup.data.config import DataConfig
from groundup.device import DeviceConfig
from groundup.nn.config import NormPlacement
from groundup.pipeline.stage import all_stages
from groundup.text.config import TokenizerConfig

Family = Literal[
    "qwen3",
    "llama",
    "gpt2",
    "qwen2",
    "mistral",
    "mixtral",
    "gemma",
    "gemma2",
    "gemma3",
    "nanochat",
    "pythia",
    "phi",
]
"""Of `groundup.models.presets.PRESETS` those that a model can be trained from nothing as."""


@dataclass(frozen=True, kw_only=True)
class ModelSection:
    """The shape of the model where it differs from what `size` gives. 0 and None: the dial."""

    start: str = ""
    """Go on from this model (a pulled name, a model folder or a run folder) with its shape, its
    tokenizer and its chat format. Pretraining is then left out unless its section says how long."""
    family: Family = "qwen3"
    width: int = 0
    num_layers: int = 0
    num_heads: int = 0
    num_kv_heads: int = 0
    head_width: int = 0
    feed_forward_width: int = 0
    context_length: int = 0
    """With `start`: tokens in a row of training, up to what that model has positions for."""
    dropout: float = 0.0
    tie_embeddings: bool | None = None
    norm_placement: NormPlacement | None = None
    """The family's own when left out. Another trains and chats here; no other program reads it."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What every stage may read. `run_config_type` adds the stages' own sections."""

    name: str = ""
    """Name of the run, and of its folder below runs/; empty takes the recipe's file name."""
    seed: int = 0
    size: int = 4
    """The one dial: depth of the model, from which width, batch and learning rates follow."""
    tensorboard: bool = False
    """Also write the log for TensorBoard, into the run folder."""
    device: DeviceConfig = field(default_factory=DeviceConfig)
    data: DataConfig = field(default_factory=DataConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    model: ModelSection = field(default_factory=ModelSection)

    def __post_init__(self) -> None:
        require(1 <= self.size <= 128, f"size must be between 1 and 128, not {self.size}.")


@cache
def run_config_type() -> type[RunConfig]:
    """RunConfig with a section for each stage that has settings of its own."""
    shared = {f.name for f in dataclasses.fields(RunConfig)}
    sections: list[Any] = [
        (stage.name, stage.section, field(default_factory=stage.section))
        for stage in all_stages()
        if stage.name not in shared
    ]
    return dataclasses.make_dataclass(
        "RunConfig", sections, bases=(RunConfig,), frozen=True, kw_only=True
    )


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """A recipe file with command-line overrides (`--section.key value`) on top.

    Raises UserError for an unknown key or a value of the wrong type, in the file; tyro answers
    those on the command line, and exits with 2.
    """
    config = from_dict(run_config_type(), load_toml(path))
    if not config.name:
        config = dataclasses.replace(config, name=Path(path).stem)
    return override(config, overrides)


def override(config: RunConfig, arguments: Sequence[str]) -> RunConfig:
    """Apply `--section.key value` arguments."""
    if not arguments:
        return config
    import tyro

    return tyro.cli(type(config), default=config, args=list(arguments), prog="groundup speedrun")


def find_recipe(name: str) -> Path:
    """A recipe by path. Raises UserError with the recipes that are there."""
    path = Path(name)
    if path.is_file():
        return path
    nearby = [str(p) for p in sorted(Path("recipes").glob("*.toml"))]
    raise UserError(f"Recipe {name} does not exist.{did_you_mean(name, nearby)}")
