"""The training loop: what must not change the losses, and what must not be lost."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from groundup.config import UserError
from groundup.train.objectives import NextTokenLoss, estimate_loss
from groundup.train.trainer import Hooks, restore_best


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
    assert whole.equals(second)
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


def test_one_batch_can_be_learned_by_heart(make_trainer: Any, loader_type: Any) -> None:
    parts = make_trainer(
        loader=loader_type(rows=3, length=9, fixed=True), steps=120, kind="adamw", rate=1e-2
    )
    parts.trainer.fit()
    losses = parts.sink.losses()
    assert losses[0] == pytest.approx(math.log(61), rel=0.05)
    assert losses[-1] < 0.05


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
        ({"selective_every": 1}, "selective_every must be at least 2, not 1"),
        ({"selective_every": 3}, "selective_every has no effect .* write 'selective'"),
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
