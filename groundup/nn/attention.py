"""Attention: self and cross; multi-head, grouped-query and multi-query."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

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


class Memory(NamedTuple):
    """What a cross-attention reads, computed once per sequence: (B, K, S, E) each."""

    keys: Tensor
    values: Tensor


class Attention(nn.Module):
    """(B, T, D) -> (B, T, D): every head averages the values it finds by query·key similarity.

        D ─┬─ query ─ (B, T, H, E) ─ [norm] ─ [rotate] ─┐
           ├─ key ─── (B, T, K, E) ─ [norm] ─ [rotate] ─┼─ softmax(q·k / √E + bias) · v ─ out ─ D
           └─ value ─ (B, T, K, E) ─────────────────────┘

    With K < H key/value heads, each serves H/K neighbouring query heads. Which keys a query sees,
    and the bias, are the plan's: causal, bidirectional or any other (`groundup.nn.masks.plan`).

    Cross-attention takes keys and values from another sequence, of `memory_width`: `remember` it
    once, then pass the result as `memory` at every step.
    Vaswani et al. 2017, arXiv:1706.03762; QK-norm: Henry et al. 2020, arXiv:2010.04245.
    """

    def __init__(
        self, width: int, config: AttentionConfig, norm: NormConfig, memory_width: int | None = None
    ) -> None:
        super().__init__()
        assert config.latent is None and config.differential is None, "these have their own class"
        self.config = config
        query_width = config.num_heads * config.head_width
        key_width = config.num_kv_heads * config.head_width
        source = width if memory_width is None else memory_width
        self.query = Linear(width, query_width, bias=config.qkv_bias)
        self.key = Linear(source, key_width, bias=config.qkv_bias)
        self.value = Linear(source, key_width, bias=config.qkv_bias)
        self.mix = Mix(config)
        self.out = Linear(query_width, width, bias=config.out_bias)
        self.gate = Linear(width, query_width, bias=False) if config.gate else None
        self.query_norm = self.key_norm = None
        if config.qk_norm:
            self.query_norm = RMSNorm(config.head_width, norm.eps, norm.scale)
            self.key_norm = RMSNorm(config.head_width, norm.eps, norm.scale)

    def forward(
        self,
        x: Tensor,
        mask: Plan,
        rotation: Rotation | None = None,
        cache: LayerCache | None = None,
        memory: Memory | None = None,
        values: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Self-attention, through a cache or not; cross-attention where there is a `memory`.

        `values` says of x what to add to the values, (B, T, K, E): see `groundup.nn.token_values`.
        """
        config = self.config
        query = self.query(x).unflatten(-1, (config.num_heads, config.head_width))
        if self.query_norm is not None:
            query = self.query_norm(query)
        if rotation is not None:
            query = rotate(query, rotation)
        if memory is None:
            memory = self.remember(x, rotation, values)
            if cache is not None:
                memory = Memory(*cache.append(*memory))
        else:
            assert cache is None and rotation is None, "a memory has its own keys and no positions"
        mixed = self.mix(query.transpose(1, 2), *memory, mask)  # (B, H, T, E)
        found = mixed.transpose(1, 2).flatten(2)
        y = self.out(found if self.gate is None else found * torch.sigmoid(self.gate(x)))
        return F.dropout(y, config.out_dropout, self.training) if config.out_dropout else y

    def new_cache(self, batch: int, capacity: int, window: int = 0) -> LayerCache:
        """An empty cache for `batch` rows of up to `capacity` tokens; a window keeps its own."""
        config, weight = self.config, self.key.weight
        places = min(capacity, 2 * window) if window else capacity
        keys, values = weight.new_zeros(2, batch, config.num_kv_heads, places, config.head_width)
        return RollingCache(keys, values, window) if window else LayerCache(keys, values)

    def remember(
        self,
        source: Tensor,
        rotation: Rotation | None = None,
        values: Callable[[Tensor], Tensor] | None = None,
    ) -> Memory:
        """(B, S, memory width) -> keys and values, (B, K, S, E) each."""
        config = self.config
        key = self.key(source).unflatten(-1, (config.num_kv_heads, config.head_width))
        value = self.value(source).unflatten(-1, (config.num_kv_heads, config.head_width))
        if values is not None:
            value = value + values(source)
        if self.key_norm is not None:
            key = self.key_norm(key)
        if rotation is not None:
            key = rotate(key, rotation)
        return Memory(key.transpose(1, 2), value.transpose(1, 2))
