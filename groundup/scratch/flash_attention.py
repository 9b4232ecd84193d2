"""FlashAttention in plain tensors: exact attention, tile by tile, that never holds a (T, S) matrix.

Softmax needs a row's largest score and the sum of its exponentials, which are known only at the
row's end. The trick (online softmax) is to go on with what is known so far, and to correct it
whenever a larger score turns up. For one query, after some keys, keep

    largest   m = max sₖ
    total     l = Σ exp(sₖ - m)
    mixed     o = Σ exp(sₖ - m) · vₖ

A tile of new keys with largest score m' makes the largest M = max(m, m'). Multiply l and o by
exp(m - M), add the tile's own sums, and after the last tile the output is o / l. Nothing is skipped
or approximated: the arithmetic is still O(T·S·E). What falls from O(T·S) to O(T) is the memory, and
on a GPU the traffic: a tile stays in fast memory while it is scored, normalised and used.

The backward pass does not store the weights either: it computes each tile again from the row's
log-sum-exp, m + ln l. Dao et al. 2022, arXiv:2205.14135; online softmax: Milakov and Gimelshein
2018, arXiv:1805.02867.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor


def flash_attention(
    query: Tensor, key: Tensor, value: Tensor, causal: bool = False, tile: int = 64
) -> Tensor:
    """(..., T, E), (..., S, E), (..., S, E) -> (..., T, E), in tiles of `tile` queries and keys.

    Causal, the queries are the last T of S positions. Has gradients.
    """
    output = _FlashAttention.apply(query, key, value, causal, tile)
    assert isinstance(output, Tensor)
    return output


def forward(
    query: Tensor, key: Tensor, value: Tensor, causal: bool, tile: int
) -> tuple[Tensor, Tensor]:
    """-> the output (..., T, E), and the log-sum-exp of every row of scores (..., T, 1)."""
    output = torch.empty_like(query[..., :1] * value[..., :1, :])
    row_log_sums = torch.empty_like(query[..., :1])
    for rows in _tiles(query.shape[-2], tile):
        some = query[..., rows, :]
        largest = torch.full_like(some[..., :1], -math.inf)
        total = torch.zeros_like(largest)
        mixed = torch.zeros_like(output[..., rows, :])
        for columns in _seen(rows, query, key, causal, tile):
            scores = _scores(some, key[..., columns, :], rows, columns, query, key, causal)
            larger = torch.maximum(largest, scores.amax(-1, keepdim=True))
            weights = torch.exp(scores - larger)
            correction = torch.exp(largest - larger)
            total = total * correction + weights.sum(-1, keepdim=True)
            mixed = mixed * correction + weights @ value[..., columns, :]
            largest = larger
        output[..., rows, :] = mixed / total
        row_log_sums[..., rows, :] = largest + total.log()
    return output, row_log_sums


def backward(
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    output: Tensor,
    row_log_sums: Tensor,
    causal: bool,
    tile: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradient of the output -> the gradients of query, key and value.

    With weights p and their gradient g = dO·vᵀ, that of the scores is p · (g - Σ p·g), and the sum
    over a row is dO·O: the output, which is kept, stands for the row of weights, which is not.
    """
    scale = 1 / math.sqrt(query.shape[-1])
    to_query, to_key, to_value = map(torch.zeros_like, (query, key, value))
    row_sums = (gradient * output).sum(-1, keepdim=True)
    for rows in _tiles(query.shape[-2], tile):
        some, upstream = query[..., rows, :], gradient[..., rows, :]
        for columns in _seen(rows, query, key, causal, tile):
            keys = key[..., columns, :]
            scores = _scores(some, keys, rows, columns, query, key, causal)
            weights = torch.exp(scores - row_log_sums[..., rows, :])
            to_weights = upstream @ value[..., columns, :].transpose(-2, -1)
            to_scores = weights * (to_weights - row_sums[..., rows, :]) * scale
            to_value[..., columns, :] += weights.transpose(-2, -1) @ upstream
            to_key[..., columns, :] += to_scores.transpose(-2, -1) @ some
            to_query[..., rows, :] += to_scores @ keys
    return to_query, to_key, to_value


def _tiles(length: int, tile: int) -> Iterator[slice]:
    for start in range(0, length, tile):
        yield slice(start, min(start + tile, length))


def _seen(rows: slice, query: Tensor, key: Tensor, causal: bool, tile: int) -> Iterator[slice]:
    """The tiles of keys that some of these queries see: causal, the later half is left out."""
    last = key.shape[-2]
    if causal:
        last = rows.stop + key.shape[-2] - query.shape[-2]
    return _tiles(last, tile)


def _scores(
    some: Tensor,
    keys: Tensor,
    rows: slice,
    columns: slice,
    query: Tensor,
    key: Tensor,
    causal: bool,
) -> Tensor:
    """One tile of scores, with -inf where a query may not look."""
    scores = some @ keys.transpose(-2, -1) / math.sqrt(query.shape[-1])
    if not causal:
        return scores
    places = torch.arange(rows.start, rows.stop, device=query.device)
    places = places + key.shape[-2] - query.shape[-2]
    later = torch.arange(columns.start, columns.stop, device=query.device) > places[:, None]
    return scores.masked_fill(later, -math.inf)


class _FlashAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, causal: bool, tile: int
    ) -> Tensor:
        output, row_log_sums = forward(query, key, value, causal, tile)
        ctx.save_for_backward(query, key, value, output, row_log_sums)
        ctx.causal, ctx.tile = causal, tile
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        query, key, value, output, row_log_sums = ctx.saved_tensors
        to_inputs = backward(
            gradient, query, key, value, output, row_log_sums, ctx.causal, ctx.tile
        )
        return (*to_inputs, None, None)
