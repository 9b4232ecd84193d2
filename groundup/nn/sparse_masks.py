"""Sparse patterns for long texts: blocks, strides, global tokens, random links, as mask rules.

| model                                | rule                                                     |
|--------------------------------------|----------------------------------------------------------|
| Sparse Transformer, arXiv:1904.10509 | `Causal() & (Window(n) | Strided(n))`                    |
| the same, fixed                      | `Causal() & (Blocks(n) | Summaries(n))`                  |
| Longformer, arXiv:2004.05150         | `Window(n) | Global(flags)`                              |
| BigBird, arXiv:2007.14062            | `Window(n) | Global(flags) | Random(length, links)`      |

As dense masks they cost what full attention costs; the gain needs a kernel that skips blocks, such
as FlexAttention's (`groundup.nn.masks.flex_plan`). `density` says how large it could be.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from groundup.config import require
from groundup.nn.masks import Rule


@dataclass(frozen=True)
class Blocks(Rule):
    """A position sees its own block of `size`: 0..size-1, size..2·size-1, …"""

    size: int

    def allows(self, row: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return query // self.size == key // self.size


@dataclass(frozen=True)
class Strided(Rule):
    """A position sees every `stride`-th one, counted from itself."""

    stride: int

    def allows(self, row: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query - key) % self.stride == 0


@dataclass(frozen=True)
class Summaries(Rule):
    """Everyone sees the last position of every block of `size`, which has seen its block."""

    size: int

    def allows(self, row: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key % self.size == self.size - 1) & (query == query)


@dataclass(frozen=True)
class Global(Rule):
    """Flagged positions see everyone, and everyone sees them. `flags` is bool (B or 1, S)."""

    flags: Tensor

    @property
    def rows(self) -> int:
        return self.flags.shape[0]

    def allows(self, row: Tensor, query: Tensor, key: Tensor) -> Tensor:
        row = row if self.rows > 1 else row * 0
        return self.flags[row, query] | self.flags[row, key]


@dataclass(frozen=True)
class Random(Rule):
    """Each block of queries sees `links` blocks of keys, drawn once for `length` positions.

    The links follow from the arguments alone, so that they are the same with and without a cache.
    """

    length: int
    links: int
    seed: int = 0
    size: int = 1
    """Of a block."""
    linked: Tensor = field(init=False, repr=False, compare=False)
    """bool (blocks, blocks)"""

    def __post_init__(self) -> None:
        blocks = -(-self.length // self.size)
        require(
            1 <= self.links <= blocks,
            f"Each block can have 1 to {blocks} links (length {self.length} in blocks of "
            f"{self.size}), but {self.links} were asked for.",
        )
        generator = torch.Generator().manual_seed(self.seed)
        drawn = torch.rand(blocks, blocks, generator=generator).argsort(1)[:, : self.links]
        linked = torch.zeros(blocks, blocks, dtype=torch.bool).scatter_(1, drawn, True)
        object.__setattr__(self, "linked", linked)

    def allows(self, row: Tensor, query: Tensor, key: Tensor) -> Tensor:
        linked = self.linked.to(query.device)
        return linked[query // self.size, key // self.size]
