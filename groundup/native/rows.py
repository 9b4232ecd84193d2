"""Packed weights times a few rows of activations: the step's inner operation, by itself."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from groundup.native.build import library
from groundup.native.quantize import FORMATS, Packed


class Weights(ctypes.Structure):
    """`struct weights` of csrc/formats.h."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("values", "scales")),
        *((name, ctypes.c_int32) for name in ("format", "num_rows", "depth", "unused")),
    ]


class _Rows(ctypes.Structure):
    _fields_ = [
        ("weights", Weights),
        *((name, ctypes.c_void_p) for name in ("inputs", "outputs")),
        *((name, ctypes.c_int32) for name in ("rows", "num_threads")),
    ]


def weights(packed: Packed) -> Weights:
    """Where a packed matrix lies; valid as long as it lives."""
    scales = None if packed.scales is None else packed.scales.data_ptr()
    format, rows = FORMATS.index(packed.format), packed.values.shape[0]
    return Weights(packed.values.data_ptr(), scales, format, rows, packed.depth, 0)


def multiply(x: Tensor, packed: Packed) -> Tensor:
    """(M, K) fp32, (N, K) packed -> (M, N) fp32: x · weightᵀ.

    x is rounded to bf16, or to 8 bits for every 64 of a row: see csrc/formats.h. Meant for M up to
    a few dozen. Raises RuntimeError where there are no kernels.
    """
    kernels = library()
    if kernels is None:
        raise RuntimeError("there are no native kernels; see groundup.native.build.status")
    assert x.dtype == torch.float32 and x.shape[1] == packed.depth, "rows of fp32, as deep"
    x, y = x.contiguous(), torch.empty(len(x), packed.values.shape[0])
    call = _Rows(weights(packed), x.data_ptr(), y.data_ptr(), len(x), torch.get_num_threads())
    if kernels.groundup_rows(ctypes.byref(call)):
        raise MemoryError(f"no memory for {len(x)} rows")
    return y
