"""Look into attention: what every head was asked, where it looked, and what it found.

    with capture(model) as seen:
        model(ids)
    seen["blocks.0.attention"][-1].weights    # (B, H, T, S)

Nothing is computed otherwise than it would be: forward hooks copy what goes into a kernel and what
comes out of it. A fused kernel never has the weights, so they are computed again from the copies,
and only when asked for. Outside of the `with` there is no hook, and so no cost.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from groundup.config import UserError, require
from groundup.nn.kernels import Mix, attention_scores, attention_weights
from groundup.nn.masks import Plan


@dataclass(frozen=True, eq=False)
class Pattern:
    """One call of one attention. S keys: those in reach of a cache, of a memory, or the input's."""

    query: Tensor
    """(B, H, T, E), after norm and rotation; (B, H, T, 2·E) if differential."""
    key: Tensor
    """(B, K, S, E) alike."""
    value: Tensor
    """(B, K, S, Z)."""
    found: Tensor
    """(B, H, T, Z): the heads' output, before a gate and before `out` joins them.

    Latent attention keeps no keys and values in its cache: through one, these four are as wide as
    what it keeps.
    """
    mask: Plan
    scale: float | None
    soft_cap: float | None
    sinks: Tensor | None = None
    factor: Tensor | None = None
    """How much of its second map differential attention subtracts."""

    @property
    def scores(self) -> Tensor:
        """(B, H, T, S) in fp32: what the softmax is taken of; -inf where a key is not visible."""
        require(
            self.factor is None,
            "Differential attention has two maps of scores in each head; look at its weights.",
        )
        return self._scores(self.query, self.key)

    @property
    def weights(self) -> Tensor:
        """(B, H, T, S) in fp32: how much of each value a head takes, before dropout.

        Rows sum to 1, but beside a sink to less, to 0 where nothing is visible, and to 1 - factor
        if differential.
        """
        if self.factor is None:
            return attention_weights(self.scores, self.sinks)
        first, second = (
            attention_weights(self._scores(query, key))
            for query, key in zip(self.query.chunk(2, -1), self.key.chunk(2, -1), strict=True)
        )
        return first - self.factor * second

    def _scores(self, query: Tensor, key: Tensor) -> Tensor:
        seen = self.mask.spelled_out(query.shape[2], key.shape[2], query.device)
        return attention_scores(query, key, *seen, self.scale, self.soft_cap)


Seen = dict[str, list[Pattern]]
"""The name of an attention in its model -> its calls, in order."""


@contextmanager
def capture(model: nn.Module) -> Iterator[Seen]:
    """Collect the pattern of every attention in `model` while the context is open.

    An attention is called once in a forward pass, or as often as layers share it. Copies cost the
    memory of queries, keys, values and outputs; they have no gradients. With activation
    checkpointing a backward pass calls each attention again, which is collected too.

    Raises UserError for a model without attention, and for a compiled one.
    """
    if hasattr(model, "_orig_mod"):
        raise UserError("A compiled model cannot be watched; capture the one it was made from.")
    mixes = {name: part for name, part in model.named_modules() if isinstance(part, Mix)}
    require(bool(mixes), f"There is no attention in a {type(model).__name__} to look into.")
    seen: Seen = {}
    with ExitStack() as hooks:
        for name, part in mixes.items():
            calls = seen[name.removesuffix("mix").rstrip(".")] = []
            hooks.enter_context(part.register_forward_hook(partial(_collect, calls)))
        yield seen


def _collect(calls: list[Pattern], mix: nn.Module, inputs: tuple[Any, ...], found: Tensor) -> None:
    assert isinstance(mix, Mix)
    query, key, value, mask, *factor = inputs
    calls.append(
        Pattern(
            _copy(query),
            _copy(key),  # of a cache this is a view, which later tokens may overwrite
            _copy(value),
            _copy(found),
            mask if mask.dense is None else mask._replace(dense=mask.dense.detach()),
            mix.scale,
            mix.soft_cap,
            None if mix.sinks is None else _copy(mix.sinks),
            *map(_copy, factor),
        )
    )


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().clone()
