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
from torch import Tensor

from groundup.inspect.memory import MEGABYTE, allocations, one_thread
from groundup.inspect.show import grid
from groundup.nn.kernels import attend, naive_attention
from groundup.nn.masks import Causal, Plan, Rule, Window, dense, plan
from groundup.scratch.flash_attention import flash_attention
from groundup.viz.style import LIGHT, caption, new_figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CPU = torch.device("cpu")
WIDTH, WINDOW, TILE = 64, 64, 128
LENGTHS = (256, 512, 1024, 2048, 4096, 8192, 16384)
LONGEST_SLOW = 4096
REPEATS = 2


def naive(query: Tensor, key: Tensor, value: Tensor, mask: Plan) -> Tensor:
    """(B, H, T, E) three times -> (B, H, T, E): every weight is a number in memory."""
    visible, _ = mask.spelled_out(query.shape[2], key.shape[2], CPU)
    return naive_attention(query, key, value, visible)[0]


def tiled(query: Tensor, key: Tensor, value: Tensor, _: Plan) -> Tensor:
    """The same, tile by tile."""
    return flash_attention(query, key, value, causal=True, tile=TILE)


@dataclass(frozen=True, kw_only=True)
class Method:
    """One way to compute attention, and the longest text it is asked to read here."""

    name: str
    run: Callable[[Tensor, Tensor, Tensor, Plan], Tensor]
    rule: Callable[[], Rule] = Causal
    written_out: bool = False
    """The mask is one bool for every pair."""
    longest: int = LENGTHS[-1]
    dashed: bool = False

    def mask(self, length: int) -> Plan:
        """Made once for all layers of a model, so no part of what is measured."""
        if self.written_out:
            return Plan(False, dense(self.rule(), length, length, CPU)[:, None])
        return plan(self.rule(), length, length, CPU)


def window() -> Rule:
    """Itself and the keys before it, WINDOW in all."""
    return Causal() & Window(WINDOW)


METHODS = (
    Method(name="as written", run=naive, written_out=True, longest=LONGEST_SLOW),
    Method(name="in tiles", run=tiled, longest=LONGEST_SLOW),
    Method(name="torch's kernel", run=attend),
    Method(name="window in blocks", run=attend, rule=window),
    Method(
        name="window as a mask", run=attend, rule=window, written_out=True,
        longest=LONGEST_SLOW, dashed=True,
    ),
)  # fmt: skip
COLOURS = (*LIGHT.series, LIGHT.muted)
PASSES = ("forward", "training")
"""Forward alone, or with the backward pass."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of one pass of one head over one text."""

    milliseconds: float
    """Of processor time, the least of several: other programs hardly change it."""
    megabytes: float
    """Held at most, beside queries, keys, values and the mask."""


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
            length: cost(method, inputs[length], training, repeats)
            for length in lengths
            if length <= method.longest
        }
        for method in METHODS
    }


def cost(
    method: Method, inputs: tuple[Tensor, ...], training: bool, repeats: int = REPEATS
) -> Cost:
    """Time and memory of one pass."""
    query, key, value = (tensor.clone().requires_grad_(training) for tensor in inputs)
    upstream, mask = torch.ones_like(query), method.mask(query.shape[2])

    def work() -> None:
        output = method.run(query, key, value, mask)
        if training:
            torch.autograd.grad(output, (query, key, value), upstream)

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
    axes.set_ylim(axes.get_ylim())  # as it is: what follows is beside the lines
    low, high = np.log(axes.get_ylim())
    heights = list((np.log(ends) - low) / (high - low))
    labels = zip(METHODS, COLOURS, heights, _apart(heights), strict=True)
    for method, colour, end, height in labels:
        longest = max(found[method.name])
        if longest < LENGTHS[-1]:  # a leader across what the line leaves empty
            axes.plot(
                (longest * 1.15, LENGTHS[-1] * 1.25), (end, height), ":", color=colour,
                linewidth=1, alpha=0.6, transform=axes.get_xaxis_transform(), zorder=1,
            )  # fmt: skip
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
