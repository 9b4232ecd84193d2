"""Which kernel computes attention, for all models of this process.

| kernel | is                                                                                     |
|--------|----------------------------------------------------------------------------------------|
| auto   | the native kernel or sdpa where they can, else eager                                   |
| sdpa   | `scaled_dot_product_attention`: exact, tiled, fast; no soft cap, no sinks              |
| flex   | FlexAttention: skips blocks that nobody sees; no dropout, and no gradients on a CPU    |
| eager  | the formula as written, all scores in memory                                           |

They compute the same, up to rounding. What attention is, a model's config says; how it is computed
is no part of a model.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import get_args

from groundup.device import AttentionKernel
from groundup.nn.checks import choice

_chosen: AttentionKernel = "auto"


def chosen_kernel() -> AttentionKernel:
    """The kernel in use."""
    return _chosen


@contextmanager
def use_kernel(kernel: AttentionKernel) -> Iterator[None]:
    """Compute attention by this kernel while the context is open. A recipe: device.attention."""
    global _chosen
    choice("device.attention", kernel, get_args(AttentionKernel))
    before, _chosen = _chosen, kernel
    try:
        yield
    finally:
        _chosen = before
