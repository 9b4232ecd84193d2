"""Settings of a training run that do not change what is learned, only how it is carried out."""

from __future__ import annotations

from dataclasses import dataclass

from groundup.config import require


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Micro-batching, logging, evaluation and safety."""

    micro_rows: int = 0
    """Rows computed at once; 0 picks the largest that keeps a micro-batch under 8192 tokens."""
    activation_checkpointing: bool = False
    """Compute each block again in backward: the memory of one block for a third more time."""
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

    def __post_init__(self) -> None:
        for name in ("micro_rows", "evaluate_every", "sample_every", "checkpoint_every"):
            value = getattr(self, name)
            require(value >= 0, f"train.{name} cannot be negative: {value}.")
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
