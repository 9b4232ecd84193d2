"""Schedules: the golden table, the edges, and the rates they set."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.config import UserError
from groundup.optim.config import ScheduleConfig
from groundup.optim.schedules import factor, set_learning_rates

KINDS = ("wsd", "cosine", "linear", "constant", "inverse_sqrt", "step")


def test_cosine_golden_table():
    # Warmup 1,000, peak 3e-4, floor 3e-5, 100,000 steps; from
    # 3e-5 + 2.7e-4 * 0.5 * (1 + cos(pi * (step - 1000) / 99000)).
    config = ScheduleConfig(kind="cosine", warmup_steps=1000, floor=0.1)
    table = {
        0: 3e-7, 499: 1.5e-4, 999: 3e-4, 1000: 3e-4, 5000: 2.989e-4, 10_000: 2.945e-4,
        50_000: 1.671e-4, 100_000: 3e-5, 150_000: 3e-5,
    }  # fmt: skip
    for step, rate in table.items():
        assert 3e-4 * factor(config, step, 100_000) == pytest.approx(rate, rel=5e-4), step


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        # 20 steps, warmup 4, floor 0.1: flat to step 10, then down by 0.9/10 a step
        ("wsd", {0: 0.25, 3: 1.0, 4: 1.0, 10: 1.0, 11: 0.91, 15: 0.55, 19: 0.19, 20: 0.1, 99: 0.1}),
        ("linear", {1: 0.5, 3: 1.0, 4: 1.0, 12: 0.55, 19: 0.15625, 20: 0.1, 99: 0.1}),
        ("constant", {0: 0.25, 3: 1.0, 4: 1.0, 20: 1.0, 99: 1.0}),
        ("inverse_sqrt", {0: 0.25, 3: 1.0, 15: 0.5, 35: 1 / 3, 399: 0.1, 999: 0.1}),
        ("step", {0: 0.25, 3: 1.0, 9: 1.0, 10: 0.3, 14: 0.3, 15: 0.1, 99: 0.1}),
    ],
)
def test_golden_tables(kind, expected):
    config = ScheduleConfig(
        kind=kind, warmup_steps=4, floor=0.1, decay_fraction=0.5, step_factor=0.3
    )
    for step, value in expected.items():
        assert factor(config, step, 20) == pytest.approx(value), step


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    kind=st.sampled_from(KINDS),
    warmup=st.integers(0, 40),
    total=st.integers(1, 60),
    floor=st.floats(0, 1),
    fraction=st.floats(0, 1),
)
def test_every_step_trains_and_nothing_leaves_the_range(kind, warmup, total, floor, fraction):
    config = ScheduleConfig(kind=kind, warmup_steps=warmup, floor=floor, decay_fraction=fraction)
    values = [factor(config, step, total) for step in range(total + 20)]
    assert all(0 <= value <= 1 + 1e-12 and math.isfinite(value) for value in values)
    assert all(value > 0 for value in values[:total])
    rising, falling = values[:warmup], values[warmup:]
    assert rising == sorted(rising)
    assert falling == sorted(falling, reverse=True)


@pytest.mark.parametrize("kind", KINDS)
def test_no_warmup_starts_at_the_full_rate(kind):
    assert factor(ScheduleConfig(kind=kind, warmup_steps=0), 0, 10) == 1.0


def test_set_learning_rates_scales_each_group_from_its_own_rate():
    weights = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = torch.optim.SGD(
        [
            {"params": [w], "lr": r, "initial_lr": r}
            for w, r in zip(weights, (0.3, 0.02), strict=True)
        ]
    )
    for value in (0.5, 0.25):  # twice: from the initial rate, not from the last one
        set_learning_rates(optimizer, value)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.075, 0.005])


@pytest.mark.parametrize(
    "mistake",
    [{"warmup_steps": -1}, {"floor": 1.5}, {"decay_fraction": -0.1}, {"step_at": (0.5, 7.0)}],
)
def test_mistakes_name_the_setting(mistake):
    with pytest.raises(UserError, match=next(iter(mistake))):
        ScheduleConfig(**mistake)
