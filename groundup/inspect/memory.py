"""`groundup show memory`: what activation checkpointing saves and costs, measured.

Memory is what torch's CPU allocator hands out and takes back during one forward and backward pass,
as torch's own profiler reports it: every tensor and nothing else, the same in every run, where the
resident memory of a process would tell of the allocator's habits. Checkpointing forgets what blocks
computed and computes it again in the backward pass (Chen et al. 2016, arXiv:1604.06174).
"""

from __future__ import annotations

import itertools
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args, get_type_hints

import numpy as np
import torch

from groundup.files import read_json
from groundup.inspect.show import grid
from groundup.models.decoder import Decoder
from groundup.models.presets import qwen3
from groundup.train.config import TrainConfig
from groundup.train.objectives import NextTokenLoss
from groundup.viz.style import LIGHT, caption, legend, new_figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MODES: tuple[str, ...] = get_args(get_type_hints(TrainConfig)["activation_checkpointing"])
WIDTH, HEADS, VOCABULARY, ROWS = 128, 2, 256, 4
DEPTHS, LENGTHS = (2, 4, 8, 12), (64, 128, 256, 512)
DEPTH, LENGTH = 8, 256
"""Where the other one varies."""
REPEATS = 8
MEGABYTE = 2**20


@dataclass(frozen=True, kw_only=True)
class Step:
    """One forward and backward pass."""

    times: np.ndarray
    """(N,) seconds since its start, of every allocation and free."""
    held: np.ndarray
    """(N,) bytes that it held just after each; at the end, the gradients."""
    seconds: float
    """Of processor time on one thread, without the profiler: the least of several. Other
    programs that share the processor hardly change it, as they would the clock on the wall."""

    @property
    def peak(self) -> float:
        """In MB."""
        return float(self.held.max()) / MEGABYTE

    @property
    def milliseconds(self) -> float:
        return 1000 * self.seconds


def show(out: Path) -> str:
    """Draw memory during a step, its peak against depth and length, and the time; a table."""
    deep = {depth: measure(depth, LENGTH, REPEATS) for depth in DEPTHS}
    long = {n: deep[DEPTH] if n == LENGTH else measure(DEPTH, n) for n in LENGTHS}
    figure, (course, by_depth, by_length, speed) = new_figure(4, 2, LIGHT)
    _draw_course(course, deep[DEPTH])
    _draw_lines(by_depth, deep, "peak")
    caption(by_depth, LIGHT, "Peak by depth", f"MB, over blocks of {LENGTH} tokens")
    _draw_lines(by_length, long, "peak")
    caption(by_length, LIGHT, "Peak by length", f"MB, over tokens, {DEPTH} blocks")
    _draw_lines(speed, deep, "milliseconds")
    caption(speed, LIGHT, "Time of a step", "processor ms, over blocks")
    legend(course, LIGHT, MODES)
    save(figure, out)
    return _table(deep)


def measure(depth: int, length: int, repeats: int = 1) -> dict[str, Step]:
    """A step of a small decoder of `depth` blocks on rows of `length` tokens, in every mode."""
    with torch.random.fork_rng():  # the numbers do not matter: nobody else's noise is used up
        shape = qwen3(
            vocab_size=VOCABULARY,
            width=WIDTH,
            num_layers=depth,
            num_heads=HEADS,
            context_length=length,
        )
        model = Decoder(shape).train()
        ids = torch.randint(0, VOCABULARY, (ROWS, length))
    loss = NextTokenLoss(model)

    def step() -> None:
        loss(ids, ids).backward()

    def prepare(mode: str) -> None:
        config = TrainConfig(activation_checkpointing=mode)  # type: ignore[arg-type]
        model.checkpointing = config.recompute_every
        model.zero_grad(set_to_none=True)

    seconds = dict.fromkeys(MODES, math.inf)
    with one_thread():  # several would count the time in which they wait for one another
        step()  # torch's caches and libraries are ready from here on
        for _, mode in itertools.product(range(repeats), MODES):  # in turns, so in equal weather
            prepare(mode)
            start = time.process_time()
            step()
            seconds[mode] = min(seconds[mode], time.process_time() - start)
        found = {}
        for mode in MODES:
            prepare(mode)
            times, held = allocations(step)
            found[mode] = Step(times=times, held=held, seconds=seconds[mode])
    return found


def allocations(work: Callable[[], None]) -> tuple[np.ndarray, np.ndarray]:
    """Seconds since the start, and bytes held by `work`, after every allocation and free."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or it writes to stderr
    cpu = torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[cpu], profile_memory=True) as profiler:
        work()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        events = read_json(path)["traceEvents"]
    changes = [(e["ts"], e["args"]["Bytes"]) for e in events if e.get("name") == "[memory]"]
    times, sizes = np.array(sorted(changes, key=lambda change: change[0])).T
    return (times - times[0]) / 1e6, sizes.cumsum()


@contextmanager
def one_thread() -> Iterator[None]:
    """What is inside runs on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _table(deep: dict[int, dict[str, Step]]) -> str:
    rows = []
    for mode in MODES:
        peaks = (f"{deep[depth][mode].peak:.1f}" for depth in DEPTHS)
        step, plain = deep[DEPTH][mode], deep[DEPTH]["none"]
        more = step.seconds / plain.seconds - 1
        rows.append([mode, *peaks, f"{step.milliseconds:.0f} ms", f"{more:+.0%}"])
    header = ["MB at most", *(f"{depth} blocks" for depth in DEPTHS), f"step of {DEPTH}", "time"]
    return "\n".join(
        [
            f"One training pass over {ROWS} rows of {LENGTH} tokens, width {WIDTH}, fp32.",
            grid(header, rows),
            "",
            "none keeps all that every block computed. full keeps the input of each block and",
            "computes the rest again in backward: the memory of about one block, for one more",
            "forward pass, which is up to a third more time. selective does so for every second",
            "block. The gradients are equal in all three. In a recipe:",
            'train.activation_checkpointing = "full", or "selective" with selective_every = n.',
        ]
    )


def _draw_course(axes: Axes, steps: dict[str, Step]) -> None:
    for step, colour in zip(steps.values(), LIGHT.series, strict=False):
        # Over the course, not the time: with checkpointing the step has more of everything.
        course = np.linspace(0, 1, len(step.held))
        axes.step(course, step.held / MEGABYTE, where="post", color=colour, linewidth=1.2)
    axes.set(xlim=(0, 1), ylim=(0, None), xticks=[])
    caption(axes, LIGHT, "During one step", f"MB held, {DEPTH} blocks")


def _draw_lines(axes: Axes, steps: dict[int, dict[str, Step]], key: str) -> None:
    sizes = list(steps)
    for mode, colour in zip(MODES, LIGHT.series, strict=False):
        values = [getattr(steps[size][mode], key) for size in sizes]
        axes.plot(sizes, values, "o-", color=colour, linewidth=1.6, markersize=4)
    axes.set(ylim=(0, None), xlim=(0, None), xticks=sizes)
