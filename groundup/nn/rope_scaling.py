"""How fast RoPE turns each pair of channels, and slower for contexts longer than trained for.

A pair that turned many times within the first training's context has been seen at every angle: it
tells neighbours apart and may go on as it is. One that never finished a turn meets new angles in a
longer context, which the model cannot read; slowing it down keeps it in the range it knows.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from groundup.nn.config import RopeScaling


def frequencies(
    head_width: int, theta: float, scaling: RopeScaling | None, device: torch.device
) -> Tensor:
    """-> (E/2,) fp32: radians per position of each pair of channels, the fastest first."""
    if scaling is not None and scaling.kind == "ntk":
        theta = ntk_theta(theta, scaling.factor, head_width)
    pairs = torch.arange(0, head_width, 2, dtype=torch.float32, device=device)
    plain = 1.0 / theta ** (pairs / head_width)
    if scaling is None or scaling.kind == "ntk":
        return plain
    if scaling.kind == "linear":
        return plain / scaling.factor
    if scaling.kind == "yarn":
        kept = _kept_by_yarn(head_width, theta, scaling, device)
    else:
        kept = _kept_by_llama3(plain, scaling)
    return (1 - kept) * plain / scaling.factor + kept * plain


def ntk_theta(theta: float, factor: float, head_width: int) -> float:
    """The base that slows the slowest pair down by `factor` and leaves the fastest as it is.

    theta · factor^(E / (E - 2)). "NTK-aware" scaling, bloc97 2023; section 3.1 of arXiv:2309.00071.
    """
    # A single pair is the fastest and the slowest at once, and no base changes it.
    return theta * factor ** (head_width / (head_width - 2)) if head_width > 2 else theta


def _kept_by_yarn(
    head_width: int, theta: float, scaling: RopeScaling, device: torch.device
) -> Tensor:
    """(E/2,) in [0, 1]: 1 where a pair keeps its speed, falling in equal steps from pair to pair.

    The paper blends by the number of turns; its authors' code, which everybody runs, by the index
    of the pair, between bounds rounded outwards to whole pairs.
    """
    context, slow, fast = _bounds(scaling)

    def pair_that_turns(times: float) -> float:
        return head_width * math.log(context / (times * 2 * math.pi)) / (2 * math.log(theta))

    first = max(math.floor(pair_that_turns(fast)), 0)
    last = min(math.ceil(pair_that_turns(slow)), head_width - 1)
    steps = torch.arange(head_width // 2, dtype=torch.float32, device=device) - first
    return 1 - (steps / max(last - first, 0.001)).clamp(0, 1)


def _kept_by_llama3(plain: Tensor, scaling: RopeScaling) -> Tensor:
    """(E/2,) in [0, 1]: 1 where a pair keeps its speed, falling with its number of turns."""
    context, slow, fast = _bounds(scaling)
    turns = context / (2 * math.pi / plain)  # length over wavelength, rounded as others round it
    return ((turns - slow) / (fast - slow)).clamp(0, 1)


def _bounds(scaling: RopeScaling) -> tuple[int, float, float]:
    context, slow, fast = scaling.original_context, scaling.slow_turns, scaling.fast_turns
    assert context is not None and slow is not None and fast is not None, "see RopeScaling"
    return context, slow, fast
