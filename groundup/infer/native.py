"""Reading with the native step: a decoder's weights packed in bf16, int8 or int4, and its cache.

Only decoders that the step can compute exactly are packed; `refusal` names what stands against it
in a config. It errs on the safe side: a field it does not know of is such a thing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from groundup.config import UserError, to_dict
from groundup.infer.generate import common_prefix
from groundup.models.config import DecoderConfig
from groundup.models.decoder import Decoder
from groundup.native.build import status
from groundup.native.quantize import Format, Packed, pack
from groundup.native.step import ACTIVATIONS, PAGE, Layer, NativeCache, NativeDecoder, Norm, Parts
from groundup.nn.attention import Attention
from groundup.nn.block import Block
from groundup.nn.config import AttentionConfig, FeedForwardConfig, NormConfig, PositionsConfig
from groundup.nn.feed_forward import GatedFeedForward, PlainFeedForward
from groundup.nn.norms import LayerNorm, RMSNorm

CHUNK = 64
"""Prompt tokens read at a time."""


def refusal(config: DecoderConfig) -> str:
    """Why the native step cannot run this decoder; "" when it can."""
    if (found := status()).library is None:
        return f"no native kernels: {found.reason}"
    if config.attention.head_width % 2:
        return f"attention.head_width {config.attention.head_width} is odd"
    if config.positions.kind not in ("rope", "learned", "none"):
        return f"positions.kind {config.positions.kind!r}"
    if config.norm.placement != "pre":
        return f"norm.placement {config.norm.placement!r}"
    if config.feed_forward.activation not in ACTIVATIONS:
        return f"feed_forward.activation {config.feed_forward.activation!r}"
    ours, theirs = _flat(to_dict(_understood(config))), _flat(to_dict(config))
    differing = [name for name in theirs if ours.get(name) != theirs[name]]
    return f"{differing[0]} = {theirs[differing[0]]}" if differing else ""


def pack_decoder(model: Decoder, format: Format = "bf16") -> NativeDecoder:
    """The model for the native step; its weights are copied. Raises UserError with the refusal."""
    config = model.config
    if reason := refusal(config):
        raise UserError(f"The native step cannot run this model: {reason}.")
    attention, network, positions = config.attention, config.feed_forward, model.position_embedding
    turned = None if model.rotary is None else model.rotary(0, 0, config.context_length)
    assert model.final_norm is not None
    return NativeDecoder(
        Parts(
            layers=[
                _layer(block, attention.window(index), format)
                for index, block in enumerate(model.blocks)
            ],
            embedding=model.embedding.weight,
            positions=None if positions is None else positions.weight,
            cosine=None if turned is None else turned.cos.flatten(1),
            sine=None if turned is None else turned.sin.flatten(1),
            final_norm=_norm(model.final_norm),
            head=pack(model.head_weight, format),
            head_bias=model.head_bias,
            num_heads=attention.num_heads,
            num_kv_heads=attention.num_kv_heads,
            head_width=attention.head_width,
            feed_forward_width=network.width,
            interleaved=config.positions.layout == "interleaved",
            layer_norm=config.norm.kind == "layernorm",
            gated=network.kind == "gated",
            activation=network.activation,
            norm_eps=config.norm.eps,
            score_scale=attention.scale or attention.head_width**-0.5,
            embedding_scale=config.embedding_scale,
        )
    )


class NativeReader:
    """Predicts the next token with the native step, as `Reader` does with torch's operations.

    Each row has pages of its own; those of one row are copied when it is followed by several that
    begin alike. Logits are those of weights in `format`, and of keys and values in bf16.
    """

    def __init__(self, decoder: NativeDecoder, capacity: int) -> None:
        """`capacity` in tokens of a row."""
        self._decoder, self._pages = decoder, -(-capacity // PAGE)
        self._rows: list[list[int]] = []  # what the cache holds
        self._cache: NativeCache | None = None
        self._tables = torch.empty(0, 0, dtype=torch.int32)

    def next_logits(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """N rows of equally many ids -> (N, V) logits of the token after each."""
        cache = self._cache_for(len(rows))
        known = min(common_prefix(*pair) for pair in zip(self._rows, rows, strict=True))
        known = min(known, len(rows[0]) - 1)  # the last token is read again: it gives the logits
        self._rows = [row[:known] for row in self._rows]
        length, logits = len(rows[0]), torch.empty(0)
        at_once = max(1, CHUNK // len(rows))
        for start in range(known, length, at_once):
            stop = min(start + at_once, length)
            new = stop - start
            last = range(new - 1, len(rows) * new, new) if stop == length else ()
            logits = self._decoder.step(
                torch.tensor([row[start:stop] for row in rows]).flatten(),
                torch.arange(start, stop, dtype=torch.int32).repeat(len(rows)),
                self._tables.repeat_interleave(new, 0),
                torch.tensor(last, dtype=torch.int32),
                cache,
            )
        self._rows = [list(row) for row in rows]
        return logits

    def _cache_for(self, batch: int) -> NativeCache:
        if self._cache is not None and len(self._rows) == batch:
            return self._cache
        old = self._cache if len(self._rows) == 1 else None
        cache = self._decoder.new_cache(batch * self._pages)
        self._rows = self._rows * batch if old is not None else [[] for _ in range(batch)]
        if old is not None:
            copies = (1, batch, 1, 1)
            cache.keys, cache.values = old.keys.repeat(copies), old.values.repeat(copies)
        self._tables = torch.arange(batch * self._pages, dtype=torch.int32).view(batch, -1)
        self._cache = cache
        return cache


def _understood(config: DecoderConfig) -> DecoderConfig:
    """The config of what the native step would compute: all that it knows of this one.

    What acts in training alone is kept too.
    """
    attention, network = config.attention, config.feed_forward
    return DecoderConfig(
        vocab_size=config.vocab_size,
        width=config.width,
        num_layers=config.num_layers,
        context_length=config.context_length,
        attention=AttentionConfig(
            num_heads=attention.num_heads,
            num_kv_heads=attention.num_kv_heads,
            head_width=attention.head_width,
            qkv_bias=attention.qkv_bias,
            out_bias=attention.out_bias,
            qk_norm=attention.qk_norm,
            scale=attention.scale,
            windows=attention.windows,
            dropout=attention.dropout,
            out_dropout=attention.out_dropout,
        ),
        feed_forward=FeedForwardConfig(
            kind=network.kind,
            activation=network.activation,
            width=network.width,
            bias=network.bias,
            dropout=network.dropout,
        ),
        positions=PositionsConfig(
            kind=config.positions.kind,
            theta=config.positions.theta,
            layout=config.positions.layout,
            scaling=config.positions.scaling,
        ),
        norm=NormConfig(kind=config.norm.kind, eps=config.norm.eps),
        tie_embeddings=config.tie_embeddings,
        head_bias=config.head_bias,
        embedding_scale=config.embedding_scale,
        embedding_dropout=config.embedding_dropout,
        init_std=config.init_std,
    )


def _layer(block: nn.Module, window: int, format: Format) -> Layer:
    assert isinstance(block, Block) and isinstance(block.attention, Attention)
    attention, network = block.attention, block.feed_forward
    assert isinstance(network, GatedFeedForward | PlainFeedForward)
    heads = [attention.query, attention.key, attention.value]
    up = [network.gate, network.up] if isinstance(network, GatedFeedForward) else [network.up]
    return Layer(
        attention_norm=_norm(block.attention_norm),
        feed_forward_norm=_norm(block.feed_forward_norm),
        query_norm=None if attention.query_norm is None else attention.query_norm.weight,
        key_norm=None if attention.key_norm is None else attention.key_norm.weight,
        projection=_pack(heads, format),
        out=_pack([attention.out], format),
        up=_pack(up, format),
        down=_pack([network.down], format),
        projection_bias=_bias(heads),
        out_bias=_bias([attention.out]),
        up_bias=_bias(up),
        down_bias=_bias([network.down]),
        window=window,
    )


def _norm(norm: nn.Module | None) -> Norm:
    assert isinstance(norm, RMSNorm | LayerNorm) and norm.weight is not None
    return Norm(weight=norm.weight, bias=norm.bias if isinstance(norm, LayerNorm) else None)


def _pack(layers: Sequence[nn.Linear], format: Format) -> Packed:
    return pack(torch.cat([layer.weight.detach() for layer in layers]), format)


def _bias(layers: Sequence[nn.Linear]) -> Tensor | None:
    """The biases below each other; None where there are none."""
    found: list[Tensor] = [layer.bias for layer in layers if layer.bias is not None]
    return torch.cat(found) if found else None


def _flat(fields: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Nested fields under dotted names."""
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{above}{name}.")
        else:
            flat[above + name] = value
    return flat
