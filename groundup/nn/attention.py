"""Self-attention: multi-head, grouped-query and multi-query in one class, and its naive oracle."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.nn.cache import LayerCache
from groundup.nn.config import AttentionConfig, NormConfig
from groundup.nn.masks import Plan
from groundup.nn.norms import RMSNorm
from groundup.nn.positions import Rotation, rotate


class Attention(nn.Module):
    """(B, T, D) -> (B, T, D): every head averages the values it finds by query·key similarity.

        D ─┬─ query ─ (B, T, H, E) ─ [norm] ─ [rotate] ─┐
           ├─ key ─── (B, T, K, E) ─ [norm] ─ [rotate] ─┼─ softmax(q·k / √E) · v ─ out ─ D
           └─ value ─ (B, T, K, E) ─────────────────────┘

    With K < H key/value heads, each serves H/K neighbouring query heads.
    Vaswani et al. 2017, arXiv:1706.03762; QK-norm: Henry et al. 2020, arXiv:2010.04245.
    """

    def __init__(self, width: int, config: AttentionConfig, norm: NormConfig) -> None:
        super().__init__()
        self.config = config
        query_width = config.num_heads * config.head_width
        key_width = config.num_kv_heads * config.head_width
        self.query = nn.Linear(width, query_width, bias=config.qkv_bias)
        self.key = nn.Linear(width, key_width, bias=config.qkv_bias)
        self.value = nn.Linear(width, key_width, bias=config.qkv_bias)
        self.out = nn.Linear(query_width, width, bias=config.out_bias)
        self.query_norm = RMSNorm(config.head_width, norm.eps) if config.qk_norm else None
        self.key_norm = RMSNorm(config.head_width, norm.eps) if config.qk_norm else None

    def forward(
        self,
        x: Tensor,
        mask: Plan,
        rotation: Rotation | None = None,
        cache: LayerCache | None = None,
    ) -> Tensor:
        config = self.config
        query = self.query(x).unflatten(-1, (config.num_heads, config.head_width))
        key = self.key(x).unflatten(-1, (config.num_kv_heads, config.head_width))
        value = self.value(x).unflatten(-1, (config.num_kv_heads, config.head_width))
        if self.query_norm is not None and self.key_norm is not None:
            query, key = self.query_norm(query), self.key_norm(key)
        if rotation is not None:
            query, key = rotate(query, rotation), rotate(key, rotation)
        query, key, value = (t.transpose(1, 2) for t in (query, key, value))  # (B, heads, T, E)
        if cache is not None:
            key, value = cache.append(key, value)
        dropout = config.dropout if self.training else 0.0
        mixed = attend(query, key, value, mask, dropout)  # (B, H, T, E)
        y = self.out(mixed.transpose(1, 2).flatten(2))
        return F.dropout(y, config.out_dropout, self.training) if config.out_dropout else y


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Plan, dropout: float = 0.0) -> Tensor:
    """(B, H, T, E), (B, K, S, E), (B, K, S, E) -> (B, H, T, E) by torch's fused kernel.

    A query that may see nothing gets zeros.
    """
    return F.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=mask.dense,
        dropout_p=dropout,
        is_causal=mask.is_causal,
        enable_gqa=query.shape[1] != key.shape[1],
    )


def naive_attention(
    query: Tensor, key: Tensor, value: Tensor, visible: Tensor
) -> tuple[Tensor, Tensor]:
    """(B, H, T, E), (B, K, S, E), (B, K, S, E) -> (B, H, T, E) and weights (B, H, T, S).

    The formula as written, softmax in fp32: the oracle `attend` is tested against, and the way to
    look at attention weights. `visible` is a bool mask broadcastable to (B, H, T, S).
    """
    group = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(group, dim=1), value.repeat_interleave(group, dim=1)
    scores = query.float() @ key.float().transpose(-2, -1) / math.sqrt(query.shape[-1])
    weights = torch.softmax(scores.masked_fill(~visible, -math.inf), dim=-1)
    # A row of only -inf comes out of softmax as NaN; a query that sees nothing averages nothing.
    weights = weights.masked_fill(~visible, 0.0)
    return (weights @ value.float()).to(query.dtype), weights
