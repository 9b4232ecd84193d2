"""Padding: rows of many lengths as one rectangle, and which of it is real."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def pad(
    rows: Sequence[Sequence[int]] | Sequence[np.ndarray], filler: int, multiple_of: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """N rows -> (N, T) int64 ids and (N, T) bool, True where they are real; padded on the right.

    T is the longest row's length, up to a multiple of `multiple_of`: fewer distinct shapes suit
    compiled models.
    """
    longest = max((len(row) for row in rows), default=0)
    length = -(-longest // multiple_of) * multiple_of
    ids = np.full((len(rows), length), filler, dtype=np.int64)
    for padded, row in zip(ids, rows, strict=True):
        padded[: len(row)] = row
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    return ids, np.arange(length) < lengths[:, None]


def batches_by_length(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Which rows to read together, longest first: each batch padded is at most `tokens` numbers.

    Rows of like length share a batch, so that little of it is padding. A row longer than `tokens`
    has a batch of its own.
    """
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    batches: list[list[int]] = []
    for row in order:
        fits = batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= tokens
        if fits:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches
