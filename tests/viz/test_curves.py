"""Curves of a run stand where the tokens say, stage after stage, and survive gaps in the log."""

from __future__ import annotations

import numpy as np
import pytest

from groundup.viz import curves, style

ROWS = [
    {"stage": "base", "step": 0, "val_bpb": 4.5, "val_loss": 8.2},
    {"stage": "base", "step": 10, "tokens": 700, "loss": 6.0, "lr": 0.1, "mfu": 0.3},
    {"stage": "base", "step": 20, "tokens": 1400, "loss": None, "lr": 0.2, "mfu": 0.4},
    {"stage": "base", "step": 20, "sample": "To be"},
    {"stage": "base", "step": 30, "tokens": 2100, "loss": 4.0, "lr": 0.1, "mfu": 0.4},
    {"stage": "base", "step": 25, "val_bpb": 2.0, "val_loss": 4.4},
    {"stage": "sft", "step": 5, "tokens": 50, "loss": 3.0, "lr": 0.01, "grad_norm": 0.5},
    {"stage": "sft", "step": 10, "tokens": 100, "loss": 2.0, "lr": 0.02, "grad_norm": 0.25},
    {"stage": "sft", "step": 10, "val_bpb": 1.5, "val_loss": 2.5},
    {"stage": "evaluate", "step": 0, "score": 3.0},
]


def test_a_stage_starts_where_the_one_before_ended() -> None:
    base, sft = curves.curves(ROWS, "loss")
    assert (base.stage, sft.stage) == ("base", "sft")
    np.testing.assert_array_equal(base.x, [700, 2100])  # the row whose loss was not finite is gone
    np.testing.assert_array_equal(sft.x, [2150, 2200])
    np.testing.assert_array_equal(sft.y, [3.0, 2.0])


def test_an_evaluation_takes_its_place_between_the_training_rows() -> None:
    base, sft = curves.curves(ROWS, "val_bpb")
    np.testing.assert_allclose(base.x, [0, 1750])
    np.testing.assert_allclose(sft.x, [2200])


def test_a_figure_that_one_stage_lacks_still_stands_in_the_right_place() -> None:
    (sft,) = curves.curves(ROWS, "grad_norm")
    np.testing.assert_array_equal(sft.x, [2150, 2200])
    assert curves.curves(ROWS, "score") == []  # a stage without tokens has no place on the axis
    assert curves.stages(ROWS) == ["base", "sft"]


def test_smoothing_keeps_constants_and_slopes() -> None:
    np.testing.assert_allclose(curves.smooth(np.full(7, 3.25)), 3.25)
    line = np.arange(60.0)
    edge = curves.SMOOTHING_ROWS
    np.testing.assert_allclose(curves.smooth(line)[edge:-edge], line[edge:-edge])
    assert curves.smooth(np.array([5.0])) == pytest.approx([5.0])


def test_smoothing_quietens_noise() -> None:
    noise = np.random.default_rng(0).normal(size=500)
    assert curves.smooth(noise).std() < 0.45 * noise.std()


@pytest.mark.parametrize("theme", [style.LIGHT, style.DARK])
def test_the_picture_has_one_panel_per_figure_in_the_log(theme: style.Theme) -> None:
    figure = curves.picture(ROWS, theme, columns=2)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["Loss", "Held-out text", "Learning rate", "Gradient norm", "MFU"]
    assert figure.axes[0].get_title(loc="right") == "2.500 nats per token"
    assert figure.axes[0].get_legend() is not None


def test_more_stages_than_colours_start_over() -> None:
    rows = [
        {"stage": f"stage {n}", "step": step, "tokens": step * 10, "loss": 3.0 - step / 10}
        for n in range(6)
        for step in (1, 2, 3)
    ]
    (svg,) = curves.panel_svgs(rows)
    assert "var(--fourth)" in svg


def test_an_empty_log_gives_no_drawings() -> None:
    assert curves.panel_svgs([]) == []
    assert curves.panel_svgs([{"stage": "base", "step": 0, "val_bpb": 4.0}]) == []
    assert curves.picture([]).axes == []
