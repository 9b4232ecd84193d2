"""The training kernels as torch operations, with shapes for tracing and gradients for autograd.

They compute in bf16 with sums in fp32, on a CPU with AMX: who calls them asks `has_tiles` first.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from groundup.native.build import library, status
from groundup.native.selftest import Linear

_POINTER, _INT, _LONG, _FLOAT = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64, ctypes.c_float


@torch.compiler.assume_constant_result
def has_tiles() -> bool:
    """Whether the operations here can be called: there are kernels, and AMX for them."""
    return status().tiles


@torch.library.custom_op("groundup::causal_attention", mutates_args=(), device_types="cpu")
def causal_attention(
    query: Tensor, key: Tensor, value: Tensor, first: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    """(B, H, T, E), (B, K, T, E) twice -> (B, H, T, E), and (B, H, T) fp32 for the gradient.

    All bf16, of any strides but the last, which is 1. `first` (B, T) int32 is the first key that
    each query sees, and does not decrease along a row; None is 0 everywhere.
    """
    out, log_sums = _results(query)
    call = _attention(query, key, value, out, first, log_sums, scale)
    _check(_kernels().groundup_attention(ctypes.byref(call)))
    return out, log_sums


@torch.library.custom_op("groundup::causal_attention_backward", mutates_args=(), device_types="cpu")
def causal_attention_backward(
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    log_sums: Tensor,
    first: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of query, key and value, given that of `out`."""
    gradient = gradient if gradient.stride(-1) == 1 else gradient.contiguous()
    found = [_like(tensor) for tensor in (query, key, value)]
    call = _attention(query, key, value, out, first, log_sums, scale)
    gradients = _Gradients(*map(_heads, (gradient, *found)))
    kernels = _kernels()
    _check(kernels.groundup_attention_backward(ctypes.byref(call), ctypes.byref(gradients)))
    return found[0], found[1], found[2]


@torch.library.custom_op("groundup::weight_gradient", mutates_args=(), device_types="cpu")
def weight_gradient(gradient: Tensor, inputs: Tensor) -> Tensor:
    """(M, N), (M, K) bf16 -> (N, K) fp32: gradientᵀ · inputs, a linear layer's."""
    gradient, inputs = (t if t.stride(1) == 1 else t.contiguous() for t in (gradient, inputs))
    found = torch.empty(gradient.shape[1], inputs.shape[1])
    call = Linear(
        gradient.data_ptr(), inputs.data_ptr(), gradient.stride(0), inputs.stride(0),
        found.data_ptr(), gradient.shape[0], *found.shape, torch.get_num_threads(),
    )  # fmt: skip
    _check(_kernels().groundup_linear_backward(ctypes.byref(call)))
    return found


def cross_entropy_(logits: Tensor, targets: Tensor) -> Tensor:
    """(M, V) bf16, (M,) -> (M,) fp32 losses in nats; the logits are replaced by their gradients.

    A target below 0 is none: loss and gradients are 0. Needs AVX-512 alone.
    """
    assert logits.dtype == torch.bfloat16 and logits.stride(1) == 1, "rows of bf16"
    assert int(targets.max()) < logits.shape[1], "a target beyond the vocabulary"
    targets, losses = targets.contiguous(), torch.empty(len(logits))
    call = _CrossEntropy(
        logits.data_ptr(), targets.data_ptr(), losses.data_ptr(), logits.stride(0), *logits.shape,
        torch.get_num_threads(),
    )  # fmt: skip
    _check(_kernels().groundup_cross_entropy(ctypes.byref(call)))
    return losses


@causal_attention.register_fake
def _(
    query: Tensor, key: Tensor, value: Tensor, first: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    return _results(query)


@causal_attention_backward.register_fake
def _(
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    log_sums: Tensor,
    first: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    return _like(query), _like(key), _like(value)


@weight_gradient.register_fake
def _(gradient: Tensor, inputs: Tensor) -> Tensor:
    return inputs.new_empty(gradient.shape[1], inputs.shape[1], dtype=torch.float32)


def _save(ctx, inputs, output) -> None:
    query, key, value, first, ctx.scale = inputs
    ctx.save_for_backward(query, key, value, *output, first)


def _backward(ctx, gradient, log_sums_gradient):
    query, key, value, out, log_sums, first = ctx.saved_tensors
    found = causal_attention_backward(gradient, query, key, value, out, log_sums, first, ctx.scale)
    return *found, None, None


causal_attention.register_autograd(_backward, setup_context=_save)


class _Heads(ctypes.Structure):
    _fields_ = [("data", _POINTER), *((name, _LONG) for name in ("row", "token", "head"))]


class _Attention(ctypes.Structure):
    _fields_ = [
        *((name, _Heads) for name in ("query", "key", "value", "out")),
        *((name, _POINTER) for name in ("first", "log_sums")),
        *((name, _INT) for name in ("rows", "length", "num_heads", "num_kv_heads")),
        *((name, _INT) for name in ("head_width", "num_threads")),
        ("scale", _FLOAT),
    ]


class _Gradients(ctypes.Structure):
    _fields_ = [(name, _Heads) for name in ("out", "query", "key", "value")]


class _CrossEntropy(ctypes.Structure):
    _fields_ = [
        *((name, _POINTER) for name in ("logits", "targets", "losses")),
        ("stride", _LONG),
        *((name, _INT) for name in ("rows", "vocab_size", "num_threads", "unused")),
    ]


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    first: Tensor | None,
    log_sums: Tensor,
    scale: float,
) -> _Attention:
    rows, heads, length, width = query.shape
    assert {t.dtype for t in (query, key, value)} == {torch.bfloat16}, "attention in bf16"
    assert key.shape == value.shape == (rows, key.shape[1], length, width)
    assert all(t.stride(-1) == 1 for t in (query, key, value)), "channels next to each other"
    assert first is None or (first.dtype == torch.int32 and first.shape == (rows, length))
    first = first if first is None else first.contiguous()
    call = _Attention(
        *map(_heads, (query, key, value, out)), None if first is None else first.data_ptr(),
        log_sums.data_ptr(), rows, length, heads, key.shape[1], width, torch.get_num_threads(),
        scale,
    )  # fmt: skip
    call.keep = first  # until the call is over
    return call


def _heads(tensor: Tensor) -> _Heads:
    """(B, heads, T, E) -> where it lies."""
    return _Heads(tensor.data_ptr(), tensor.stride(0), tensor.stride(2), tensor.stride(1))


def _like(tensor: Tensor) -> Tensor:
    """An empty (B, heads, T, E) whose heads lie next to each other, as a projection reads them."""
    rows, heads, length, width = tensor.shape
    return tensor.new_empty(rows, length, heads, width).transpose(1, 2)


def _results(query: Tensor) -> tuple[Tensor, Tensor]:
    return _like(query), query.new_empty(query.shape[:3], dtype=torch.float32)


def _kernels() -> ctypes.CDLL:
    kernels = library()
    assert kernels is not None, "callers ask groundup.native.build.status first"
    return kernels


def _check(result: int) -> None:
    if result == -1:
        raise MemoryError("no memory for a native kernel")
    assert result == 0, "this kernel needs AMX: callers ask has_tiles first"
