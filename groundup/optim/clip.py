"""Gradient clipping by global norm, by value, or by one after the other.

Clip once per optimizer step: after the last micro-batch, after the gradients of all ranks are
summed, and after a loss scaler has unscaled them; clipping any earlier changes the direction.
"""

# The multi-tensor kernels have no public name; torch.optim calls them the same way.
# pyright: reportPrivateImportUsage=false
from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def clip_gradients(parameters: Iterable[Tensor], max_norm: float, max_value: float) -> Tensor:
    """Clip by norm, then clamp what is left by value; 0 turns either off. () fp32.

    Returns the norm before both. In this order the norm still tells of what is not finite, which
    clamping would hide.
    """
    parameters = list(parameters)
    norm = clip_global_norm(parameters, max_norm)
    if max_value > 0:
        clip_value(parameters, max_value)
    return norm


@torch.no_grad()
def clip_global_norm(parameters: Iterable[Tensor], max_norm: float) -> Tensor:
    """Scale all gradients by min(1, max_norm / norm), in place; returns the norm before. () fp32.

    The norm is that of all gradients as one vector. `max_norm` 0 only measures. When the norm is
    not finite the gradients stay as they are: the caller sees it in the returned norm, without a
    device synchronisation here, and decides whether to skip the step.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return torch.zeros(())
    # Per-tensor norms in fp32: squares of bf16 gradients summed in bf16 lose the small ones.
    norms = torch._foreach_norm(gradients, 2, dtype=torch.float32)
    norm = torch.linalg.vector_norm(torch.stack(norms))
    if max_norm > 0:
        scale = (max_norm / norm).clamp(max=1.0)
        torch._foreach_mul_(gradients, torch.where(norm.isfinite(), scale, 1.0))
    return norm


@torch.no_grad()
def clip_value(parameters: Iterable[Tensor], limit: float) -> None:
    """Clamp every gradient entry to [-limit, limit], in place. Unlike the norm, this turns it."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if gradients:
        torch._foreach_clamp_min_(gradients, -limit)
        torch._foreach_clamp_max_(gradients, limit)
