"""One optimizer step: what it computes, and what must not change it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from groundup.data.batch import IGNORE, Batch
from groundup.train.objectives import NextTokenLoss, cross_entropy_sum, estimate_loss


def close(first: list[float], second: list[float], tolerance: float = 1e-5) -> bool:
    assert len(first) == len(second) > 0
    return all(math.isclose(a, b, rel_tol=tolerance) for a, b in zip(first, second, strict=True))


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


def test_activation_checkpointing_gives_the_same_curve(make_trainer: Any) -> None:
    curves = []
    for mode, every in (("none", 0), ("full", 1), ("selective", 2)):
        parts = make_trainer(steps=4, dropout=0.1, activation_checkpointing=mode)
        parts.trainer.fit()
        assert parts.model.checkpointing == every
        curves.append((parts.sink.losses(), parts.sink.norms()))
    assert curves[0] == curves[1] == curves[2]


def test_values_are_clamped_after_the_norm(make_trainer: Any) -> None:
    """Every entry of the gradient that the optimizer gets; the logged norm is that before."""
    plain = make_trainer(steps=1)
    plain.trainer.fit()
    limit = 1e-3
    parts = make_trainer(steps=1, clip_value=limit)
    gradients: dict[str, torch.Tensor] = {}
    update = parts.trainer.optimizer.step

    def step(*arguments: Any) -> Any:
        for name, weight in parts.model.named_parameters():
            gradients[name] = weight.grad.clone()
        return update(*arguments)

    parts.trainer.optimizer.step = step
    parts.trainer.fit()
    assert parts.sink.norms() == plain.sink.norms()
    twin = make_trainer()
    batch = twin.trainer.loader.step(0)
    (cross_entropy_sum(twin.model(batch.inputs), batch.targets) / batch.num_targets).backward()
    scale = min(1.0, 1.0 / plain.sink.norms()[0])
    for name, weight in twin.model.named_parameters():
        expected = (weight.grad * scale).clamp(-limit, limit)
        torch.testing.assert_close(gradients[name], expected, atol=1e-6, rtol=1e-4)
    assert max(gradient.abs().max() for gradient in gradients.values()) == pytest.approx(limit)


def test_rows_of_the_log_tell_where_time_and_memory_went(make_trainer: Any) -> None:
    parts = make_trainer(steps=6, log_every=3)
    parts.trainer.fit()
    for row in parts.sink.rows:
        assert min(row["split"].values()) > 0
        # Three steps in each row, whose parts are all of their time.
        assert 3 * 6 * 17 / sum(row["split"].values()) / 3 == pytest.approx(
            row["tokens_per_second"], rel=1e-2
        )
        assert row["peak_memory_mb"] > 10


def test_bf16_autocast_trains_fp32_weights(make_trainer: Any) -> None:
    full, half = make_trainer(steps=4), make_trainer(steps=4, dtype="bfloat16")
    full.trainer.fit()
    half.trainer.fit()
    assert close(full.sink.losses(), half.sink.losses(), 2e-2)
    assert full.sink.losses() != half.sink.losses()
    assert all(w.dtype == torch.float32 for w in half.weights().values())


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


def test_micro_rows_are_the_largest_that_fit(make_trainer: Any, loader_type: Any) -> None:
    assert make_trainer(loader=loader_type(rows=6, length=17)).trainer.micro_rows == 6

    class Long(loader_type):
        def __init__(self) -> None:
            super().__init__(rows=12, length=2000)

    assert make_trainer(loader=Long()).trainer.micro_rows == 4
