"""The keyed permutation and the endless shuffled stream of rows."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.config import UserError
from groundup.data.order import RowOrder, permute, stream_key

property_test = settings(deadline=None, max_examples=60, derandomize=True)


@property_test
@given(size=st.integers(1, 5000), seed=st.integers(0, 2**63), epoch=st.integers(0, 2**40))
def test_permute_is_one_to_one(size: int, seed: int, epoch: int) -> None:
    there = permute(np.arange(size), size, stream_key(seed, epoch))
    assert np.array_equal(np.sort(there), np.arange(size))


def test_permute_handles_huge_sizes_and_mixed_ones() -> None:
    sizes = np.array([1, 2, 3, 10**12, 2**50 + 1])
    index = sizes - 1
    together = permute(index, sizes, stream_key(3, np.arange(5)))
    alone = [
        permute(index[i : i + 1], sizes[i : i + 1], stream_key(3, np.array([i])))[0]
        for i in range(5)
    ]
    assert together.tolist() == alone
    assert (together < sizes).all() and (together >= 0).all()


@pytest.mark.parametrize("size", [2, 3, 7, 11])
def test_permute_sends_an_index_everywhere_equally_often(size: int) -> None:
    keys = stream_key(5, np.arange(4000))
    for index in (0, size - 1):
        seen = np.bincount(permute(np.full(4000, index), size, keys), minlength=size)
        expected = 4000 / size
        chi_square = ((seen - expected) ** 2 / expected).sum()
        assert chi_square < size + 5 * np.sqrt(2 * size) + 4, seen


def test_permute_leaves_no_pattern_between_neighbours() -> None:
    there = permute(np.arange(20_011), 20_011, stream_key(1, 2)).astype(float)
    for lag in (1, 2, 141, 142):  # 141 is the side of the grid
        assert abs(np.corrcoef(there[:-lag], there[lag:])[0, 1]) < 0.03


@property_test
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    seed=st.integers(0, 100),
    weights=st.lists(st.floats(0.1, 3.0), min_size=4, max_size=4),
)
def test_a_source_is_used_up_before_a_row_repeats(
    sizes: list[int], seed: int, weights: list[float]
) -> None:
    order = RowOrder(sizes, weights[: len(sizes)], seed)
    place = order.locate(np.arange(5 * order.rows_per_pass))
    for source, size in enumerate(sizes):
        mine = place.source == source
        assert mine.sum() == 5 * order.quota[source]
        seen = Counter(zip(place.epoch[mine].tolist(), place.row[mine].tolist(), strict=True))
        assert max(seen.values()) == 1
        epochs, left = divmod(int(mine.sum()), size)
        counts = np.bincount(place.epoch[mine], minlength=epochs)
        assert counts[:epochs].tolist() == [size] * epochs
        assert counts[epochs:].sum() == left


def test_weights_say_how_often_a_pass_goes_round_each_source() -> None:
    order = RowOrder([30, 50, 40], [2.0, 1.0, 0.5], seed=9)
    assert order.rows_per_pass == 60 + 50 + 20
    for number in range(3):
        place = order.locate(np.arange(130) + 130 * number)
        assert np.bincount(place.source).tolist() == [60, 50, 20]
        twice = Counter(place.row[place.source == 0].tolist())
        assert set(twice.values()) == {2}
    halves = [order.locate(np.arange(130) + 130 * number) for number in range(2)]
    rows = np.concatenate([half.row[half.source == 2] for half in halves])
    assert sorted(rows.tolist()) == list(range(40))


def test_the_order_depends_on_the_seed_and_the_pass() -> None:
    def rows(seed: int, number: int) -> list[int]:
        return RowOrder([500], [1.0], seed).locate(np.arange(500) + 500 * number).row.tolist()

    orders = [rows(seed, number) for seed in (0, 1, 2**40) for number in (0, 1)]
    for i, first in enumerate(orders):
        for second in orders[:i]:
            agreements = sum(a == b for a, b in zip(first, second, strict=True))
            assert agreements < 10  # chance gives 1


def test_the_order_never_changes_between_versions() -> None:
    order = RowOrder([13, 29], [1.0, 0.5], seed=1234)
    place = order.locate(np.arange(8) + 10**9)
    assert place.source.tolist() == [1, 1, 0, 0, 1, 1, 1, 1]
    assert place.row.tolist() == [6, 25, 11, 3, 16, 24, 11, 10]


@pytest.mark.parametrize("weights", [[1.0], [1.0, 0.0], [1.0, -2.0], [1.0, float("nan")]])
def test_bad_weights_are_refused(weights: list[float]) -> None:
    with pytest.raises(UserError, match=r"[Ww]eights"):
        RowOrder([3, 4], weights, seed=0)
