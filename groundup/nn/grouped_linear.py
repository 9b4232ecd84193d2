"""Many matrices, each times its own piece of the rows: where experts spend their time.

X matrices, N rows sorted by the matrix they are for; `counts` (X,) says how many each one gets.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def grouped_linear(x: Tensor, weight: Tensor, counts: Tensor) -> Tensor:
    """(N, in), (X, out, in), (X,) -> (N, out): the first counts[0] rows by weight[0], and so on.

    torch's grouped kernel where it takes the format and both widths are multiples of 16 bytes, else
    a product per expert. When compiled, what torch cannot trace is one opaque operation: sizes that
    depend on the counts, and (as of torch 2.13) the kernel in any other format than bfloat16.
    """
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight = x.to(dtype), weight.to(dtype)
    traceable = x.dtype == torch.bfloat16 and _fits(x, weight)
    if torch.compiler.is_compiling() and not traceable:
        return _opaque(x, weight, counts)
    return _product(x, weight, counts)


def _product(x: Tensor, weight: Tensor, counts: Tensor) -> Tensor:
    if _fits(x, weight):
        ends = counts.cumsum(0).to(torch.int32)
        return F.grouped_mm(x, weight.transpose(-2, -1), offs=ends)
    segments = x.split(counts.tolist())
    pairs = zip(segments, weight.unbind(), strict=True)
    return torch.cat([F.linear(segment, matrix) for segment, matrix in pairs])


def _fits(x: Tensor, weight: Tensor) -> bool:
    """Whether torch's grouped kernel takes them."""
    known = x.dtype in (torch.float32, torch.bfloat16, torch.float16)
    return known and all(width * x.element_size() % 16 == 0 for width in weight.shape[1:])


@torch.library.custom_op("groundup::grouped_linear", mutates_args=())
def _opaque(x: Tensor, weight: Tensor, counts: Tensor) -> Tensor:
    return _product(x, weight, counts)


@torch.library.custom_op("groundup::grouped_outer", mutates_args=())
def _outer(y: Tensor, x: Tensor, counts: Tensor) -> Tensor:
    """(N, out), (N, in), (X,) -> (X, out, in): the sum of y xᵀ over each matrix's rows."""
    sizes = counts.tolist()
    pairs = zip(y.split(sizes), x.split(sizes), strict=True)
    return torch.stack([left.t() @ right for left, right in pairs])


@_opaque.register_fake
def _(x: Tensor, weight: Tensor, counts: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[1])


@_outer.register_fake
def _(y: Tensor, x: Tensor, counts: Tensor) -> Tensor:
    return x.new_empty(counts.shape[0], y.shape[1], x.shape[1])


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
    x, weight, counts = ctx.saved_tensors
    gradient = gradient.contiguous()  # that of a sum is one number, expanded
    back = _opaque(gradient, weight.transpose(-2, -1).contiguous(), counts)
    return back, _outer(gradient, x, counts), None


_opaque.register_autograd(_backward, setup_context=_keep)
