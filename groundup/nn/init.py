"""How weights start: one table, applied by the role a matrix plays in the block.

| role                                 | normal distribution of standard deviation                 |
|--------------------------------------|-----------------------------------------------------------|
| embeddings, head, query, key, scorer | std                                                       |
| value, gate, up                      | std; with deepnorm std · β                                |
| out, down: these write the stream    | std / √(2L) with norms before, else std; deepnorm std · β |
| norm scales; all biases, sinks       | none: 1; 0                                                |

L is the number of layers. Where the norms stand before the branches, each of 2L branches adds to
the stream; scaling their last matrices by 1/√(2L) keeps its variance independent of depth. Radford
et al. 2019 (GPT-2), section 2.3. A norm after the branch or after the sum makes that moot. DeepNorm
bounds each update instead, by β = (8L)^-¼ beside its α: Wang et al. 2022, arXiv:2203.00555, figure
2; its proof is for std = 1/√D (Xavier).
"""

from __future__ import annotations

import math

import torch
from torch import nn

from groundup.nn.config import NormPlacement
from groundup.nn.differential_attention import LAMBDA_STD, DifferentialAttention
from groundup.nn.kernels import Mix
from groundup.nn.moe import Router, StackedLinear
from groundup.nn.norms import LayerNorm, RMSNorm

RESIDUAL_WRITERS = ("out", "down")
NORMED_BEFORE = ("pre", "parallel", "parallel_shared")
DEEPNORM_SCALED = ("value", "out", "gate", "up", "down")


@torch.no_grad()
def initialize(
    module: nn.Module, std: float, num_layers: int, placement: NormPlacement = "pre"
) -> None:
    """Fill every weight below `module` in place, by the table above; draws from torch's generator.

    Complete: a model created on the meta device and moved by `to_empty` starts as any other.
    """
    for name, child in module.named_modules():
        if isinstance(child, (nn.Linear, StackedLinear)):
            scale = _scale(name.rpartition(".")[2], num_layers, placement)
            child.weight.normal_(0.0, std * scale)
        elif isinstance(child, nn.Embedding):
            child.weight.normal_(0.0, std)
        elif isinstance(child, (RMSNorm, LayerNorm)) and child.weight is not None:
            child.weight.fill_(1.0)
        elif isinstance(child, DifferentialAttention):
            child.lambdas.normal_(0.0, LAMBDA_STD)
        elif isinstance(child, Mix) and child.sinks is not None:
            child.sinks.zero_()
        if isinstance(child, (nn.Linear, LayerNorm, Router)) and child.bias is not None:
            child.bias.zero_()


def deepnorm_stream_scale(num_layers: int) -> float:
    """α = (2L)^¼, by which DeepNorm multiplies the stream before it adds a branch."""
    return (2 * num_layers) ** 0.25


def _scale(role: str, num_layers: int, placement: NormPlacement) -> float:
    if placement == "deepnorm":
        return (8 * num_layers) ** -0.25 if role in DEEPNORM_SCALED else 1.0
    if placement in NORMED_BEFORE and role in RESIDUAL_WRITERS:
        return 1 / math.sqrt(2 * num_layers)
    return 1.0
