"""A linear layer whose weight gradient is the native kernel's, where there is one."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.native.ops import has_tiles, weight_gradient


class Linear(nn.Linear):
    """(..., K) -> (..., N): nn.Linear, in every respect but the speed of its backward pass.

    Where a step is trained in bf16 (autocast) on a CPU with AMX, and its kernels are asked for, the
    native one takes the weight gradient. What that gains has not been measured yet.
    """

    def forward(self, input: Tensor) -> Tensor:
        if _is_native(input, self.weight):
            return _Native.apply(input, self.weight, self.bias)
        return super().forward(input)


def _is_native(x: Tensor, weight: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and torch.is_grad_enabled()
        and weight.requires_grad
        and torch.is_autocast_enabled("cpu")
        and torch.get_autocast_dtype("cpu") == torch.bfloat16
        and has_tiles()
    )


class _Native(torch.autograd.Function):
    """y = x Wᵀ + b in bf16; the gradient of W is summed and left in fp32."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            bias = None if bias is None else bias.bfloat16()
            return F.linear(x.bfloat16(), weight.bfloat16(), bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor):
        x, weight, bias = inputs
        ctx.save_for_backward(x, weight)
        ctx.has_bias = bias is not None

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None]:
        (gradient,) = gradients
        x, weight = ctx.saved_tensors
        rows = gradient.flatten(0, -2)
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = (gradient @ weight.bfloat16()).to(x.dtype)
        of_weight = weight_gradient(rows, x.flatten(0, -2).bfloat16())
        of_bias = rows.sum(0, dtype=torch.float32) if ctx.has_bias else None
        return of_x, of_weight, of_bias
