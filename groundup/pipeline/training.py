"""What the training stages share: their settings, the number of steps, and the trainer itself."""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from groundup.config import UserError, require
from groundup.files import read_json
from groundup.optim.config import OptimizerConfig, ScheduleConfig
from groundup.train.config import TrainConfig
from groundup.train.metrics import PARTS

if TYPE_CHECKING:
    from groundup.data.conversations import PackedConversations
    from groundup.data.loader import Loader
    from groundup.data.shards import Shards
    from groundup.device import Policy
    from groundup.models.decoder import Decoder
    from groundup.pipeline.run import Run


MEASURE_SECONDS, MEASURE_SHARE = 15.0, 0.05
"""How long steps are timed before their number is planned: that share of the time, at most."""

VERIFY_BYTES = 20_000_000_000


@dataclass(frozen=True, kw_only=True)
class TrainingSection:
    """How long and with what a stage trains. Exactly one of minutes, epochs and steps is set."""

    minutes: float = 0.0
    """Plan as many steps as this machine manages in this time: measured once, then fixed.
    Compiling, measuring, evaluations and samples count; saving and a machine that slows down do
    not."""
    epochs: float = 0.0
    steps: int = 0
    rows_per_step: int = 0
    """Rows of the context length in one optimizer step, over all processes; 0 asks the dial."""
    rate_scale: float = 1.0
    """Times the learning rates that fit the width and the batch, or a tenth of them after
    model.start; 0 takes those of the optimizer section as they stand."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        require(
            all(map(math.isfinite, (self.minutes, self.epochs, self.rate_scale))),
            "minutes, epochs and rate_scale must be finite numbers.",
        )
        require(
            min(self.minutes, self.epochs, self.steps, self.rows_per_step, self.rate_scale) >= 0,
            "minutes, epochs, steps, rows_per_step and rate_scale cannot be negative.",
        )
        require(
            sum(value > 0 for value in (self.minutes, self.epochs, self.steps)) <= 1,
            "Set only one of minutes, epochs and steps, and the others to 0, since each says how "
            f"long the stage trains: here minutes is {self.minutes:g}, epochs {self.epochs:g}, "
            f"steps {self.steps}.",
        )
        default = OptimizerConfig()
        for name in (
            "learning_rate",
            "embedding_learning_rate",
            "head_learning_rate",
            "muon_learning_rate",
        ):
            require(
                self.rate_scale == 0 or getattr(self.optimizer, name) == getattr(default, name),
                f"optimizer.{name} has no effect while width and batch set the rates: set "
                "rate_scale = 0 beside it, and all rates are yours.",
            )


def run_training(
    run: Run,
    stage: str,
    section: TrainingSection,
    model: Decoder,
    loader: Loader,
    evaluate: Callable[[], dict[str, float]] | None,
    sample: Callable[[], str],
    keep_best: bool = False,
    evaluations: int = 10,
    samples: int = 5,
) -> dict[str, Any]:
    """Train `model` in place, from the stage's newest checkpoint if there is one.

    `evaluations` and `samples` are made over the run, where the section does not say how often.
    `evaluate` is None where nothing is held out. `keep_best` ends with the weights of the lowest
    held-out loss instead of the last ones. Returns the stage's figures for the report.
    """
    from groundup.optim.build import build_optimizer
    from groundup.optim.schedules import factor
    from groundup.pipeline.shape import settled_optimizer
    from groundup.train.checkpoints import Checkpoints
    from groundup.train.trainer import Hooks, Trainer, restore_best

    optimizer = settled_optimizer(run.config, section, model.config)
    work = run.work_folder(stage)
    best = Checkpoints(work / "best", 1, run.world)
    trainer = Trainer(
        stage=stage,
        model=model,
        optimizer=build_optimizer(model, optimizer, run.policy.compute_dtype),
        schedule=lambda step, total: factor(section.schedule, step, total),
        loader=loader,
        total_steps=0,
        clip_norm=optimizer.clip_norm,
        clip_value=optimizer.clip_value,
        config=section.train,
        policy=_training_policy(run, section, loader, model.flops_per_token(loader.length)),
        roof_gflops=run.machine["roof_gflops"],
        sink=run.sink,
        checkpoints=Checkpoints(work, section.train.keep_last, run.world),
        best=best if keep_best else None,
        world=run.world,
        hooks=Hooks(evaluate, sample, run.clock.keep, evaluations, samples),
    )
    trainer.total_steps = _planned_steps(run, stage, section, trainer, loader)
    resumed = trainer.resume()
    if run.world.is_main:
        run.log.rewind(lambda row: row.get("stage") != stage or row["step"] <= resumed)
    run.console.start_progress(trainer.total_steps, resumed)
    progress = trainer.fit()
    run.console.end_progress()
    results: dict[str, Any] = {
        "steps": progress.step,
        "tokens": progress.tokens,
        "epochs": round(progress.step / loader.steps_per_epoch, 3),
        "train_seconds": round(progress.seconds, 2),
        "tokens_per_second": round(progress.tokens / max(progress.seconds, 1e-9), 1),
        "overhead_seconds": round(run.clock.seconds() - progress.seconds, 2),
    }
    results["mfu"] = round(trainer.meter.utilisation(results["tokens_per_second"]), 4)
    results |= {key: round(value, 5) for key, value in progress.evaluations.items()}
    results |= _logged(run, stage)
    if keep_best:
        # The model that the stage leaves is the best one: the figure beside it has to be its own.
        results["val_loss"] = round(restore_best(model, best), 5)
    return results


def verify(run: Run, sets: Iterable[Shards | PackedConversations]) -> None:
    """Compare the token files with the hashes in their manifests, at about 1 GB a second.

    Raises UserError naming a file that has changed. Beyond VERIFY_BYTES only sizes are checked.
    """
    sets = list(sets)
    size = sum(record.size for one in sets for record in one.manifest.files)
    if run.world.is_main and size <= VERIFY_BYTES:
        for one in sets:
            one.verify()
    run.world.barrier()


def _training_policy(
    run: Run, section: TrainingSection, loader: Loader, flops_per_token: float
) -> Policy:
    """The run's policy, without compilation where a short stage on a CPU would not earn it back.

    Compiling takes two cores most of a minute, of the stage's own time, and makes steps 5 to 30 %
    faster. The decision
    depends on the recipe alone, so a resumed run makes the same one.
    """
    policy, asked = run.policy, run.config.device.compile
    if asked != "auto" or policy.device != "cpu":
        return policy
    steps = section.steps or section.epochs * loader.steps_per_epoch
    flops = steps * loader.rows_per_step * loader.length * flops_per_token
    worth = section.minutes >= 6 or flops >= 5e13
    return dataclasses.replace(policy, compile=policy.compile and worth)


def _planned_steps(
    run: Run, stage: str, section: TrainingSection, trainer: Any, loader: Loader
) -> int:
    """The number of steps, decided once: a resumed run must not plan anew."""
    from groundup.train.pace import measure_pace, steps_within

    path = run.work_folder(stage) / "plan.json"
    if run.world.share(path.exists()):  # asked by one: it may appear between two looks
        return read_json(path)["steps"]
    plan: dict[str, Any] = {}
    if section.minutes:
        run.console.say("measuring the speed of a step")
        started, limit = time.perf_counter(), section.minutes * 60
        pace = measure_pace(trainer, seconds=min(MEASURE_SECONDS, MEASURE_SHARE * limit))
        plan |= {f"seconds_per_{key}": round(value, 4) for key, value in vars(pace).items()}
        # However long compiling took, half is left: a short stage exceeds its time instead.
        left = max(limit - (time.perf_counter() - started), limit / 2)
        steps = cast(int, run.world.share(steps_within(trainer, left, pace)))
    else:
        steps = section.steps or round(section.epochs * loader.steps_per_epoch)
    if steps < 1:
        raise UserError(
            f"'{stage}' would train for less than one step; give it more {stage}.minutes, "
            f"{stage}.epochs or {stage}.steps."
        )
    plan["steps"] = steps
    run.write_json(str(path.relative_to(run.folder)), plan)
    run.console.say(
        f"{steps} steps of {loader.rows_per_step} × {loader.length} tokens, "
        f"{steps / loader.steps_per_epoch:.2f} epochs"
    )
    return steps


def _logged(run: Run, stage: str) -> dict[str, Any]:
    """What the stage's rows of the log tell of all of it, resumed or not: the mean loss over the
    last tenth, the peak memory, and `split`, the seconds of a step by part (of the median row, so
    that one that held compiling does not count)."""
    rows = [row for row in run.log.rows() if row.get("stage") == stage and "loss" in row]
    tail = [row["loss"] for row in rows[-max(1, len(rows) // 10) :] if row["loss"] is not None]
    results: dict[str, Any] = {"train_loss": round(sum(tail) / len(tail), 5) if tail else None}
    timed = [row for row in rows if "split" in row]  # an older version began some runs
    if timed:
        results["peak_memory_mb"] = max(row["peak_memory_mb"] for row in timed)
        results["split"] = {
            part: round(statistics.median(row["split"][part] for row in timed), 6) for part in PARTS
        }
    return results
