"""T5's relative positions: a learned number per head for how far a key is from its query."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class RelativeBias(nn.Module):
    """(T, S) lengths -> (H, T, S), to be added to the scores of the last T of S positions.

    Distances share `num_buckets` numbers: near ones have their own, far ones share them on a
    logarithmic scale, and all from `max_distance` on are one. Bidirectional, half of the buckets
    are for keys after the query; else those are not told apart. Raffel et al. 2019,
    arXiv:1910.10683, section 2.1.
    """

    def __init__(
        self, num_heads: int, num_buckets: int, max_distance: int, bidirectional: bool
    ) -> None:
        super().__init__()
        self.num_buckets, self.max_distance = num_buckets, max_distance
        self.bidirectional = bidirectional
        self.table = nn.Embedding(num_buckets, num_heads)

    def forward(self, num_queries: int, num_keys: int) -> Tensor:
        keys = torch.arange(num_keys, device=self.table.weight.device)
        queries = torch.arange(num_keys - num_queries, num_keys, device=keys.device)
        buckets = relative_buckets(
            keys[None, :] - queries[:, None],
            self.num_buckets,
            self.max_distance,
            self.bidirectional,
        )
        return self.table(buckets).permute(2, 0, 1)

    def extra_repr(self) -> str:
        direction = "bidirectional" if self.bidirectional else "backwards"
        return f"max_distance={self.max_distance}, {direction}"


def relative_buckets(
    offsets: Tensor, num_buckets: int, max_distance: int, bidirectional: bool
) -> Tensor:
    """(T, S) key position - query position -> (T, S) bucket numbers below `num_buckets`."""
    later = torch.zeros_like(offsets)
    if bidirectional:
        num_buckets //= 2
        later = (offsets > 0) * num_buckets
        distances = offsets.abs()
    else:
        distances = (-offsets).clamp(min=0)
    exact = num_buckets // 2  # distances below this have a bucket each
    growth = (distances.clamp(min=1).float() / exact).log() / math.log(max_distance / exact)
    shared = exact + (growth * (num_buckets - exact)).long()
    buckets = torch.where(distances < exact, distances, shared.clamp(max=num_buckets - 1))
    return later + buckets
