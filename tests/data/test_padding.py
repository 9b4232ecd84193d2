"""Padding: what is real is marked, and batches by length hold every row once within their limit."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.data.padding import batches_by_length, pad


def test_rows_are_padded_on_the_right() -> None:
    ids, visible = pad([[5, 6, 7], [], [8]], filler=9)
    assert ids.tolist() == [[5, 6, 7], [9, 9, 9], [8, 9, 9]]
    assert visible.sum(1).tolist() == [3, 0, 1] and visible[2, 0]
    ids, visible = pad([np.array([5, 6, 7], dtype=np.uint32)], filler=0, multiple_of=4)
    assert ids.tolist() == [[5, 6, 7, 0]] and ids.dtype == np.int64
    assert pad([], filler=0)[0].shape == (0, 0)


@given(st.lists(st.integers(1, 50)), st.integers(1, 120))
@settings(deadline=None, max_examples=60, derandomize=True)
def test_batches_hold_every_row_once_within_the_limit(lengths: list[int], tokens: int) -> None:
    batches = batches_by_length(lengths, tokens)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[row] for row in batch) <= tokens
