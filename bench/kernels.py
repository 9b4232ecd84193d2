"""Each native kernel next to torch's own operation: seconds, GFLOP/s or GB/s, share of the roof.

    python bench/kernels.py [--json PATH] [--seconds N]

The two sides take turns; medians count. Compute-bound kernels are measured against the faster of
the fp32 and bf16 products of two matrices, bandwidth-bound ones against the read bandwidth. Kernels
that need AMX are left out where there is none.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from common import finish, machine

from groundup.device import measure_bandwidth
from groundup.native import ops
from groundup.native.build import status
from groundup.native.quantize import FORMATS, pack, unpack
from groundup.native.rows import multiply


@dataclass(frozen=True)
class Case:
    """A kernel at one shape, and torch's way to the same."""

    kernel: str
    shape: str
    ours: Callable[[], object]
    theirs: Callable[[], object]
    torchs: str
    """What torch's side is."""
    flops: float = 0.0
    bytes: float = 0.0
    """Where this is given, the kernel is bound by reading so much."""


def main() -> None:
    """Measure every case; print a table and then the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="also write the result to this file")
    parser.add_argument("--seconds", type=float, default=1.0, help="per case and side")
    options = parser.parse_args()
    facts = machine() | {"bandwidth_gb": round(measure_bandwidth(), 1), "native": status().reason}
    print(f"{facts['cpu']}: native kernels: {facts['native']}")
    rows = [measure(case, options.seconds, facts) for case in cases()]
    left_out = [] if ops.has_tiles() else ["causal_attention", "weight_gradient"]
    finish({"machine": facts, "rows": rows, "left_out": left_out}, options.json)


def measure(case: Case, seconds: float, facts: dict[str, Any]) -> dict[str, Any]:
    """One row of the result, printed as a line of the table."""
    times: dict[str, list[float]] = {"ours": [], "torch": []}
    sides = {"ours": case.ours, "torch": case.theirs}
    for side in sides.values():
        side()
    end = time.perf_counter() + 2 * seconds
    while time.perf_counter() < end or len(times["torch"]) < 5:
        for name, side in sides.items():
            start = time.perf_counter()
            side()
            times[name].append(time.perf_counter() - start)
    ours, theirs = (statistics.median(times[name]) for name in sides)
    amount, roof, unit = case.flops, facts["roof_gflops"], "GFLOP/s"
    if case.bytes:
        amount, roof, unit = case.bytes, facts["bandwidth_gb"], "GB/s"
    speed = amount / ours / 1e9
    print(
        f"{case.kernel:17} {case.shape:28} {ours * 1e3:9.3f} ms {speed:8.1f} {unit:8}"
        f"{speed / roof:6.2f} of roof  {theirs / ours:6.2f} × {case.torchs}",
        flush=True,
    )
    return {
        "kernel": case.kernel,
        "shape": case.shape,
        "milliseconds": round(ours * 1e3, 4),
        "torch_milliseconds": round(theirs * 1e3, 4),
        "torch": case.torchs,
        "ratio": round(theirs / ours, 3),
        "speed": round(speed, 2),
        "unit": unit,
        "of_roof": round(speed / roof, 3),
    }


def cases() -> Iterator[Case]:
    """Shapes of a small model (width 512) and of SmolLM2 (width 576, a large vocabulary)."""
    torch.manual_seed(0)
    for outputs, depth in ((1376, 512), (1536, 576), (49152, 576)):
        for rows in (1, 4, 16):
            yield from rows_cases(outputs, depth, rows)
    for rows, size in ((2048, 4096), (2048, 49152)):
        yield cross_entropy_case(rows, size)
    if ops.has_tiles():
        for shape in ((32, 6, 256, 64), (16, 8, 512, 64), (4, 8, 2048, 64)):
            yield attention_case(*shape)
        for rows, outputs, depth in ((8192, 1536, 384), (8192, 384, 1536), (8192, 512, 512)):
            yield weight_case(rows, outputs, depth)


def rows_cases(outputs: int, depth: int, rows: int) -> Iterator[Case]:
    """Few rows, by format; torch's side has the unpacked weights in bf16."""
    weight, x = torch.randn(outputs, depth), torch.randn(rows, depth)
    for format in FORMATS:
        packed = pack(weight, format)
        half, plain = x.bfloat16(), unpack(packed).bfloat16()
        yield Case(
            kernel=f"rows {format}",
            shape=f"{rows} × ({outputs}, {depth})",
            ours=lambda packed=packed: multiply(x, packed),
            theirs=lambda half=half, plain=plain: F.linear(half, plain),
            torchs="F.linear in bf16",
            bytes=packed.num_bytes,
        )


def cross_entropy_case(rows: int, size: int) -> Case:
    """Loss and gradient of the logits."""
    logits, targets = torch.randn(rows, size).bfloat16(), torch.randint(size, (rows,))

    def theirs() -> object:
        leaf = logits.detach().requires_grad_()
        return F.cross_entropy(leaf.float(), targets, reduction="sum").backward()

    return Case(
        kernel="cross_entropy",
        shape=f"({rows}, {size})",
        ours=lambda: ops.cross_entropy_(logits.clone(), targets),
        theirs=theirs,
        torchs="F.cross_entropy and backward",
        bytes=4 * 2 * rows * size,  # the copy, two readings, one writing
    )


def attention_case(rows: int, heads: int, length: int, width: int) -> Case:
    """Causal self-attention, forward and backward."""
    parts = torch.randn(3, rows, length, heads, width).bfloat16().transpose(2, 3)
    query, key, value = (part.requires_grad_() for part in parts.unbind())
    gradient = torch.randn(rows, heads, length, width).bfloat16()

    def run(attend: Callable[[], torch.Tensor]) -> object:
        return torch.autograd.grad(attend(), (query, key, value), gradient)

    return Case(
        kernel="causal_attention",
        shape=f"({rows}, {heads}, {length}, {width})",
        ours=lambda: run(lambda: ops.causal_attention(query, key, value, None, width**-0.5)[0]),
        theirs=lambda: run(
            lambda: F.scaled_dot_product_attention(query, key, value, is_causal=True)
        ),
        torchs="SDPA in bf16",
        flops=7 * rows * heads * length * length * width,  # seven products, half of each seen
    )


def weight_case(rows: int, outputs: int, depth: int) -> Case:
    """The weight gradient of a linear layer."""
    gradient, x = torch.randn(rows, outputs).bfloat16(), torch.randn(rows, depth).bfloat16()
    return Case(
        kernel="weight_gradient",
        shape=f"({outputs}, {depth}) of {rows}",
        ours=lambda: ops.weight_gradient(gradient, x),
        theirs=lambda: gradient.T @ x,
        torchs="matmul in bf16",
        flops=2 * rows * outputs * depth,
    )


if __name__ == "__main__":
    main()
