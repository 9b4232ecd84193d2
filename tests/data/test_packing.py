"""Packing keeps everything, overfills nothing, cuts little and wastes little."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.data.packing import Span, cut_units, pack

property_test = settings(deadline=None, max_examples=150, derandomize=True)


def empty_share(rows: list[list[Span]], capacity: int) -> float:
    filled = sum(span.stop - span.start for row in rows for span in row)
    return 1 - filled / (len(rows) * capacity)


@property_test
@given(capacity=st.integers(1, 60), data=st.data())
def test_every_position_is_in_one_row_and_no_row_overflows(
    capacity: int, data: st.DataObject
) -> None:
    units = st.lists(st.integers(1, capacity), min_size=1, max_size=9)
    sequences = data.draw(st.lists(units, max_size=25))
    rows = pack(sequences, capacity)
    spans = sorted(span for row in rows for span in row)
    for number, sequence in enumerate(sequences):
        mine = [span for span in spans if span.sequence == number]
        assert [position for span in mine for position in range(span.start, span.stop)] == list(
            range(sum(sequence))
        )
        if sum(sequence) <= capacity:
            assert len(mine) == 1
    for row in rows:
        assert 0 < sum(span.stop - span.start for span in row) <= capacity
        assert all(span.stop > span.start for span in row)


@property_test
@given(capacity=st.integers(1, 25), data=st.data())
def test_short_sequences_are_packed_first_fit_decreasing(
    capacity: int, data: st.DataObject
) -> None:
    lengths = data.draw(st.lists(st.integers(1, capacity), max_size=40))
    room: list[int] = []
    for length in sorted(lengths, reverse=True):  # the textbook algorithm, O(n²)
        row = next((row for row in range(len(room)) if room[row] >= length), len(room))
        room[row:] = room[row:] or [capacity]
        room[row] -= length
    rows = pack([[length] for length in lengths], capacity)
    filled = [sum(span.stop - span.start for span in row) for row in rows]
    assert sorted(capacity - size for size in filled) == sorted(room)


@pytest.mark.parametrize("capacity", [255, 512, 2049])
@pytest.mark.parametrize("typical", [0.1, 0.5, 3.0])
def test_under_one_percent_is_wasted_on_realistic_lengths(capacity: int, typical: float) -> None:
    generator = np.random.default_rng(7)
    sequences = []
    for size in generator.lognormal(np.log(capacity * typical), 1.0, size=2000).astype(int) + 1:
        borders = np.cumsum(generator.lognormal(np.log(30), 0.8, size=size // 10 + 1).astype(int))
        sequences.append(cut_units(int(size), capacity, borders.tolist(), []))
    rows = pack(sequences, capacity)
    assert empty_share(rows, capacity) < 0.01
    # Hardly any cut is inside a unit.
    borders_of = [set(np.cumsum(units).tolist()) for units in sequences]
    inside = [span for row in rows for span in row if span.stop not in borders_of[span.sequence]]
    assert len(inside) < 0.25 * len(rows)


def test_the_remainder_of_a_long_sequence_is_short_enough_to_share_a_row() -> None:
    rows = pack([[6, 6, 6], [4], [4]], 10)
    assert rows == [
        [Span(0, 0, 6), Span(2, 0, 4)],
        [Span(0, 6, 12), Span(1, 0, 4)],
        [Span(0, 12, 18)],
    ]


@property_test
@given(
    size=st.integers(1, 80),
    limit=st.integers(1, 30),
    coarse=st.sets(st.integers(0, 80)),
    fine=st.sets(st.integers(0, 80)),
)
def test_units_end_at_borders_wherever_they_can(
    size: int, limit: int, coarse: set[int], fine: set[int]
) -> None:
    units = cut_units(size, limit, sorted(coarse), sorted(fine))
    assert all(0 < unit <= limit for unit in units)
    ends = np.cumsum(units).tolist()
    assert ends[-1] == size
    assert {border for border in coarse if 0 < border < size} <= set(ends)
    for start, end in zip([0, *ends], ends, strict=False):
        if end not in coarse | {size}:  # an extra cut is needed, and as late as it can be
            assert min(b for b in coarse | {size} if b > start) - start > limit
            reach = {b for b in fine if start < b <= start + limit}
            assert end == max(reach, default=start + limit)
