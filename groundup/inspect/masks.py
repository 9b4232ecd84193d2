"""`groundup show masks`: who sees whom, for every mask rule, with the share of pairs seen.

Each panel is the real rule of `groundup.nn.masks`, evaluated for every pair of 32 positions; the
last is ALiBi, which hides nothing but weighs by distance.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from groundup.inspect.show import grid
from groundup.nn.alibi import alibi_bias
from groundup.nn.masks import (
    Causal,
    Document,
    Everything,
    LeftPadding,
    Padding,
    Plan,
    Prefix,
    Rule,
    Sinks,
    Window,
    dense,
    density,
    plan,
)
from groundup.nn.sparse_masks import Blocks, Global, Random, Strided, Summaries
from groundup.viz.style import LIGHT, caption, new_figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CPU = torch.device("cpu")
LENGTH, LONG = 32, 1024
"""Positions in the picture, and in the last column of the table."""
COLUMNS = 5


def show(out: Path) -> str:
    """Draw every rule; a table of what each computes and how it is run."""
    figure, panels = new_figure(len(WRITTEN) + 1, COLUMNS, LIGHT)
    figure.set_size_inches(2.2 * COLUMNS, 2.4 * -(-len(panels) // COLUMNS))
    for axes, (name, rule) in zip(panels, rules(LENGTH).items(), strict=False):
        _draw(axes, dense(rule, LENGTH, LENGTH, CPU)[0])
        caption(axes, LIGHT, name, f"{density(rule, LENGTH, LENGTH):.0%}")
    _draw(panels[-1], _alibi())
    caption(panels[-1], LIGHT, "ALiBi", "weight")
    panels[0].set_xlabel("key →", fontsize=8.5, color=LIGHT.muted)
    panels[0].set_ylabel("← query", fontsize=8.5, color=LIGHT.muted)
    save(figure, out)
    header = ("rule", "", f"of {LENGTH}²", f"of {LONG}²", "run as")
    return "\n".join([grid(header, _rows()), "", *_notes()])


def rules(length: int) -> dict[str, Rule]:
    """What is shown, for so many positions."""
    thirds = torch.arange(length)[None] * 3 // length
    flags = (torch.arange(length) < 2)[None]
    return {
        "bidirectional": Everything(),
        "padding": Padding(torch.tensor([length * 5 // 8])),
        "left padding": Causal() & LeftPadding(torch.tensor([length // 4])),
        "causal": Causal(),
        "prefix-LM": Causal() | Prefix(length // 4),
        "window": Window(6),
        "causal window": Causal() & Window(6),
        "with sinks": Causal() & (Window(6) | Sinks(2)),
        "documents": Causal() & Document(thirds),
        "blocks": Blocks(8),
        "strided": Causal() & (Window(6) | Strided(6)),
        "fixed": Causal() & (Blocks(6) | Summaries(6)),
        "Longformer": Window(4) | Global(flags),
        "BigBird": Window(4) | Global(flags) | Random(length, 2),
    }


WRITTEN = {
    "bidirectional": "Everything()",
    "padding": "Padding(lengths)",
    "left padding": "Causal() & LeftPadding(counts)",
    "causal": "Causal()",
    "prefix-LM": "Causal() | Prefix(n)",
    "window": "Window(6)",
    "causal window": "Causal() & Window(6)",
    "with sinks": "Causal() & (Window(6) | Sinks(2))",
    "documents": "Causal() & Document(numbers)",
    "blocks": "Blocks(8)",
    "strided": "Causal() & (Window(6) | Strided(6))",
    "fixed": "Causal() & (Blocks(6) | Summaries(6))",
    "Longformer": "Window(4) | Global(flags)",
    "BigBird": "Window(4) | Global(flags) | Random(T, 2)",
}
"""How each is written; the numbers are those of `rules`."""


def _rows() -> list[list[str]]:
    longer, rows = rules(LONG), []
    for name, rule in rules(LENGTH).items():
        chosen = plan(rule, LENGTH, LENGTH, CPU)
        shares = density(rule, LENGTH, LENGTH), density(longer[name], LONG, LONG)
        rows.append([WRITTEN[name], name, *(f"{share:.1%}" for share in shares), _run_as(chosen)])
    return rows


def _run_as(chosen: Plan) -> str:
    if chosen.is_causal or chosen.window:
        return "is_causal" if chosen.is_causal else "blocks"
    return "mask" if chosen.dense is not None else "no mask"


def _notes() -> list[str]:
    return [
        "A rule is a function of two positions; & allows what both rules do, | what either does. "
        "A window counts the token itself.",
        "With a dense mask every pair is still computed, whatever the share: a rule saves work "
        "only where whole blocks are skipped, as for a causal window, or with a cache that has let "
        "go of old keys.",
    ]


def _alibi() -> torch.Tensor:
    """(T, T): how equal scores are weighed, by the distance alone, relative to the query's own."""
    mask = plan(Causal(), LENGTH, LENGTH, CPU, alibi_bias(8, LENGTH, LENGTH)).dense
    assert mask is not None
    return mask[0, 2].exp()  # of 8 heads, one that forgets neither fast nor slowly


def _draw(axes: Axes, seen: torch.Tensor) -> None:
    """(T, T), 0 to 1, with white lines between the cells, so that positions can be counted."""
    from matplotlib.colors import LinearSegmentedColormap

    colours = LinearSegmentedColormap.from_list("seen", [LIGHT.grid, LIGHT.first])
    axes.imshow(seen.float().numpy(), cmap=colours, vmin=0, vmax=1, interpolation="nearest")
    edges = [place - 0.5 for place in range(LENGTH + 1)]
    axes.hlines(edges, -0.5, LENGTH - 0.5, color=LIGHT.surface, linewidth=0.4)
    axes.vlines(edges, -0.5, LENGTH - 0.5, color=LIGHT.surface, linewidth=0.4)
    axes.grid(visible=False)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines["bottom"].set_visible(False)
