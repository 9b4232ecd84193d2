"""Batches from a text held in memory: windows of it, windows with holes, and streams read on.

What is hidden in a window is a pure function of (seed, step, row), as the window itself is.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial

import numpy as np

from groundup.config import require
from groundup.data.batch import IGNORE, Batch
from groundup.data.corruption import corrupt_spans, mask_tokens
from groundup.data.loader import Loader
from groundup.data.padding import pad


class TokenStream:
    """Documents as one row of ids, `opening_id` before each; what a `PretrainLoader` reads from."""

    def __init__(self, documents: Iterable[Sequence[int]], opening_id: int) -> None:
        parts = [np.array([opening_id, *ids], dtype=np.int64) for ids in documents]
        self.ids = np.concatenate(parts or [np.empty(0, np.int64)])
        self.bos_id = opening_id

    @property
    def num_tokens(self) -> int:
        return len(self.ids)

    def tokens(self, start: int, stop: int) -> np.ndarray:
        """(stop - start,) ids."""
        return self.ids[start:stop]


class _ChangedLoader:
    """Another loader's windows, of each of which `change` makes a row of inputs and of targets.

    Windows are equally long, and so are what becomes of them and what is asked.
    """

    def __init__(
        self,
        windows: Loader,
        seed: int,
        change: Callable[[np.ndarray, np.random.Generator], tuple[np.ndarray, np.ndarray]],
        filler: int,
    ) -> None:
        self.windows, self.seed, self.change, self.filler = windows, seed, change, filler
        self.rows_per_step, self.length = windows.rows_per_step, windows.length

    @property
    def steps_per_epoch(self) -> float:
        return self.windows.steps_per_epoch

    def step(self, index: int) -> Batch:
        return self.rows(index, 0, self.rows_per_step)

    def rows(self, index: int, start: int, stop: int) -> Batch:
        pairs = [
            self.change(ids.numpy(), np.random.default_rng((self.seed, index, row)))
            for row, ids in enumerate(self.windows.rows(index, start, stop).inputs, start)
        ]
        sources, targets = zip(*pairs, strict=True)
        inputs, _ = pad(sources, self.filler)
        wanted, _ = pad(targets, IGNORE)
        return Batch.from_numpy(inputs, wanted)


class MaskedLoader(_ChangedLoader):
    """Windows in which some tokens are hidden, and which those were: BERT's pretraining."""

    def __init__(
        self, windows: Loader, seed: int, mask_id: int, vocab_size: int, keep: Collection[int]
    ) -> None:
        hide = partial(mask_tokens, mask_id=mask_id, vocab_size=vocab_size, keep=tuple(keep))
        super().__init__(windows, seed, hide, filler=mask_id)


class SpanLoader(_ChangedLoader):
    """Windows with some spans cut out, and what stood there: T5's pretraining."""

    def __init__(
        self, windows: Loader, seed: int, sentinels: Sequence[int], end_id: int, filler: int
    ) -> None:
        cut = partial(corrupt_spans, sentinels=tuple(sentinels), end_id=end_id)
        super().__init__(windows, seed, cut, filler)


class StreamLoader:
    """Rows that read on: row r of a step continues row r of the step before.

    The text is a ring, on which the rows start equally far apart.
    """

    def __init__(self, stream: TokenStream, length: int, rows_per_step: int) -> None:
        require(length > 0, f"The window length should be positive, not {length}.")
        require(stream.num_tokens > 0, "Training needs a text, but there are no tokens.")
        self.stream, self.length, self.rows_per_step = stream, length, rows_per_step

    @property
    def steps_per_epoch(self) -> float:
        return self.stream.num_tokens / (self.rows_per_step * self.length)

    def step(self, index: int) -> Batch:
        return self.rows(index, 0, self.rows_per_step)

    def rows(self, index: int, start: int, stop: int) -> Batch:
        size = self.stream.num_tokens
        begins = np.arange(start, stop) * size // self.rows_per_step + index * self.length
        block = self.stream.ids[(begins[:, None] + np.arange(self.length + 1)) % size]
        return Batch.from_numpy(block[:, :-1].copy(), block[:, 1:].copy())
