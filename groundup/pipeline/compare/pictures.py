"""The pictures of a comparison: curves, bars, and who sees whom."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from statistics import mean, median
from typing import TYPE_CHECKING

import numpy as np
import torch

from groundup.nn.masks import Causal, Everything, Rule, dense
from groundup.pipeline.compare.comparison import Comparison, extent
from groundup.pipeline.compare.competitors import COMPETITORS
from groundup.pipeline.compare.learning import Outcome
from groundup.viz.style import LIGHT, caption, legend, new_figure, short_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Draw = Callable[["Axes"], None]
COLOURS = dict(zip(COMPETITORS, LIGHT.series, strict=False))
SOURCE, TARGET = 5, 3
"""Tokens of the question and of the answer in the drawings of who sees whom."""


def picture(comparison: Comparison) -> Figure:
    """All panels, in rows of three."""
    measured = [*curves(comparison).values(), *bars(comparison).values()]
    free = [None] * (-len(measured) % 3)  # the masks have a row of their own
    panels = [*measured, *free, *masks().values()]
    figure, all_axes = new_figure(len(panels), 3, LIGHT)
    for axes, draw in zip(all_axes, panels, strict=True):
        draw(axes) if draw else axes.remove()
    legend(all_axes[0], LIGHT, COMPETITORS)
    shown = all_axes[0].get_legend()
    assert shown is not None
    shown.set_loc("upper left")  # these curves rise
    return figure


def curves(comparison: Comparison) -> dict[str, Draw]:
    """By task: the share of right answers over the examples seen."""
    return {
        f"learning to {task}": partial(_draw_curves, task, comparison.of(task))
        for task in comparison.config.tasks
    }


def bars(comparison: Comparison) -> dict[str, Draw]:
    """Score, latency, training speed and FLOPs: a group of bars per task."""
    return {
        "right answers": partial(_draw_scores, comparison),
        "time of an answer": partial(_draw_latency, comparison),
        "speed of training": partial(
            _draw_bars, comparison, "Training", "examples/s", lambda one: one.examples_per_second
        ),
        "cost of an answer": partial(
            _draw_bars, comparison, "An answer costs", "FLOPs", lambda one: one.answer_flops
        ),
    }


def masks() -> dict[str, Draw]:
    """By family: which tokens each token sees, by the rules its attention has."""
    length = SOURCE + TARGET
    device = torch.device("cpu")

    def square(rule: Rule, size: int) -> np.ndarray:
        return dense(rule, size, size, device)[0].numpy().astype(int)

    both = np.zeros((length, length), dtype=int)
    both[:SOURCE, :SOURCE] = square(Everything(), SOURCE)
    both[SOURCE:, SOURCE:] = square(Causal(), TARGET)
    both[SOURCE:, :SOURCE] = 2  # from one text to the other
    seen = {
        "encoder": square(Everything(), length),
        "decoder": square(Causal(), length),
        "encoder-decoder": both,
    }
    return {family: partial(_draw_mask, family, seen[family]) for family in COMPETITORS}


def _draw_curves(task: str, by_family: dict[str, list[Outcome]], axes: Axes) -> None:
    for family, outcomes in by_family.items():
        x = [examples for examples, _ in outcomes[0].curve]
        y = np.array([[share for _, share in one.curve] for one in outcomes])
        colour = COLOURS[family]
        axes.fill_between(x, y.min(0), y.max(0), color=colour, alpha=0.15, linewidth=0)
        axes.plot(x, y.mean(0), "o-", color=colour, linewidth=1.5, markersize=2.5)
    axes.set(xlim=0, ylim=(0, 1.02))
    axes.xaxis.set_major_formatter(lambda value, _: short_number(value))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    caption(axes, LIGHT, f"Learning to {task}", "right, by examples seen")


def _draw_scores(comparison: Comparison, axes: Axes) -> None:
    """Shares of right answers, each with its interval or range."""
    for (task, family), outcomes in comparison.outcomes.items():
        x = _place(comparison, task, family)
        score, (low, high) = mean(one.score for one in outcomes), extent(outcomes)
        axes.bar(x, score, width=0.23, color=COLOURS[family])
        axes.plot([x, x], [low, high], color=LIGHT.ink, linewidth=1)
        _label(axes, x, high, f"{score:.1%}")
    _dress_bars(axes, comparison, "Right answers", "held-out numbers")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")


def _draw_latency(comparison: Comparison, axes: Axes) -> None:
    """Milliseconds of an answer, each with the range of its turns."""
    for (task, family), turns in comparison.latency.items():
        x = _place(comparison, task, family)
        axes.bar(x, median(turns), width=0.23, color=COLOURS[family])
        axes.plot([x, x], [min(turns), max(turns)], color=LIGHT.ink, linewidth=1)
        _label(axes, x, max(turns), short_number(median(turns)))
    _dress_bars(axes, comparison, "An answer takes", "ms")
    axes.yaxis.set_major_formatter(lambda value, _: short_number(value))


def _draw_bars(
    comparison: Comparison, title: str, unit: str, figure: Callable[[Outcome], float], axes: Axes
) -> None:
    for (task, family), outcomes in comparison.outcomes.items():
        x = _place(comparison, task, family)
        value = mean(map(figure, outcomes))
        axes.bar(x, value, width=0.23, color=COLOURS[family])
        _label(axes, x, value, short_number(value))
    _dress_bars(axes, comparison, title, unit)
    axes.yaxis.set_major_formatter(lambda value, _: short_number(value))


def _place(comparison: Comparison, task: str, family: str) -> float:
    """Where a bar stands: those of a task side by side."""
    tasks: list[str] = list(comparison.config.tasks)
    return tasks.index(task) + 0.27 * (list(COMPETITORS).index(family) - 1)


def _label(axes: Axes, x: float, y: float, text: str) -> None:
    style = {"ha": "center", "fontsize": 7.5, "color": LIGHT.muted}
    axes.annotate(text, (x, y), (0, 2), textcoords="offset points", **style)


def _dress_bars(axes: Axes, comparison: Comparison, title: str, unit: str) -> None:
    tasks = comparison.config.tasks
    axes.set_xticks(range(len(tasks)), list(tasks), color=LIGHT.ink)
    axes.margins(y=0.15)
    axes.set_ylim(bottom=0)
    caption(axes, LIGHT, title, unit)


def _draw_mask(family: str, seen: np.ndarray, axes: Axes) -> None:
    """0: not seen, 1: seen in its own text, 2: in the other."""
    from matplotlib.patches import Rectangle

    colours, length = (LIGHT.grid, LIGHT.first, LIGHT.second), len(seen)
    for (row, column), kind in np.ndenumerate(seen):
        corner = column - 0.44, row - 0.44
        axes.add_patch(Rectangle(corner, 0.88, 0.88, facecolor=colours[kind], linewidth=0))
    names = [f"q{i + 1}" for i in range(SOURCE)] + [f"a{i + 1}" for i in range(TARGET)]
    axes.set(xlim=(-0.6, length - 0.4), ylim=(length - 0.4, -0.6), aspect="equal")
    axes.set_xticks(range(length), names)
    axes.set_yticks(range(length), names)
    if family == next(iter(COMPETITORS)):
        axes.set_ylabel("each row: what it sees", fontsize=8.5, color=LIGHT.muted)
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)
    caption(axes, LIGHT, family, f"{(seen > 0).mean():.0%}")
