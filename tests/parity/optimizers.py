"""Optimizers and clipping, twenty steps on the same gradients, beside torch.optim."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from groundup.optim.adamw import AdamW
from groundup.optim.clip import clip_global_norm
from groundup.optim.muon import Muon
from parity.harness import EXACT, Case, Pair, Weights

STEPS = 20
MATRICES = [(5, 9), (9, 5), (5, 9), (6, 6)]


def steps_pair(shapes: list[tuple[int, ...]], ours: Any, theirs: Any, tolerance: float) -> Pair:
    """The weights after each of twenty steps, under gradients of very different sizes."""
    weights = {str(place): torch.randn(shape) for place, shape in enumerate(shapes)}

    def run(make: Callable[[list[nn.Parameter]], Any], weights: Weights) -> Tensor:
        parameters = [nn.Parameter(tensor.detach().clone()) for tensor in weights.values()]
        optimizer, found = make(parameters), []
        generator = torch.Generator().manual_seed(1)
        for step in range(STEPS):
            for parameter in parameters:
                parameter.grad = torch.randn(parameter.shape, generator=generator)
                parameter.grad *= 10.0 ** (step % 4 - 2)
            if step in (7, 8):  # a parameter without a gradient keeps its own count of steps
                parameters[0].grad = None
            optimizer.step()
            found += [parameter.detach().clone().flatten() for parameter in parameters]
        return torch.cat(found)

    return Pair(
        partial(run, ours), partial(run, theirs), weights, (), tolerance=tolerance, gradients=False
    )


def adamw_pair(fused: bool, weight_decay: float) -> Pair:
    """The fused kernel, and the formula as written."""
    settings = {"lr": 0.03, "betas": (0.8, 0.97), "eps": 1e-6, "weight_decay": weight_decay}
    return steps_pair(
        [*MATRICES, (13,), (1,)],
        partial(AdamW, fused=fused, **settings),
        partial(torch.optim.AdamW, **settings),
        tolerance=1e-6,
    )


def muon_pair(weight_decay: float) -> Pair:
    """Its iteration runs in bfloat16 on both sides, and is rounded differently."""
    settings = {"lr": 0.02, "momentum": 0.9, "weight_decay": weight_decay}
    return steps_pair(
        MATRICES,
        partial(Muon, method="newton_schulz", iteration_dtype="bfloat16", **settings),
        partial(torch.optim.Muon, **settings),
        tolerance=2e-3,
    )


def clip_pair(max_norm: float) -> Pair:
    """The norm, and all gradients after clipping."""
    gradients = [torch.randn(shape) for shape in [*MATRICES, (13,)]]

    def run(clip: Any, weights: Weights) -> Tensor:
        parameters = [nn.Parameter(torch.zeros_like(gradient)) for gradient in gradients]
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient.clone()
        norm = clip(parameters, max_norm)
        return torch.cat(
            [norm[None], *(p.grad.flatten() for p in parameters if p.grad is not None)]
        )

    return Pair(
        partial(run, clip_global_norm),
        partial(run, nn.utils.clip_grad_norm_),
        {},
        (),
        tolerance=1e-6,
        gradients=False,
    )


def cases() -> dict[str, Case]:
    """Weights are fp32 in training, whatever the matrices are multiplied in."""
    adamw, muon = "torch.optim.AdamW", "torch.optim.Muon"
    clipped = "nn.utils.clip_grad_norm_"
    return {
        "AdamW": Case(adamw, partial(adamw_pair, True, 0.0), EXACT),
        "AdamW with weight decay": Case(adamw, partial(adamw_pair, True, 0.1), EXACT),
        "AdamW, the formula": Case(adamw, partial(adamw_pair, False, 0.1), EXACT),
        "Muon": Case(muon, partial(muon_pair, 0.0), EXACT),
        "Muon with weight decay": Case(muon, partial(muon_pair, 0.1), EXACT),
        "clipping by norm": Case(clipped, partial(clip_pair, 1.5), EXACT),
        "clipping of what is small enough": Case(clipped, partial(clip_pair, 1e3), EXACT),
    }
