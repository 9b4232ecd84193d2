"""`groundup compare`: three families on the same tasks, with equally many parameters.

Equal are the blocks' parameters (token tables and heads depend on the vocabulary and are left out),
their kind, the examples, the steps, the rows of a step and the learning rate. So a family's score
is not that of more parameters; and it is that of one size and one rate, tuned for none of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from statistics import mean, median
from typing import Any, get_args

from groundup.config import UserError, did_you_mean, require
from groundup.data.number_words import Language, Level
from groundup.device import Policy
from groundup.inspect.show import grid
from groundup.pipeline.compare.competitors import (
    COMPETITORS,
    HEAD_WIDTH,
    Competitor,
    NumberTask,
    Shape,
    TaskName,
)
from groundup.pipeline.compare.learning import Budget, Outcome, Progress, learn, time_answers
from groundup.viz.style import short_number

TOLERANCE = 0.03
"""By how much the largest model may have more parameters in its blocks than the smallest."""
LEAST_RATIO = 1.1
"""Answers that are not so much faster in every turn are equally fast: the rest is noise."""
PILOT_STEPS = 6
ASKED: dict[TaskName, str] = {
    "sort": "a number's name → the sum of its digits",
    "write": "a language and digits → the number's name",
}


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """What is compared, and with how much of everything."""

    tasks: tuple[TaskName, ...] = ("sort", "write")
    parameters: int = 220_000
    """In the blocks of each model."""
    num_layers: int = 4
    """Of each model; an encoder-decoder reads with one half of them and writes with the other."""
    steps: int = 600
    minutes: float = 0.0
    """For all training together; as many steps as fit take the place of `steps`."""
    level: Level = "medium"
    languages: tuple[Language, ...] = ("en", "de", "fr")
    seeds: int = 1
    """How many times everything is trained, from other weights and in another order."""
    rows: int = 64
    test_examples: int = 1000

    def __post_init__(self) -> None:
        require(len(self.tasks) > 0, f"tasks is empty; name {' or '.join(ASKED)}.")
        for task in self.tasks:
            if task not in ASKED:
                hint = did_you_mean(task, ASKED) or f" There are {' and '.join(ASKED)}."
                raise UserError(f"There is no task {task!r} to compare on.{hint}")
        once = len(set(self.tasks)) == len(self.tasks)
        require(once, f"tasks names one twice: {' '.join(self.tasks)}; name each once.")
        require(self.seeds >= 1, f"seeds should be at least 1, but is {self.seeds}.")
        require(
            0 <= self.minutes < math.inf,
            f"minutes should be a number, 0 or more, but is {self.minutes}.",
        )
        require(
            self.num_layers >= 2 and self.num_layers % 2 == 0,
            f"num_layers should be even, for one half to read and one to write, but is "
            f"{self.num_layers}.",
        )


@dataclass(frozen=True)
class Comparison:
    """All that was measured: for each task and family, an outcome per seed."""

    config: CompareConfig
    steps: int
    outcomes: dict[tuple[str, str], list[Outcome]]
    latency: dict[tuple[str, str], tuple[float, ...]]
    """Milliseconds of an answer of the first seed's models, by turns taken after all training."""

    def of(self, task: str) -> dict[str, list[Outcome]]:
        """By family."""
        return {family: self.outcomes[task, family] for family in COMPETITORS}

    def as_dict(self) -> dict[str, Any]:
        """For JSON: by task and family, the first seed's figures and every seed's score."""
        result: dict[str, Any] = {"steps": self.steps, "settings": asdict(self.config)}
        for (task, family), outcomes in self.outcomes.items():
            figures = asdict(outcomes[0]) | {"score": outcomes[0].score}
            turns = self.latency[task, family]
            figures |= {"latency_ms": median(turns), "latency_turns_ms": turns}
            figures |= {"interval": outcomes[0].interval, "scores": [o.score for o in outcomes]}
            result.setdefault(task, {})[family] = figures
        return result


def compare(config: CompareConfig, policy: Policy, progress: Progress | None = None) -> Comparison:
    """Train and measure every family on every task. `progress` hears who is at which step."""
    shapes = equal_shapes(config.parameters, config.num_layers)
    tasks = [NumberTask(name, config.level, config.languages) for name in config.tasks]
    budget = Budget(steps=config.steps, rows=config.rows, test_examples=config.test_examples)
    if config.minutes:
        budget = replace(budget, steps=plan_steps(config, tasks, shapes, budget, policy))
    outcomes: dict[tuple[str, str], list[Outcome]] = {}
    trained: dict[tuple[str, str], Competitor] = {}
    for seed in range(config.seeds):
        for task in tasks:
            for family, shape in shapes.items():
                one = replace(budget, seed=1 + seed)
                competitor, outcome = learn(family, task, shape, one, policy, progress)
                outcomes.setdefault((task.name, family), []).append(outcome)
                trained.setdefault((task.name, family), competitor)
    check_equal([each[0] for each in outcomes.values()])
    latency: dict[tuple[str, str], tuple[float, ...]] = {}
    for task in tasks:
        keys = [(task.name, family) for family in shapes]
        latency |= zip(keys, time_answers([trained[key] for key in keys]), strict=True)
    return Comparison(config, budget.steps, outcomes, latency)


def equal_shapes(parameters: int, num_layers: int) -> dict[str, Shape]:
    """For each family the shape whose blocks have so many parameters.

    All have one width, D: the multiple of a head's nearest to where the feed-forward network, F,
    would be four times as wide. A layer has 4·D² + 2·D·F; with attention to a source, as a writing
    layer of an encoder-decoder has, 8·D² + 2·D·F. F is what is left over.
    """
    least = num_layers * (6 * HEAD_WIDTH**2 + 2 * HEAD_WIDTH)  # F is 1 where there is least left
    require(
        parameters >= least,
        f"parameters = {parameters:,} is too few for {num_layers} layers: give {least:,} or more.",
    )
    heads = round((parameters / (12 * num_layers)) ** 0.5 / HEAD_WIDTH)
    width = HEAD_WIDTH * max(1, heads)
    shapes = {}
    for family in COMPETITORS:
        attention = (6 if family == "encoder-decoder" else 4) * width**2
        left = round((parameters / num_layers - attention) / (2 * width))
        shapes[family] = Shape(width=width, num_layers=num_layers, feed_forward_width=left)
    return shapes


def check_equal(outcomes: Sequence[Outcome]) -> None:
    """Raises UserError where the models' blocks are not of one size."""
    counts = {outcome.family: outcome.block_parameters for outcome in outcomes}
    require(
        max(counts.values()) <= (1 + TOLERANCE) * min(counts.values()),
        f"The families' blocks differ by more than {TOLERANCE:.0%}: {counts}. Take more of them.",
    )


def plan_steps(
    config: CompareConfig,
    tasks: Sequence[NumberTask],
    shapes: dict[str, Shape],
    budget: Budget,
    policy: Policy,
) -> int:
    """How many steps each may take, for all to be trained in `minutes`: by a few steps of each."""
    pilot = replace(budget, steps=PILOT_STEPS, test_examples=20, evaluations=1)
    seconds = sum(
        learn(family, task, shape, pilot, policy)[1].seconds / PILOT_STEPS
        for task in tasks
        for family, shape in shapes.items()
    )
    return max(1, int(60 * config.minutes / (seconds * config.seeds)))


HEADER = (
    "family", "right", "95 % or range", "parameters", "in blocks", "train/s",
    "FLOPs, train", "FLOPs, answer", "ms an answer",
)  # fmt: skip


def table(comparison: Comparison) -> str:
    """Everything measured, a table per task."""
    parts = []
    for task in comparison.config.tasks:
        parts += [f"{task}: {ASKED[task]}", grid(HEADER, rows(comparison, task)), ""]
    return "\n".join(parts).rstrip()


def rows(comparison: Comparison, task: str) -> list[list[str]]:
    """A task's table without its header."""
    return [
        [
            family,
            f"{mean(one.score for one in outcomes):.1%}",
            _span(*extent(outcomes)),
            f"{outcomes[0].parameters:,}",
            f"{outcomes[0].block_parameters:,}",
            f"{mean(one.examples_per_second for one in outcomes):,.0f}",
            short_number(outcomes[0].training_flops),
            short_number(mean(one.answer_flops for one in outcomes)),
            f"{median(comparison.latency[task, family]):.1f}",
        ]
        for family, outcomes in comparison.of(task).items()
    ]


def extent(outcomes: Sequence[Outcome]) -> tuple[float, float]:
    """Of one training, the interval by what was held out; of several, the range of the scores."""
    if len(outcomes) == 1:
        return outcomes[0].interval
    scores = [one.score for one in outcomes]
    return min(scores), max(scores)


def findings(comparison: Comparison) -> list[str]:
    """What the figures say, and what they do not."""
    found = []
    for task in comparison.config.tasks:
        by_family = comparison.of(task)
        found.append(f"{task}: {_ranking(by_family)}; {_speed(comparison, task)}.")
    return [*found, *notes(comparison)]


def notes(comparison: Comparison) -> list[str]:
    """How to read the figures."""
    seeds = comparison.config.seeds
    spread = (
        "95 %: where the share would lie over all such numbers. Other weights to start from move "
        "it too: --seeds 3 shows how far."
        if seeds == 1
        else f"The range is that of {seeds} trainings from other weights."
    )
    return [
        f"All alike: parameters in blocks (within {TOLERANCE:.0%}), their kind, {comparison.steps} "
        f"steps of {comparison.config.rows} examples, the learning rate. Numbers are held out in "
        "all languages at once.",
        "Equal parameters are not equal work: a token passes through only one half of an "
        "encoder-decoder, and through all of the others.",
        spread,
    ]


def _ranking(by_family: dict[str, list[Outcome]]) -> str:
    """ "the encoder leads with 97.1%; the decoder (88.0%) is behind", by extents that overlap."""
    scores = {family: mean(one.score for one in found) for family, found in by_family.items()}
    order = sorted(scores, key=lambda family: -scores[family])
    least = extent(by_family[order[0]])[0]
    level = [family for family in order if extent(by_family[family])[1] >= least]
    behind = [f"the {family} ({scores[family]:.1%})" for family in order if family not in level]
    first = f"the {order[0]} leads with {scores[order[0]]:.1%}"
    if len(level) > 1:
        named = [f"the {family} ({scores[family]:.1%})" for family in level]
        first = f"{' and '.join(named)} are level"
    return first + (f"; behind: {' and '.join(behind)}" if behind else "")


def _speed(comparison: Comparison, task: str) -> str:
    """Of the fastest and the slowest; a ratio only where every turn, taken side by side, has it."""
    latency = {family: comparison.latency[task, family] for family in COMPETITORS}
    order = sorted(latency, key=lambda family: median(latency[family]))
    first, last = order[0], order[-1]
    ratios = [slow / fast for fast, slow in zip(latency[first], latency[last], strict=True)]
    if min(ratios) < LEAST_RATIO:
        return "how long an answer takes differs by no more than the noise"
    return (
        f"the {first} answers {median(ratios):.1f} times as fast as the {last} "
        f"({min(ratios):.1f} to {max(ratios):.1f} in {len(ratios)} turns)"
    )


def _span(low: float, high: float) -> str:
    return f"{100 * low:.1f}–{100 * high:.1f}"


assert set(ASKED) == set(get_args(TaskName))
