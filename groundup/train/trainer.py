"""The trainer: one optimizer step that fits a screen, and the loop that keeps it safe.

The loop logs, evaluates, samples and saves on schedule; it leaves a saved state behind on SIGTERM,
skips a step whose loss or gradient is not finite, and continues from a checkpoint exactly: the same
losses, bit for bit on a CPU, as if it had never stopped.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from groundup.config import UserError
from groundup.data.batch import Batch
from groundup.data.loader import Loader
from groundup.device import Policy, peak_memory_mb
from groundup.models.state_dict import load_weights
from groundup.nn.moe import balance_experts
from groundup.optim.clip import clip_gradients
from groundup.optim.schedules import set_learning_rates
from groundup.parallel.apply import gradient_sync, parallelize
from groundup.parallel.world import World
from groundup.train.checkpoints import Checkpoints
from groundup.train.config import TrainConfig
from groundup.train.log import Sink
from groundup.train.metrics import Meter
from groundup.train.objectives import NextTokenLoss
from groundup.train.objectives_recurrent import CarriedStateLoss
from groundup.train.signals import Stopped, StopRequest
from groundup.train.state import restore_state, software_versions, state_tensors


class Trainable(Protocol):
    """What the trainer asks of a model beyond an nn.Module: every model class here has it."""

    checkpointing: int
    """Every how many blocks one is computed again in backward; 0 is none."""

    def flops_per_token(self, length: int) -> float:
        """Training FLOPs per token at a context of `length`; of an image model, per image."""
        ...


@dataclass
class Hooks:
    """What a stage wants done now and then; each result goes into the log."""

    evaluate: Callable[[], dict[str, float]] | None = None
    """Must return "val_loss" among its figures: the best checkpoint is the one with the lowest."""
    sample: Callable[[], str] | None = None
    saved: Callable[[], None] | None = None
    """Called after every checkpoint."""
    evaluations: int = 10
    """How many over the run, where the config does not say every how many steps."""
    samples: int = 5


@dataclass
class Progress:
    """Where a run is; saved in every checkpoint."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    best_loss: float = math.inf
    bad_steps: int = 0
    evaluations: dict[str, float] = field(default_factory=dict)


class Trainer:
    """Runs `total_steps` optimizer steps of `model` on the batches of `loader`.

    Collective: every process of `world` builds one and calls the same methods.
    `schedule(step, total_steps)` is the factor on each parameter group's initial learning rate.
    `model` is also `Trainable`; `loss` sums what is to be minimised over the targets of a batch,
    called with its `arguments`, and is that of the next token when left out.
    """

    def __init__(
        self,
        *,
        stage: str,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        schedule: Callable[[int, int], float],
        loader: Loader,
        total_steps: int,
        clip_norm: float,
        config: TrainConfig,
        policy: Policy,
        roof_gflops: float,
        sink: Sink,
        loss: nn.Module | None = None,
        clip_value: float = 0.0,
        checkpoints: Checkpoints | None = None,
        best: Checkpoints | None = None,
        world: World | None = None,
        hooks: Hooks | None = None,
    ) -> None:
        self.stage, self.model, self.optimizer = stage, model, optimizer
        self.schedule, self.loader, self.total_steps = schedule, loader, total_steps
        self.clip_norm, self.clip_value = clip_norm, clip_value
        self.config, self.policy, self.sink = config, policy, sink
        self.checkpoints, self.best = checkpoints, best
        self.world, self.hooks = world or World(), hooks or Hooks()
        self.progress = Progress()
        trainable = cast(Trainable, model)
        self.meter = Meter(trainable.flops_per_token(loader.length), roof_gflops)
        self.scaler = torch.amp.GradScaler(policy.torch_device.type, enabled=policy.grad_scaler)
        trainable.checkpointing = config.recompute_every
        loss = NextTokenLoss(model) if loss is None else loss
        self.carried = loss.state if isinstance(loss, CarriedStateLoss) else ()
        if policy.compile:
            loss.compile(dynamic=False)
        self.loss = parallelize(loss, self.world, policy)
        self.rows_per_process = _divide(loader.rows_per_step, self.world.size)
        self.micro_rows = _micro_rows(config.micro_rows, self.rows_per_process, loader.length)

    def train_step(self) -> dict[str, Any]:
        """One optimizer step on the next global batch; returns its figures."""
        self.meter.start()
        learning_rate = self._set_learning_rate()
        batch = self._own_rows(self.progress.step)
        self.meter.lap("data")
        targets, read = self.world.sum([float(batch.num_targets), float(batch.num_positions)])
        scale = self.world.size / max(targets, 1.0)  # processes are averaged, targets are not
        total = torch.zeros((), device=self.policy.torch_device)
        for micro, is_last in self._micro_batches(batch):
            with gradient_sync(self.loss, is_last):
                with self.policy.autocast():
                    loss = self.loss(*micro.arguments)
                self.scaler.scale(loss * scale).backward()
            total += loss.detach()
        self.scaler.unscale_(self.optimizer)
        norm = clip_gradients(self.model.parameters(), self.clip_norm, self.clip_value)
        loss_value = self.world.sum([total.item()])[0] / max(targets, 1.0)
        finite = math.isfinite(loss_value) and math.isfinite(norm.item())
        self.meter.lap("forward_backward")  # a GPU has caught up: its numbers have just been read
        if finite or self.policy.grad_scaler:
            self.scaler.step(self.optimizer)  # with fp16, the scaler itself skips overflowed steps
            self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self._count(finite, int(read))
        figures = {"loss": loss_value, "grad_norm": norm.item(), "lr": learning_rate}
        experts = balance_experts(self.model, self.world.sum)
        return figures | ({"experts": experts} if experts else {})

    def fit(self) -> Progress:
        """Train from the step reached so far (see `resume`) to the end.

        Raises Stopped after a signal (state saved, unless amid bad steps), UserError when too many
        steps in a row were not finite (the last good checkpoint is kept).
        """
        self.model.train()
        self._saved_at = time.monotonic()
        with StopRequest() as stop:
            while self.progress.step < self.total_steps:
                figures = self.train_step()
                self.progress.seconds += self.meter.stop(self._step_tokens)
                self._report(figures)
                self._check_finite()
                self._run_hooks()
                # Asked once: a signal between two looks would leave without having saved.
                leaving = self.world.any(stop.name is not None)
                if self._save_is_due() or leaving:
                    self.save()
                if leaving:
                    saved = self.checkpoints.steps() if self.checkpoints else []
                    raise Stopped(
                        stop.name or "another process",
                        self.progress.step,
                        saved[-1] if saved else None,
                    )
        return self.progress

    def save(self) -> None:
        """Write a checkpoint of everything the next step depends on."""
        if self.checkpoints is None or self.progress.bad_steps:
            return  # a checkpoint taken amid bad steps would not be a good state to return to
        tensors, facts = state_tensors(
            self.model, self.optimizer, self.scaler, self.world, self.carried
        )
        facts |= {"progress": vars(self.progress), "versions": software_versions()}
        self.checkpoints.save(self.progress.step, tensors, facts)
        self._saved_at = time.monotonic()
        if self.hooks.saved:
            self.hooks.saved()

    def resume(self) -> int:
        """Load the newest undamaged checkpoint, if any; returns the steps done so far."""
        found = self.checkpoints.load_latest() if self.checkpoints else None
        if found is None:
            return self.progress.step
        tensors, facts = found
        restore_state(
            self.model, self.optimizer, self.scaler, self.world, tensors, facts, self.carried
        )
        self.progress = Progress(**facts["progress"])
        return self.progress.step

    def _set_learning_rate(self) -> float:
        set_learning_rates(self.optimizer, self.schedule(self.progress.step, self.total_steps))
        return self.optimizer.param_groups[0]["lr"]

    def _own_rows(self, step: int) -> Batch:
        start = self.world.rank * self.rows_per_process
        return self.loader.rows(step, start, start + self.rows_per_process)

    def _micro_batches(self, batch: Batch) -> Iterator[tuple[Batch, bool]]:
        for start in range(0, self.rows_per_process, self.micro_rows):
            stop = start + self.micro_rows
            yield (
                batch.rows(start, stop).to(self.policy.torch_device),
                stop >= self.rows_per_process,
            )

    def _count(self, finite: bool, tokens: int) -> None:
        self.progress.step += 1
        self._step_tokens = tokens
        self.progress.tokens += tokens
        self.progress.bad_steps = 0 if finite else self.progress.bad_steps + 1

    def _check_finite(self) -> None:
        bad = self.progress.bad_steps
        if bad < self.config.max_bad_steps:
            return
        saved = self.checkpoints.steps() if self.checkpoints else []
        where = f"The last good checkpoint is step {saved[-1]}." if saved else ""
        raise UserError(
            f"{self.stage}: loss or gradient was not finite for {bad} steps in a row, up to step "
            f"{self.progress.step}. Lower the learning rate or inspect the data. {where}"
        )

    def _report(self, figures: dict[str, Any]) -> None:
        step, skipped = self.progress.step, self.progress.bad_steps > 0
        if step % self.config.log_every and step != self.total_steps and not skipped:
            return
        row: dict[str, Any] = {"stage": self.stage, "step": step, "tokens": self.progress.tokens}
        row |= figures | self.meter.window() | {"seconds": round(self.progress.seconds, 3)}
        row["peak_memory_mb"] = round(peak_memory_mb(self.policy.device), 1)
        if skipped:
            row["skipped"] = True
        self._write(row)

    def _run_hooks(self) -> None:
        step, last = self.progress.step, self.progress.step == self.total_steps
        every = self.config.evaluate_every or _share(self.total_steps, self.hooks.evaluations)
        if self.hooks.evaluate and (step % every == 0 or last):
            figures = self.hooks.evaluate()
            self.progress.evaluations = figures
            self._write({"stage": self.stage, "step": step, **figures})
            self._keep_best(figures["val_loss"])
        every = self.config.sample_every or _share(self.total_steps, self.hooks.samples)
        if self.hooks.sample and (step % every == 0 or last) and self.world.is_main:
            self._write({"stage": self.stage, "step": step, "sample": self.hooks.sample()})
        self.model.train()

    def _keep_best(self, loss: float) -> None:
        if not loss < self.progress.best_loss:  # a loss over no targets at all is NaN
            return
        self.progress.best_loss = loss
        if self.best is not None:
            tensors = {f"model.{name}": p for name, p in self.model.state_dict().items()}
            self.best.save(self.progress.step, tensors, {"val_loss": loss})

    def _save_is_due(self) -> bool:
        step, every = self.progress.step, self.config.checkpoint_every
        minutes = (time.monotonic() - self._saved_at) / 60
        due = minutes >= self.config.checkpoint_minutes or bool(every and step % every == 0)
        return self.world.any(due or step == self.total_steps)

    def _write(self, row: dict[str, Any]) -> None:
        if self.world.is_main:
            self.sink.write(row)


def restore_best(model: nn.Module, best: Checkpoints) -> float:
    """Put the weights of the lowest held-out loss into `model`; returns that loss."""
    found = best.load_latest()
    if found is None:
        return math.nan
    tensors, facts = found
    weights: dict[str, Tensor] = {k.removeprefix("model."): v for k, v in tensors.items()}
    load_weights(model, weights, "The best checkpoint")
    return facts["val_loss"]


def _share(steps: int, times: int) -> int:
    """Every how many of `steps` something is to happen `times` times."""
    return max(1, math.ceil(steps / times))


def _divide(rows: int, processes: int) -> int:
    if rows % processes:
        raise UserError(
            f"A step of {rows} rows cannot be shared by {processes} processes; choose a number of "
            f"rows that {processes} divides."
        )
    return rows // processes


def _micro_rows(wanted: int, rows: int, length: int) -> int:
    """The micro-batch: as wanted, else the largest divisor of `rows` within 8192 tokens."""
    if wanted:
        if rows % wanted:
            raise UserError(
                f"train.micro_rows = {wanted} does not divide the {rows} rows of a process's step."
            )
        return wanted
    fitting = [n for n in range(1, rows + 1) if rows % n == 0 and n * length <= 8192]
    return fitting[-1] if fitting else 1
