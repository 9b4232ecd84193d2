"""softmax(scores) · v: through torch's fused kernels where they can, and the formula as written."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.flex_attention import AuxRequest, flex_attention

from groundup.config import require
from groundup.native.ops import causal_attention, has_tiles
from groundup.nn.config import AttentionConfig
from groundup.nn.kernel_choice import chosen_kernel
from groundup.nn.masks import Causal, Plan, Window, dense


class Mix(nn.Module):
    """(B, H, T, E), (B, K, S, E), (B, K, S, Z) -> (B, H, T, Z): what every head finds.

    A module of its own, though it has no weights but the sinks, so that whoever wants to look at
    attention can hook it: see `groundup.nn.capture`.
    """

    def __init__(self, config: AttentionConfig, scale: float | None = None) -> None:
        super().__init__()
        self.scale = config.scale if scale is None else scale
        self.soft_cap, self.dropout = config.soft_cap, config.dropout
        # A score of 0 takes the weight of one key that matches the query neither well nor badly.
        self.sinks = nn.Parameter(torch.zeros(config.num_heads)) if config.sinks else None

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Plan) -> Tensor:
        dropout = self.dropout if self.training else 0.0
        return attend(query, key, value, mask, dropout, self.scale, self.soft_cap, self.sinks)


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Plan,
    dropout: float = 0.0,
    scale: float | None = None,
    soft_cap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """(B, H, T, E), (B, K, S, E), (B, K, S, Z) -> (B, H, T, Z) by the fastest kernel that can.

    Scores are multiplied by `scale`, 1/√E when left out, and then bent below `soft_cap`; `sinks`
    (H,) are scores of a key without a value. A query that may see nothing gets zeros.

    FlexAttention runs what has been planned for it, and the native kernel what it can. Of the rest,
    torch's fused kernel knows neither cap nor sinks: with them, all scores are written out.
    `use_kernel` chooses otherwise.
    """
    kernel = chosen_kernel()
    if mask.blocks is not None or kernel == "flex":
        require(not dropout, "FlexAttention has no dropout: set attention.dropout to 0.")
        return _flex_attention(query, key, value, mask, scale, soft_cap, sinks)
    fused = soft_cap is None and sinks is None
    require(
        fused or kernel != "sdpa",
        "torch's fused kernel knows neither attention.soft_cap nor attention.sinks; let "
        'device.attention be "auto".',
    )
    if kernel == "eager" or not fused:
        seen = mask.spelled_out(query.shape[2], key.shape[2], query.device)
        scores = attention_scores(query, key, *seen, scale, soft_cap)
        return mix(F.dropout(attention_weights(scores, sinks), dropout), value)
    if kernel == "auto" and not dropout and _is_native(query, key, value, mask):
        return _native_attention(query, key, value, mask.first, scale)
    if mask.window:
        return _windowed_attention(query, key, value, mask.window, dropout, scale)
    added = mask.dense
    if mask.first is not None:
        added, _ = mask.spelled_out(query.shape[2], key.shape[2], query.device)
    if added is not None and added.is_floating_point():
        added = added.to(query.dtype)
    return F.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=added,
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
    soft_cap: float | None = None,
    sinks: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """(B, H, T, E), (B, K, S, E), (B, K, S, Z) -> (B, H, T, Z) and weights (B, H, T, S).

    The formula as written: the oracle `attend` is tested against. `visible` is a bool mask
    broadcastable to (B, H, T, S), `bias` what is added to the scores, as broadcastable.
    """
    scores = attention_scores(query, key, visible, bias, scale, soft_cap)
    weights = attention_weights(scores, sinks)
    return mix(weights, value), weights


def attention_scores(
    query: Tensor,
    key: Tensor,
    visible: Tensor,
    bias: Tensor | None = None,
    scale: float | None = None,
    soft_cap: float | None = None,
) -> Tensor:
    """(B, H, T, E), (B, K, S, E) -> (B, H, T, S) in fp32, -inf where a key is not visible."""
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
    # Autocast would round the scores to 8 bits, before the softmax takes their exponential.
    with torch.autocast(query.device.type, enabled=False):
        scores = _precise(query) @ _precise(key).transpose(-2, -1) * scale
    if soft_cap is not None:
        scores = soft_cap * torch.tanh(scores / soft_cap)
    if bias is not None:
        scores = scores + bias
    return scores.masked_fill(~visible, -math.inf)


def attention_weights(scores: Tensor, sinks: Tensor | None = None) -> Tensor:
    """(B, H, T, S) -> (B, H, T, S): softmax over keys, which sum to less than 1 beside a sink."""
    if sinks is None:
        weights = torch.softmax(scores, dim=-1)
    else:
        sink = sinks[:, None, None].to(scores.dtype).expand(*scores.shape[:-1], 1)
        weights = torch.softmax(torch.cat((scores, sink), dim=-1), dim=-1)[..., :-1]
    # A row of only -inf comes out of softmax as NaN; a query that sees nothing averages nothing.
    return weights.masked_fill(scores == -math.inf, 0.0)


def mix(weights: Tensor, value: Tensor) -> Tensor:
    """(B, H, T, S), (B, K, S, Z) -> (B, H, T, Z): the values, averaged by their weights."""
    mixed = value.repeat_interleave(weights.shape[1] // value.shape[1], dim=1)
    with torch.autocast(value.device.type, enabled=False):
        return (weights @ mixed.to(weights.dtype)).to(value.dtype)


def _is_native(query: Tensor, key: Tensor, value: Tensor, mask: Plan) -> bool:
    """Whether the native kernel can: causal self-attention in bf16, on a CPU with AMX."""
    return (
        (mask.is_causal or mask.first is not None)
        and query.device.type == "cpu"
        and query.dtype == key.dtype == value.dtype == torch.bfloat16
        and query.shape[2:] == key.shape[2:] == value.shape[2:]
        and all(tensor.stride(-1) == 1 for tensor in (query, key, value))
        and has_tiles()
    )


def _native_attention(
    query: Tensor, key: Tensor, value: Tensor, first: Tensor | None, scale: float | None
) -> Tensor:
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    first = first if first is None else first.expand(len(query), -1)
    return causal_attention(query, key, value, first, scale)[0]


def _windowed_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    window: int,
    dropout: float,
    scale: float | None,
) -> Tensor:
    """A causal sliding window at a cost of T · window, where a mask over all pairs costs T · T.

    Queries in blocks as long as the window need the keys of their own block and of the one before.
    Beltagy et al. 2020 (Longformer), arXiv:2004.05150. A length that blocks do not divide is
    filled up at its end, which no real query sees.
    """
    batch, _, length, _ = query.shape
    filling = -length % window
    run = partial(
        F.scaled_dot_product_attention,
        dropout_p=dropout,
        scale=scale,
        enable_gqa=query.shape[1] != key.shape[1],
    )

    def blocks(x: Tensor) -> Tensor:
        """(B, heads, T, E) -> (B, N, heads, window, E)."""
        return F.pad(x, (0, 0, 0, filling)).unflatten(2, (-1, window)).transpose(1, 2)

    def two_by_two(x: Tensor) -> Tensor:
        """(B, heads, T, E) -> (B·(N - 1), heads, 2·window, E)."""
        own = blocks(x)
        return torch.cat((own[:, :-1], own[:, 1:]), dim=3).flatten(0, 1)

    first = run(*(x[:, :, :window] for x in (query, key, value)), is_causal=True)
    visible = dense(Causal() & Window(window), window, 2 * window, query.device)
    queries = blocks(query)[:, 1:].flatten(0, 1)
    others = run(queries, two_by_two(key), two_by_two(value), attn_mask=visible)
    others = others.unflatten(0, (batch, -1)).transpose(1, 2).flatten(2, 3)
    return torch.cat((first, others), dim=2)[:, :, :length]


def _flex_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Plan,
    scale: float | None,
    soft_cap: float | None,
    sinks: Tensor | None,
) -> Tensor:
    mixed, auxiliary = _flex(query)(
        query,
        key,
        value,
        score_mod=_score_change(query, key, mask, soft_cap),
        block_mask=mask.blocks,
        scale=scale,
        enable_gqa=query.shape[1] != key.shape[1],
        return_aux=AuxRequest(lse=sinks is not None),
    )
    if sinks is None:
        return mixed
    # Weights sum to 1 here. With one more score s beside those of log-sum-exp l they would sum to
    # exp(l) / (exp(l) + exp(s)), which is the sigmoid of l - s.
    return mixed * torch.sigmoid(auxiliary.lse - sinks[:, None]).unsqueeze(-1).to(mixed.dtype)


def _score_change(
    query: Tensor, key: Tensor, mask: Plan, soft_cap: float | None
) -> Callable[..., Tensor] | None:
    """What FlexAttention does to a score at a place: bend it, add to it, hide it."""
    visible, added = None, mask.dense
    if mask.blocks is None and (mask.is_causal or mask.window or mask.dense is not None):
        visible, added = mask.spelled_out(query.shape[2], key.shape[2], query.device)
    if soft_cap is None and visible is None and added is None:
        return None
    shape = (*query.shape[:3], key.shape[2])
    visible, added = (None if x is None else x.expand(shape) for x in (visible, added))

    def change(score: Tensor, *place: Tensor) -> Tensor:
        if soft_cap is not None:
            score = soft_cap * torch.tanh(score / soft_cap)
        if added is not None:
            score = score + added[place]
        return score if visible is None else torch.where(visible[place], score, -math.inf)

    return change


def _flex(query: Tensor) -> Callable[..., Any]:
    """FlexAttention: a kernel is generated where there is one to gain, on a GPU."""
    return _compiled_flex() if query.is_cuda else flex_attention


@functools.cache
def _compiled_flex() -> Callable[..., Any]:
    return torch.compile(flex_attention)


def _precise(x: Tensor) -> Tensor:
    """At least fp32."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
