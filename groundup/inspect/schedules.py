"""`groundup show schedules`: every learning-rate schedule over a run, and after its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args, get_type_hints

from groundup.inspect.show import grid
from groundup.optim import schedules
from groundup.optim.config import ScheduleConfig
from groundup.viz.style import LIGHT, caption, new_figure, save

TOTAL, WARMUP, FLOOR = 1000, 100, 0.1
BEYOND = 1250
"""Drawn to here, where a schedule that is not clamped would climb or fall on."""
STEPS = (0, 99, 250, 500, 750, 999, 1000, 1249)
"""The steps of the table."""


def show(out: Path) -> str:
    """Draw the factor on the learning rate for every kind; a table of it at some steps."""
    kinds = get_args(get_type_hints(ScheduleConfig)["kind"])
    figure, all_axes = new_figure(len(kinds), 3, LIGHT)
    for axes, kind in zip(all_axes, kinds, strict=True):
        for floor, colour in ((FLOOR, LIGHT.first), (0.0, LIGHT.second)):
            values = curve(kind, floor)
            axes.plot(values, color=colour, linewidth=1.6, zorder=3 if floor else 2)
        axes.axvspan(0, WARMUP, color=LIGHT.grid, alpha=0.5, linewidth=0)
        axes.axvline(TOTAL, color=LIGHT.muted, linewidth=0.8, linestyle=(0, (4, 3)))
        axes.set(xlim=(0, BEYOND), ylim=(0, 1.05), xticks=range(0, BEYOND, 250))
        caption(axes, LIGHT, kind, "× base rate")
    named = dict(zip(kinds, all_axes, strict=True))
    note: dict[str, Any] = {"fontsize": 8.5, "color": LIGHT.muted, "va": "bottom"}
    named["constant"].text(WARMUP + 12, 0.02, "warmup", **note)
    named["constant"].text(TOTAL - 12, 0.02, "last step", ha="right", **note)
    for floor, colour in ((FLOOR, LIGHT.first), (0.0, LIGHT.second)):
        named["linear"].text(
            TOTAL + 12, floor + 0.01, f"floor {floor:g}", **{**note, "color": colour}
        )
    save(figure, out)
    rows = [[kind, *(f"{curve(kind, FLOOR)[step]:.3f}" for step in STEPS)] for kind in kinds]
    return "\n".join(
        [
            f"Factor on the learning rate: {TOTAL} steps, warmup {WARMUP}, floor {FLOOR:g}, "
            "halved by step.",
            grid(["step", *map(str, STEPS)], rows),
            "",
            *(f"{kind}: {getattr(schedules, kind).__doc__}" for kind in kinds),
        ]
    )


def curve(kind: str, floor: float) -> list[float]:
    """The factor at every step up to BEYOND."""
    config = settings(kind, floor)
    return [schedules.factor(config, step, TOTAL) for step in range(BEYOND)]


def settings(kind: str, floor: float) -> ScheduleConfig:
    """What is drawn of a kind."""
    return ScheduleConfig(
        kind=kind,  # type: ignore[arg-type]
        warmup_steps=WARMUP,
        floor=floor,
        step_factor=0.5,
    )
