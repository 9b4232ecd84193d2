"""Tokens per second and model-FLOP utilisation, by hand-made clocks."""

from __future__ import annotations

import pytest

from groundup.train import metrics
from groundup.train.metrics import PARTS, Meter


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that a test moves by hand: `clock[0]` is now."""
    now = [100.0]
    monkeypatch.setattr(metrics.time, "perf_counter", lambda: now[0])
    return now


def test_only_the_time_of_steps_counts(clock: list[float]) -> None:
    meter = Meter(flops_per_token=6e6, roof_gflops=150.0)
    for seconds in (0.5, 1.5):
        meter.start()
        clock[0] += seconds
        assert meter.stop(1000) == pytest.approx(seconds)
        clock[0] += 60  # an evaluation
    assert (meter.seconds, meter.tokens) == (pytest.approx(2.0), 2000)
    figures = meter.window()
    assert figures["tokens_per_second"] == pytest.approx(1000)
    # 1000 tokens/s x 6 MFLOP = 6 GFLOP/s of 150.
    assert figures["mfu"] == pytest.approx(0.04)


def test_each_window_starts_anew(clock: list[float]) -> None:
    meter = Meter(flops_per_token=1e6, roof_gflops=1.0)
    rates = []
    for seconds in (1.0, 4.0):
        meter.start()
        clock[0] += seconds
        meter.stop(400)
        rates.append(meter.window()["tokens_per_second"])
    assert rates == pytest.approx([400, 100])
    assert meter.tokens == 800


def test_a_step_is_split_into_its_parts(clock: list[float]) -> None:
    meter = Meter(flops_per_token=1e6, roof_gflops=1.0)
    for scale in (1.0, 3.0):
        meter.start()
        clock[0] += 0.1 * scale
        meter.lap("data")
        clock[0] += 2.0 * scale
        meter.lap("forward_backward")
        clock[0] += 0.4 * scale
        assert meter.stop(500) == pytest.approx(2.5 * scale)
    figures = meter.window()
    assert tuple(figures["split"]) == PARTS
    assert figures["split"] == pytest.approx(
        {"data": 0.2, "forward_backward": 4.0, "optimizer": 0.8}
    )
    assert figures["tokens_per_second"] == pytest.approx(1000 / 10)


def test_a_step_that_was_only_tried_counts_nowhere(clock: list[float]) -> None:
    meter = Meter(flops_per_token=1e6, roof_gflops=1.0)
    meter.start()
    clock[0] += 50
    meter.lap("data")
    meter.start()
    clock[0] += 1
    meter.lap("data")
    meter.stop(10)
    assert meter.seconds == pytest.approx(1)
    assert meter.window()["split"]["data"] == pytest.approx(1)


def test_utilisation_is_useful_flops_over_the_roof() -> None:
    assert Meter(2e9, 500.0).utilisation(125.0) == pytest.approx(0.5)
