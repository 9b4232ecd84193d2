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

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundup.data.number_words import Language, Level
from groundup.device import DeviceConfig, Policy, detect
from groundup.files import write_json
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


def run(json: str = "", progress: Progress | None = None, **settings: Any) -> str:
    """Train all on this machine and return the table; with `json`, scores are written there."""
    policy = detect(DeviceConfig(dtype="float32", compile="off"))
    outcomes = quickstart(QuickstartConfig(**settings), policy, progress)
    if json:
        write_json(Path(json), {one.family: as_dict(one) for one in outcomes})
    return table(outcomes)


def quickstart(
    config: QuickstartConfig, policy: Policy, progress: Progress | None = None
) -> list[Outcome]:
    """Train each family in turn; `progress` hears who is at which step, and the loss."""
    outcomes = []
    for family, name in LESSONS.items():
        task = NumberTask(name, config.level, config.languages)
        steps = config.steps * (2 if name == "sort" else 1)
        budget = Budget(steps=steps, rows=config.rows, seed=config.seed, evaluations=1)
        outcomes.append(learn(family, task, SHAPE, budget, policy, progress))
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
