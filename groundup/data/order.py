"""The order in which rows are seen: a pure function of (seed, slot), computed in O(1) per row.

Nothing is shuffled and no state is kept. A keyed permutation says directly which row stands at any
place, so a run can start at any step, and every rank and every micro-batch size sees one order.
It uses integer arithmetic only, hence does not change with the version of a random library.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from groundup.config import UserError

Integers = np.ndarray
"""(N,) int64 or uint64."""


class Place(NamedTuple):
    """Which rows to take: source number, how often that source was used up before, row in it."""

    source: Integers
    epoch: Integers
    row: Integers


class RowOrder:
    """An endless shuffled stream of rows from sources of `sizes` rows each.

    The stream is made of passes. A pass takes `weight * size` rows of each source: 1 is every row
    once, 2 twice, 0.5 one half, with the other half following in the next pass. Whatever the
    weight, a source is used up completely before any row of it is repeated.
    """

    def __init__(self, sizes: Sequence[int], weights: Sequence[float], seed: int) -> None:
        if len(weights) != len(sizes):
            raise UserError(f"{len(sizes)} sources need {len(sizes)} weights, not {len(weights)}.")
        if not all(0 < weight < float("inf") for weight in weights):
            raise UserError(f"Weights must be positive numbers, not {list(weights)}.")
        pairs = zip(sizes, weights, strict=True)
        quota = [max(1, round(weight * size)) for size, weight in pairs]
        self.sizes = np.asarray(sizes, dtype=np.int64)
        self.quota = np.asarray(quota, dtype=np.int64)
        self.ends = np.cumsum(self.quota)
        self.rows_per_pass = int(self.ends[-1])
        self.seed = seed

    def locate(self, slots: Integers) -> Place:
        """(N,) places in the stream -> what stands there."""
        passes, place = np.divmod(slots.astype(np.int64), self.rows_per_pass)
        place = permute(place, self.rows_per_pass, stream_key(self.seed, 0, passes))
        source = np.searchsorted(self.ends, place, side="right")
        # `used` counts the rows this source has given since step 0, in the order of its passes.
        used = passes * self.quota[source] + place - (self.ends - self.quota)[source]
        epoch, row = np.divmod(used, self.sizes[source])
        row = permute(row, self.sizes[source], stream_key(self.seed, 1 + source, epoch))
        return Place(source, epoch, row)


def permute(index: Integers, size: Integers | int, key: Integers) -> Integers:
    """(N,) -> (N,): where keyed pseudo-random permutations of range(size) send `index`.

    A Feistel network over a grid of about sqrt(size) x sqrt(size): each round shifts one coordinate
    by a hash of the other, which can be undone, so the whole is one-to-one. The grid may have a few
    cells too many; a value that lands on one walks on until it is inside again ("cycle walking";
    Black and Rogaway, Ciphers with Arbitrary Finite Domains, 2002).
    """
    value, size, key = np.broadcast_arrays(index, size, key)
    value = value.astype(np.uint64)
    height = np.ceil(np.sqrt(size)).astype(np.uint64)
    width = -(-size // height.astype(np.int64)).astype(np.uint64)
    outside = np.arange(value.size)
    while outside.size:
        h, w, k = height[outside], width[outside], key[outside]
        y, x = np.divmod(value[outside], w)
        for turn in range(4):
            y = (y + _mix(k + x, turn) % h) % h
            x = (x + _mix(k + y, turn + 4) % w) % w
        value[outside] = y * w + x
        outside = outside[value[outside] >= size[outside].astype(np.uint64)]
    return value.astype(np.int64)


def random_below(limit: Integers, seed: int, source: Integers, epoch: Integers) -> Integers:
    """(N,) -> (N,): a pseudo-random number in range(limit) for each epoch of each source."""
    return (_mix(stream_key(seed, 1 + source, epoch), 8) % limit.astype(np.uint64)).astype(np.int64)


def stream_key(seed: int, *parts: Integers | int) -> Integers:
    """A 64-bit key for each combination of the seed and the parts."""
    key = np.array([seed & (2**64 - 1)], dtype=np.uint64)
    for part in parts:
        key = _mix(key, 0) + np.atleast_1d(np.asarray(part)).astype(np.uint64)
    return _mix(key, 0)


def _mix(value: Integers, salt: int) -> Integers:
    """The splitmix64 hash (Steele, Lea and Flood 2014); uint64 arithmetic wraps around."""
    value = value + np.uint64(0x9E3779B97F4A7C15 * (salt + 1) & (2**64 - 1))
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
