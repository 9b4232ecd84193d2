"""Planning: measured without a trace, and evaluations count."""

from __future__ import annotations

from typing import Any

import torch

from groundup.train.pace import Pace, measure_pace, steps_within
from groundup.train.trainer import Hooks


def test_measuring_the_speed_leaves_no_trace(make_trainer: Any) -> None:
    plain = make_trainer(dropout=0.2, steps=5)
    plain.trainer.fit()
    measured = make_trainer(dropout=0.2, steps=5)
    calls: list[str] = []
    measured.trainer.hooks = Hooks(
        evaluate=lambda: calls.append("evaluate") or {"val_loss": float(torch.rand(()))},
        sample=lambda: calls.append("sample") or "text",
    )
    pace = measure_pace(measured.trainer, steps=2, seconds=0.05)
    assert min(vars(pace).values()) > 0 and calls == ["evaluate", "sample"]
    measured.trainer.hooks = Hooks()
    measured.trainer.fit()
    assert measured.sink.losses() == plain.sink.losses()
    assert plain.equals(measured)


def test_evaluations_and_samples_are_part_of_the_planned_time(make_trainer: Any) -> None:
    pace = Pace(step=0.5, evaluation=2.0, sample=3.0)
    spread = make_trainer().trainer  # ten evaluations and five samples over the run
    assert steps_within(spread, 120, pace) == (120 - 10 * 2 - 5 * 3) / 0.5
    assert steps_within(spread, 40, pace) == 20 / 0.5
    often = make_trainer(evaluate_every=4, sample_every=6).trainer
    assert steps_within(often, 60, pace) == int((60 - 2 - 3) / (0.5 + 2 / 4 + 3 / 6))
    assert steps_within(spread, 0.5, pace) == 0
