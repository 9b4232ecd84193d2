"""Positions: rotary embeddings (RoPE) with fp32 tables, and document positions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn

Rotation = tuple[Tensor, Tensor]
"""Cosines and sines of the angles, each (T, 1, E/2), ready to broadcast over heads."""


class RotaryPositions(nn.Module):
    """Tables of the rotations RoPE applies to queries and keys at positions 0..capacity-1.

    Channel pair i turns by position · theta^(-2i/E); the product of a rotated query and a rotated
    key then depends on their distance alone. Su et al. 2021, arXiv:2104.09864.
    """

    def __init__(self, head_width: int, capacity: int, theta: float = 10_000.0) -> None:
        super().__init__()
        assert head_width % 2 == 0, "RoPE turns channels in pairs"
        self.head_width, self.capacity, self.theta = head_width, capacity, theta
        self.cos: Tensor
        self.sin: Tensor
        self._build(torch.get_default_device())

    def forward(self, start: int, length: int) -> Rotation:
        """The rotations of positions start..start+length-1: two tensors (T, 1, E/2)."""
        stop = start + length
        return self.cos[start:stop, None], self.sin[start:stop, None]

    def _build(self, device: torch.device) -> None:
        pairs = torch.arange(0, self.head_width, 2, dtype=torch.float32, device=device)
        frequencies = 1.0 / self.theta ** (pairs / self.head_width)
        positions = torch.arange(self.capacity, dtype=torch.float32, device=device)
        angles = positions[:, None] * frequencies  # (capacity, E/2)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # Module.to(bfloat16) would round the angles and to_empty() would lose them: rebuild the
        # tables in fp32 on whatever device they were moved to.
        super()._apply(fn, recurse)
        self._build(self.cos.device)
        return self

    def extra_repr(self) -> str:
        return f"head_width={self.head_width}, capacity={self.capacity}, theta={self.theta:g}"


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """(B, T, H, E) -> (B, T, H, E): turn the channel pairs (i, i + E/2) by their angles.

    This is the "half-split" layout of GPT-NeoX and Hugging Face. The paper and Meta's own Llama
    files pair neighbours (2i, 2i + 1): the same scores, with other channels in each pair.
    """
    cos, sin = rotation
    first, second = x.chunk(2, dim=-1)
    turned = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
    return turned.to(x.dtype)


def document_positions(documents: Tensor) -> Tensor:
    """(B, T) document numbers -> (B, T) positions that restart at 0 where the number changes."""
    steps = torch.arange(documents.shape[1], device=documents.device)
    starts = torch.ones_like(documents, dtype=torch.bool)
    starts[:, 1:] = documents[:, 1:] != documents[:, :-1]
    return steps - torch.where(starts, steps, 0).cummax(dim=1).values
