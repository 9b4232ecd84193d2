"""`groundup show positions`: how each kind tells a model where a token stands.

Above, what a model is given: a table that is added to the embeddings, angles that queries and keys
are turned by, or numbers that are added to the scores. Below, what it does to attention if all
tokens are equal: how a query weighs each key, against itself. All of it by the models' own code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from groundup.config import UserError
from groundup.inspect.show import grid
from groundup.models.decoder import Decoder
from groundup.models.presets import llama
from groundup.nn.alibi import alibi_bias
from groundup.nn.config import PositionKind, PositionsConfig
from groundup.nn.positions import RotaryPositions, rotate
from groundup.nn.relative_bias import RelativeBias
from groundup.nn.sinusoidal import sinusoids
from groundup.viz.style import LIGHT, caption, new_figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LENGTH, WIDTH, HEADS, HEAD = 64, 64, 8, 2
"""Positions, channels of a vector, heads, and the head that the lower row shows."""
DISTANCES = (1, 4, 16, 63)
SEED = 0


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of positions, at work."""

    given: Tensor
    """(rows, columns): what a model is given."""
    rows: str
    columns: str
    scores: Tensor
    """(T, T): of equal tokens, in one head, before the softmax."""
    acts: str
    """On what."""

    @property
    def weights(self) -> Tensor:
        """(T, T): how a query weighs each key against itself; 0 for later ones."""
        return torch.exp(self.scores - self.scores.diagonal()[:, None]).tril()

    @property
    def same_everywhere(self) -> bool:
        """Whether the scores depend on the distance alone."""
        shifted = self.scores[1:, 1:] - self.scores[:-1, :-1]
        return shifted.tril().abs().max().item() < 1e-4


def show(out: Path) -> str:
    """Draw every kind to `out`, and return a table."""
    kinds = measure()
    _draw(kinds, out)
    header = ("kind", "acts on", "learned", "longer texts", "the same everywhere")
    distances = [f"{distance} back" for distance in DISTANCES]
    return "\n".join([grid([*header, *distances], _rows(kinds)), "", *_notes()])


def measure() -> dict[PositionKind, Kind]:
    """Every kind at work; the caller's random numbers are left as they were."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(SEED)
        return {kind: make() for kind, make in MAKERS.items()}


def _sinusoidal() -> Kind:
    return _added(sinusoids(0, LENGTH, WIDTH))


def _learned() -> Kind:
    return _added(nn.Embedding(LENGTH, WIDTH).weight.detach())


def _added(table: Tensor) -> Kind:
    return Kind(
        given=table.T,
        rows="channel",
        columns="position",
        scores=table @ table.T / WIDTH**0.5,
        acts="embeddings",
    )


def _rope() -> Kind:
    rotation = RotaryPositions(WIDTH, LENGTH, PositionsConfig())(0, LENGTH)
    turned = rotate(torch.ones(1, LENGTH, 1, WIDTH), rotation)[0, :, 0]
    return Kind(
        given=rotation.cos[:, 0].T,
        rows="pair of channels",
        columns="position",
        scores=turned @ turned.T / WIDTH**0.5,
        acts="queries, keys",
    )


def _alibi() -> Kind:
    return _biased(alibi_bias(HEADS, LENGTH, LENGTH))


def _t5() -> Kind:
    return _biased(RelativeBias(HEADS, 32, 128, bidirectional=False)(LENGTH, LENGTH))


def _biased(bias: Tensor) -> Kind:
    """From a bias (H, T, T) that depends on the distance: its last row, nearest key first."""
    return Kind(
        given=bias[:, -1].flip(-1),
        rows="head",
        columns="distance",
        scores=bias[HEAD],
        acts="scores",
    )


def _none() -> Kind:
    seen = torch.arange(1, LENGTH + 1.0)
    return Kind(
        given=(1 / seen).expand(HEADS, LENGTH),
        rows="head",
        columns="position",
        scores=torch.zeros(LENGTH, LENGTH),
        acts="nothing",
    )


MAKERS: dict[PositionKind, Callable[[], Kind]] = {
    "sinusoidal": _sinusoidal,
    "learned": _learned,
    "rope": _rope,
    "alibi": _alibi,
    "t5": _t5,
    "none": _none,
}


def _rows(kinds: dict[PositionKind, Kind]) -> list[list[str]]:
    without, rows = _decoder("none").num_parameters(), []
    for name, kind in kinds.items():
        weights = [kind.weights.diagonal(-distance).mean().item() for distance in DISTANCES]
        learned = _decoder(name).num_parameters() - without
        same = "yes" if kind.same_everywhere else "no"
        shares = [f"{weight:.2g}" for weight in weights]
        rows.append([name, kind.acts, f"{learned:,}", _reads_on(name), same, *shares])
    return rows


def _decoder(kind: PositionKind) -> Decoder:
    config = llama(vocab_size=16, width=WIDTH, num_layers=1, num_heads=HEADS, context_length=LENGTH)
    return Decoder(replace(config, positions=PositionsConfig(kind=kind)))


@torch.no_grad()
def _reads_on(kind: PositionKind) -> str:
    """What a decoder does with more tokens than its context length."""
    try:
        _decoder(kind)(torch.zeros(1, LENGTH + 1, dtype=torch.int64))
    except UserError:
        return "refused"
    return "read"


def _notes() -> list[str]:
    return [
        f"Learned: numbers of a decoder {WIDTH} wide, {HEADS} heads, {LENGTH} positions. "
        "N back: how a query weighs an equal token so far back, against itself.",
        "Learned and t5 tables are as they start, drawn at random with a deviation of 1: what they "
        "say of distance, they have to learn. Darkest in the lower row is 1 or more.",
        "Sinusoids and RoPE could be computed for any position, but models rarely make sense of "
        "those they were not trained on; so they are refused.",
    ]


def _draw(kinds: dict[PositionKind, Kind], out: Path) -> None:
    figure, panels = new_figure(2 * len(kinds), len(kinds), LIGHT)
    figure.set_size_inches(2.25 * len(kinds), 5.0)
    titles = ("table", "table", "cosines", "bias", "bias", "1 / tokens seen")
    for column, (name, kind) in enumerate(kinds.items()):
        above, below = panels[column], panels[column + len(kinds)]
        largest = kind.given.abs().max().item()
        _heat(above, kind.given, (LIGHT.second, LIGHT.surface, LIGHT.first), -largest, largest)
        caption(above, LIGHT, name, titles[column])
        _label(above, kind.columns, kind.rows)
        _heat(below, kind.weights, (LIGHT.surface, LIGHT.first), 0.0, 1.0, hidden=True)
        caption(below, LIGHT, "", "")
        _label(below, "key", "query")
    panels[len(kinds)].set_title(
        "how a query weighs equal tokens, against itself",
        loc="left", fontsize=8.5, color=LIGHT.muted,
    )  # fmt: skip
    save(figure, out)


def _heat(
    axes: Axes,
    values: Tensor,
    colours: tuple[str, ...],
    low: float,
    high: float,
    hidden: bool = False,
) -> None:
    """Numbers as colours; with `hidden`, what lies above the diagonal is grey."""
    from matplotlib.colors import LinearSegmentedColormap

    scale = LinearSegmentedColormap.from_list("scale", colours, bad=LIGHT.grid)
    shown = values.clone()
    if hidden:
        later = torch.ones_like(shown, dtype=torch.bool).triu(1)
        shown = shown.masked_fill(later, torch.nan)
    axes.imshow(
        shown.numpy(), cmap=scale, vmin=low, vmax=high, aspect="auto", interpolation="nearest"
    )
    axes.grid(visible=False)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines["bottom"].set_visible(False)


def _label(axes: Axes, columns: str, rows: str) -> None:
    axes.set_xlabel(f"{columns} →", fontsize=8.5, color=LIGHT.muted)
    axes.set_ylabel(f"← {rows}", fontsize=8.5, color=LIGHT.muted)
