"""Position-wise feed-forward networks: gated (SwiGLU and friends), plain, and many of either."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from groundup.nn.config import FeedForwardConfig
from groundup.nn.linear import Linear
from groundup.nn.moe import MixtureOfExperts


def relu_squared(x: Tensor) -> Tensor:
    """max(0, x)². So et al. 2021, arXiv:2109.08668."""
    return F.relu(x).square()


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "relu2": relu_squared,
}


def build_feed_forward(
    config: FeedForwardConfig, width: int
) -> GatedFeedForward | PlainFeedForward | MixtureOfExperts:
    """The network a config names, for a model of the given width."""
    kinds = {"gated": GatedFeedForward, "plain": PlainFeedForward}
    if config.experts is None:
        return kinds[config.kind](width, config)
    shared = None
    if config.experts.shared_width:
        alone = replace(config, experts=None, width=config.experts.shared_width, dropout=0.0)
        shared = kinds[config.kind](width, alone)
    return MixtureOfExperts(width, config, ACTIVATIONS[config.activation], shared)


class GatedFeedForward(nn.Module):
    """(B, T, D) -> (B, T, D): down(activation(gate(x)) ⊙ up(x)).

    With silu this is SwiGLU. Shazeer 2020, arXiv:2002.05202.
    """

    def __init__(self, width: int, config: FeedForwardConfig) -> None:
        super().__init__()
        self.gate = Linear(width, config.width, bias=config.bias)
        self.up = Linear(width, config.width, bias=config.bias)
        self.down = Linear(config.width, width, bias=config.bias)
        self.activation = ACTIVATIONS[config.activation]
        self.dropout = config.dropout

    def forward(self, x: Tensor) -> Tensor:
        y = self.down(self.activation(self.gate(x)) * self.up(x))
        return F.dropout(y, self.dropout, self.training) if self.dropout else y


class PlainFeedForward(nn.Module):
    """(B, T, D) -> (B, T, D): down(activation(up(x))). Vaswani et al. 2017, arXiv:1706.03762."""

    def __init__(self, width: int, config: FeedForwardConfig) -> None:
        super().__init__()
        self.up = Linear(width, config.width, bias=config.bias)
        self.down = Linear(config.width, width, bias=config.bias)
        self.activation = ACTIVATIONS[config.activation]
        self.dropout = config.dropout

    def forward(self, x: Tensor) -> Tensor:
        y = self.down(self.activation(self.up(x)))
        return F.dropout(y, self.dropout, self.training) if self.dropout else y
