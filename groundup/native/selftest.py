"""A first product by a freshly compiled library, in a process that may die of it.

    python -m groundup.native.selftest LIBRARY

Ends with 0 where the library computes a weight gradient of small whole numbers exactly. A system
that promises AMX and does not deliver it ends this process, and no run.
"""

from __future__ import annotations

import ctypes
import sys

import numpy as np

ROWS, OUTPUTS, DEPTH = 70, 48, 64


class Linear(ctypes.Structure):
    """`struct linear` of csrc/linear_backward.c."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("gradients", "inputs")),
        *((name, ctypes.c_int64) for name in ("gradient_stride", "input_stride")),
        ("weights", ctypes.c_void_p),
        *((name, ctypes.c_int32) for name in ("rows", "outputs", "depth", "num_threads")),
    ]


def main(library: str) -> int:
    """0 when all is well: the product is exact, or the library says that it has no tiles."""
    kernels = ctypes.CDLL(library)
    if not kernels.groundup_tiles():
        return 0
    random = np.random.default_rng(0)
    gradients, inputs = (
        random.integers(-4, 5, (ROWS, width)).astype(np.float32) for width in (OUTPUTS, DEPTH)
    )
    found = np.full((OUTPUTS, DEPTH), np.nan, np.float32)
    # Small whole numbers are exact in bf16: the upper halves of their floats.
    left, right = ((x.view(np.uint32) >> 16).astype(np.uint16) for x in (gradients, inputs))
    call = Linear(
        left.ctypes.data, right.ctypes.data, OUTPUTS, DEPTH, found.ctypes.data, ROWS, OUTPUTS,
        DEPTH, 2,
    )  # fmt: skip
    if kernels.groundup_linear_backward(ctypes.byref(call)):
        return 1
    return int(not np.array_equal(found, gradients.T @ inputs))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
