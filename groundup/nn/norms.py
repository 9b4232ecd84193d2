"""Normalisation over the model width: RMSNorm and LayerNorm, in fp32 inside."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from groundup.nn.config import NormConfig


def build_norm(config: NormConfig, width: int) -> RMSNorm | LayerNorm:
    """The norm a config names, for inputs whose last dimension is `width`."""
    kinds = {"rmsnorm": RMSNorm, "layernorm": LayerNorm}
    return kinds[config.kind](width, config.eps)


class RMSNorm(nn.Module):
    """(..., D) -> (..., D): x / sqrt(mean(x²) + eps) · weight.

    Computed in fp32 and cast back to the input's dtype, so a bf16 input never turns fp32 because
    its weight is. No mean is subtracted and no bias added. Zhang & Sennrich 2019, arXiv:1910.07467.
    """

    def __init__(self, width: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        y = x.float()
        inverse_rms = torch.rsqrt(y.square().mean(-1, keepdim=True) + self.eps)
        return (y * inverse_rms * self.weight).to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, eps={self.eps}"


class LayerNorm(nn.Module):
    """(..., D) -> (..., D): (x - mean) / sqrt(var + eps) · weight + bias, var biased (÷ D).

    Computed in fp32 and cast back to the input's dtype. Ba et al. 2016, arXiv:1607.06450.
    """

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        y = x.float()
        y = y - y.mean(-1, keepdim=True)
        inverse_std = torch.rsqrt(y.square().mean(-1, keepdim=True) + self.eps)
        return (y * inverse_std * self.weight + self.bias).to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, eps={self.eps}"
