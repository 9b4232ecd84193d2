"""Attention: self and cross; multi-head, grouped-query and multi-query; and its naive oracle."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.flex_attention import flex_attention

from groundup.nn.cache import LayerCache, RollingCache
from groundup.nn.config import AttentionConfig, NormConfig
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
        self.query = nn.Linear(width, query_width, bias=config.qkv_bias)
        self.key = nn.Linear(source, key_width, bias=config.qkv_bias)
        self.value = nn.Linear(source, key_width, bias=config.qkv_bias)
        self.out = nn.Linear(query_width, width, bias=config.out_bias)
        self.gate = nn.Linear(width, query_width, bias=False) if config.gate else None
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
        dropout = config.dropout if self.training else 0.0
        mixed = attend(query.transpose(1, 2), *memory, mask, dropout, config.scale)  # (B, H, T, E)
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


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Plan,
    dropout: float = 0.0,
    scale: float | None = None,
) -> Tensor:
    """(B, H, T, E), (B, K, S, E), (B, K, S, E) -> (B, H, T, E) by torch's fused kernel.

    Scores are multiplied by `scale`, 1/√E when left out. A query that may see nothing gets zeros.
    """
    if mask.blocks is not None:
        assert not dropout, "FlexAttention has no dropout"
        shared = query.shape[1] != key.shape[1]
        mixed = _flex(query)(
            query, key, value, block_mask=mask.blocks, scale=scale, enable_gqa=shared
        )
        assert isinstance(mixed, Tensor)
        return mixed
    dense = mask.dense
    if dense is not None and dense.is_floating_point():
        dense = dense.to(query.dtype)
    return F.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=dense,
        dropout_p=dropout,
        is_causal=mask.is_causal,
        scale=scale,
        enable_gqa=query.shape[1] != key.shape[1],
    )


def naive_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    visible: Tensor,
    bias: Tensor | None = None,
    scale: float | None = None,
) -> tuple[Tensor, Tensor]:
    """(B, H, T, E), (B, K, S, E), (B, K, S, E) -> (B, H, T, E) and weights (B, H, T, S).

    The formula as written, softmax in fp32: the oracle `attend` is tested against, and the way to
    look at attention weights. `visible` is a bool mask broadcastable to (B, H, T, S), `bias` what
    is added to the scores, as broadcastable.
    """
    group = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(group, dim=1), value.repeat_interleave(group, dim=1)
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = query.float() @ key.float().transpose(-2, -1) * scale
    if bias is not None:
        scores = scores + bias
    weights = torch.softmax(scores.masked_fill(~visible, -math.inf), dim=-1)
    # A row of only -inf comes out of softmax as NaN; a query that sees nothing averages nothing.
    weights = weights.masked_fill(~visible, 0.0)
    return (weights @ value.float()).to(query.dtype), weights


def _flex(query: Tensor) -> Callable[..., Any]:
    """FlexAttention: a kernel is generated where there is one to gain, on a GPU."""
    return _compiled_flex() if query.is_cuda else flex_attention


@functools.cache
def _compiled_flex() -> Callable[..., Any]:
    return torch.compile(flex_attention)
