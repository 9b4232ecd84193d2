"""ALiBi: attention that weakens with distance, in place of position embeddings."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def alibi_bias(
    num_heads: int, num_queries: int, num_keys: int, device: torch.device | None = None
) -> Tensor:
    """-> (H, T, S), to be added to the scores of the last T of S positions: -slope · distance.

    The bias is 0 at the query itself and falls on both sides; a causal mask hides the later one.
    Press et al. 2021, arXiv:2108.12409.
    """
    keys = torch.arange(num_keys, device=device)
    queries = torch.arange(num_keys - num_queries, num_keys, device=device)
    distances = (queries[:, None] - keys[None, :]).abs()
    slopes = torch.tensor(alibi_slopes(num_heads), device=device)
    return -slopes[:, None, None] * distances


def alibi_slopes(num_heads: int) -> list[float]:
    """How fast each head forgets: 2^(-8h/H) for h = 1..H, if H is a power of two.

    Else those of the next smaller power of two, and then every other one of twice that power, as
    the authors' code does; the paper says nothing about it.
    """
    power = 2 ** math.floor(math.log2(num_heads))
    slopes = [2 ** (-8 * head / power) for head in range(1, power + 1)]
    between = [2 ** (-8 * head / (2 * power)) for head in range(1, 2 * power, 2)]
    return slopes + between[: num_heads - power]
