"""`groundup show positions`: the kinds as the models have them, and what follows for distances."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
import torch

from groundup.inspect import positions
from groundup.nn.alibi import alibi_slopes
from groundup.nn.config import PositionKind


def test_every_kind_is_shown(tmp_path: Path) -> None:
    state = torch.random.get_rng_state()
    kinds = positions.measure()
    assert torch.equal(torch.random.get_rng_state(), state)
    assert set(kinds) == set(get_args(PositionKind))
    text = positions.show(tmp_path / "positions.png")
    assert (tmp_path / "positions.png").read_bytes().startswith(b"\x89PNG")
    rows = {line.split()[0]: line for line in text.splitlines()[1 : 1 + len(kinds)]}
    assert set(rows) == set(kinds)
    assert {name for name, row in rows.items() if " read " in row} == {"alibi", "t5", "none"}
    assert "4,096" in rows["learned"] and "256" in rows["t5"]


def test_what_equal_tokens_weigh_depends_on_the_distance_in_all_but_learned_tables() -> None:
    kinds = positions.measure()
    assert [name for name, kind in kinds.items() if not kind.same_everywhere] == ["learned"]
    for kind in kinds.values():
        weights = kind.weights
        assert weights.shape == (positions.LENGTH,) * 2 and not weights.triu(1).any()
        torch.testing.assert_close(weights.diagonal(), torch.ones(positions.LENGTH))
    slope = alibi_slopes(positions.HEADS)[positions.HEAD]
    assert kinds["alibi"].weights[20, 15].item() == pytest.approx(torch.e ** (-5 * slope))
    rope = kinds["rope"].weights[-1].flip(0)
    assert rope[1] < 1 and rope[1:8].mean() > rope[8:20].mean() > rope[20:].mean()
    assert torch.equal(kinds["none"].weights, torch.ones(positions.LENGTH, positions.LENGTH).tril())
