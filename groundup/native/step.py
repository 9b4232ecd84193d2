"""A decoder as the native step reads it: packed weights, a cache in pages, and the call.

The structures are those of `csrc/step.h`, field by field. They hold addresses: a `NativeDecoder`
keeps the tensors behind them alive.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from groundup.native.build import library
from groundup.native.quantize import Packed
from groundup.native.rows import Weights, weights

PAGE = 16
"""Tokens of a page of the cache."""
ACTIVATIONS = ("silu", "gelu", "gelu_tanh", "relu", "relu2")
_POINTER, _INT, _FLOAT = ctypes.c_void_p, ctypes.c_int32, ctypes.c_float


@dataclass(frozen=True, kw_only=True)
class Norm:
    """RMSNorm, or LayerNorm where the decoder has that."""

    weight: Tensor
    bias: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One block: attention and feed-forward, each behind a norm and added to the stream."""

    attention_norm: Norm
    feed_forward_norm: Norm
    query_norm: Tensor | None
    key_norm: Tensor | None
    """(E,) each."""
    projection: Packed
    """Queries, keys and values below each other, ((H + 2K)·E, D)."""
    out: Packed
    up: Packed
    """(F, D), or gate and up below each other, (2F, D)."""
    down: Packed
    projection_bias: Tensor | None = None
    out_bias: Tensor | None = None
    up_bias: Tensor | None = None
    down_bias: Tensor | None = None
    window: int = 0


@dataclass(frozen=True, kw_only=True)
class Parts:
    """All that a decoder computes with. Vectors and tables are fp32, the embedding bf16."""

    layers: Sequence[Layer]
    embedding: Tensor
    positions: Tensor | None
    """(context, D) to add to the embeddings."""
    cosine: Tensor | None
    sine: Tensor | None
    """(context, E/2) each."""
    final_norm: Norm
    head: Packed
    head_bias: Tensor | None
    num_heads: int
    num_kv_heads: int
    head_width: int
    feed_forward_width: int
    interleaved: bool
    layer_norm: bool
    gated: bool
    activation: str
    norm_eps: float
    score_scale: float
    embedding_scale: float


class NativeCache:
    """Keys and values in pages of 16 tokens, bf16; which page holds what is the caller's affair."""

    def __init__(self, num_layers: int, num_pages: int, num_kv_heads: int, head_width: int) -> None:
        shape = (num_layers, num_pages, num_kv_heads, PAGE * head_width)
        self.keys = torch.zeros(shape, dtype=torch.bfloat16)
        self.values = torch.zeros(shape, dtype=torch.bfloat16)
        self.num_pages = num_pages


class NativeDecoder:
    """Runs a decoder's step in one native call. Raises RuntimeError where there are no kernels."""

    def __init__(self, parts: Parts) -> None:
        kernels = library()
        if kernels is None:
            raise RuntimeError("there are no native kernels; see groundup.native.build.status")
        self.parts, self.vocab_size = parts, parts.head.values.shape[0]
        self._call = kernels.groundup_step
        self._keep: list[Tensor] = []
        self._packed: list[Packed] = []
        self._model = self._pack(parts)

    def new_cache(self, num_pages: int) -> NativeCache:
        """An empty cache of this decoder's shape."""
        parts = self.parts
        return NativeCache(len(parts.layers), num_pages, parts.num_kv_heads, parts.head_width)

    @property
    def num_bytes(self) -> int:
        """What a step reads of the weights, whatever its tokens; the head included."""
        parts = self.parts
        matrices = [m for one in parts.layers for m in (one.projection, one.out, one.up, one.down)]
        return sum(matrix.num_bytes for matrix in (*matrices, parts.head))

    def step(
        self, ids: Tensor, positions: Tensor, tables: Tensor, wanted: Tensor, cache: NativeCache
    ) -> Tensor:
        """M tokens -> the logits (N, V) fp32 of those N that are wanted.

        `ids` (M,) int64; `positions` (M,) int32; `tables` (M, P) int32, the pages of each token's
        sequence; `wanted` (N,) int32, indices below M. The tokens of one sequence stand in order;
        each sees all of its sequence up to itself. Their keys and values go into the cache.
        """
        count, pages = tables.shape
        assert ids.dtype == torch.int64 and ids.shape == positions.shape == (count,)
        assert positions.dtype == tables.dtype == wanted.dtype == torch.int32
        assert all(t.is_contiguous() for t in (ids, positions, tables, wanted))
        assert int(positions.max()) < pages * PAGE, "a position beyond its pages"
        logits = torch.empty(len(wanted), self.vocab_size)
        tokens = _Tokens(
            ids=ids.data_ptr(), positions=positions.data_ptr(), tables=tables.data_ptr(),
            wanted=wanted.data_ptr(), count=count, table_length=pages, num_wanted=len(wanted),
            num_threads=torch.get_num_threads(),
        )  # fmt: skip
        memory = _Cache(cache.keys.data_ptr(), cache.values.data_ptr(), cache.num_pages, 0)
        address = ctypes.c_void_p(logits.data_ptr())
        found = self._call(
            ctypes.byref(self._model), ctypes.byref(memory), ctypes.byref(tokens), address
        )
        if found:
            raise MemoryError(f"no memory for a step of {count} tokens")
        return logits

    def _pack(self, parts: Parts) -> _Model:
        layers = (_Layer * len(parts.layers))(*map(self._layer, parts.layers))
        table = self._address
        return _Model(
            layers=layers, embedding=table(parts.embedding, torch.bfloat16),
            positions=table(parts.positions), cosine=table(parts.cosine), sine=table(parts.sine),
            final_norm=self._norm(parts.final_norm), head=self._weights(parts.head),
            head_bias=table(parts.head_bias), num_layers=len(parts.layers),
            width=parts.embedding.shape[1], num_heads=parts.num_heads,
            num_kv_heads=parts.num_kv_heads, head_width=parts.head_width,
            feed_forward_width=parts.feed_forward_width, vocab_size=self.vocab_size,
            interleaved=parts.interleaved, layer_norm=parts.layer_norm, gated=parts.gated,
            activation=ACTIVATIONS.index(parts.activation), norm_eps=parts.norm_eps,
            score_scale=parts.score_scale, embedding_scale=parts.embedding_scale,
        )  # fmt: skip

    def _layer(self, layer: Layer) -> _Layer:
        weights, table = self._weights, self._address
        return _Layer(
            attention_norm=self._norm(layer.attention_norm),
            feed_forward_norm=self._norm(layer.feed_forward_norm),
            query_norm=table(layer.query_norm), key_norm=table(layer.key_norm),
            projection=weights(layer.projection), out=weights(layer.out), up=weights(layer.up),
            down=weights(layer.down), projection_bias=table(layer.projection_bias),
            out_bias=table(layer.out_bias), up_bias=table(layer.up_bias),
            down_bias=table(layer.down_bias), window=layer.window,
        )  # fmt: skip

    def _norm(self, norm: Norm) -> _Norm:
        return _Norm(self._address(norm.weight), self._address(norm.bias))

    def _weights(self, packed: Packed) -> Weights:
        self._packed.append(packed)
        return weights(packed)

    def _address(self, tensor: Tensor | None, dtype: torch.dtype = torch.float32) -> int | None:
        """Where its numbers lie, contiguous and in this format; None for none."""
        if tensor is None:
            return None
        self._keep.append(tensor.detach().to("cpu", dtype).contiguous())
        return self._keep[-1].data_ptr()


class _Norm(ctypes.Structure):
    _fields_ = [("weight", _POINTER), ("bias", _POINTER)]


class _Layer(ctypes.Structure):
    _fields_ = [
        *((name, _Norm) for name in ("attention_norm", "feed_forward_norm")),
        *((name, _POINTER) for name in ("query_norm", "key_norm")),
        *((name, Weights) for name in ("projection", "out", "up", "down")),
        *((f"{name}_bias", _POINTER) for name in ("projection", "out", "up", "down")),
        *((name, _INT) for name in ("window", "unused")),
    ]


class _Model(ctypes.Structure):
    _fields_ = [
        ("layers", ctypes.POINTER(_Layer)),
        *((name, _POINTER) for name in ("embedding", "positions", "cosine", "sine")),
        ("final_norm", _Norm),
        ("head", Weights),
        ("head_bias", _POINTER),
        *((name, _INT) for name in ("num_layers", "width", "num_heads", "num_kv_heads")),
        *((name, _INT) for name in ("head_width", "feed_forward_width", "vocab_size")),
        *((name, _INT) for name in ("interleaved", "layer_norm", "gated", "activation")),
        *((name, _FLOAT) for name in ("norm_eps", "score_scale", "embedding_scale")),
    ]


class _Cache(ctypes.Structure):
    _fields_ = [("keys", _POINTER), ("values", _POINTER), ("num_pages", _INT), ("unused", _INT)]


class _Tokens(ctypes.Structure):
    _fields_ = [
        *((name, _POINTER) for name in ("ids", "positions", "tables", "wanted")),
        *((name, _INT) for name in ("count", "table_length", "num_wanted", "num_threads")),
    ]
