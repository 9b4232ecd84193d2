"""How pictures look: two themes, bare axes, and files whose bytes depend only on what they show.

A figure is drawn once in a theme's colours. `to_svg` hands it to a web page with the colours named
as CSS variables, so that the same drawing follows the reader's light or dark setting.
"""

from __future__ import annotations

import html
import io
import os
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundup.config import UserError
from groundup.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

PANEL_INCHES = (3.6, 2.35)
"""Size of one panel: on a phone a panel fills the screen, and its text stays readable."""
FORMATS = (".svg", ".png")


@dataclass(frozen=True, kw_only=True)
class Theme:
    """Colours by role, all different from one another; contrast with `surface` is at least 4.5
    for text and series (WCAG AA), and the series differ for colour-blind readers too."""

    surface: str
    ink: str
    muted: str
    grid: str
    first: str
    second: str
    third: str
    fourth: str

    @property
    def series(self) -> tuple[str, ...]:
        return self.first, self.second, self.third, self.fourth


LIGHT = Theme(
    surface="#ffffff", ink="#1b1f24", muted="#5b6470", grid="#e3e6ea",
    first="#1f62c9", second="#b3470f", third="#0d7468", fourth="#7d3fc0",
)  # fmt: skip
DARK = Theme(
    surface="#15181d", ink="#e9ecf0", muted="#9aa4b1", grid="#2c323a",
    first="#7fb0ff", second="#ffa66b", third="#52d0b8", fourth="#c3a1ff",
)  # fmt: skip


def new_figure(panels: int, columns: int, theme: Theme) -> tuple[Figure, list[Axes]]:
    """A figure of `panels` dressed axes in rows of `columns`, without global pyplot state."""
    figure_type, layout_type = _matplotlib()
    rows = -(-panels // columns)
    width, height = PANEL_INCHES
    figure = figure_type(
        figsize=(width * columns, height * rows),
        layout=layout_type(w_pad=0.08, h_pad=0.08),
        facecolor=theme.surface,
    )
    all_axes = [figure.add_subplot(rows, columns, index + 1) for index in range(panels)]
    for axes in all_axes:
        dress(axes, theme)
    return figure, all_axes


def dress(axes: Axes, theme: Theme) -> None:
    """Only what carries information: a faint horizontal grid, a baseline, small muted numbers."""
    axes.set_facecolor("none")
    axes.grid(axis="y", color=theme.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "left", "right"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(theme.grid)
    axes.tick_params(which="both", colors=theme.muted, labelsize=8.5, length=0)


def caption(axes: Axes, theme: Theme, title: str, unit: str) -> None:
    """Title at the left, with the unit of the vertical axis beside it in place of a label."""
    axes.set_title(title, loc="left", fontsize=10, fontweight="bold", color=theme.ink)
    axes.set_title(unit, loc="right", fontsize=8.5, color=theme.muted)


def short_number(value: float) -> str:
    """12, 3.4k, 1.2M, 5G: four characters or so for an axis or a tile."""
    for size, suffix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        # 999,600 is 1M, not 1e+03k.
        if abs(value) >= size * 0.9995:
            return f"{value / size:.3g}{suffix}"
    return f"{value:.3g}"


def css_variables(theme: Theme) -> str:
    """`--ink: #1b1f24; ...`: the names that `to_svg` uses."""
    return " ".join(f"--{role}: {colour};" for role, colour in asdict(theme).items())


def to_svg(figure: Figure, theme: Theme, label: str) -> str:
    """The figure as an `<svg>` element for a page that defines `css_variables`.

    `label` is what a screen reader says. Text stays text, in the page's own font.
    """
    svg = _render(figure, "svg", transparent=True).decode()
    svg = svg[svg.index("<svg") :]
    for role, colour in asdict(theme).items():
        svg = svg.replace(colour, f"var(--{role})")
    # The page scales the drawing by its viewBox and sets the font; what is fixed here goes.
    svg = re.sub(r' (?:width|height)="[\d.]+pt"', "", svg, count=2)
    svg = re.sub(r"font-family: [^;]*; ", "", svg)
    svg = re.sub(r" *<metadata>.*?</metadata>\n", "", svg, flags=re.DOTALL)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{html.escape(label)}" ', 1)


def check_picture(path: str | Path) -> None:
    """Raise UserError when a picture cannot be made or written at `path`: ask before long work."""
    path = Path(path)
    if path.suffix not in FORMATS:
        raise UserError(f"A picture is saved as {' or '.join(FORMATS)}, not as '{path.name}'.")
    if not path.parent.is_dir():
        raise UserError(f"There is no folder {path.parent} to save {path.name} in; create it.")
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise UserError(f"Cannot write {path}; choose another place for the picture.")
    _matplotlib()


def save(figure: Figure, path: str | Path) -> None:
    """Write an SVG or PNG, by the file's ending. Equal figures give equal bytes."""
    path = Path(path)
    check_picture(path)
    with atomic_write(path, "wb") as file:
        file.write(_render(figure, path.suffix[1:], transparent=False))


def legend(axes: Axes, theme: Theme, names: Iterable[str]) -> None:
    """Names in the colours of the series, in the free upper right corner of a falling curve."""
    from matplotlib.lines import Line2D

    pairs = zip(names, theme.series, strict=False)
    handles = [Line2D([], [], color=colour, label=name) for name, colour in pairs]
    axes.legend(handles=handles, frameon=False, fontsize=8.5, labelcolor=theme.ink, loc=1)


def _matplotlib() -> tuple[type[Figure], type[ConstrainedLayoutEngine]]:
    try:
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError:
        raise UserError("Pictures need matplotlib: pip install 'groundup[viz]'.") from None
    return Figure, ConstrainedLayoutEngine


def _render(figure: Figure, kind: str, transparent: bool) -> bytes:
    import matplotlib

    stamps = {"svg": ("Date", "Creator"), "png": ("Software",)}
    metadata: dict[str, Any] = dict.fromkeys(stamps[kind])
    buffer = io.BytesIO()
    # The salt fixes the ids inside an SVG, which are otherwise drawn at random.
    with matplotlib.rc_context({"svg.hashsalt": "groundup", "svg.fonttype": "none"}):
        figure.savefig(buffer, format=kind, dpi=160, transparent=transparent, metadata=metadata)
    return buffer.getvalue()
