"""Everything the next training step depends on, as flat tensors and plain facts, and back."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import groundup
from groundup.models.state_dict import load_weights
from groundup.parallel.world import World


def state_tensors(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    world: World,
    carried: Sequence[Tensor] = (),
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights, optimizer moments and this process's generators; and the scalars beside them.

    `carried` is what else of this process one step leaves to the next.
    """
    tensors: dict[str, Tensor] = {f"model.{name}": p for name, p in model.state_dict().items()}
    scalars: dict[str, float] = {}
    for name, entries in optimizer.state_dict()["state"].items():
        for key, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{name}.{key}"] = value
            else:
                scalars[f"{name}.{key}"] = value
    tensors |= {f"carried.{world.rank}.{i}": tensor for i, tensor in enumerate(carried)}
    tensors[f"rng.cpu.{world.rank}"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors[f"rng.cuda.{world.rank}"] = torch.cuda.get_rng_state()
    return tensors, {"optimizer": scalars, "scaler": scaler.state_dict()}


def restore_state(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    world: World,
    tensors: dict[str, Tensor],
    facts: dict[str, Any],
    carried: Sequence[Tensor] = (),
) -> None:
    """The inverse of `state_tensors`. Raises UserError when the checkpoint is of another model."""
    weights = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
    advice = "Use another --run folder, or restore the recipe it was made with."
    load_weights(model, weights, "The checkpoint", advice)
    entries: dict[str, dict[str, Any]] = {}
    prefix = "optimizer."
    flat = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    for name, value in {**flat, **facts["optimizer"]}.items():
        parameter, _, key = name.rpartition(".")
        entries.setdefault(parameter, {})[key] = value
    settings = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": entries, "param_groups": settings})
    scaler.load_state_dict(facts["scaler"])
    for index, tensor in enumerate(carried):
        tensor.copy_(tensors.get(f"carried.{world.rank}.{index}", torch.zeros(())))
    # A world that has grown has no saved generator for its new processes; they keep their seeds.
    if f"rng.cpu.{world.rank}" in tensors:
        torch.set_rng_state(tensors[f"rng.cpu.{world.rank}"])
    if torch.cuda.is_available() and f"rng.cuda.{world.rank}" in tensors:
        torch.cuda.set_rng_state(tensors[f"rng.cuda.{world.rank}"])


def software_versions() -> dict[str, str]:
    """What computed the figures: groundup, torch, numpy and Python."""
    return {
        "groundup": groundup.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
