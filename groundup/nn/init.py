"""How weights start: one table, applied by the role a matrix plays in the block.

| role                              | distribution                         |
|-----------------------------------|--------------------------------------|
| token and position embeddings     | normal, std                          |
| query, key, value, gate, up, head | normal, std                          |
| out and down (write the residual) | normal, std / √(2 · number of layers) |
| norm scales, all biases           | 1, 0                                 |

Every block adds two branches to the residual stream; scaling their last matrices by 1/√(2L) keeps
the stream's variance independent of depth. Radford et al. 2019 (GPT-2), section 2.3.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from groundup.nn.norms import LayerNorm, RMSNorm

RESIDUAL_WRITERS = ("out", "down")


@torch.no_grad()
def initialize(module: nn.Module, std: float, num_layers: int) -> None:
    """Fill every weight below `module` in place, by the table above; draws from torch's generator.

    Complete: a model created on the meta device and moved by `to_empty` starts as any other.
    """
    for name, child in module.named_modules():
        if isinstance(child, nn.Linear):
            writes_residual = name.rpartition(".")[2] in RESIDUAL_WRITERS
            scale = 1 / math.sqrt(2 * num_layers) if writes_residual else 1.0
            child.weight.normal_(0.0, std * scale)
        elif isinstance(child, nn.Embedding):
            child.weight.normal_(0.0, std)
        elif isinstance(child, (RMSNorm, LayerNorm)):
            child.weight.fill_(1.0)
        if isinstance(child, (nn.Linear, LayerNorm)) and child.bias is not None:
            child.bias.zero_()
