"""Batches of examples: rows of many lengths, those of like length together, padded.

The order is a pure function of (seed, step). The endless shuffled stream of rows is cut into pools
of some steps; inside a pool rows are sorted by length and dealt out, and its steps shuffled.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from groundup.config import require
from groundup.data.batch import IGNORE, Batch
from groundup.data.images import normalized
from groundup.data.order import RowOrder
from groundup.data.padding import pad

Row = tuple[np.ndarray, np.ndarray]
"""(T,) ids to read and (any,) ids to predict."""
POOL_STEPS = 16


class RaggedLoader:
    """Rows of ids and targets; inputs are padded with `filler`, targets with IGNORE.

    Images, where there are some, go with the rows: (N, channels, height, width) uint8.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        rows_per_step: int,
        seed: int,
        filler: int,
        images: np.ndarray | None = None,
    ) -> None:
        require(len(rows) > 0, "Training needs at least one example.")
        require(rows_per_step > 0, f"A step should have at least one row, not {rows_per_step}.")
        self.examples, self.filler, self.images = rows, filler, images
        self.rows_per_step, self.seed = rows_per_step, seed
        self.length = max(1, *(len(inputs) for inputs, _ in rows))
        self.lengths = np.array([(len(inputs), len(targets)) for inputs, targets in rows])
        self.order = RowOrder([len(rows)], [1.0], seed)
        self._pool = lru_cache(maxsize=2)(self._sorted_pool)

    @property
    def steps_per_epoch(self) -> float:
        return len(self.examples) / self.rows_per_step

    def step(self, index: int) -> Batch:
        return self.batch(self._pool(index // POOL_STEPS)[index % POOL_STEPS])

    def rows(self, index: int, start: int, stop: int) -> Batch:
        return self.step(index).rows(start, stop)

    def batch(self, chosen: np.ndarray) -> Batch:
        """Some of the examples, by number, in the given order."""
        inputs, _ = pad([self.examples[i][0] for i in chosen], self.filler)
        targets, _ = pad([self.examples[i][1] for i in chosen], IGNORE)
        images = None if self.images is None else normalized(self.images[chosen])
        return Batch.from_numpy(inputs, targets, images=images)

    def _sorted_pool(self, number: int) -> np.ndarray:
        """(POOL_STEPS, rows_per_step): the rows of each of the pool's steps."""
        size = POOL_STEPS * self.rows_per_step
        slots = np.arange(number * size, (number + 1) * size, dtype=np.int64)
        chosen = self.order.locate(slots).row
        by_length = np.lexsort((self.lengths[chosen, 1], self.lengths[chosen, 0]))
        steps = chosen[by_length].reshape(POOL_STEPS, self.rows_per_step)
        return np.random.default_rng((self.seed, number)).permutation(steps)


class ImageLoader:
    """Images and the class of each; as many pixels to each side as `shift` they may be moved.

    A batch's inputs are the images, (B, channels, height, width) from -1 to 1, its targets (B, 1).
    """

    length = 1

    def __init__(
        self, images: np.ndarray, labels: np.ndarray, rows_per_step: int, seed: int, shift: int = 0
    ) -> None:
        require(len(images) > 0, "Training needs at least one image.")
        self.images, self.labels, self.shift = images, labels, shift
        self.rows_per_step, self.seed = rows_per_step, seed
        self.order = RowOrder([len(images)], [1.0], seed)

    @property
    def steps_per_epoch(self) -> float:
        return len(self.images) / self.rows_per_step

    def step(self, index: int) -> Batch:
        slots = np.arange(self.rows_per_step, dtype=np.int64) + index * self.rows_per_step
        chosen = self.order.locate(slots).row
        images = self.images[chosen]
        if self.shift:
            images = shifted(images, self.shift, np.random.default_rng((self.seed, index)))
        return Batch.from_numpy(normalized(images), self.labels[chosen][:, None])

    def rows(self, index: int, start: int, stop: int) -> Batch:
        return self.step(index).rows(start, stop)


def shifted(images: np.ndarray, most: int, generator: np.random.Generator) -> np.ndarray:
    """(N, channels, height, width) -> the same, each image moved by up to `most` pixels.

    What it is moved away from is filled with its nearest pixels.
    """
    height, width = images.shape[-2:]
    padded = np.pad(images, ((0, 0), (0, 0), (most, most), (most, most)), mode="edge")
    corners = generator.integers(0, 2 * most + 1, (len(images), 2))
    return np.stack(
        [p[:, y : y + height, x : x + width] for p, (y, x) in zip(padded, corners, strict=True)]
    )
