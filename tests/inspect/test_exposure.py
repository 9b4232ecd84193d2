"""Exposure bias: how the two ways of predicting are scored, and what is mixed into the truth."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from groundup.data.batch import IGNORE
from groundup.data.number_words import END, START, examples
from groundup.inspect import exposure
from groundup.inspect.exposure import METHODS, WORDS, build, compare, measure, mix_in_own, write

SHORT = [dataclasses.replace(method, steps=3) for method in METHODS]


def test_shares_are_counted_by_position_and_after_the_first_mistake():
    targets = torch.tensor([[5, 6, 7, END], [5, 6, END, IGNORE]])
    forced = torch.tensor([[5, 9, 7, END], [5, 6, END, 4]])
    free = torch.tensor([[5, 9, 9, END], [5, 6, END, 4]])
    found = compare(forced, free, targets)
    assert found.forced == pytest.approx((1, 0.5, 1, 1))
    assert found.free == pytest.approx((1, 0.5, 0.5, 1))
    assert found.forced_mean == pytest.approx(6 / 7) and found.gap == pytest.approx(1 / 7)
    assert found.free_after_mistake == pytest.approx(1 / 2)  # of 7 and END, END is right
    assert found.names == 0.5


def test_own_pieces_take_the_place_of_true_ones_and_the_first_stays():
    read = torch.tensor([[START, 11, 12, 13]]).expand(500, 4)
    torch.manual_seed(0)
    mixed = mix_in_own(lambda ids: torch.eye(50)[ids + 20], read, 0.25)
    # What the model writes after a piece stands one place further on.
    assert set(mixed[:, 0].tolist()) == {START}
    assert set(mixed[:, 2].tolist()) == {12, 31}
    assert (mixed[:, 1:] != read[:, 1:]).float().mean().item() == pytest.approx(0.25, abs=0.04)
    assert torch.equal(mix_in_own(lambda ids: torch.eye(50)[ids], read, 0.0), read)


def test_the_first_mistake_is_the_same_both_ways():
    rows = [*examples("easy", ["en"], "test")]
    source, visible, targets = exposure.tensors(rows)
    torch.manual_seed(1)
    model = build().eval()
    forced = model(source, model.shift_right(targets), visible).argmax(-1)
    found = compare(forced, write(model, source, visible, targets.shape[1]), targets)
    right = ((forced == targets) | (targets == IGNORE)).all(1)
    assert found.names == pytest.approx(right.float().mean().item())
    assert found.forced[0] == found.free[0]


def test_measuring_repeats_itself_and_leaves_the_random_numbers_alone():
    before = torch.get_rng_state()
    assert measure(SHORT[1], 3, tested=40) == measure(SHORT[1], 3, tested=40)
    assert torch.equal(torch.get_rng_state(), before)
    assert SHORT[0].work == 9 and SHORT[1].work == 12


def test_the_table_counts_seeds_and_the_picture_has_every_one(tmp_path, monkeypatch):
    monkeypatch.setattr(exposure, "METHODS", tuple(SHORT))
    monkeypatch.setattr(exposure, "SEEDS", (0, 1))
    text = exposure.show(tmp_path / "exposure.png")
    assert "2 seeds" in text.splitlines()[0]
    assert [line[:18].strip() for line in text.splitlines()[2:5]] == [m.name for m in METHODS]
    assert "of 2 seeds" in text and (tmp_path / "exposure.png").stat().st_size > 5000
    assert WORDS.text([*WORDS.target(next(examples("easy", ["en"], "train"))), END]) == "zero"
