"""Positions: rotary embeddings (RoPE) with fp32 tables, and document positions."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from groundup.nn.config import AttentionConfig, PositionsConfig
from groundup.nn.rope_scaling import frequencies


class Rotation(NamedTuple):
    """Cosines and sines of the angles, each (T, 1, E/2), ready to broadcast over heads."""

    cos: Tensor
    sin: Tensor
    interleaved: bool = False
    """Turn neighbouring channels together, rather than those half a head apart."""


class RotaryPositions(nn.Module):
    """Tables of the rotations RoPE applies to queries and keys at positions 0..capacity-1.

    Channel pair i turns by position · theta^(-2i/E), or slower with `config.scaling`; the product
    of a rotated query and a rotated key then depends on their distance alone. Su et al. 2021,
    arXiv:2104.09864.
    """

    def __init__(self, head_width: int, capacity: int, config: PositionsConfig) -> None:
        super().__init__()
        assert head_width % 2 == 0, "RoPE turns channels in pairs"
        self.head_width, self.capacity, self.config = head_width, capacity, config
        self.cos: Tensor
        self.sin: Tensor
        self._build(torch.get_default_device())

    def forward(self, start: int, length: int) -> Rotation:
        """The rotations of positions start..start+length-1: two tensors (T, 1, E/2)."""
        stop = start + length
        interleaved = self.config.layout == "interleaved"
        return Rotation(self.cos[start:stop, None], self.sin[start:stop, None], interleaved)

    def _build(self, device: torch.device) -> None:
        turns = frequencies(self.head_width, self.config.theta, self.config.scaling, device)
        positions = torch.arange(self.capacity, dtype=torch.float32, device=device)
        angles = positions[:, None] * turns  # (capacity, E/2)
        scaling = self.config.scaling
        # Query and key both grow by this factor, so their scores by its square: a temperature.
        factor = scaling.attention_factor if scaling is not None else None
        stretch = 1.0 if factor is None else factor
        self.register_buffer("cos", angles.cos() * stretch, persistent=False)
        self.register_buffer("sin", angles.sin() * stretch, persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # Module.to(bfloat16) would round the angles and to_empty() would lose them: rebuild the
        # tables in fp32 on whatever device they were moved to.
        super()._apply(fn, recurse)
        self._build(self.cos.device)
        return self

    def extra_repr(self) -> str:
        return (
            f"head_width={self.head_width}, capacity={self.capacity}, theta={self.config.theta:g}"
        )


class LayerRotations(nn.Module):
    """The rotations of every layer: one table, or another for the layers that see a window."""

    def __init__(
        self, attention: AttentionConfig, capacity: int, positions: PositionsConfig
    ) -> None:
        super().__init__()
        self.attention = attention
        width = positions.turned(attention.rotary_width)
        self.full = RotaryPositions(width, capacity, positions)
        self.windowed = None
        if positions.window_theta is not None:
            self.windowed = RotaryPositions(width, capacity, positions.of_windows())

    def forward(self, layer: int, start: int, length: int) -> Rotation:
        """The rotations of positions start..start+length-1 in this layer."""
        if self.windowed is not None and self.attention.window(layer):
            return self.windowed(start, length)
        return self.full(start, length)


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """(B, T, H, E) -> (B, T, H, E): turn channel pairs by their angles.

    Where there are angles for fewer channels than a head has, only its first ones are turned.

    Half-split, as GPT-NeoX and Hugging Face do, the pairs are (i, i + E/2); interleaved, as the
    paper and Meta's own Llama files do, (2i, 2i + 1). The scores are the same when the channels
    are: see `change_layout`.
    """
    cos, sin, interleaved = rotation
    width = 2 * cos.shape[-1]
    if width < x.shape[-1]:
        return torch.cat((rotate(x[..., :width], rotation), x[..., width:]), dim=-1)
    if interleaved:
        first, second = x.unflatten(-1, (-1, 2)).unbind(-1)
        pairs = torch.stack((first * cos - second * sin, second * cos + first * sin), dim=-1)
        return pairs.flatten(-2).to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    turned = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
    return turned.to(x.dtype)


def change_layout(weight: Tensor, head_width: int, *, interleaved: bool) -> Tensor:
    """(H·E, ...) -> (H·E, ...): reorder every head's rows from one RoPE layout to the other.

    `interleaved` says to which. A model whose query and key projections (weights, biases, and the
    scales of QK-norm, (E,)) go through this computes the same with the other layout.
    """
    halves = (2, -1) if interleaved else (-1, 2)
    heads = weight.unflatten(0, (-1, head_width)).unflatten(1, halves)  # (H, 2, E/2, ...)
    return heads.transpose(1, 2).flatten(0, 2).contiguous()


def document_positions(documents: Tensor) -> Tensor:
    """(B, T) document numbers -> (B, T) positions that restart at 0 where the number changes."""
    steps = torch.arange(documents.shape[1], device=documents.device)
    starts = torch.ones_like(documents, dtype=torch.bool)
    starts[:, 1:] = documents[:, 1:] != documents[:, :-1]
    return steps - torch.where(starts, steps, 0).cummax(dim=1).values
