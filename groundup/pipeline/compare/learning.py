"""How a competitor is trained and measured: its score, its speed and its cost."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import (
    FlopCounterMode,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

from groundup.config import require
from groundup.data.number_words import PAD, Example
from groundup.data.ragged import RaggedLoader
from groundup.device import Policy, seed_everything
from groundup.optim.build import build_optimizer
from groundup.optim.config import OptimizerConfig, ScheduleConfig
from groundup.optim.schedules import factor
from groundup.pipeline.compare.competitors import COMPETITORS, Competitor, NumberTask, Shape
from groundup.train.config import TrainConfig
from groundup.train.objectives import estimate_loss
from groundup.train.trainer import Hooks, Trainer

Progress = Callable[[str, int, float], None]
"""Hears who is learning, the step and the loss."""
_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_ATTENTION_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
COUNTED = 20
"""Questions whose answers are counted, one by one."""
TIMED, TURNS = 8, 11
"""Questions that are answered one by one in a turn, and how many turns each competitor has."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much is learned and tested; the same for everyone who is compared."""

    steps: int
    rows: int = 64
    """Examples in a step."""
    test_examples: int = 1000
    """Held-out examples that are scored in the end, at most; on the way it is a fifth of them."""
    learning_rate: float = 3e-3
    evaluations: int = 10
    seed: int = 1

    def __post_init__(self) -> None:
        for name in ("steps", "rows", "test_examples", "evaluations"):
            value = getattr(self, name)
            require(value >= 1, f"{name} should be at least 1, but is {value}.")
        in_range = 0 <= self.seed < 2**63
        require(in_range, f"seed should be 0 or more and below 2^63, but is {self.seed}.")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one family made of one task."""

    task: str
    family: str
    parameters: int
    block_parameters: int
    """Without token tables and heads."""
    right_before: int
    """Held-out answers without a mistake, of the random weights."""
    right: int
    tested: int
    seconds: float
    """Of training steps."""
    examples_per_second: float
    training_flops: float
    """Of one example, forward and backward, its share of the padding included."""
    answer_flops: float
    """Of one answer, with a cache where there is one."""
    curve: tuple[tuple[int, float], ...]
    """(examples seen, share right of some held-out ones)"""
    samples: tuple[tuple[str, str, str], ...]
    """(question, expected, answer)"""

    @property
    def before(self) -> float:
        return self.right_before / self.tested

    @property
    def score(self) -> float:
        return self.right / self.tested

    @property
    def interval(self) -> tuple[float, float]:
        return wilson_interval(self.right, self.tested)


def learn(
    family: str,
    task: NumberTask,
    shape: Shape,
    budget: Budget,
    policy: Policy,
    progress: Progress | None = None,
) -> tuple[Competitor, Outcome]:
    """Build a model of the family, train it on the task, and measure it before and after."""
    seed_everything(budget.seed)
    competitor = COMPETITORS[family](task, shape, policy.torch_device)
    chosen = np.random.default_rng(budget.seed).permutation(len(task.heldout))
    test = [task.heldout[i] for i in chosen[: budget.test_examples]]
    before = competitor.right(test)
    sink = _Figures(f"{task.name}, {family}", progress)
    trainer = _trainer(competitor, budget, policy, sink, test[: max(1, len(test) // 5)])
    trainer.fit()
    batch = trainer.loader.step(0).to(policy.torch_device)
    trained = _count_flops(lambda: trainer.loss(batch.inputs, batch.targets).backward())
    answered = [_count_flops(lambda: competitor.answers([row])) for row in test[:COUNTED]]  # noqa: B023
    seconds = trainer.progress.seconds
    return competitor, Outcome(
        task=task.name,
        family=family,
        parameters=competitor.model.num_parameters(),
        block_parameters=competitor.num_block_parameters(),
        right_before=before,
        right=competitor.right(test),
        tested=len(test),
        seconds=round(seconds, 2),
        examples_per_second=budget.steps * budget.rows / seconds,
        training_flops=trained / budget.rows,
        answer_flops=statistics.mean(answered),
        curve=(
            (0, before / len(test)),
            *((row["step"] * budget.rows, row["score"]) for row in sink.scores),
        ),
        samples=tuple(_samples(competitor, test[:5])),
    )


def wilson_interval(right: int, tested: int, z: float = 1.96) -> tuple[float, float]:
    """Where the true share lies with 95 % confidence, by Wilson's score (1927).

    It stays within 0 and 1, and is honest where all or none are right.
    """
    share, spread = right / tested, z * z / tested
    middle = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt((share * (1 - share) + spread / 4) / tested) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)


def time_answers(competitors: Sequence[Competitor]) -> list[tuple[float, ...]]:
    """Competitors on one task -> for each its median milliseconds of an answer, turn by turn.

    They take turns, so that what else the machine does meets all of them alike.
    """
    turns: list[list[float]] = [[] for _ in competitors]
    heldout = competitors[0].task.heldout
    rows = heldout[:: max(1, len(heldout) // TIMED)][:TIMED]
    for turn in range(-1, TURNS):
        for competitor, found in zip(competitors, turns, strict=True):
            median = _median_milliseconds(competitor, rows)
            if turn >= 0:  # the first answers are slower
                found.append(median)
    return [tuple(found) for found in turns]


def _median_milliseconds(competitor: Competitor, rows: Sequence[Example]) -> float:
    seconds = []
    for row in rows:
        begin = time.perf_counter()
        competitor.answers([row])
        seconds.append(time.perf_counter() - begin)
    return 1000 * statistics.median(seconds)


class _Figures:
    """The trainer's log: scores are kept, losses are passed on."""

    def __init__(self, name: str, progress: Progress | None) -> None:
        self.name, self.progress = name, progress
        self.scores: list[Mapping[str, Any]] = []

    def write(self, row: Mapping[str, Any]) -> None:
        if "score" in row:
            self.scores.append(row)
        elif self.progress is not None:
            self.progress(self.name, row["step"], row["loss"])


def _trainer(
    competitor: Competitor, budget: Budget, policy: Policy, sink: _Figures, test: Sequence[Example]
) -> Trainer:
    rows = [competitor.row(example) for example in competitor.task.train]
    loader = RaggedLoader(rows, budget.rows, budget.seed, PAD)
    held_out = RaggedLoader([competitor.row(one) for one in test], len(test), 0, PAD)
    optimizer = OptimizerConfig(kind="muon", learning_rate=budget.learning_rate)
    schedule = ScheduleConfig(kind="linear", warmup_steps=min(50, budget.steps // 4))

    def evaluate() -> dict[str, float]:
        loss = estimate_loss(competitor.loss, [held_out.step(0).to(policy.torch_device)])
        return {"val_loss": loss, "score": competitor.right(test) / len(test)}

    return Trainer(
        stage=competitor.task.name,
        model=competitor.model,
        loss=competitor.loss,
        optimizer=build_optimizer(competitor.model, optimizer),
        schedule=partial(factor, schedule),
        loader=loader,
        total_steps=budget.steps,
        clip_norm=1.0,
        config=TrainConfig(log_every=50),
        policy=policy,
        roof_gflops=math.inf,
        sink=sink,
        hooks=Hooks(evaluate=evaluate, evaluations=budget.evaluations),
    )


def _count_flops(work: Callable[[], object]) -> int:
    """Floating-point operations of the matrix products and attention in `work`, counted."""

    # torch counts attention's fused kernels on GPUs only.
    def forward(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        return sdpa_flop_count(query, key, value)

    def backward(gradient: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        return sdpa_backward_flop_count(gradient, query, key, value)

    kernels = {_ATTENTION: forward, _ATTENTION_BACKWARD: backward}
    with FlopCounterMode(display=False, custom_mapping=kernels) as counter:
        work()
    return counter.get_total_flops()


def _samples(competitor: Competitor, rows: Sequence[Example]) -> list[tuple[str, str, str]]:
    text = competitor.task.vocabulary.text
    return [
        (competitor.task.words(row), text(competitor.task.answer(row)), text(ids))
        for row, ids in zip(rows, competitor.answers(rows), strict=True)
    ]
