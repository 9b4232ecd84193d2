"""Gradients by norm placement: what the picture and the table are made of."""

from __future__ import annotations

import pytest
import torch

from groundup.inspect import gradients
from groundup.inspect.gradients import PLACEMENTS, measure, picture, table, text_like


@pytest.fixture(scope="module")
def measurements():
    return [measure(placement, layers=6, steps=3) for placement in PLACEMENTS]


def test_every_layer_and_step_is_measured(measurements):
    for one in measurements:
        assert len(one.norms) == 6 and min(one.norms) > 0
        assert len(one.losses) == 4 and one.losses[-1] < one.losses[0]


def test_deepnorm_pulls_evenly_and_post_norm_does_not(measurements):
    by_name = {one.placement: one for one in measurements}
    assert by_name["deepnorm"].ratio == pytest.approx(1, abs=0.25)
    assert by_name["post"].ratio < 0.5


def test_measuring_repeats_itself_and_leaves_the_random_numbers_alone(measurements):
    before = torch.get_rng_state()
    assert measure("post", layers=6, steps=3) == measurements[1]
    assert torch.equal(torch.get_rng_state(), before)


def test_the_table_and_the_picture(measurements, monkeypatch, tmp_path):
    made = {one.placement: one for one in measurements}
    monkeypatch.setattr(gradients, "measure", made.__getitem__)
    text = gradients.show(tmp_path / "gradients.png")
    assert text == table(measurements)
    lines = text.splitlines()
    assert [line.split()[0] for line in lines] == ["norms", *PLACEMENTS]
    assert "last/first" in lines[0] and lines[0].endswith("after 3 steps")
    assert len({len(line) for line in lines}) == 1
    assert (tmp_path / "gradients.png").stat().st_size > 5000
    left, right = picture(measurements).axes
    assert len(left.lines) == len(right.lines) == len(PLACEMENTS)


def test_ids_look_like_text():
    ids = text_like(50, 40, seed=3)
    assert ids.shape == (50, 40) and ids.dtype == torch.int64
    assert (ids[:, 1:] == (7 * ids[:, :-1] + 1) % 256).float().mean() == pytest.approx(
        0.5, abs=0.05
    )
    assert (ids == 0).float().mean() > 0.05
    assert torch.equal(ids, text_like(50, 40, seed=3))
