"""Which key a query may see: small rules, joined with `&` and `|`, and one dispatcher to a kernel.

A rule answers for any pair of positions; queries are the last T of the S known positions, so a
rule means the same with and without a cache. `plan` turns a rule into what
`scaled_dot_product_attention` runs fastest: nothing, its `is_causal` flag, blocks as long as a
window, or a dense mask.

| who sees what                                 | rule                                           |
|-----------------------------------------------|------------------------------------------------|
| a decoder                                     | `Causal()`                                     |
| an encoder; with short rows filled up         | `Everything()`; `Padding(lengths)`             |
| Mistral, arXiv:2310.06825                     | `Causal() & Window(4096)`                      |
| StreamingLLM, arXiv:2309.17453                | `Causal() & (Window(1024) | Sinks(4))`         |
| prefix-LM, arXiv:1910.10683                   | `Causal() | Prefix(n)`                         |
| several documents in a row                    | `Causal() & Document(numbers)`                 |
| Longformer, BigBird, Sparse Transformer       | see `groundup.nn.sparse_masks`                 |
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, create_mask

from groundup.config import require
from groundup.native.ops import has_tiles
from groundup.nn.kernel_choice import chosen_kernel


class Rule:
    """A boolean function of two positions; `a & b` allows what both do, `a | b` what either does.

    Positions and batch indices are integer tensors that broadcast: (T, 1), (1, S) and (B, 1, 1)
    for a dense mask, single numbers when FlexAttention asks. `rows` is B where a rule differs from
    row to row of the batch, else 1.
    """

    rows = 1

    def allows(self, row: Tensor, query: Tensor, key: Tensor) -> Tensor:
        """Whether, in this row of the batch, the query position sees the key position."""
        raise NotImplementedError

    def __and__(self, other: Rule) -> Rule:
        return Both(self, other)

    def __or__(self, other: Rule) -> Rule:
        return Either(self, other)


@dataclass(frozen=True)
class Everything(Rule):
    """Every position sees every other."""

    def allows(self, row: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return torch.ones_like(query == key)


@dataclass(frozen=True)
class Causal(Rule):
    """A position sees itself and everything before it."""

    def allows(self, row: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return key <= query


@dataclass(frozen=True)
class Window(Rule):
    """A position sees those nearer than `size`: itself and size - 1 on each side.

    With `Causal()`, `size` is the number of keys seen, as Mistral counts. FlashAttention's
    `window_size=(left, right)` counts without the position itself: left = size - 1.
    """

    size: int

    def __post_init__(self) -> None:
        require(self.size >= 1, f"A window counts the token itself: {self.size} is too small.")

    def allows(self, row: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query - key).abs() < self.size


@dataclass(frozen=True)
class First(Rule):
    """Everyone sees the first `count` positions; one number for all rows, or a tensor (B,)."""

    count: int | Tensor

    @property
    def rows(self) -> int:
        return self.count.shape[0] if isinstance(self.count, Tensor) else 1

    def allows(self, row: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return key < (self.count[row] if isinstance(self.count, Tensor) else self.count)


class Padding(First):
    """To join with `&`: only the first positions of a row are real, `count` many."""


class Prefix(First):
    """To join with `|`: everyone sees the prompt, also those inside it that stand before."""


class Sinks(First):
    """To join with `|` to a window: the first few keys stay in sight when the window has left."""


@dataclass(frozen=True)
class LeftPadding(Rule):
    """The first `count` (B,) positions of a row are filling: rows that end together."""

    count: Tensor

    @property
    def rows(self) -> int:
        return self.count.shape[0]

    def allows(self, row: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return key >= self.count[row]


@dataclass(frozen=True)
class Document(Rule):
    """A position sees only positions of its own document. `numbers` is (B, S).

    The positions of a document are neighbours: a number does not come back after another.
    """

    numbers: Tensor

    @property
    def rows(self) -> int:
        return self.numbers.shape[0]

    def allows(self, row: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return self.numbers[row, query] == self.numbers[row, key]


@dataclass(frozen=True)
class Both(Rule):
    """What two rules both allow."""

    first: Rule
    second: Rule

    @property
    def rows(self) -> int:
        return max(self.first.rows, self.second.rows)

    def allows(self, row: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return self.first.allows(row, query, key) & self.second.allows(row, query, key)


@dataclass(frozen=True)
class Either(Both):
    """What at least one of two rules allows."""

    def allows(self, row: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return self.first.allows(row, query, key) | self.second.allows(row, query, key)


class Plan(NamedTuple):
    """How to run a rule: SDPA's flag, a dense mask, FlexAttention's blocks, a window, or none."""

    is_causal: bool
    dense: Tensor | None
    """(B or 1, 1 or H, T, S): bool, True = visible; or numbers added to the scores, -inf = not.
    Beside blocks, which say what is visible: None, or numbers added to the scores."""
    blocks: BlockMask | None = None
    window: int = 0
    """Every query sees itself and this many - 1 keys before it, and there are as many of both."""
    first: Tensor | None = None
    """(B or 1, T) int32, for the native kernel: query i sees the keys first[i]..i."""

    def spelled_out(
        self, num_queries: int, num_keys: int, device: torch.device
    ) -> tuple[Tensor, Tensor | None]:
        """For who writes the scores out: a bool mask, and what is added to the scores, if anything.

        Both broadcast to (B, H, T, S).
        """
        if self.blocks is not None:
            rows, rule = self.blocks.shape[0], self.blocks.mask_mod
            return create_mask(rule, rows, 1, num_queries, num_keys, str(device)), self.dense
        if self.window:
            return dense(Causal() & Window(self.window), num_queries, num_keys, device), None
        if self.first is not None:
            past = dense(Causal(), num_queries, num_keys, device)
            reached = torch.arange(num_keys, device=device) >= self.first[..., None]
            return (past & reached)[:, None], None
        if self.is_causal:
            return dense(Causal(), num_queries, num_keys, device), None
        if self.dense is None:
            return torch.ones((), dtype=torch.bool, device=device), None
        if self.dense.is_floating_point():
            return self.dense > -torch.inf, self.dense
        return self.dense, None


def plan(
    rule: Rule,
    num_queries: int,
    num_keys: int,
    device: torch.device,
    bias: Tensor | None = None,
) -> Plan:
    """Choose how to run `rule` for the last `num_queries` of `num_keys` positions.

    `bias` (H, T, S) or (B, H, T, S) is added to the scores: ALiBi, or T5's relative positions.

    SDPA's `is_causal` aligns the two sequences at their starts, which is wrong with a cache; it is
    used only where both have the same length. A single query under `Causal` sees every key.
    """
    if chosen_kernel() == "flex":
        return flex_plan(rule, num_queries, num_keys, device, bias)
    if bias is not None:
        visible = dense(rule, num_queries, num_keys, device)[:, None]
        return Plan(False, torch.where(visible, bias, -torch.inf))
    parts = [part for part in _conjuncts(rule) if not _allows_all(part, num_keys)]
    windows = [part.size for part in parts if isinstance(part, Window)]
    is_window = len(windows) == 1 and len(parts) == 2 and Causal() in parts
    # In blocks a query is scored against two windows of keys: below four, a mask is as fast.
    in_blocks = is_window and num_queries == num_keys >= 4 * windows[0]
    if not all(isinstance(part, Causal) for part in parts):
        if chosen_kernel() == "auto" and device.type == "cpu" and has_tiles():
            first = _first_keys(parts, num_keys) if num_queries == num_keys else None
            if first is not None:
                return Plan(False, None, window=windows[0] if in_blocks else 0, first=first)
        if in_blocks:
            return Plan(False, None, window=windows[0])
        return Plan(False, dense(rule, num_queries, num_keys, device)[:, None])
    if parts and num_queries != 1 and num_queries != num_keys:
        return Plan(False, dense(Causal(), num_queries, num_keys, device)[:, None])
    return Plan(bool(parts) and num_queries == num_keys != 1, None)


def _first_keys(parts: Sequence[Rule], length: int) -> Tensor | None:
    """(B or 1, T) int32: the first key of each query, where it sees all from there to itself."""
    if not any(isinstance(part, Causal) for part in parts):
        return None
    places = torch.arange(length)
    first = torch.zeros(1, length, dtype=torch.int64)
    for part in parts:
        if isinstance(part, Window):
            first = torch.maximum(first, places - (part.size - 1))
        elif isinstance(part, Document):
            begins = part.numbers.diff(dim=1, prepend=part.numbers[:, :1]) != 0
            first = torch.maximum(first, (places * begins).cummax(dim=1).values)
        elif not isinstance(part, Causal):
            return None
    return first.int()


def flex_plan(
    rule: Rule,
    num_queries: int,
    num_keys: int,
    device: torch.device,
    bias: Tensor | None = None,
) -> Plan:
    """The same for FlexAttention, which skips whole blocks that nobody sees: for GPUs.

    Equal to `plan` on a CPU, where it runs uncompiled and saves nothing. Not yet run on a GPU.
    Dong et al. 2024, arXiv:2412.05496.
    """
    start = num_keys - num_queries

    def visible(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return rule.allows(row, query + start, key)

    rows = rule.rows if rule.rows > 1 else None
    blocks = create_block_mask(visible, rows, None, num_queries, num_keys, device=str(device))
    return Plan(False, bias, blocks)


def dense(rule: Rule, num_queries: int, num_keys: int, device: torch.device) -> Tensor:
    """The rule as a boolean (B or 1, T, S) tensor: the readable reference of every fast path."""
    rows = torch.arange(rule.rows, device=device)[:, None, None]
    queries = torch.arange(num_keys - num_queries, num_keys, device=device)[:, None]
    allowed = rule.allows(rows, queries, torch.arange(num_keys, device=device)[None, :])
    return allowed.expand(rule.rows, num_queries, num_keys)


def density(rule: Rule, num_queries: int, num_keys: int) -> float:
    """The share of (query, key) pairs that see each other: what a sparse kernel has to compute."""
    return dense(rule, num_queries, num_keys, torch.device("cpu")).double().mean().item()


def _conjuncts(rule: Rule) -> Iterator[Rule]:
    """The rules that `&` joined into this one."""
    if isinstance(rule, Both) and not isinstance(rule, Either):
        yield from _conjuncts(rule.first)
        yield from _conjuncts(rule.second)
    else:
        yield rule


def _allows_all(rule: Rule, num_keys: int) -> bool:
    """Whether a rule forbids nothing among so many positions, as far as its type tells."""
    return isinstance(rule, Everything) or (isinstance(rule, Window) and rule.size >= num_keys)
