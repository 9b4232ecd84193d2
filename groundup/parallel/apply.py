"""How a model is spread over the processes of a run. Model files know nothing of ranks."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from groundup.device import Policy
from groundup.parallel.world import World


def parallelize(module: nn.Module, world: World, policy: Policy) -> nn.Module:
    """Replicate `module`; gradients are averaged over the processes during backward.

    Averaged by DistributedDataParallel, so a loss that should be summed over all processes is
    multiplied by `world.size` first.
    """
    if world.size == 1:
        return module
    devices = [policy.torch_device] if policy.device.startswith("cuda") else None
    return DistributedDataParallel(module, device_ids=devices)


def gradient_sync(module: nn.Module, enabled: bool) -> AbstractContextManager[object]:
    """Skip the gradient exchange for all but the last micro-batch of a step."""
    if enabled or not isinstance(module, DistributedDataParallel):
        return nullcontext()
    return module.no_sync()
