"""Losses and gradients that are not finite: skipped, reported, and never saved."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from groundup.config import UserError
from groundup.data.batch import Batch


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
