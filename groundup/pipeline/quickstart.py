"""Three families in a few minutes: encoder, decoder and encoder-decoder learn number names.

| family          | reads                     | gives                     | score                 |
|-----------------|---------------------------|---------------------------|-----------------------|
| encoder         | four hundred twenty-seven | 13, the sum of its digits | accuracy              |
| decoder         | en 4 2 7                  | its name                  | right in every piece  |
| encoder-decoder | en 4 2 7                  | its name                  | the same              |

Scores are over numbers never trained on, before and after. All start from random weights and see
the same numbers. `groundup compare` goes on from here: every family on both tasks, with equally
many parameters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundup.data.number_words import Language, Level
from groundup.device import DeviceConfig, Policy, detect
from groundup.files import check_writable, write_json
from groundup.inspect.show import grid
from groundup.pipeline.compare.competitors import NumberTask, Shape, TaskName
from groundup.pipeline.compare.learning import Budget, Outcome, Progress, learn

SHAPE = Shape(width=96, num_layers=4, feed_forward_width=384)
LESSONS: dict[str, TaskName] = {"encoder": "sort", "decoder": "write", "encoder-decoder": "write"}


@dataclass(frozen=True, kw_only=True)
class QuickstartConfig:
    """How much of everything; the defaults take a few minutes on two cores."""

    level: Level = "medium"
    languages: tuple[Language, ...] = ("en", "de", "fr")
    steps: int = 500
    """Of the families that write; the one that sorts takes twice as many, of half the cost."""
    rows: int = 64
    """Examples in a step."""
    seed: int = 1

    def __post_init__(self) -> None:
        self.budget("write")  # raises UserError where a number is out of its range

    def budget(self, task: TaskName) -> Budget:
        """What a family may use for this task."""
        steps = self.steps * (2 if task == "sort" else 1)
        return Budget(steps=steps, rows=self.rows, seed=self.seed, evaluations=1)


def run(json: str = "", progress: Progress | None = None, **settings: Any) -> Iterator[str]:
    """Train all on this machine and yield the table; then scores are written to `json`, if any."""
    config = QuickstartConfig(**settings)
    if json:
        check_writable(json)
    policy = detect(DeviceConfig(dtype="float32", compile="off"))
    outcomes = quickstart(config, policy, progress)
    yield table(outcomes)
    if json:
        write_json(Path(json), {one.family: as_dict(one) for one in outcomes})


def quickstart(
    config: QuickstartConfig, policy: Policy, progress: Progress | None = None
) -> list[Outcome]:
    """Train each family in turn; `progress` hears who is at which step, and the loss."""
    outcomes = []
    for family, name in LESSONS.items():
        task = NumberTask(name, config.level, config.languages)
        _, outcome = learn(family, task, SHAPE, config.budget(name), policy, progress)
        outcomes.append(outcome)
    return outcomes


def table(outcomes: Sequence[Outcome]) -> str:
    """Before and after, a line per family."""
    header = ("family", "parameters", "before", "after", "seconds", "asked, and what it says")
    rows = []
    for one in outcomes:
        question, _, answer = one.samples[0]
        scores = f"{one.before:.1%}", f"{one.score:.1%}"
        figures = f"{one.parameters:,}", *scores, f"{one.seconds:.1f}"
        rows.append([one.family, *figures, f"{question} → {answer}"])
    return grid(header, rows)


def as_dict(outcome: Outcome) -> dict[str, Any]:
    """For JSON; the score under its own name."""
    name = "accuracy" if LESSONS[outcome.family] == "sort" else "exact_match"
    return {
        name: outcome.score,
        "before": outcome.before,
        "tested": outcome.tested,
        "seconds": outcome.seconds,
        "parameters": outcome.parameters,
        "samples": outcome.samples,
    }
