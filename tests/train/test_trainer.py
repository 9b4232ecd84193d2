"""The training step and its loop: what must not change the losses, and what must not be lost."""

from __future__ import annotations

import math
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from groundup.config import UserError
from groundup.data.batch import IGNORE, Batch
from groundup.train.objectives import NextTokenLoss, cross_entropy_sum, estimate_loss
from groundup.train.signals import Stopped, StopRequest
from groundup.train.trainer import Hooks, Pace, restore_best


def close(first: list[float], second: list[float], tolerance: float = 1e-5) -> bool:
    assert len(first) == len(second) > 0
    return all(math.isclose(a, b, rel_tol=tolerance) for a, b in zip(first, second, strict=True))


def same_weights(first: Any, second: Any) -> bool:
    a, b = first.weights(), second.weights()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize("kind", ["muon", "adamw"])
def test_resuming_equals_never_stopping(
    make_trainer: Any, tmp_path: Path, dropout: float, kind: str
) -> None:
    whole = make_trainer(steps=11, dropout=dropout, kind=kind)
    whole.trainer.fit()

    options = {"dropout": dropout, "kind": kind, "checkpoint_every": 4}
    first = make_trainer(tmp_path, steps=11, **options)
    first.trainer.checkpoints.save = stop_after(first.trainer.checkpoints.save, saves=2)
    with pytest.raises(InterruptedError):
        first.trainer.fit()
    torch.rand(5)  # a new process has other random numbers
    second = make_trainer(tmp_path, steps=11, seed=99, **options)
    assert second.trainer.resume() == 8
    second.trainer.fit()

    assert first.sink.losses()[:8] + second.sink.losses() == whole.sink.losses()
    assert first.sink.norms()[:8] + second.sink.norms() == whole.sink.norms()
    assert same_weights(whole, second)
    assert second.trainer.progress.tokens == whole.trainer.progress.tokens == 11 * 6 * 17


def stop_after(save: Any, saves: int) -> Any:
    """The same function, which dies after it has been called `saves` times."""
    count = 0

    def counted(*arguments: Any) -> None:
        nonlocal count
        save(*arguments)
        count += 1
        if count == saves:
            raise InterruptedError

    return counted


def test_evaluations_and_samples_leave_no_trace_in_the_curve(make_trainer: Any) -> None:
    plain = make_trainer(dropout=0.2)
    plain.trainer.fit()
    calls: list[str] = []

    def evaluate() -> dict[str, float]:
        calls.append("evaluate")
        loss = NextTokenLoss(busy.model)
        batch = busy.trainer.loader.step(0)
        return {"val_loss": estimate_loss(loss, [batch]) / 100}

    def sample() -> str:
        calls.append("sample")
        busy.model.eval()  # as generation does
        return "text"

    busy = make_trainer(
        dropout=0.2, hooks=Hooks(evaluate, sample), evaluate_every=3, sample_every=5
    )
    busy.trainer.fit()
    assert busy.sink.losses() == plain.sink.losses()
    assert calls.count("evaluate") == 4
    assert calls.count("sample") == 3  # steps 5, 10 and the last
    assert busy.trainer.progress.best_loss == min(
        row["val_loss"] for row in busy.sink.rows if "val_loss" in row
    )


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("micro_rows", [1, 2, 4])
def test_micro_batches_change_nothing(
    make_trainer: Any, loader_type: Any, ragged: bool, micro_rows: int
) -> None:
    curves = []
    for rows in (12, micro_rows):
        loader = loader_type(rows=12, length=13, ragged=ragged)
        parts = make_trainer(loader=loader, steps=20, micro_rows=rows)
        parts.trainer.fit()
        curves.append(parts.sink)
    assert close(curves[0].losses(), curves[1].losses())
    assert close(curves[0].norms(), curves[1].norms(), 1e-3)


def test_the_loss_is_divided_by_the_targets_of_the_whole_step(
    make_trainer: Any, loader_type: Any
) -> None:
    loader = loader_type(rows=6, ragged=True)
    parts = make_trainer(loader=loader, steps=1, micro_rows=2)
    batch = loader.step(0)
    with torch.no_grad():
        logits = parts.model(batch.inputs)
    expected = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORE
    )
    parts.trainer.fit()
    assert parts.sink.losses()[0] == pytest.approx(expected.item(), rel=1e-6)


def test_the_gradient_is_that_of_the_mean_over_targets(make_trainer: Any, loader_type: Any) -> None:
    """Against one plain backward pass over everything at once."""
    loader = loader_type(rows=6, ragged=True)
    parts = make_trainer(loader=loader, steps=1, micro_rows=3)
    twin = make_trainer(loader=loader)
    batch = loader.step(0)
    logits = twin.model(batch.inputs)
    (cross_entropy_sum(logits, batch.targets) / batch.num_targets).backward()
    norm = torch.linalg.vector_norm(
        torch.stack([w.grad.norm() for w in twin.model.parameters() if w.grad is not None])
    )
    parts.trainer.fit()
    assert parts.sink.norms()[0] == pytest.approx(norm.item(), rel=1e-5)


def test_a_batch_without_targets_changes_nothing_and_is_not_nan(
    make_trainer: Any, loader_type: Any
) -> None:
    class Silent(loader_type):
        def step(self, index: int) -> Batch:
            batch = super().step(index)
            return Batch(batch.inputs, torch.full_like(batch.targets, IGNORE))

    parts = make_trainer(loader=Silent(), steps=2, kind="adamw")
    parts.trainer.fit()
    assert parts.sink.losses() == [0.0, 0.0]
    assert parts.sink.norms() == [0.0, 0.0]
    assert all(w.isfinite().all() for w in parts.weights().values())
    assert math.isnan(estimate_loss(NextTokenLoss(parts.model), [Silent().step(0)]))


class Poisoned:
    """A loader whose batches at the given steps make the loss NaN: the embedding of one id, which
    only they contain, is NaN in the forward pass."""

    def __init__(self, loader: Any, steps: set[int]) -> None:
        self.loader, self.steps = loader, steps
        self.rows_per_step, self.length = loader.rows_per_step, loader.length
        self.model: Any = None

    def rows(self, index: int, start: int, stop: int) -> Batch:
        self.model.poisoned = index in self.steps
        return self.loader.rows(index, start, stop)


def poison(parts: Any, loader: Poisoned) -> None:
    loader.model = parts.model

    def hook(module: Any, arguments: Any, logits: torch.Tensor) -> torch.Tensor:
        return logits * math.nan if module.poisoned else logits

    parts.model.register_forward_hook(hook)


def test_one_bad_step_is_skipped_and_recovered_from(
    make_trainer: Any, loader_type: Any, tmp_path: Path
) -> None:
    loader = Poisoned(loader_type(), {3})
    parts = make_trainer(tmp_path, loader=loader, steps=8, log_every=100, checkpoint_every=1)
    poison(parts, loader)
    before: dict[str, Any] = {}
    step = parts.trainer.train_step

    def watched() -> dict[str, float]:
        if parts.trainer.progress.step == 3:
            before.update(parts.weights())
        figures = step()
        if parts.trainer.progress.step == 4:
            assert math.isnan(figures["loss"])
            assert all(torch.equal(before[k], w) for k, w in parts.weights().items())
            state = parts.trainer.optimizer.state_dict()["state"]
            assert all(t.isfinite().all() for entry in state.values() for t in entry.values())
        return figures

    parts.trainer.train_step = watched
    progress = parts.trainer.fit()
    assert before and progress.step == 8 and progress.bad_steps == 0
    (skipped,) = [row for row in parts.sink.rows if row.get("skipped")]
    assert skipped["step"] == 4  # logged although log_every is 100
    assert math.isfinite(parts.sink.losses()[-1])
    assert 4 not in parts.trainer.checkpoints.steps()


def test_too_many_bad_steps_stop_the_run_with_the_last_good_checkpoint(
    make_trainer: Any, loader_type: Any, tmp_path: Path
) -> None:
    good = make_trainer(steps=5)
    good.trainer.fit()

    loader = Poisoned(loader_type(), set(range(5, 100)))
    settings = {"loader": loader, "steps": 50, "checkpoint_every": 1, "max_bad_steps": 3}
    parts = make_trainer(tmp_path, **settings)
    poison(parts, loader)
    with pytest.raises(UserError, match="3 steps in a row.*step 8.*checkpoint is step 5") as caught:
        parts.trainer.fit()
    assert "\n" not in str(caught.value)
    assert [row["step"] for row in parts.sink.rows if row.get("skipped")] == [6, 7, 8]
    again = make_trainer(tmp_path, **settings)
    assert again.trainer.resume() == 5
    assert all(w.isfinite().all() for w in again.weights().values())


def test_the_newest_weights_survive_a_bad_last_step(
    make_trainer: Any, loader_type: Any, tmp_path: Path
) -> None:
    loader = Poisoned(loader_type(), {3})
    parts = make_trainer(tmp_path, loader=loader, steps=4, checkpoint_every=2)
    poison(parts, loader)
    assert parts.trainer.fit().step == 4
    assert parts.trainer.checkpoints.steps() == [2]


def test_infinite_gradient_of_a_finite_loss_is_skipped(make_trainer: Any) -> None:
    parts = make_trainer(steps=3)
    weight = next(iter(parts.model.parameters()))
    weight.register_hook(lambda gradient: gradient + math.inf)
    before = parts.weights()
    parts.trainer.fit()
    assert all(row["skipped"] and math.isfinite(row["loss"]) for row in parts.sink.rows)
    assert all(torch.equal(before[k], w) for k, w in parts.weights().items())


def test_one_batch_can_be_learned_by_heart(make_trainer: Any, loader_type: Any) -> None:
    parts = make_trainer(
        loader=loader_type(rows=3, length=9, fixed=True), steps=120, kind="adamw", rate=1e-2
    )
    parts.trainer.fit()
    losses = parts.sink.losses()
    assert losses[0] == pytest.approx(math.log(61), rel=0.05)
    assert losses[-1] < 0.05


def test_activation_checkpointing_gives_the_same_curve(make_trainer: Any) -> None:
    curves = []
    for on in (False, True):
        parts = make_trainer(steps=4, dropout=0.1, activation_checkpointing=on)
        parts.trainer.fit()
        assert parts.model.checkpointing is on
        curves.append((parts.sink.losses(), parts.sink.norms()))
    assert close(curves[0][0], curves[1][0], 1e-6)
    assert close(curves[0][1], curves[1][1], 1e-5)


def test_bf16_autocast_trains_fp32_weights(make_trainer: Any) -> None:
    full, half = make_trainer(steps=4), make_trainer(steps=4, dtype="bfloat16")
    full.trainer.fit()
    half.trainer.fit()
    assert close(full.sink.losses(), half.sink.losses(), 2e-2)
    assert full.sink.losses() != half.sink.losses()
    assert all(w.dtype == torch.float32 for w in half.weights().values())


def test_fp16_scales_the_loss_and_skips_what_overflows(make_trainer: Any, tmp_path: Path) -> None:
    """The path of GPUs without bf16, on the CPU's scaler: a scale that is far too high at first."""
    parts = make_trainer(tmp_path, steps=40, dtype="float16", checkpoint_every=5)
    trainer = parts.trainer
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    before = parts.weights()
    trainer.train_step()
    assert trainer.progress.bad_steps == 1
    assert all(torch.equal(before[k], w) for k, w in parts.weights().items())
    assert trainer.scaler.get_scale() == 2.0**39
    trainer.config = type(trainer.config)(**{**vars(trainer.config), "max_bad_steps": 40})
    trainer.fit()
    assert trainer.progress.bad_steps == 0
    plain = make_trainer(steps=1)
    plain.trainer.fit()
    taken = [row for row in parts.sink.rows if not row.get("skipped")]
    assert taken[0]["grad_norm"] == pytest.approx(plain.sink.norms()[0], rel=0.5)  # unscaled
    again = make_trainer(tmp_path, steps=40, dtype="float16")
    assert again.trainer.resume() == 40
    assert again.trainer.scaler.state_dict() == trainer.scaler.state_dict()


def test_learning_rate_follows_the_schedule_on_every_group(make_trainer: Any) -> None:
    parts = make_trainer(steps=5)
    parts.trainer.fit()
    initial = parts.trainer.optimizer.param_groups[0]["initial_lr"]
    factors = [row["lr"] / initial for row in parts.sink.rows if "lr" in row]
    assert factors[0] == pytest.approx(0.5)  # the first step of two warm-up steps already trains
    assert factors[1] == pytest.approx(1.0)
    assert factors[-1] < factors[2]
    for group in parts.trainer.optimizer.param_groups:
        assert group["lr"] / group["initial_lr"] == pytest.approx(factors[-1])


def test_measuring_the_speed_leaves_no_trace(make_trainer: Any) -> None:
    plain = make_trainer(dropout=0.2, steps=5)
    plain.trainer.fit()
    measured = make_trainer(dropout=0.2, steps=5)
    calls: list[str] = []
    measured.trainer.hooks = Hooks(
        evaluate=lambda: calls.append("evaluate") or {"val_loss": float(torch.rand(()))},
        sample=lambda: calls.append("sample") or "text",
    )
    pace = measured.trainer.measure_pace(steps=2, seconds=0.05)
    assert min(vars(pace).values()) > 0 and calls == ["evaluate", "sample"]
    measured.trainer.hooks = Hooks()
    measured.trainer.fit()
    assert measured.sink.losses() == plain.sink.losses()
    assert same_weights(plain, measured)


def test_evaluations_and_samples_are_part_of_the_planned_time(make_trainer: Any) -> None:
    pace = Pace(step=0.5, evaluation=2.0, sample=3.0)
    spread = make_trainer().trainer  # ten evaluations and five samples over the run
    assert spread.steps_within(120, pace) == (120 - 10 * 2 - 5 * 3) / 0.5
    assert spread.steps_within(40, pace) == 20 / 0.5
    often = make_trainer(evaluate_every=4, sample_every=6).trainer
    assert often.steps_within(60, pace) == int((60 - 2 - 3) / (0.5 + 2 / 4 + 3 / 6))
    assert spread.steps_within(0.5, pace) == 0


def test_every_checkpoint_is_told_and_says_what_wrote_it(make_trainer: Any, tmp_path: Path) -> None:
    saved: list[int] = []
    parts = make_trainer(tmp_path, steps=5, checkpoint_every=2)
    parts.trainer.hooks = Hooks(saved=lambda: saved.append(parts.trainer.progress.step))
    parts.trainer.fit()
    assert saved == [2, 4, 5]
    _, facts = parts.trainer.checkpoints.load_latest()
    assert facts["versions"]["torch"] == torch.__version__


def test_the_best_weights_are_kept(make_trainer: Any, tmp_path: Path) -> None:
    losses = iter([3.0, 2.0, 2.5, 2.0])
    seen: list[Any] = []

    def evaluate() -> dict[str, float]:
        seen.append(parts.weights())
        return {"val_loss": next(losses)}

    parts = make_trainer(
        tmp_path, steps=8, best=True, evaluate_every=2, hooks=Hooks(evaluate=evaluate)
    )
    parts.trainer.fit()
    assert restore_best(parts.model, parts.trainer.best) == 2.0
    assert parts.trainer.best.steps() == [4]
    assert all(torch.equal(seen[1][name], w) for name, w in parts.weights().items())


def test_an_undefined_held_out_loss_never_becomes_the_best(
    make_trainer: Any, tmp_path: Path
) -> None:
    losses = iter([math.nan, 2.0, math.nan, 3.0])
    parts = make_trainer(
        tmp_path,
        steps=4,
        best=True,
        evaluate_every=1,
        hooks=Hooks(evaluate=lambda: {"val_loss": next(losses)}),
    )
    parts.trainer.fit()
    assert parts.trainer.progress.best_loss == 2.0
    assert parts.trainer.best.steps() == [2]


def test_a_checkpoint_of_another_model_is_refused(make_trainer: Any, tmp_path: Path) -> None:
    make_trainer(tmp_path, steps=2).trainer.fit()
    other = make_trainer(tmp_path, steps=2, kind="adamw")
    with pytest.raises(UserError, match="by another rule"):
        other.trainer.resume()
    other = make_trainer(tmp_path, steps=2)
    other.trainer.model.embedding = torch.nn.Embedding(62, 24)
    with pytest.raises(UserError, match="does not fit the model") as caught:
        other.trainer.resume()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"micro_rows": 4}, "micro_rows = 4 does not divide the 6 rows"),
        ({"micro_rows": 7}, "micro_rows = 7 does not divide"),
        ({"micro_rows": -1}, "micro_rows cannot be negative"),
        ({"log_every": 0}, "log_every must be at least 1"),
        ({"keep_last": 0}, "keep_last must be at least 1"),
        ({"max_bad_steps": 0}, "max_bad_steps must be at least 1"),
        ({"checkpoint_minutes": 0.0}, "checkpoint_minutes must be positive"),
        ({"checkpoint_minutes": math.nan}, "checkpoint_minutes must be positive"),
        ({"evaluate_every": -3}, "evaluate_every cannot be negative"),
    ],
)
def test_impossible_settings(make_trainer: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_trainer(**settings)


def test_micro_rows_are_the_largest_that_fit(make_trainer: Any, loader_type: Any) -> None:
    assert make_trainer(loader=loader_type(rows=6, length=17)).trainer.micro_rows == 6

    class Long(loader_type):
        def __init__(self) -> None:
            super().__init__(rows=12, length=2000)

    assert make_trainer(loader=Long()).trainer.micro_rows == 4


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_saves_before_leaving(make_trainer: Any, tmp_path: Path, name: str) -> None:
    whole = make_trainer(steps=30)
    whole.trainer.fit()
    parts = make_trainer(tmp_path, steps=30)
    step = parts.trainer.train_step

    def interrupted() -> dict[str, float]:
        if parts.trainer.progress.step == 6:
            signal.raise_signal(getattr(signal, name))
        return step()

    parts.trainer.train_step = interrupted
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with pytest.raises(Stopped, match=f"{name} after step 7; the state of step 7 is saved"):
        parts.trainer.fit()
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    again = make_trainer(tmp_path, steps=30, seed=8)
    assert again.trainer.resume() == 7
    again.trainer.fit()
    assert parts.sink.losses() + again.sink.losses() == whole.sink.losses()


def test_a_second_signal_acts_at_once() -> None:
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.name == "SIGINT"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_outside_the_main_thread_signals_are_left_alone() -> None:
    names: list[str | None] = []

    def work() -> None:
        with StopRequest() as stop:
            names.append(stop.name)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert names == [None]
