"""Batches for pretraining: fixed windows over token streams, in an order set by (seed, step).

The tokens of a source form a ring. Each time round starts at another random offset and cuts the
ring into windows, so that window borders fall elsewhere each time and every token, whatever the
window length, is predicted exactly once.

`<|bos|>` is predicted like any other token. It is the only mark between documents, so predicting it
means "this text ends here", and a model that never learned it could never stop. It stands for no
bytes of text: bits per byte is measured over whole documents, where no `<|bos|>` is scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from groundup.config import require
from groundup.data.batch import IGNORE, Batch
from groundup.data.order import RowOrder, random_below


class Loader(Protocol):
    """Gives the batch of any optimizer step, at any time, in any order.

    The batch is a pure function of the data, the seed and the step: ranks and micro-batches are
    rows of it, so their number changes nothing, and resuming at a step needs no saved state.
    """

    rows_per_step: int
    length: int

    def step(self, index: int) -> Batch:
        """The whole (rows_per_step, length) batch of optimizer step `index`, over all ranks."""
        ...

    def rows(self, index: int, start: int, stop: int) -> Batch:
        """Rows start:stop of `step(index)`, without the cost of the others."""
        ...

    @property
    def steps_per_epoch(self) -> float:
        """Steps until every source was seen as often as its weight says."""
        ...


class TokenSource(Protocol):
    """A text as ids, one document after the other: token shards, or a text in memory."""

    bos_id: int

    @property
    def num_tokens(self) -> int: ...

    def tokens(self, start: int, stop: int) -> np.ndarray: ...


class PretrainLoader:
    """Windows of `length` tokens from weighted sources.

    A weight says how many times an epoch goes round the source: 0.5 sees half of it, then the other
    half in the next epoch. With `documents` a batch carries document numbers, for attention that
    stays inside documents; a window that begins inside a document starts without its past.
    """

    def __init__(
        self,
        shards: Sequence[TokenSource],
        weights: Sequence[float],
        length: int,
        rows_per_step: int,
        seed: int,
        documents: bool = False,
    ) -> None:
        require(len(shards) > 0, "Pretraining needs at least one source of tokens.")
        require(length > 0, f"The window length should be positive, not {length}.")
        require(rows_per_step > 0, f"A step should have at least one row, not {rows_per_step}.")
        self.shards = list(shards)
        self.length = length
        self.rows_per_step = rows_per_step
        self.seed = seed
        self.documents = documents
        self.windows = [-(-source.num_tokens // length) for source in shards]
        self.order = RowOrder(self.windows, weights, seed)

    @property
    def steps_per_epoch(self) -> float:
        return self.order.rows_per_pass / self.rows_per_step

    def step(self, index: int) -> Batch:
        return self.rows(index, 0, self.rows_per_step)

    def rows(self, index: int, start: int, stop: int) -> Batch:
        slots = row_slots(index, start, stop, self.rows_per_step)
        place = self.order.locate(slots)
        sizes = np.array([source.num_tokens for source in self.shards])[place.source]
        offsets = random_below(sizes, self.seed, place.source, place.epoch)
        block = np.empty((stop - start, self.length + 1), dtype=np.int64)
        unscored = np.empty(stop - start, dtype=np.int64)
        for row, (source, window, offset) in enumerate(
            zip(place.source.tolist(), place.row.tolist(), offsets.tolist(), strict=True)
        ):
            begin, unscored[row] = self._window(source, window)
            _read_ring(self.shards[source], offset + begin, block[row])
        return make_batch(block, unscored, self.shards[0].bos_id if self.documents else None)

    def _window(self, source: int, window: int) -> tuple[int, int]:
        """Where a window begins on the ring, and how many of its first positions are unscored.

        What is left over for the last window is shorter than `length`. It begins early to be full:
        the tokens of the window before it serve again, as context only.
        """
        begin = window * self.length
        early = max(0, begin + self.length - self.shards[source].num_tokens)
        return begin - early, early


def row_slots(index: int, start: int, stop: int, rows_per_step: int) -> np.ndarray:
    """(stop - start,) places in the stream of rows that a share of step `index` takes."""
    assert index >= 0 and 0 <= start <= stop <= rows_per_step, (index, start, stop, rows_per_step)
    return np.arange(start, stop, dtype=np.int64) + index * rows_per_step


def make_batch(block: np.ndarray, unscored: np.ndarray, bos_id: int | None) -> Batch:
    """(B, T + 1) tokens -> Batch whose first `unscored` (B,) targets of each row are IGNORE.

    With a `bos_id`, the batch has document numbers.
    """
    inputs, targets = block[:, :-1].copy(), block[:, 1:].copy()
    for row in np.flatnonzero(unscored):
        targets[row, : unscored[row]] = IGNORE
    numbers = None if bos_id is None else document_numbers(inputs, bos_id)
    return Batch.from_numpy(inputs, targets, numbers)


def document_numbers(inputs: np.ndarray, bos_id: int) -> np.ndarray:
    """(B, T) ids -> (B, T) int32: how many documents have begun in the row up to each position."""
    return np.cumsum(inputs == bos_id, axis=1, dtype=np.int32)


def _read_ring(shards: TokenSource, begin: int, out: np.ndarray) -> None:
    """Fill `out` with the tokens from `begin` on, going round as often as it takes."""
    filled = 0
    while filled < len(out):
        position = (begin + filled) % shards.num_tokens
        part = shards.tokens(position, min(position + len(out) - filled, shards.num_tokens))
        out[filled : filled + len(part)] = part
        filled += len(part)
