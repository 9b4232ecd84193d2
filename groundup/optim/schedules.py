"""Learning-rate schedules: pure functions of the step, giving a factor in [0, 1] on the base rate.

Steps count from 0 and every schedule trains at step 0: warmup gives (step + 1) / warmup_steps, so
its last step runs at the full rate. Where a schedule ends in a floor, it reaches it at
`total_steps` and stays there; an unclamped cosine would climb again.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from groundup.optim.config import ScheduleConfig

if TYPE_CHECKING:
    import torch


def factor(config: ScheduleConfig, step: int, total_steps: int) -> float:
    """Factor on every group's initial rate for optimizer step `step` of `total_steps`."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    return _AFTER_WARMUP[config.kind](config, step, total_steps)


def set_learning_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set each group's "lr" to its "initial_lr" times `factor`."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor


def wsd(config: ScheduleConfig, step: int, total_steps: int) -> float:
    """Warmup-stable-decay, or trapezoid (arXiv:2404.06395): flat, then a linear fall."""
    decay_steps = round(config.decay_fraction * total_steps)
    start = max(config.warmup_steps, total_steps - decay_steps)
    return _between(1.0, config.floor, _progress(step, start, total_steps))


def cosine(config: ScheduleConfig, step: int, total_steps: int) -> float:
    """Half a cosine from 1 to the floor (arXiv:1608.03983, without restarts)."""
    progress = _progress(step, config.warmup_steps, total_steps)
    return _between(config.floor, 1.0, 0.5 * (1 + math.cos(math.pi * progress)))


def linear(config: ScheduleConfig, step: int, total_steps: int) -> float:
    """A straight line from 1 to the floor."""
    return _between(1.0, config.floor, _progress(step, config.warmup_steps, total_steps))


def constant(config: ScheduleConfig, step: int, total_steps: int) -> float:
    """Always 1."""
    return 1.0


def inverse_sqrt(config: ScheduleConfig, step: int, total_steps: int) -> float:
    """sqrt(warmup / (step + 1)), the Transformer's own (arXiv:1706.03762), scaled to peak at 1."""
    return max(config.floor, math.sqrt(max(1, config.warmup_steps) / (step + 1)))


def step(config: ScheduleConfig, step: int, total_steps: int) -> float:
    """Multiplied by `step_factor` at each fraction of the run in `step_at`."""
    passed = sum(step >= round(fraction * total_steps) for fraction in config.step_at)
    return max(config.floor, config.step_factor**passed)


_AFTER_WARMUP = {
    "wsd": wsd,
    "cosine": cosine,
    "linear": linear,
    "constant": constant,
    "inverse_sqrt": inverse_sqrt,
    "step": step,
}


def _progress(step: int, start: int, end: int) -> float:
    """0 at `start`, 1 from `end` on."""
    return min(1.0, (step - start) / (end - start)) if step >= start < end else float(step >= end)


def _between(first: float, last: float, progress: float) -> float:
    return first + (last - first) * progress
