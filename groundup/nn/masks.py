"""Which key a query may see: small rules, joined with `&`, and one dispatcher to the fast path.

A rule answers for any pair of positions; queries are the last T of the S known positions, so a
rule means the same with and without a cache. `plan` turns a rule into what
`scaled_dot_product_attention` runs fastest: nothing, its `is_causal` flag, or a dense mask.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class Rule:
    """A boolean function of (query position, key position); `a & b` allows what both allow."""

    def allows(self, queries: Tensor, keys: Tensor) -> Tensor:
        """(T, 1), (1, S) absolute positions -> bool, broadcastable to (B, T, S). True = visible."""
        raise NotImplementedError

    def __and__(self, other: Rule) -> Rule:
        return Both(self, other)


@dataclass(frozen=True)
class Everything(Rule):
    """Every position sees every other: an encoder, or cross-attention."""

    def allows(self, queries: Tensor, keys: Tensor) -> Tensor:
        return torch.ones_like(queries == keys)


@dataclass(frozen=True)
class Padding(Rule):
    """Only the first positions of a row are real, `lengths` (B,) many; the others are not seen."""

    lengths: Tensor

    def allows(self, queries: Tensor, keys: Tensor) -> Tensor:
        return keys < self.lengths[:, None, None]


@dataclass(frozen=True)
class Causal(Rule):
    """A position sees itself and everything before it."""

    def allows(self, queries: Tensor, keys: Tensor) -> Tensor:
        return keys <= queries


@dataclass(frozen=True)
class Document(Rule):
    """A position sees only positions of its own document. `numbers` is (B, S)."""

    numbers: Tensor

    def allows(self, queries: Tensor, keys: Tensor) -> Tensor:
        of_queries = self.numbers[:, -queries.shape[0] :]
        return of_queries[:, :, None] == self.numbers[:, None, :]


@dataclass(frozen=True)
class Both(Rule):
    """What two rules both allow."""

    first: Rule
    second: Rule

    def allows(self, queries: Tensor, keys: Tensor) -> Tensor:
        return self.first.allows(queries, keys) & self.second.allows(queries, keys)


class Plan(NamedTuple):
    """How to run a rule: SDPA's flag, or a dense mask, or neither (all is seen)."""

    is_causal: bool
    dense: Tensor | None
    """(B or 1, 1 or H, T, S): bool, True = visible; or numbers added to the scores, -inf = not."""


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
    if bias is not None:
        visible = dense(rule, num_queries, num_keys, device)[:, None]
        return Plan(False, torch.where(visible, bias, -torch.inf))
    if isinstance(rule, Everything) or (isinstance(rule, Causal) and num_queries == 1):
        return Plan(False, None)
    if isinstance(rule, Causal) and num_queries == num_keys:
        return Plan(True, None)
    return Plan(False, dense(rule, num_queries, num_keys, device)[:, None])


def dense(rule: Rule, num_queries: int, num_keys: int, device: torch.device) -> Tensor:
    """The rule as a boolean (B or 1, T, S) tensor: the readable reference of every fast path."""
    keys = torch.arange(num_keys, device=device)
    queries = torch.arange(num_keys - num_queries, num_keys, device=device)
    allowed = rule.allows(queries[:, None], keys[None, :])
    return allowed.expand(*allowed.shape[:-2], num_queries, num_keys).view(
        -1, num_queries, num_keys
    )
