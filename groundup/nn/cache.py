"""The key/value cache: what earlier tokens offer to attention, kept so it is computed once.

Memory: 2 · layers · batch · num_kv_heads · head_width · capacity · bytes per number. A layer with
a sliding window keeps at most twice the window, however long the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from groundup.config import require


class LayerCache:
    """One layer's keys and values, (B, K, capacity, E) each, of which `length` are filled.

    Any two tensors that agree in all but the last dimension will do.
    """

    def __init__(self, keys: Tensor, values: Tensor, length: int = 0) -> None:
        self.keys, self.values, self.length = keys, values, length

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """(B, K, T, E) new -> (B, K, length + T, E) views of all, written in place."""
        assert not keys.requires_grad, "a cache is for inference: run the model under no_grad"
        start, stop = self.length, self.length + keys.shape[2]
        require(
            stop <= self.keys.shape[2],
            f"The cache holds {self.keys.shape[2]} tokens, but {stop} were asked of it. "
            "Create it with a larger capacity.",
        )
        self.keys[:, :, start:stop] = keys
        self.values[:, :, start:stop] = values
        self.length = stop
        return self.keys[:, :, :stop], self.values[:, :, :stop]

    def num_keys(self, num_new: int) -> int:
        """How many keys `append` will return for so many new ones."""
        return self.length + num_new

    def reachable(self, length: int) -> int:
        """The length nearest to `length`, and not above it, that `truncate` can go back to."""
        return length

    def truncate(self, length: int) -> None:
        """Forget every token from `length` on."""
        assert 0 <= length <= self.length, (length, self.length)
        self.length = length

    def select(self, rows: Tensor) -> Self:
        """A copy of some of the rows, in the order given."""
        return self._with(self.keys.index_select(0, rows), self.values.index_select(0, rows))

    def _with(self, keys: Tensor, values: Tensor) -> Self:
        return type(self)(keys, values, self.length)


class RollingCache(LayerCache):
    """The cache of a layer that sees the last `window` keys, itself included, and no others.

    `window` - 1 keys are kept for the next query. They lie in order at the end of what is filled;
    when there is no room behind them they move to the front, which happens once in `window` steps.
    """

    def __init__(
        self, keys: Tensor, values: Tensor, window: int, length: int = 0, filled: int = 0
    ) -> None:
        super().__init__(keys, values, length)
        self.window, self.filled = window, filled

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """(B, K, T, E) new -> (B, K, S, E): at most `window` - 1 earlier ones, and the new ones."""
        assert not keys.requires_grad, "a cache is for inference: run the model under no_grad"
        new, kept = keys.shape[2], self._kept
        self.length += new
        start, stop = self.filled - kept, self.filled + new
        if stop <= self.keys.shape[2]:
            self.keys[:, :, self.filled : stop] = keys
            self.values[:, :, self.filled : stop] = values
            self.filled = stop
            return self.keys[:, :, start:stop], self.values[:, :, start:stop]
        all_keys = torch.cat((self.keys[:, :, start : self.filled], keys), dim=2)
        all_values = torch.cat((self.values[:, :, start : self.filled], values), dim=2)
        self.filled = min(kept + new, self.window - 1)
        self.keys[:, :, : self.filled] = all_keys[:, :, kept + new - self.filled :]
        self.values[:, :, : self.filled] = all_values[:, :, kept + new - self.filled :]
        return all_keys, all_values

    @property
    def _kept(self) -> int:
        """How many earlier keys the next query can see."""
        return min(self.filled, self.window - 1)

    def num_keys(self, num_new: int) -> int:
        """How many keys `append` will return for so many new ones."""
        return self._kept + num_new

    def reachable(self, length: int) -> int:
        """`length` where its window is still here, else 0: the text has to be read again."""
        left = self.filled - (self.length - length)
        return length if left >= min(length, self.window - 1) else 0

    def truncate(self, length: int) -> None:
        """Forget every token from `length` on, which must be `reachable`."""
        assert 0 <= length <= self.length and self.reachable(length) == length, length
        self.filled = max(self.filled - (self.length - length), 0)
        self.length = length

    def _with(self, keys: Tensor, values: Tensor) -> Self:
        return type(self)(keys, values, self.window, self.length, self.filled)


class KVCache:
    """The caches of all layers of a decoder; every row equally long."""

    def __init__(
        self,
        num_layers: int,
        batch: int,
        num_kv_heads: int,
        head_width: int,
        capacity: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        shape = (num_layers, batch, num_kv_heads, capacity, head_width)
        keys, values = torch.zeros((2, *shape), device=device, dtype=dtype)
        self.layers = list(map(LayerCache, keys, values))

    @classmethod
    def of(cls, layers: Sequence[LayerCache]) -> KVCache:
        """The cache of these layers, which may be of different kinds."""
        cache = cls.__new__(cls)
        cache.layers = list(layers)
        return cache

    @property
    def length(self) -> int:
        """How many tokens are cached."""
        return self.layers[0].length

    @property
    def num_bytes(self) -> int:
        """Memory held, filled or not."""
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in self.layers)

    def reachable(self, length: int) -> int:
        """The length nearest to `length`, and not above it, that `truncate` can go back to.

        It is `length` itself, unless a sliding window has moved on from there: then it is 0.
        """
        return min(layer.reachable(length) for layer in self.layers)

    def truncate(self, length: int) -> None:
        """Forget every token from `length` on: the way back from a rejected draft or a /reset."""
        for layer in self.layers:
            layer.truncate(length)

    def expand(self, copies: int) -> KVCache:
        """A new cache with every row repeated `copies` times, neighbours first."""
        batch = self.layers[0].keys.shape[0]
        return self.select([row for row in range(batch) for _ in range(copies)])

    def select(self, rows: Sequence[int]) -> KVCache:
        """A new cache of some of the rows, in the order given; a row may be taken twice."""
        index = torch.tensor(list(rows), device=self.layers[0].keys.device)
        return KVCache.of([layer.select(index) for layer in self.layers])
