"""`groundup show attention`: what is measured computes the same, and memory grows as it should."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from groundup.inspect import attention
from groundup.nn.kernels import naive_attention
from groundup.nn.masks import Causal, Window, dense


@pytest.mark.parametrize("length", [24, 37, 7, 1])
def test_all_compute_the_same_but_the_windows_which_compute_theirs(length, monkeypatch) -> None:
    monkeypatch.setattr(attention, "WINDOW", 8)
    inputs = torch.randn(3, 2, 3, length, 10).unbind()
    for method in attention.METHODS:
        rule = Causal() & Window(8) if "window" in method.name else Causal()
        expected, _ = naive_attention(*inputs, dense(rule, length, length, attention.CPU))
        found = method.run(*inputs, method.mask(length))
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5, msg=method.name)


def test_written_out_it_grows_as_the_square_and_in_tiles_or_blocks_with_the_length(
    monkeypatch,
) -> None:
    monkeypatch.setattr(attention, "WINDOW", 16)
    monkeypatch.setattr(attention, "TILE", 32)
    for training in (False, True):
        costs = attention.measure(training, (64, 128, 256, 512), repeats=1)
        powers = {name: attention.slope(found, "megabytes") for name, found in costs.items()}
        assert powers["as written"] > 1.8
        blocks, mask = costs["window in blocks"][512], costs["window as a mask"][512]
        assert blocks.megabytes < mask.megabytes
        assert powers["in tiles"] < 1.2 and powers["window in blocks"] < 1.2
        assert 4 * costs["torch's kernel"][512].megabytes < costs["as written"][512].megabytes


def test_the_picture_and_the_table(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(attention, "LENGTHS", (16, 32, 64, 96))
    monkeypatch.setattr(attention, "LONGEST_SLOW", 32)
    text = attention.show(tmp_path / "attention.png")
    assert (tmp_path / "attention.png").read_bytes().startswith(b"\x89PNG")
    for method in attention.METHODS:
        assert text.count(f"\n{method.name} ") == 2


def test_labels_are_moved_apart_in_order() -> None:
    placed = attention._apart([0.5, 0.93, 0.52, 1.2], gap=0.1)
    assert placed == pytest.approx([0.42, 0.9, 0.52, 1.0])
