"""The key/value cache: what earlier tokens offer to attention, kept so it is computed once.

Memory: 2 · layers · batch · num_kv_heads · head_width · capacity · bytes per number.
"""

from __future__ import annotations

import torch
from torch import Tensor

from groundup.config import require


class LayerCache:
    """One layer's keys and values, (B, K, capacity, E) each, of which `length` are filled."""

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


class KVCache:
    """A contiguous cache of fixed capacity for all layers of a decoder; every row equally long."""

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
        shape = (2, num_layers, batch, num_kv_heads, capacity, head_width)
        self._store(torch.zeros(shape, device=device, dtype=dtype), 0)

    @property
    def length(self) -> int:
        """How many tokens are cached."""
        return self.layers[0].length

    @property
    def capacity(self) -> int:
        """How many tokens fit."""
        return self.storage.shape[4]

    @property
    def num_bytes(self) -> int:
        """Memory held, filled or not."""
        return self.storage.nbytes

    def truncate(self, length: int) -> None:
        """Forget every token from `length` on: the way back from a rejected draft or a /reset."""
        assert 0 <= length <= self.length, (length, self.length)
        for layer in self.layers:
            layer.length = length

    def expand(self, copies: int) -> KVCache:
        """A new cache with every row repeated `copies` times, neighbours first."""
        expanded = KVCache.__new__(KVCache)
        expanded._store(self.storage.repeat_interleave(copies, dim=2), self.length)
        return expanded

    def _store(self, storage: Tensor, length: int) -> None:
        self.storage = storage  # (2, layers, B, K, capacity, E)
        self.layers = [
            LayerCache(storage[0, index], storage[1, index], length)
            for index in range(storage.shape[1])
        ]
