"""Training one family on one task: from examples to a scored model, in a folder of its own.

    task.json        what the folder is for, all settings decided
    tokenizer/       trained on the task's own text
    plan.json        the number of steps, and the score before the first
    log.jsonl        losses and scores on the way
    checkpoints/     to go on from after a stop
    model/           the trained model
    result.json      the outcome

Run again, it goes on where it was stopped, with the losses of a run that never stopped.
"""

from __future__ import annotations

import dataclasses
import math
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from groundup.config import UserError, require, to_dict
from groundup.data.examples import Example, TaskData
from groundup.data.tasks import Task
from groundup.device import DeviceConfig, Policy, detect, measure_matmul, seed_everything
from groundup.files import check_writable, read_json, write_json
from groundup.models.folder import save_any
from groundup.optim.build import build_optimizer
from groundup.optim.config import OptimizerConfig, ScheduleConfig
from groundup.optim.schedules import factor
from groundup.pipeline import lock
from groundup.pipeline.console import Console
from groundup.pipeline.tasks import rows
from groundup.pipeline.tasks.baselines import baseline
from groundup.pipeline.tasks.families import check_pair
from groundup.pipeline.tasks.learner import Learner, Lesson
from groundup.pipeline.tasks.learners import make_learner
from groundup.pipeline.tasks.settings import TaskOutcome, TaskSettings, metric_of, settled
from groundup.text.config import TokenizerConfig
from groundup.text.tokenizer import Tokenizer, load_tokenizer
from groundup.text.train import train_tokenizer
from groundup.train.checkpoints import Checkpoints
from groundup.train.config import TrainConfig
from groundup.train.log import Fanout, JsonLog, Sink
from groundup.train.objectives import estimate_loss
from groundup.train.pace import measure_pace, steps_within
from groundup.train.trainer import Hooks, Progress, Trainer

NUM_SAMPLES = 5
SCORED_CHARACTERS = 2000
"""Of each text that is to be continued, at most."""
CHECKPOINT_MINUTES = 0.5
MEASURE_SECONDS, MEASURE_SHARE = 5.0, 0.05
"""How long steps are timed before their number is planned: that share of the time, at most."""


def train_task(
    task: Task,
    family: str,
    settings: TaskSettings | None = None,
    folder: str | Path = "",
    *,
    data: TaskData | None = None,
    console: Console | None = None,
) -> TaskOutcome:
    """Train `family` on `task` in `folder` (runs/TASK-FAMILY when empty); finished work is kept.

    `data` saves reading the task's examples again where several families learn it. Small models
    on short rows: fp32, not compiled. Raises UserError where the family cannot learn the task or
    the folder holds anything but this training, Stopped after a signal, with the state saved.
    """
    check_pair(task, family)
    chosen = settled(task, family, settings or TaskSettings())
    folder = Path(folder or Path("runs") / f"{task.name}-{family}")
    _check_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        held.enter_context(lock.locked(folder))
        console = console or held.enter_context(Console(quiet=True))
        _claim(folder, task, family, chosen)
        if (folder / "result.json").exists():
            console.skipped(f"{family} on {task.name}")
            return read_outcome(folder)
        started = time.monotonic()
        console.begin(f"{family} on {task.name}: {task.description}")
        outcome = _work(task, family, chosen, folder, data or task.read(), console)
        write_json(folder / "result.json", to_dict(outcome))
        shutil.rmtree(folder / "checkpoints")  # the model has the weights
        console.finished(f"{family} on {task.name}", time.monotonic() - started)
        return outcome


def read_outcome(folder: str | Path) -> TaskOutcome:
    """The outcome of a finished training. Raises UserError where there is none."""
    found: dict[str, Any] = read_json(Path(folder) / "result.json")
    found["samples"] = [tuple(sample) for sample in found["samples"]]
    return TaskOutcome(**found)


def read_curve(folder: str | Path) -> list[dict[str, Any]]:
    """What a run's log says of each evaluation so far; see `TaskOutcome.curve`."""
    log = JsonLog(Path(folder) / "log.jsonl")
    names = ("step", "train_seconds", "examples", "score", "val_loss")
    evaluated = [row for row in log.rows() if "val_loss" in row]
    return [{name: row[name] for name in names} for row in evaluated]


def _work(
    task: Task, family: str, settings: TaskSettings, folder: Path, data: TaskData, console: Console
) -> TaskOutcome:
    policy = detect(DeviceConfig(dtype="float32", compile="off"))
    heldout = _drawn(task, data.heldout, settings)
    require(len(data.train) > 0 < len(heldout), f"The task {task.name!r} has no examples.")
    tokenizer = _tokenizer(task, family, data.train, settings, folder)
    seed_everything(settings.seed)
    lesson = Lesson(task, family, data, settings, policy.torch_device, tokenizer)
    learner = make_learner(lesson)
    parameters = sum(parameter.numel() for parameter in learner.model.parameters())
    console.say(f"{parameters:,} parameters, {len(data.train):,} examples, {policy.describe()}")
    log = JsonLog(folder / "log.jsonl")
    trainer = _trainer(learner, heldout, policy, folder, Fanout(log, console))
    plan = _plan(trainer, learner, heldout, settings, folder, console)
    progress = _fit(trainer, plan["steps"], log, console)
    scores = {k: v for k, v in progress.evaluations.items() if k in plan["before"]}
    meta = {"task": task.name, "kind_of_task": task.kind, "family": family, "scores": scores}
    meta |= {"classes": list(data.classes), "max_source_tokens": settings.length}
    save_any(folder / "model", learner.model, tokenizer, meta)
    return _outcome(learner, heldout, plan["before"], scores, progress, read_curve(folder))


def _check_folder(folder: Path) -> None:
    """Raise UserError where `folder` holds what is not ours: files there would be replaced."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file, but a folder is needed: name another with --run.")
    check_writable(folder / "task.json")
    if not folder.exists() or (folder / "task.json").exists():
        return
    ours = (lock.NAME, ".task.json.")  # the second: of a process that is about to claim it
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith(ours))
    if names:
        shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
        raise UserError(
            f"{folder} holds other files ({shown}): choose a new or empty folder with --run FOLDER."
        )


def _claim(folder: Path, task: Task, family: str, settings: TaskSettings) -> None:
    """Note what the folder is for. Raises UserError where it is for something else."""
    path = folder / "task.json"
    wanted = {"task": task.name, "family": family, "settings": to_dict(settings)}
    found = read_json(path) if path.exists() else None
    if found == wanted:
        return
    if found is not None and not (
        found.keys() == wanted.keys() and isinstance(found["settings"], dict)
    ):
        raise UserError(f"{path} is of something else: choose another folder with --run FOLDER.")
    begun = any((folder / name).exists() for name in ("plan.json", "checkpoints", "result.json"))
    if found is None or not begun:
        (folder / "tokenizer" / "tokenizer.json").unlink(missing_ok=True)  # of a try that failed
        write_json(path, wanted)
        return
    before, now = ({**f, **f["settings"]} for f in (found, wanted))
    names = [n for n in now if n != "settings" and before.get(n) != now[n]]
    changes = ", ".join(f"{n} {before.get(n)} (now {now[n]})" for n in names)
    raise UserError(
        f"{folder} was begun with {changes}. Give the same options to go on with it, or choose "
        "another folder with --run FOLDER."
    )


def _drawn(task: Task, examples: Sequence[Example], settings: TaskSettings) -> list[Example]:
    """Some of the examples, spread over all of them, in an order of the seed's."""
    order = np.random.default_rng(settings.seed).permutation(len(examples))
    drawn = [examples[i] for i in order[: settings.test_examples]]
    if task.kind != "continue":
        return drawn
    return [dataclasses.replace(e, target=e.target[:SCORED_CHARACTERS]) for e in drawn]


def _tokenizer(
    task: Task, family: str, train: Sequence[Example], settings: TaskSettings, folder: Path
) -> Tokenizer | None:
    """The task's tokenizer, trained on its training text; None for images alone."""
    if task.kind == "image" and family != "vlm":
        return None
    path = folder / "tokenizer"
    if not (path / "tokenizer.json").exists():
        assert settings.tokenizer is not None
        config = TokenizerConfig(
            kind=settings.tokenizer, vocab_size=settings.vocab_size, pattern="digits"
        )
        tokenizer = train_tokenizer(config, rows.texts(train))
        if family == "vlm":
            tokenizer = rows.with_special(tokenizer, [rows.IMAGE])
        if task.kind == "continue" and family in ("encoder", "encoder-decoder"):
            tokenizer = rows.with_special(tokenizer, [rows.MASK, *rows.SENTINELS])
        path.mkdir(exist_ok=True)
        tokenizer.save(path)
    return load_tokenizer(path)


def _trainer(
    learner: Learner, heldout: Sequence[Example], policy: Policy, folder: Path, sink: Sink
) -> Trainer:
    """The trainer, which evaluates by the learner's own scores; it has no number of steps yet."""
    settings, loader = learner.settings, learner.loader
    rows_at_once, parts = loader.rows_per_step, settings.accumulate
    require(
        rows_at_once % parts == 0,
        f"A step of {rows_at_once} rows does not divide into {parts} parts.",
    )
    optimizer = OptimizerConfig(
        kind=settings.optimizer or "muon", learning_rate=settings.rate, weight_decay=0.1
    )
    hooks = Hooks(evaluations=settings.evaluations)
    trainer = Trainer(
        stage="train",
        model=learner.model,
        loss=learner.loss,
        optimizer=build_optimizer(learner.model, optimizer, policy.compute_dtype),
        schedule=_schedule,
        loader=loader,
        total_steps=0,
        clip_norm=optimizer.clip_norm,
        config=TrainConfig(
            micro_rows=rows_at_once // parts if parts > 1 else 0,
            checkpoint_minutes=CHECKPOINT_MINUTES,
        ),
        policy=policy,
        roof_gflops=measure_matmul(policy.compute_dtype),
        sink=sink,
        checkpoints=Checkpoints(folder / "checkpoints"),
        hooks=hooks,
    )
    hooks.evaluate = _evaluation(learner, heldout, trainer)
    return trainer


def _schedule(step: int, total: int) -> float:
    config = ScheduleConfig(kind="linear", warmup_steps=min(50, math.ceil(total / 10)))
    return factor(config, step, total)


def _evaluation(
    learner: Learner, heldout: Sequence[Example], trainer: Trainer
) -> Callable[[], dict[str, float]]:
    """What is measured on the way: the loss, all scores, and what they have taken so far."""
    metric = metric_of(learner.lesson.task, learner.lesson.family)

    def evaluate() -> dict[str, float]:
        batches = (batch.to(learner.device) for batch in learner.batches(heldout))
        scores = learner.score(heldout)
        progress = trainer.progress
        return {
            "val_loss": estimate_loss(learner.loss, batches),
            **scores,
            "score": scores[metric],
            "train_seconds": round(progress.seconds, 3),
            "examples": progress.step * learner.loader.rows_per_step,
        }

    return evaluate


def _plan(
    trainer: Trainer,
    learner: Learner,
    heldout: Sequence[Example],
    settings: TaskSettings,
    folder: Path,
    console: Console,
) -> dict[str, Any]:
    """The number of steps and the scores of the random weights, decided and measured once."""
    path = folder / "plan.json"
    if path.exists():
        return read_json(path)
    plan: dict[str, Any] = {"before": learner.score(heldout), "steps": settings.steps}
    if not settings.steps:
        limit = settings.minutes * 60
        trainer.total_steps = 1  # so that its schedule has one
        pace = measure_pace(trainer, seconds=min(MEASURE_SECONDS, MEASURE_SHARE * limit))
        plan["steps"] = max(1, steps_within(trainer, limit, pace))
        plan["pace"] = dataclasses.asdict(pace)
    write_json(path, plan)
    epochs = plan["steps"] / trainer.loader.steps_per_epoch
    console.say(
        f"{plan['steps']} steps of {trainer.loader.rows_per_step} rows, {epochs:.2f} epochs"
    )
    return plan


def _fit(trainer: Trainer, steps: int, log: JsonLog, console: Console) -> Progress:
    """Train up to `steps`, from the newest checkpoint if there is one."""
    trainer.total_steps = steps
    resumed = trainer.resume()
    log.rewind(lambda row: row["step"] <= resumed)
    console.start_progress(steps, resumed)
    progress = trainer.fit()
    console.end_progress()
    return progress


def _outcome(
    learner: Learner,
    heldout: Sequence[Example],
    before: dict[str, float],
    scores: dict[str, float],
    progress: Progress,
    curve: list[dict[str, Any]],
) -> TaskOutcome:
    lesson, shown = learner.lesson, heldout[:NUM_SAMPLES]
    metric = metric_of(lesson.task, lesson.family)
    name, value = baseline(lesson.task, metric, lesson.data, heldout, learner)
    poses, answers = [learner.pose(example) for example in shown], learner.answer(shown)
    return TaskOutcome(
        task=lesson.task.name,
        family=lesson.family,
        parameters=sum(parameter.numel() for parameter in learner.model.parameters()),
        metric=metric,
        before=before[metric],
        after=scores[metric],
        baseline=value,
        baseline_name=name,
        scores=scores,
        steps=progress.step,
        seconds=round(progress.seconds, 2),
        tokens_per_second=round(progress.tokens / max(progress.seconds, 1e-9), 1),
        examples_seen=progress.step * learner.loader.rows_per_step,
        samples=[(*pose, answer) for pose, answer in zip(poses, answers, strict=True)],
        curve=curve,
    )
