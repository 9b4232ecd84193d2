"""`groundup show masks`: the table tells the real rules' shares and kernels."""

from __future__ import annotations

from pathlib import Path

import torch

from groundup.inspect import masks
from groundup.nn.masks import density


def test_the_table_is_of_the_real_rules(tmp_path: Path) -> None:
    text = masks.show(tmp_path / "masks.png")
    assert (tmp_path / "masks.png").read_bytes().startswith(b"\x89PNG")
    rules = masks.rules(masks.LENGTH)
    assert list(rules) == list(masks.WRITTEN)
    for line, (name, rule) in zip(text.splitlines()[1:], rules.items(), strict=False):
        assert line.startswith(masks.WRITTEN[name])
        assert f"{density(rule, masks.LENGTH, masks.LENGTH):.1%}" in line
    kernels = {line.split()[-1] for line in text.splitlines()[1:15]}
    assert kernels == {"mask", "is_causal", "blocks"}


def test_alibi_weighs_by_distance() -> None:
    weights = masks._alibi()
    torch.testing.assert_close(weights.diagonal(), torch.ones(masks.LENGTH))
    assert not weights.triu(1).any()
    assert (weights[-1].diff() > 0).all()
