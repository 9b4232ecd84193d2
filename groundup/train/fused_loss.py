"""The head and the cross-entropy together, a few rows at a time: logits are never stored whole.

Where the native kernels are, each piece of logits is replaced by its own gradient as soon as its
losses are known, so that the gradients of hidden states and head are ready with the loss. As in
Liger Kernel, arXiv:2410.10989.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from groundup.native.ops import cross_entropy_, has_tiles, weight_gradient

ROWS = 2048
"""Rows of logits at a time: 16 MB of bf16 at a vocabulary of 4096."""


def can_fuse(head: Tensor) -> bool:
    """Whether this is trained in bf16 on a CPU with AMX: with its kernels."""
    return (
        head.device.type == "cpu"
        and torch.is_grad_enabled()
        and torch.is_autocast_enabled("cpu")
        and torch.get_autocast_dtype("cpu") == torch.bfloat16
        and has_tiles()
    )


def head_cross_entropy_sum(hidden: Tensor, head: Tensor, targets: Tensor) -> Tensor:
    """(N, D), (V, D), (N,) -> (): the summed cross-entropy of hidden · headᵀ, in nats.

    Logits are computed in bf16, losses in fp32. Targets below 0 add nothing.
    """
    return _untraced(hidden, head, targets)


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            half, matrix = hidden.bfloat16(), head.bfloat16()
            total = torch.zeros(())
            of_hidden, of_head = torch.empty_like(half), torch.zeros_like(head, dtype=torch.float32)
            for rows, piece, goal in zip(
                half.split(ROWS), of_hidden.split(ROWS), targets.split(ROWS), strict=True
            ):
                logits = F.linear(rows, matrix)
                total += cross_entropy_(logits, goal).sum()
                torch.mm(logits, matrix, out=piece)
                of_head += weight_gradient(logits, rows)
        ctx.save_for_backward(of_hidden, of_head)
        ctx.dtypes = hidden.dtype, head.dtype
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        (gradient,) = gradients
        of_hidden, of_head = ctx.saved_tensors
        hidden_dtype, head_dtype = ctx.dtypes
        return (gradient * of_hidden).to(hidden_dtype), (gradient * of_head).to(head_dtype), None


_untraced: Any = torch.compiler.disable(_HeadLoss.apply)
"""The graph of a compiled step ends before the head: a kernel that works in place is not traced."""
