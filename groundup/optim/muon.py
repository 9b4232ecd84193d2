"""Muon (https://kellerjordan.github.io/posts/muon/): momentum whose every update is orthogonalised.

    m = momentum * m + (1 - momentum) * g
    u = polar factor of (1 - momentum) * g + momentum * m          Nesterov's look-ahead
    w = w - lr * decay * w - lr * sqrt(max(1, rows / columns)) * u

A gradient matrix is dominated by a few singular directions; setting all singular values to 1 lets
the rare directions learn at the same speed. For hidden matrices only: embeddings, heads and vectors
belong to AdamW. Matrices of one shape are stacked, so that each iteration is one batched product.
"""

# The multi-tensor kernels have no public name; torch.optim calls them the same way.
# pyright: reportPrivateImportUsage=false
from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from groundup.optim.orthogonalize import Method, coefficients, orthogonalize


class Muon(torch.optim.Optimizer):
    """Muon over 2-D weights (rows, columns), or 3-D stacks of them (number, rows, columns).

    `iteration_dtype` names the format of the orthogonalisation: "float32", or "bfloat16" where the
    hardware multiplies it faster; weights and momentum keep their own. A group's "row_splits" maps
    the index of a parameter to the row counts of the matrices fused in it, which are then
    orthogonalised apart. Otherwise as torch.optim.Muon.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 0.02,
        momentum: float = 0.95,
        weight_decay: float = 0.1,
        method: Method = "polar_express",
        steps: int = 5,
        iteration_dtype: str = "float32",
        cautious_decay: bool = False,
    ) -> None:
        defaults = dict(
            lr=lr,
            momentum=momentum,
            weight_decay=weight_decay,
            method=method,
            steps=steps,
            iteration_dtype=iteration_dtype,
            cautious_decay=cautious_decay,
            row_splits={},
        )
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            muon_step(group, self.state)
        return loss


def muon_step(group: dict[str, Any], state: dict[Tensor, dict[str, Tensor]]) -> None:
    """Update in place the parameters of one group that have a gradient, and their state."""
    indices = [i for i, parameter in enumerate(group["params"]) if parameter.grad is not None]
    if not indices:
        return
    parameters = [group["params"][i] for i in indices]
    for parameter in parameters:
        assert parameter.ndim in (2, 3), f"Muon takes matrices, not {tuple(parameter.shape)}"
        if not state[parameter]:
            state[parameter] = muon_state(parameter)

    gradients = [parameter.grad for parameter in parameters]
    means = [state[parameter]["momentum_buffer"] for parameter in parameters]
    torch._foreach_lerp_(means, gradients, 1 - group["momentum"])
    updates = list(torch._foreach_lerp(gradients, means, group["momentum"]))

    splits = [group["row_splits"].get(i) for i in indices]
    weights = _matrices(parameters, splits)
    updates = _orthogonalized(_matrices(updates, splits), group)
    _decay(weights, updates, group)
    for weight, update in zip(weights, updates, strict=True):
        # Keeps the size of the change of one output the same, whatever the shape.
        scale = math.sqrt(max(1.0, weight.size(-2) / weight.size(-1)))
        weight.add_(update, alpha=-group["lr"] * scale)


def muon_state(parameter: Tensor) -> dict[str, Tensor]:
    """State before the first step: the running mean of the gradient."""
    return {"momentum_buffer": torch.zeros_like(parameter)}


def _matrices(tensors: list[Tensor], splits: list[tuple[int, ...] | None]) -> list[Tensor]:
    """Views of the single matrices: fused ones cut along their rows."""
    matrices: list[Tensor] = []
    for tensor, rows in zip(tensors, splits, strict=True):
        matrices.extend(tensor.split(rows, dim=-2) if rows else [tensor])
    return matrices


def _orthogonalized(updates: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
    """The polar factor of each matrix, those of one shape in one batch."""
    dtype = getattr(torch, group["iteration_dtype"])
    quintics = coefficients(group["method"], group["steps"])
    by_shape: defaultdict[torch.Size, list[int]] = defaultdict(list)
    for index, update in enumerate(updates):
        by_shape[update.shape].append(index)
    results = list(updates)
    for shape, indices in by_shape.items():
        stacked = torch.stack([updates[index] for index in indices]).to(dtype)
        polar = orthogonalize(stacked.flatten(0, -3), quintics).to(updates[indices[0]].dtype)
        for index, result in zip(indices, polar.view(-1, *shape), strict=True):
            results[index] = result
    return results


def _decay(weights: list[Tensor], updates: list[Tensor], group: dict[str, Any]) -> None:
    amount = group["lr"] * group["weight_decay"]
    if amount == 0:
        return
    if not group["cautious_decay"]:
        torch._foreach_mul_(weights, 1 - amount)
        return
    for weight, update in zip(weights, updates, strict=True):
        weight.addcmul_(weight, (weight * update > 0).to(weight.dtype), value=-amount)
