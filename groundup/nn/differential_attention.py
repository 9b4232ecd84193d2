"""Differential attention: two maps per head, one subtracted, so that what both see cancels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.nn.cache import LayerCache, RollingCache
from groundup.nn.config import AttentionConfig, NormConfig
from groundup.nn.kernels import Mix
from groundup.nn.linear import Linear
from groundup.nn.masks import Plan
from groundup.nn.norms import RMSNorm
from groundup.nn.positions import Rotation, rotate

LAMBDA_STD = 0.1
"""Of the four vectors that λ is made of, at the start."""


class DifferentialAttention(nn.Module):
    """(B, T, D) -> (B, T, D): per head (softmax(q₁·k₁) - λ · softmax(q₂·k₂)) · v, then RMSNorm.

    Queries and keys are two of width E per head, values one of 2·E: with half the heads as many
    weights as usual. λ = exp(a₁·b₁) - exp(a₂·b₂) + start is learned, one per layer. The output is
    multiplied by 1 - start, so that gradients are those of plain attention.

    Unlike the paper's, `start` does not change with depth. Ye et al. 2024, arXiv:2410.05258.
    """

    def __init__(self, width: int, config: AttentionConfig, norm: NormConfig) -> None:
        super().__init__()
        assert config.differential is not None
        self.config, self.start = config, config.differential
        query_width = 2 * config.num_heads * config.head_width
        key_width = 2 * config.num_kv_heads * config.head_width
        self.query = Linear(width, query_width, bias=config.qkv_bias)
        self.key = Linear(width, key_width, bias=config.qkv_bias)
        self.value = Linear(width, key_width, bias=config.qkv_bias)
        self.mix = DifferentialMix(config)
        self.out = Linear(query_width, width, bias=config.out_bias)
        self.lambdas = nn.Parameter(LAMBDA_STD * torch.randn(4, config.head_width))
        self.head_norm = RMSNorm(2 * config.head_width, norm.eps, norm.scale)

    def forward(
        self,
        x: Tensor,
        mask: Plan,
        rotation: Rotation | None = None,
        cache: LayerCache | None = None,
    ) -> Tensor:
        query, key = (self._turned(project(x), rotation) for project in (self.query, self.key))
        value = self.value(x).unflatten(-1, (self.config.num_kv_heads, -1)).transpose(1, 2)
        if cache is not None:
            key, value = cache.append(key, value)
        mixed = self.mix(query, key, value, mask, self.factor())  # (B, H, T, 2E)
        mixed = self.head_norm(mixed) * (1 - self.start)
        y = self.out(mixed.transpose(1, 2).flatten(2))
        return F.dropout(y, self.config.out_dropout, self.training)

    def factor(self) -> Tensor:
        """λ, how much of the second map is subtracted."""
        first_query, first_key, second_query, second_key = self.lambdas
        return (first_query @ first_key).exp() - (second_query @ second_key).exp() + self.start

    def new_cache(self, batch: int, capacity: int, window: int = 0) -> LayerCache:
        """An empty cache for `batch` rows of up to `capacity` tokens; a window keeps its own."""
        places = min(capacity, 2 * window) if window else capacity
        shape = (2, batch, self.config.num_kv_heads, places, 2 * self.config.head_width)
        keys, values = self.key.weight.new_zeros(shape)
        return RollingCache(keys, values, window) if window else LayerCache(keys, values)

    def _turned(self, projected: Tensor, rotation: Rotation | None) -> Tensor:
        """(B, T, heads·2·E) -> (B, heads, T, 2·E), each half turned as a head of its own."""
        halves = projected.unflatten(-1, (-1, self.config.head_width))
        if rotation is not None:
            halves = rotate(halves, rotation)
        return halves.unflatten(2, (-1, 2)).flatten(3).transpose(1, 2)


class DifferentialMix(Mix):
    """(B, H, T, 2E), (B, K, S, 2E), (B, K, S, 2E) -> (B, H, T, 2E): one map's find, less λ of the
    other's."""

    def forward(  # type: ignore[override]
        self, query: Tensor, key: Tensor, value: Tensor, mask: Plan, factor: Tensor
    ) -> Tensor:
        find = super().forward
        first, second = (
            find(queries, keys, value, mask)
            for queries, keys in zip(query.chunk(2, -1), key.chunk(2, -1), strict=True)
        )
        return first - factor * second
