"""The curves of a run: loss, held-out bits per byte, learning rate, gradient norm and speed.

All are drawn over the tokens trained on so far, one stage after the other, from the rows of
`log.jsonl`. A row of training has `stage, step, tokens` and figures; a row of evaluation has
`stage, step` and `val_` figures, and takes its place on the axis from the training rows around it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from groundup.viz.style import LIGHT, Theme, caption, legend, new_figure, short_number, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SMOOTHING_ROWS = 15
"""A bold curve is a mean over this many rows of the log, the middle ones weighing most."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One figure during one stage: `y` over `x`, the tokens trained on since the run began."""

    stage: str
    x: np.ndarray
    y: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One picture: its title and unit, and the log key whose curves it shows."""

    title: str
    unit: str
    key: str
    noisy: bool = False
    """Every row is drawn faintly, and a smoothed curve over them."""
    points: str = ""
    """A key whose few, exact values are drawn as dots; the last one is written beside the unit."""
    log_scale: bool = False
    from_zero: bool = False
    as_text: Callable[[float], str] = short_number


def picture(rows: Sequence[Mapping[str, Any]], theme: Theme = LIGHT, columns: int = 3) -> Figure:
    """All panels that have something to show, in one figure; the stages are named in the first."""
    panels = [panel for panel in PANELS if curves(rows, panel.key)]
    figure, all_axes = new_figure(len(panels), min(columns, max(len(panels), 1)), theme)
    for axes, panel in zip(all_axes, panels, strict=True):
        draw_panel(axes, panel, rows, theme)
    if all_axes and len(stages(rows)) > 1:
        legend(all_axes[0], theme, stages(rows))
    return figure


def panel_svgs(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """An `<svg>` for each panel that has something to show, in the page's own colours."""
    drawings = []
    for panel in PANELS:
        if not curves(rows, panel.key):
            continue
        figure, (axes,) = new_figure(1, 1, LIGHT)
        draw_panel(axes, panel, rows, LIGHT)
        label = f"{panel.title}, {panel.unit}, over tokens trained"
        drawings.append(to_svg(figure, LIGHT, label))
    return drawings


def draw_panel(axes: Axes, panel: Panel, rows: Sequence[Mapping[str, Any]], theme: Theme) -> None:
    """Draw one panel's curves, each stage in its colour."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

    colours = dict(zip(stages(rows), theme.series * len(rows), strict=False))
    for curve in curves(rows, panel.key):
        _draw_curve(axes, curve, colours[curve.stage], panel.noisy)
    exact = curves(rows, panel.points)
    for curve in exact:
        colour = colours[curve.stage]
        style = {"color": colour, "markersize": 4, "markeredgecolor": theme.surface}
        axes.plot(curve.x, curve.y, "o", markeredgewidth=0.7, clip_on=False, **style)
    last = f"{exact[-1].y[-1]:.3f} " if exact else ""
    caption(axes, theme, panel.title, last + panel.unit)
    if panel.log_scale:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.minorticks_off()
    elif panel.from_zero:
        axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda tokens, _: short_number(tokens)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: panel.as_text(value)))


def stages(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The stages that trained on tokens, in the order in which the log first names them."""
    return list(dict.fromkeys(row["stage"] for row in rows if row.get("tokens") is not None))


def curves(rows: Sequence[Mapping[str, Any]], key: str) -> list[Curve]:
    """The curve of `key` in each stage that has it, without the rows where it was not finite.

    A stage's tokens count from zero; here they go on from where the stage before it ended.
    """
    found, offset = [], 0.0
    for stage in stages(rows):
        own = [row for row in rows if row.get("stage") == stage]
        clock = [(row["step"], row["tokens"]) for row in own if row.get("tokens") is not None]
        steps, tokens = np.array(sorted(clock), dtype=float).T
        points = [(row["step"], row[key]) for row in own if row.get(key) is not None]
        if points:
            at, values = np.array(points, dtype=float).T
            # Step 0, before any training, stands at no tokens.
            x = np.interp(at, [0, *steps], [0, *tokens])
            found.append(Curve(stage=stage, x=offset + x, y=values))
        offset += tokens[-1]
    return found


def smooth(values: np.ndarray, rows: int = SMOOTHING_ROWS) -> np.ndarray:
    """(N,) -> (N,): mean under a raised cosine `rows` wide, cut and reweighted at both ends."""
    # A window on both sides does not lag behind a falling loss, as a running mean would.
    window = np.hanning(min(rows, len(values)) + 2)[1:-1]
    return np.convolve(values, window, "same") / np.convolve(np.ones(len(values)), window, "same")


def _draw_curve(axes: Axes, curve: Curve, colour: str, noisy: bool) -> None:
    if noisy:
        axes.plot(curve.x, curve.y, color=colour, linewidth=0.7, alpha=0.3)
    y = smooth(curve.y) if noisy else curve.y
    axes.plot(curve.x, y, color=colour, linewidth=1.5)


PANELS = (
    Panel(title="Loss", unit="nats per token", key="loss", noisy=True, points="val_loss"),
    Panel(title="Held-out text", unit="bits per byte", key="val_bpb", points="val_bpb"),
    Panel(title="Learning rate", unit="", key="lr", from_zero=True),
    Panel(
        title="Gradient norm", unit="before clipping", key="grad_norm", noisy=True, log_scale=True
    ),
    Panel(
        title="Speed",
        unit="tokens per second",
        key="tokens_per_second",
        noisy=True,
        from_zero=True,
    ),
    Panel(
        title="MFU",
        unit="of the measured peak",
        key="mfu",
        noisy=True,
        from_zero=True,
        as_text="{:.0%}".format,
    ),
)
