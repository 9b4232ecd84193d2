"""Settings of a training run that do not change what is learned, only how it is carried out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from groundup.config import require


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Micro-batching, logging, evaluation and safety."""

    micro_rows: int = 0
    """Rows computed at once; 0 picks the largest that keeps a micro-batch under 8192 tokens."""
    activation_checkpointing: Literal["none", "full", "selective"] = "none"
    """Forget what blocks computed and compute it again in backward, at the price of time: "full"
    every block (up to a third more time), "selective" every `selective_every`-th (so much less
    of both)."""
    selective_every: int = 2
    log_every: int = 10
    evaluate_every: int = 0
    """Steps between held-out evaluations; 0 makes ten over the run, four in fine-tuning."""
    sample_every: int = 0
    """Steps between samples of text; 0 makes five over the run, two in fine-tuning."""
    checkpoint_minutes: float = 1.0
    checkpoint_every: int = 0
    """Steps between checkpoints, in addition to the minutes; 0 leaves it to the clock."""
    keep_last: int = 2
    max_bad_steps: int = 10
    """Give up after this many steps in a row with a loss or gradient that is not finite."""

    @property
    def recompute_every(self) -> int:
        """Every how many blocks one is computed again in backward; 0 is none."""
        return {"none": 0, "full": 1, "selective": self.selective_every}[
            self.activation_checkpointing
        ]

    def __post_init__(self) -> None:
        for name in ("micro_rows", "evaluate_every", "sample_every", "checkpoint_every"):
            value = getattr(self, name)
            require(value >= 0, f"train.{name} cannot be negative: {value}.")
        require(
            self.selective_every >= 2,
            f"train.selective_every must be at least 2, not {self.selective_every}; "
            "activation_checkpointing = 'full' takes every block.",
        )
        require(
            self.activation_checkpointing == "selective" or self.selective_every == 2,
            "train.selective_every has no effect with activation_checkpointing = "
            f"'{self.activation_checkpointing}': write 'selective', or leave it out.",
        )
        require(self.log_every > 0, f"train.log_every must be at least 1, not {self.log_every}.")
        require(self.keep_last > 0, f"train.keep_last must be at least 1, not {self.keep_last}.")
        require(
            self.max_bad_steps > 0,
            f"train.max_bad_steps must be at least 1, not {self.max_bad_steps}.",
        )
        require(
            self.checkpoint_minutes > 0,
            f"train.checkpoint_minutes must be positive, not {self.checkpoint_minutes}.",
        )
