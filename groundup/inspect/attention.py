"""`groundup show attention`: time and memory of attention as the text grows, measured.

Every token looks at every earlier one, so twice the text is four times the work: the quadratic
problem. Five ways to compute it, on one thread in fp32: the formula as written, which keeps a
number for every pair; in tiles, which are forgotten (FlashAttention, in Python); torch's kernel,
which does the same; and two sliding windows, of which one only hides what it does not use.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from groundup.inspect.memory import MEGABYTE, allocations, one_thread
from groundup.inspect.show import grid
from groundup.nn.kernels import attend, naive_attention
from groundup.nn.masks import Causal, Window, dense, plan
from groundup.scratch.flash_attention import flash_attention
from groundup.viz.style import LIGHT, caption, new_figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CPU = torch.device("cpu")
WIDTH, WINDOW, TILE = 64, 256, 128
LENGTHS = (256, 512, 1024, 2048, 4096, 8192, 16384)
LONGEST_SLOW = 4096
REPEATS = 2


def naive(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """(B, H, T, E) three times -> (B, H, T, E): every weight is a number in memory."""
    length = query.shape[2]
    return naive_attention(query, key, value, dense(Causal(), length, length, CPU))[0]


def tiled(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The same, tile by tile."""
    return flash_attention(query, key, value, causal=True, tile=TILE)


def fused(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The same, by the kernel that models run."""
    length = query.shape[2]
    return attend(query, key, value, plan(Causal(), length, length, CPU))


def masked_window(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Only the last WINDOW keys count, but all are scored: a mask hides, it does not save."""
    length = query.shape[2]
    return attend(query, key, value, plan(Causal() & Window(WINDOW), length, length, CPU))


def window_in_blocks(query: Tensor, key: Tensor, value: Tensor, window: int = 0) -> Tensor:
    """The same as `masked_window`, from only those keys that may count.

    Queries in blocks as long as the window need the keys of their own block and of the one before.
    Beltagy et al. 2020 (Longformer), arXiv:2004.05150. Lengths that blocks do not divide are
    filled up at the end, where nobody looks.
    """
    window, (batch, heads, length, _) = window or WINDOW, query.shape
    filling = -length % window

    def blocks(x: Tensor) -> Tensor:
        return F.pad(x, (0, 0, 0, filling)).flatten(0, 1).unflatten(1, (-1, window))

    def with_previous(x: Tensor) -> Tensor:
        own = blocks(x)  # (B·H, N, W, E)
        return torch.cat((F.pad(own, (0, 0, 0, 0, 1, 0))[:, :-1], own), dim=2)

    visible = dense(Causal() & Window(window), window, 2 * window, CPU)
    visible = visible.repeat((length + filling) // window, 1, 1)
    visible[0, :, :window] = False  # before the first block there is none
    found = F.scaled_dot_product_attention(
        blocks(query), with_previous(key), with_previous(value), attn_mask=visible
    )
    return found.flatten(1, 2)[:, :length].unflatten(0, (batch, heads))


@dataclass(frozen=True, kw_only=True)
class Method:
    """One way to compute attention, and the longest text it is asked to read here."""

    name: str
    run: Callable[[Tensor, Tensor, Tensor], Tensor]
    longest: int = LENGTHS[-1]
    dashed: bool = False


METHODS = (
    Method(name="as written", run=naive, longest=LONGEST_SLOW),
    Method(name="in tiles", run=tiled, longest=LONGEST_SLOW),
    Method(name="torch's kernel", run=fused),
    Method(name="window in blocks", run=window_in_blocks),
    Method(name="window as a mask", run=masked_window, longest=LONGEST_SLOW, dashed=True),
)
COLOURS = (*LIGHT.series, LIGHT.muted)
PASSES = ("forward", "training")
"""Forward alone, or with the backward pass."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of one pass of one head over one text."""

    milliseconds: float
    """Of processor time, the least of several: other programs hardly change it."""
    megabytes: float
    """Held at most, beside queries, keys and values."""


Costs = dict[str, dict[int, Cost]]
"""The name of a method -> length -> its cost."""


def show(out: Path) -> str:
    """Measure, draw and tell; about half a minute on one slow core."""
    with one_thread():
        found = {kind: measure(kind == "training", LENGTHS) for kind in PASSES}
    figure, panels = new_figure(4, 2, LIGHT)
    figure.set_size_inches(10.4, 6.4)
    for row, kind in enumerate(PASSES):
        passes = "forward" if kind == "forward" else "forward and backward"
        _draw(panels[2 * row], found[kind], "milliseconds")
        caption(panels[2 * row], LIGHT, f"Time, {passes}", "ms, over tokens")
        _draw(panels[2 * row + 1], found[kind], "megabytes")
        caption(panels[2 * row + 1], LIGHT, f"Memory, {passes}", "MB, over tokens")
    save(figure, out)
    return _table(found)


def measure(training: bool, lengths: tuple[int, ...], repeats: int = REPEATS) -> Costs:
    """Every method on texts of these lengths, as long as it goes."""
    with torch.random.fork_rng(devices=[]):  # nobody else's random numbers are used up
        inputs = {length: torch.randn(3, 1, 1, length, WIDTH).unbind() for length in lengths}
    return {
        method.name: {
            length: cost(method.run, inputs[length], training, repeats)
            for length in lengths
            if length <= method.longest
        }
        for method in METHODS
    }


def cost(
    run: Callable[..., Tensor], inputs: tuple[Tensor, ...], training: bool, repeats: int = REPEATS
) -> Cost:
    """Time and memory of one pass."""
    inputs = tuple(tensor.clone().requires_grad_(training) for tensor in inputs)
    upstream = torch.ones_like(inputs[0])

    def work() -> None:
        output = run(*inputs)
        if training:
            torch.autograd.grad(output, inputs, upstream)

    seconds = math.inf
    for _ in range(repeats):
        start = time.process_time()
        work()
        seconds = min(seconds, time.process_time() - start)
    _, held = allocations(work)
    return Cost(milliseconds=1000 * seconds, megabytes=float(held.max()) / MEGABYTE)


def slope(costs: dict[int, Cost], field: str) -> float:
    """p of a cost that grows as T^p, over the longer half of the lengths."""
    lengths = sorted(costs)[len(costs) // 2 :]
    values = [getattr(costs[length], field) for length in lengths]
    return float(np.polyfit(np.log(lengths), np.log(values), 1)[0])


def _table(found: dict[str, Costs]) -> str:
    longest = LENGTHS[-1]
    shown = (LENGTHS[2], LONGEST_SLOW, longest)
    header = ["forward and backward", *(f"{length:,}" for length in shown), "grows as"]
    lines = [f"One head of {WIDTH}, causal, fp32, one thread; a window is {WINDOW} tokens."]
    for field, unit in (("milliseconds", "ms"), ("megabytes", "MB")):
        rows = []
        for name, costs in found["training"].items():
            cells = (
                f"{getattr(costs[length], field):,.1f} {unit}" if length in costs else "–"
                for length in shown
            )
            rows.append([name, *cells, f"T^{slope(costs, field):.1f}"])
        lines += [grid(header, rows), ""]
    return "\n".join([*lines, *_notes()])


def _notes() -> list[str]:
    return [
        "All but the windows compute the same, and score every pair: the arithmetic is quadratic "
        "in all. What tiles save is memory, which is linear: a tile of scores is used and",
        "forgotten, and computed again in the backward pass. A window makes the arithmetic linear "
        "too, where it is not only a mask over all pairs; it also sees less.",
        "The line that grows as T^2 ends where the others go on. On a GPU a tile stays in fast "
        "memory, so there tiles save time too.",
    ]


def _draw(axes: Axes, found: Costs, field: str) -> None:
    axes.set(xscale="log", yscale="log")
    ends: list[float] = []
    for method, colour in zip(METHODS, COLOURS, strict=True):
        lengths = sorted(found[method.name])
        values = [getattr(found[method.name][length], field) for length in lengths]
        style = "o--" if method.dashed else "o-"
        axes.plot(lengths, values, style, color=colour, linewidth=1.6, markersize=3.5)
        ends.append(values[-1])
    axes.set_xlim(LENGTHS[0] * 0.8, LENGTHS[-1] * 10)
    axes.set_xticks(LENGTHS[::2], [f"{length:,}" for length in LENGTHS[::2]])
    axes.minorticks_off()
    low, high = np.log(axes.get_ylim())
    heights = _apart(list((np.log(ends) - low) / (high - low)))
    for method, colour, height in zip(METHODS, COLOURS, heights, strict=True):
        power = slope(found[method.name], field)
        axes.text(
            LENGTHS[-1] * 1.3, height, f"{method.name}  $T^{{{power:.1f}}}$",
            transform=axes.get_xaxis_transform(), color=colour, fontsize=8, va="center",
            bbox={"facecolor": LIGHT.surface, "edgecolor": "none", "pad": 1.0},
        )  # fmt: skip


def _apart(heights: list[float], gap: float = 0.075) -> list[float]:
    """The same order of heights, from the top down, but none nearer to the next than `gap`."""
    placed, last = list(heights), 1.0 + gap
    for index in sorted(range(len(heights)), key=lambda index: -heights[index]):
        last = placed[index] = min(heights[index], last - gap)
    return placed
