"""Normalisation over the model width: RMSNorm and LayerNorm, in fp32 inside."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from groundup.nn.config import NormConfig


def build_norm(config: NormConfig, width: int) -> RMSNorm | LayerNorm:
    """The norm a config names, for inputs whose last dimension is `width`."""
    if config.kind == "rmsnorm":
        return RMSNorm(width, config.eps, config.scale)
    return LayerNorm(width, config.eps, config.scale, config.bias)


class RMSNorm(nn.Module):
    """(..., D) -> (..., D): x / sqrt(mean(x²) + eps) · weight.

    Computed in fp32 and cast back to the input's dtype, so a bf16 input never turns fp32 because
    its weight is. No mean is subtracted and no bias added. Zhang & Sennrich 2019, arXiv:1910.07467.
    """

    def __init__(self, width: int, eps: float = 1e-6, scale: bool = True) -> None:
        super().__init__()
        self.width, self.eps = width, eps
        self.weight = nn.Parameter(torch.ones(width)) if scale else None

    def forward(self, x: Tensor) -> Tensor:
        y = x.float()
        inverse_rms = torch.rsqrt(y.square().mean(-1, keepdim=True) + self.eps)
        y = y * inverse_rms
        return (y if self.weight is None else y * self.weight).to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.width}, eps={self.eps}"


class LayerNorm(nn.Module):
    """(..., D) -> (..., D): (x - mean) / sqrt(var + eps) · weight + bias, var biased (÷ D).

    Computed in fp32 and cast back to the input's dtype. Ba et al. 2016, arXiv:1607.06450.
    """

    def __init__(
        self, width: int, eps: float = 1e-5, scale: bool = True, bias: bool = True
    ) -> None:
        super().__init__()
        self.width, self.eps = width, eps
        self.weight = nn.Parameter(torch.ones(width)) if scale else None
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        y = x.float()
        y = y - y.mean(-1, keepdim=True)
        inverse_std = torch.rsqrt(y.square().mean(-1, keepdim=True) + self.eps)
        y = y * inverse_std
        y = y if self.weight is None else y * self.weight
        return (y if self.bias is None else y + self.bias).to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.width}, eps={self.eps}"
