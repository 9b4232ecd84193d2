"""Sinusoidal positions: every position as sines and cosines of many wavelengths."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sinusoids(start: int, length: int, width: int, device: torch.device | None = None) -> Tensor:
    """-> (length, D) fp32 for positions start..start+length-1, to be added to the embeddings.

    Channels 2i and 2i + 1 hold sin and cos of position / 10000^(2i/D), so that a shift by a fixed
    distance is one linear map, whatever the position. Vaswani et al. 2017, arXiv:1706.03762,
    section 3.5.
    """
    positions = torch.arange(start, start + length, dtype=torch.float32, device=device)
    pairs = torch.arange(0, width, 2, dtype=torch.float32, device=device)
    angles = positions[:, None] * torch.exp(pairs * (-math.log(10_000.0) / width))
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)[:, :width]
