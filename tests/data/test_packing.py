"""Packing keeps everything, overfills nothing and wastes little."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.data.packing import pack, split_points

property_test = settings(deadline=None, max_examples=150, derandomize=True)


@property_test
@given(capacity=st.integers(1, 60), data=st.data())
def test_every_sequence_is_in_one_row_and_no_row_overflows(
    capacity: int, data: st.DataObject
) -> None:
    lengths = data.draw(st.lists(st.integers(1, capacity), max_size=60))
    rows = pack(lengths, capacity)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    filled = [sum(lengths[index] for index in row) for row in rows]
    assert all(0 < total <= capacity for total in filled)
    # Best fit never opens a row while another has room, so any two rows together overflow one.
    assert sum(total * 2 <= capacity for total in filled) <= 1


@property_test
@given(capacity=st.integers(1, 25), data=st.data())
def test_rows_are_those_of_best_fit_decreasing(capacity: int, data: st.DataObject) -> None:
    lengths = data.draw(st.lists(st.integers(1, capacity), max_size=40))
    room: list[int] = []
    for length in sorted(lengths, reverse=True):  # the textbook algorithm, O(n²)
        fitting = [row for row in range(len(room)) if room[row] >= length]
        if fitting:
            room[min(fitting, key=lambda row: room[row])] -= length
        else:
            room.append(capacity - length)
    rows = pack(lengths, capacity)
    assert sorted(capacity - sum(lengths[i] for i in row) for row in rows) == sorted(room)


@pytest.mark.parametrize("capacity", [255, 512, 2049])
def test_under_one_percent_is_wasted_on_realistic_lengths(capacity: int) -> None:
    generator = np.random.default_rng(7)
    lengths = generator.lognormal(np.log(capacity / 6), 0.9, size=5000).astype(int) + 1
    lengths = np.minimum(lengths, capacity)
    rows = pack(lengths, capacity)
    assert lengths.sum() / (len(rows) * capacity) > 0.99


@property_test
@given(
    size=st.integers(0, 80),
    limit=st.integers(1, 30),
    coarse=st.sets(st.integers(0, 80)),
    fine=st.sets(st.integers(0, 80)),
)
def test_split_pieces_are_consecutive_and_prefer_coarse_borders(
    size: int, limit: int, coarse: set[int], fine: set[int]
) -> None:
    borders = [sorted(coarse), sorted(fine)]
    pieces = split_points(size, limit, borders)
    assert [position for start, stop in pieces for position in range(start, stop)] == list(
        range(size)
    )
    for start, stop in pieces:
        assert 0 < stop - start <= limit
        reach = range(start + 1, start + limit + 1)
        if stop < size:
            wanted = [max(set(reach) & border, default=0) for border in (coarse, fine)]
            assert stop == (wanted[0] or wanted[1] or start + limit)
