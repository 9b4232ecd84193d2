"""Settings of the optimizer and of the learning-rate schedule, checked when they are built."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from groundup.config import require


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Which update rule each kind of parameter gets, and how fast it moves.

    "muon" updates the hidden matrices with Muon and everything else with AdamW; "adamw" updates
    everything with AdamW.
    """

    kind: Literal["muon", "adamw"] = "muon"
    learning_rate: float = 3e-3
    """AdamW: norms and biases, and with kind "adamw" the hidden matrices too."""
    embedding_learning_rate: float | None = None
    """AdamW: token and position embeddings, a tied head included. None: as learning_rate."""
    head_learning_rate: float | None = None
    """AdamW: an output head with its own weight. None: as learning_rate."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW: decay per step of the running means of the gradient and of its square."""
    eps: float = 1e-8
    """AdamW: added to the root of the second mean."""
    weight_decay: float = 0.1
    """Decoupled; each step shrinks hidden matrices and an untied head by learning rate times
    this. Norms, biases and embeddings never decay."""
    muon_learning_rate: float = 0.02
    momentum: float = 0.95
    """Muon: decay per step of the running mean of the gradient."""
    orthogonalization: Literal["polar_express", "newton_schulz"] = "polar_express"
    """Muon: the polynomials of the iteration (see muon.py)."""
    orthogonalization_steps: int = 5
    cautious_decay: bool = False
    """Muon: decay only the entries that the update moves towards zero (arXiv:2510.12402)."""
    clip_norm: float = 1.0
    """Largest global norm of the gradient; 0 never clips."""
    clip_value: float = 0.0
    """Largest entry of the gradient, clamped after the norm has been clipped; 0 never clamps."""

    def __post_init__(self) -> None:
        for name in ("learning_rate", "embedding_learning_rate", "head_learning_rate",
                     "muon_learning_rate", "weight_decay", "eps", "clip_norm",
                     "clip_value"):  # fmt: skip
            value = getattr(self, name)
            require(
                value is None or (math.isfinite(value) and value >= 0),
                f"optimizer {name} is {value}, but must be a finite number of at least 0.",
            )
        for name, value in (
            ("betas[0]", self.betas[0]),
            ("betas[1]", self.betas[1]),
            ("momentum", self.momentum),
        ):
            require(0 <= value < 1, f"optimizer {name} is {value}, but must be in [0, 1).")
        require(
            1 <= self.orthogonalization_steps <= 20,
            f"optimizer orthogonalization_steps is {self.orthogonalization_steps}, "
            "but must be between 1 and 20; 5 is usual.",
        )
        require(
            not (self.cautious_decay and self.kind == "adamw"),
            "optimizer cautious_decay is a rule of Muon; leave it off with kind = 'adamw'.",
        )


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """How the learning rate moves over a run, as a factor on each group's own rate."""

    kind: Literal["wsd", "cosine", "linear", "constant", "inverse_sqrt", "step"] = "wsd"
    warmup_steps: int = 0
    """Linear rise before anything else; the first of `warmup_steps` trains at 1/warmup_steps."""
    decay_fraction: float = 0.4
    """wsd: the last part of the run, over which the factor falls linearly to the floor."""
    floor: float = 0.0
    """Where cosine, linear and wsd end, and below which inverse_sqrt and step do not go."""
    step_at: tuple[float, ...] = (0.5, 0.75)
    """step: fractions of the run after which the factor is multiplied by `step_factor`."""
    step_factor: float = 0.1

    def __post_init__(self) -> None:
        require(
            self.warmup_steps >= 0,
            f"schedule warmup_steps is {self.warmup_steps}, but must be at least 0.",
        )
        for name in ("decay_fraction", "floor", "step_factor"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"schedule {name} is {value}, but must be between 0 and 1.")
        require(
            all(0 <= fraction <= 1 for fraction in self.step_at),
            f"schedule step_at is {list(self.step_at)}, but holds fractions between 0 and 1.",
        )
