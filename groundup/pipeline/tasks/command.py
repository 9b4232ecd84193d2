"""`groundup train`: the list of tasks, one training, or one family of each sort in a row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from groundup.config import UserError, require, to_dict
from groundup.data.tasks import TASKS, find_task
from groundup.files import check_writable, write_json
from groundup.pipeline.console import Console
from groundup.pipeline.tasks.families import GUIDE, families_for
from groundup.pipeline.tasks.settings import TaskOutcome, TaskSettings, format_score

EVERYTHING = {
    "encoder": "last-digit",
    "decoder": "numbers",
    "encoder-decoder": "numbers",
    "lstm": "numbers",
    "mlp": "shapes",
    "vit": "shapes",
    "vlm": "shapes",
}
"""What `--all` trains: one family of each sort, on tasks for which nothing is fetched. Of recurrent
models the LSTM alone: GRU and RNN would add minutes, and nothing to see."""
EVERYTHING_MINUTES = 0.8
EVERYTHING_PARAMETERS = 300_000
"""Of each, where nothing else is asked for."""


def listing() -> str:
    """The tasks, which families can learn each, and what to take for what."""
    lines = ["Tasks, and the families that can learn them, the one that fits best first:", ""]
    for task in TASKS.values():
        fetched = f"; fetches {task.megabytes:g} MB" if task.megabytes else ""
        lines.append(f"  {task.name:12} {task.description}{fetched}")
        lines.append(f"  {'':12} {', '.join(families_for(task))}")
    return "\n".join([*lines, "", "Which family for what:", "", *guide(), "", *_ENDING])


def guide() -> list[str]:
    """One line per use: the case, the family, the command."""
    lines = []
    for use in GUIDE:
        names = [name for name in use.tasks if name in TASKS]
        if names:
            command = f"groundup train {names[0]}"
            lines.append(f"  {use.case:41} {use.family:16} {command:26} {use.why}")
    return lines


def run(
    *, task: str, family: str, all: bool, run: str, json: str, **settings: Any
) -> Iterator[str]:
    """What the verb prints: a table, and some answers of a single training.

    `run` is a folder, `json` a file for the scores, written once they have been printed. Raises
    UserError for options that contradict each other or a file that cannot be written, before
    anything is trained, and Stopped after a signal.
    """
    require(
        not (all and (task or family)),
        "--all trains one family of each sort, on tasks of its own: leave TASK and --family out.",
    )
    wanted = TaskSettings(**settings)
    if json:
        check_writable(json)
    with Console() as console:
        if all:
            text, scores = _train_everything(Path(run or "runs/everything"), wanted, console)
        else:
            text, scores = _train_one(task, family, run, wanted, console)
    yield text
    if json:
        write_json(json, scores)


def _train_one(
    name: str, family: str, folder: str, settings: TaskSettings, console: Console
) -> tuple[str, dict[str, Any]]:
    """One family on one task; the one that fits best when none is named."""
    # What torch takes seconds to be imported for is not asked of the list of tasks.
    from groundup.models.folder import kind_at
    from groundup.pipeline.tasks.runner import train_task

    if not name:
        known = [task.name for task in TASKS.values() if family in families_for(task)]
        advice = f"; {family} can learn {', '.join(known)}" if known else ""
        raise UserError(f"Name the task, as in: groundup train numbers --family lstm{advice}.")
    task = find_task(name)
    family = family or families_for(task)[0]
    where = Path(folder or Path("runs") / f"{task.name}-{family}")
    outcome = train_task(task, family, settings, where, console=console)
    left = f"The model is in {where / 'model'}. {kind_at(where / 'model').advice}"
    return "\n".join([table([outcome]), "", answers(outcome), "", left]), to_dict(outcome)


def _train_everything(
    folder: Path, settings: TaskSettings, console: Console
) -> tuple[str, dict[str, Any]]:
    """One family of each sort, one after the other, each in a folder of its own."""
    from groundup.pipeline.tasks.runner import train_task

    if not (settings.minutes or settings.steps):
        settings = replace(settings, minutes=EVERYTHING_MINUTES)
    if not (settings.parameters or settings.width):
        settings = replace(settings, parameters=EVERYTHING_PARAMETERS)
    if settings.accumulate == 1:
        settings = replace(settings, accumulate=2)
    outcomes = [
        train_task(find_task(name), family, settings, folder / family, console=console)
        for family, name in EVERYTHING.items()
    ]
    return table(outcomes), {one.family: to_dict(one) for one in outcomes}


def table(outcomes: Sequence[TaskOutcome]) -> str:
    """Before, after and the baseline, a line per training."""
    head = ("family", "task", "parameters", "score", "before", "after", "baseline", "seconds")
    lines = ["{:16}{:12}{:>11}  {:19}{:>8}{:>9}{:>10}{:>9}".format(*head)]
    for one in outcomes:
        scores = [
            format_score(one.metric, value) for value in (one.before, one.after, one.baseline)
        ]
        lines.append(
            f"{one.family:16}{one.task:12}{one.parameters:>11,}  {one.metric:19}"
            f"{scores[0]:>8}{scores[1]:>9}{scores[2]:>10}{one.seconds:>9.1f}"
        )
    names = dict.fromkeys(f"{one.task}: {one.baseline_name}" for one in outcomes)
    return "\n".join([*lines, f"Baselines: {'; '.join(names)}."])


def answers(outcome: TaskOutcome) -> str:
    """A few questions, what was expected, and what the model says."""
    lines = []
    for question, expected, answer in outcome.samples:
        right = answer.strip() == expected.strip()
        lines.append(f"  {_short(question)} → {_short(answer)} {'✓' if right else '✗'}")
        if not right:
            lines.append(f"    expected {_short(expected)}")
    return "\n".join(lines)


def _short(text: str, most: int = 100) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[:most]}…"


_ENDING = (
    "groundup train TASK trains the family that fits best for two minutes and scores it on",
    "examples it has not seen; --family, --minutes and --width change that. Run again, it goes on",
    "where it was stopped. groundup train --all trains one family of each sort.",
)
