"""Planning: how fast steps, evaluations and samples are here, and how many steps fit a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from groundup.train.state import restore_state, state_tensors

if TYPE_CHECKING:
    from groundup.train.trainer import Trainer


@dataclass(frozen=True)
class Pace:
    """Seconds of one optimizer step, one evaluation and one sample, as measured."""

    step: float
    evaluation: float
    sample: float


def measure_pace(trainer: Trainer, steps: int = 3, seconds: float = 0.0) -> Pace:
    """Time the first real batches (at least `steps`, for at least `seconds`), an evaluation and a
    sample; leaves no trace. Collective, and the same on every process.
    """
    model, world, progress = trainer.model, trainer.world, trainer.progress
    everything = model, trainer.optimizer, trainer.scaler, world
    tensors, facts = state_tensors(*everything, trainer.carried)
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    reached = dict(vars(progress))
    model.train()
    for _ in range(2):  # compile and fill caches
        trainer.train_step()
    first, start = progress.step, time.perf_counter()
    # Asked of all: no process may leave the loop before the others do.
    while progress.step - first < steps or world.any(time.perf_counter() - start < seconds):
        trainer.train_step()
    step = (time.perf_counter() - start) / (progress.step - first)
    sample = trainer.hooks.sample if world.is_main else None
    times = [step, _seconds(trainer.hooks.evaluate), _seconds(sample) * world.size]
    restore_state(*everything, before, facts, trainer.carried)
    vars(progress).update(reached)
    return Pace(*(total / world.size for total in world.sum(times)))


def steps_within(trainer: Trainer, seconds: float, pace: Pace) -> int:
    """How many steps fit, with the evaluations and samples that come between them.

    A fixed number of those takes at most half of the time away: a short run exceeds it instead.
    """
    step, once = pace.step, 0.0
    for cost, every, times in (
        (pace.evaluation, trainer.config.evaluate_every, trainer.hooks.evaluations),
        (pace.sample, trainer.config.sample_every, trainer.hooks.samples),
    ):
        step += cost / every if every else 0.0
        once += cost if every else cost * times
    return int(max(seconds - once, seconds / 2) / step)


def _seconds(work: Callable[[], Any] | None) -> float:
    start = time.perf_counter()
    if work is not None:
        work()
    return time.perf_counter() - start
