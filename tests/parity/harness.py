"""Two functions of the same weights: how far apart their outputs and gradients are.

Ours and the reference are both called as `f(weights, *inputs)`, with our weights, which the
reference translates into its own names and layouts. Every gradient is therefore one with respect to
our weights, and a translation that mixes two of them up shows.

In bfloat16 both round. The truth is then the reference in float32, on the same rounded weights and
inputs, and ours has to be as near to it as the reference in bfloat16 is. The mean square says that
well. The largest is a matter of chance, and asked to be of the same size only. Where rounding can
flip a choice, of experts or between ReLU's sides, neither says anything, as one side flips where
the other does not: such cases are compared in float32 alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from groundup.nn.config import FeedForwardConfig

Weights = dict[str, Tensor]
Function = Callable[..., Tensor]
"""(weights, *inputs) -> outputs."""

TOLERANCE = 1e-5
"""float32: of the largest output, and of the largest gradient."""
SLACK = 3.0
"""bfloat16: of the reference's own largest error,"""
MEAN_SLACK = 1.5
"""and of the root of its mean square;"""
LEAST = 2**-9
"""or so much of the largest output or gradient, half a unit in the last place, if that is more."""


@dataclass(frozen=True)
class Pair:
    """Ours and a reference, and what both are given."""

    ours: Function
    theirs: Function
    weights: Weights
    inputs: tuple[Tensor, ...]
    tolerance: float = TOLERANCE
    gradients: bool = True
    """Whether there is anything to differentiate."""


@dataclass(frozen=True)
class Case:
    """One line of the table, and how to build what it compares."""

    against: str
    build: Callable[[], Pair]
    dtypes: tuple[str, ...] = ("float32", "bfloat16")


BOTH, EXACT = ("float32", "bfloat16"), ("float32",)
"""Number formats of a case; the second where bfloat16 would say nothing, or does not occur."""


def smooth(feed_forward: FeedForwardConfig) -> bool:
    """Whether rounding flips no choice in this network."""
    experts = feed_forward.experts
    return feed_forward.activation != "relu" and (
        experts is None or experts.top_k == experts.num_experts
    )


@dataclass(frozen=True)
class Error:
    """The largest absolute difference to the truth over all numbers."""

    ours: float
    allowed: float
    largest: float
    """The largest absolute value of the truth."""
    theirs: float | None = None
    """The reference's own error; None where it is the truth."""
    ratio: float | None = None
    """Of the root mean square errors, ours to theirs."""


@dataclass(frozen=True)
class Row:
    """What one comparison found."""

    dtype: str
    outputs: Error
    gradients: Error | None
    """Of the weights and of all inputs that are not ids, scaled so that the largest is 1."""

    def check(self) -> None:
        """Raise AssertionError where an error is above what is allowed."""
        for part in (self.outputs, self.gradients):
            if part is not None:
                assert part.ours <= part.allowed, self
                assert part.ratio is None or part.ratio <= MEAN_SLACK, self


def module_function(
    module: nn.Module,
    translate: Callable[[Weights], Mapping[str, Tensor]] = dict,
    call: Callable[..., Any] | None = None,
) -> Function:
    """A module as a function of our weights; `call(module, *inputs)` if not simply called."""
    names = {name for name, _ in module.named_parameters()}
    shell = _Shell(module, call) if call is not None else None

    def run(weights: Weights, *inputs: Tensor) -> Tensor:
        theirs = dict(translate(weights))
        assert names <= theirs.keys(), f"not translated: {sorted(names - theirs.keys())}"
        if shell is None:
            return functional_call(module, theirs, inputs)
        return functional_call(shell, {f"module.{k}": v for k, v in theirs.items()}, inputs)

    return run


class _Shell(nn.Module):
    """A module whose forward is another way of calling it."""

    def __init__(self, module: nn.Module, call: Callable[..., Any]) -> None:
        super().__init__()
        self.module, self.call = module, call

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.call(self.module, *inputs)


def random_weights(module: nn.Module, spread: float = 0.2) -> Weights:
    """A module's weights moved far enough from their start that a mistake shows in any of them."""
    return {
        name: parameter.detach() + spread * torch.randn(parameter.shape)
        for name, parameter in module.named_parameters()
    }


def compare(pair: Pair, dtype: str) -> Row:
    """Run both sides in a number format: "float32" or "bfloat16"."""
    low = getattr(torch, dtype)
    weights = {name: _cast(tensor, low) for name, tensor in pair.weights.items()}
    inputs = [_cast(x, low) for x in pair.inputs]
    exact = {name: _cast(tensor, torch.float32) for name, tensor in weights.items()}
    truth = _run(pair, pair.theirs, exact, [_cast(x, torch.float32) for x in inputs])
    found = [_run(pair, pair.ours, weights, inputs)]
    if dtype != "float32":
        found.append(_run(pair, pair.theirs, weights, inputs))
    outputs = _error([side[0] for side in found], truth[0], pair)
    if not pair.gradients:
        return Row(dtype, outputs, None)
    gradients = _error([side[1] for side in found], truth[1], pair)
    return Row(dtype, outputs, _scaled(gradients))


def _error(found: list[Tensor], truth: Tensor, pair: Pair) -> Error:
    """Of ours alone, or of ours and theirs."""
    largest = truth.abs().max().item()
    distances = [(side - truth).abs() for side in found]
    ours = distances[0].max().item()
    if len(found) == 1:
        return Error(ours, pair.tolerance * largest, largest)
    theirs, least = distances[1].max().item(), LEAST * largest
    means = [distance.square().mean().sqrt().item() for distance in distances]
    return Error(
        ours=ours,
        allowed=max(SLACK * theirs, least),
        largest=largest,
        theirs=theirs,
        ratio=means[0] / max(means[1], 0.01 * least),
    )


def _scaled(error: Error) -> Error:
    """In units of the largest."""
    by = error.largest
    theirs = None if error.theirs is None else error.theirs / by
    return replace(
        error, ours=error.ours / by, allowed=error.allowed / by, largest=1.0, theirs=theirs
    )


def _cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.detach().to(dtype) if tensor.is_floating_point() else tensor


def _run(
    pair: Pair, function: Function, weights: Weights, inputs: list[Tensor]
) -> tuple[Tensor, Tensor]:
    """All outputs, and all gradients of a random weighting of them, each as one long vector."""
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in weights.items()}
    inputs = [x.clone().requires_grad_() if x.is_floating_point() else x for x in inputs]
    out = function(leaves, *inputs)
    flat = out.detach().float().flatten()
    if not pair.gradients:
        return flat, flat[:0]
    cotangent = torch.randn(out.shape, generator=torch.Generator().manual_seed(5)).to(out.dtype)
    wanted = [*leaves.values(), *(x for x in inputs if x.is_floating_point())]
    gradients = torch.autograd.grad(out, wanted, cotangent, materialize_grads=True)
    return flat, torch.cat([gradient.float().flatten() for gradient in gradients])
