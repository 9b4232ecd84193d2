"""Causal self-attention three ways, in plain tensors: a list of heads, one matrix, one formula.

All three take x (B, T, D) and the same four matrices, and give the same (B, T, D):

- `list_of_heads`: each head is its own small attention; the results are put side by side.
- `reshaped_heads`: one product for all heads, then (B, T, D) is seen as (B, H, T, E).
- `einsum_heads`: the same as one formula per step.

wq (H·E, D), wk and wv (K·E, D), wo (D, H·E). With K < H key/value heads (grouped-query attention),
each serves H/K neighbouring query heads. Vaswani et al. 2017, arXiv:1706.03762.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def one_head(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """(B, T, E) three times -> (B, T, E) and the weights (B, T, T), rows summing to 1."""
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
    length = query.shape[1]
    future = torch.ones(length, length, dtype=torch.bool, device=query.device).triu(1)
    # -inf before the softmax is exactly 0 after it; a large negative number would overflow fp16.
    weights = torch.softmax(scores.masked_fill(future, -math.inf), dim=-1)
    return weights @ value, weights


def list_of_heads(
    x: Tensor, wq: Tensor, wk: Tensor, wv: Tensor, wo: Tensor, num_heads: int, num_kv_heads: int
) -> Tensor:
    """(B, T, D) -> (B, T, D), one head at a time."""
    group = num_heads // num_kv_heads
    queries, keys, values = wq.chunk(num_heads), wk.chunk(num_kv_heads), wv.chunk(num_kv_heads)
    outputs = []
    for head in range(num_heads):
        shared = head // group
        mixed, _ = one_head(x @ queries[head].T, x @ keys[shared].T, x @ values[shared].T)
        outputs.append(mixed)
    return torch.cat(outputs, dim=-1) @ wo.T


def reshaped_heads(
    x: Tensor, wq: Tensor, wk: Tensor, wv: Tensor, wo: Tensor, num_heads: int, num_kv_heads: int
) -> Tensor:
    """(B, T, D) -> (B, T, D), all heads in one batched product."""
    batch, length, _ = x.shape

    def split(projected: Tensor, heads: int) -> Tensor:
        # A reshape straight to (B, H, T, E) would mix positions into heads: split, then swap.
        return projected.reshape(batch, length, heads, -1).transpose(1, 2)

    group = num_heads // num_kv_heads
    query = split(x @ wq.T, num_heads)
    key = split(x @ wk.T, num_kv_heads).repeat_interleave(group, dim=1)
    value = split(x @ wv.T, num_kv_heads).repeat_interleave(group, dim=1)
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
    future = torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1)
    weights = torch.softmax(scores.masked_fill(future, -math.inf), dim=-1)
    return (weights @ value).transpose(1, 2).reshape(batch, length, -1) @ wo.T


def einsum_heads(
    x: Tensor, wq: Tensor, wk: Tensor, wv: Tensor, wo: Tensor, num_heads: int, num_kv_heads: int
) -> Tensor:
    """(B, T, D) -> (B, T, D); heads are (k, g): key/value head k and its g-th query head."""
    width, group = x.shape[-1], num_heads // num_kv_heads
    query = torch.einsum("btd,kged->bkgte", x, wq.reshape(num_kv_heads, group, -1, width))
    key = torch.einsum("bsd,ked->bkse", x, wk.reshape(num_kv_heads, -1, width))
    value = torch.einsum("bsd,ked->bkse", x, wv.reshape(num_kv_heads, -1, width))
    scores = torch.einsum("bkgte,bkse->bkgts", query, key) / math.sqrt(query.shape[-1])
    past = torch.arange(x.shape[1])[:, None] >= torch.arange(x.shape[1])
    weights = torch.softmax(scores.masked_fill(~past.to(x.device), -math.inf), dim=-1)
    mixed = torch.einsum("bkgts,bkse->bkgte", weights, value)
    return torch.einsum("bkgte,dkge->btd", mixed, wo.reshape(width, num_kv_heads, group, -1))
