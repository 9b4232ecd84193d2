"""Weights of a linear layer in fewer bits, for inference: int8 per row, int4 per 32 of a row.

Both round to the nearest of evenly spaced values, which just hold all weights that share them. int8
lies around 0 ("absmax", Dettmers et al. 2022, arXiv:2208.07339, section 2.1); int4, with 16 values
to spend, goes from the least weight to the largest, as llama.cpp's Q4_1 does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Format = Literal["bf16", "int8", "int4"]
FORMATS: tuple[Format, ...] = ("bf16", "int8", "int4")
GROUP = 32
"""How many int4 weights share their 16 values."""
VECTOR = 64
"""Rows are filled up to a multiple of this many numbers."""
ZERO = 128
"""What stands for 0 in int8: the kernels want weights unsigned."""


@dataclass(frozen=True)
class Packed:
    """A matrix (N, K) as the native kernels read it."""

    format: Format
    values: Tensor
    """bf16: (N, K). int8: (N, K) uint8. int4: (N, K/2) uint8, see `pack_int4`."""
    scales: Tensor | None
    """int8: (N,) fp32. int4: (N, K/32, 2) fp16, the step between values and the least of them."""
    depth: int
    """K, before int8 and int4 fill rows up to a multiple of 64."""

    @property
    def num_bytes(self) -> int:
        """What is read to multiply with it once."""
        return self.values.nbytes + (0 if self.scales is None else self.scales.nbytes)


def pack(weight: Tensor, format: Format) -> Packed:
    """(N, K) weights of any float dtype -> packed."""
    weight = weight.detach()
    if format == "bf16":
        return Packed("bf16", weight.bfloat16().contiguous(), None, weight.shape[1])
    return pack_int8(weight.float()) if format == "int8" else pack_int4(weight.float())


def pack_int8(weight: Tensor) -> Packed:
    """(N, K) fp32 -> (q - 128) · scale, q from 1 to 255, one scale a row."""
    scales = weight.abs().amax(1) / 127
    values = (weight / _divisor(scales)[:, None]).round() + ZERO
    values = F.pad(values.to(torch.uint8), (0, -weight.shape[1] % VECTOR), value=ZERO)
    return Packed("int8", values, scales, weight.shape[1])


def pack_int4(weight: Tensor) -> Packed:
    """(N, K) fp32 -> q · step + least, q from 0 to 15, step and least for every 32 of a row.

    Of the 32 bytes that hold 64 numbers, byte i has number i in its lower half and i + 32 above it.
    """
    depth = weight.shape[1]
    groups = F.pad(weight, (0, -depth % VECTOR)).unflatten(1, (-1, GROUP))  # (N, K/32, 32)
    least, most = groups.aminmax(dim=2)
    scales = torch.stack(((most - least) / 15, least), dim=2).half()
    step, low = scales.float()[..., :1], scales.float()[..., 1:]
    values = ((groups - low) / _divisor(step)).round().clamp(0, 15).to(torch.uint8)
    first, second = values.unflatten(1, (-1, 2)).unbind(2)
    return Packed("int4", (first | (second << 4)).flatten(1), scales, depth)


def unpack(packed: Packed) -> Tensor:
    """What a packed matrix stands for, (N, K) fp32."""
    if packed.format == "bf16":
        return packed.values.float()
    assert packed.scales is not None
    if packed.format == "int8":
        return (packed.values.float() - ZERO)[:, : packed.depth] * packed.scales[:, None]
    pairs = packed.values.unflatten(1, (-1, GROUP))  # (N, K/64, 32)
    values = torch.stack((pairs & 15, pairs >> 4), dim=2).flatten(1, 2).float()
    step, least = packed.scales.float().unsqueeze(2).unbind(3)
    return (values * step + least).flatten(1)[:, : packed.depth]


def _divisor(scales: Tensor) -> Tensor:
    """The scales, 1 where a row is all zeros."""
    return torch.where(scales == 0, 1.0, scales)
