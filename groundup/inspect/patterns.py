"""`groundup show patterns`: where the heads of a model look, and what they are good for.

Without a model a small one is trained on the spot, on a task whose solution shows in its patterns
(`groundup.inspect.induction`), from the seed of three that shows it best. With one, that one reads
a text: a decoder or an encoder.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.config import UserError, require
from groundup.inspect import induction
from groundup.inspect.show import grid
from groundup.models.decoder import Decoder
from groundup.models.encoder import Encoder
from groundup.models.folder import load_any, resolve_model
from groundup.nn.capture import capture
from groundup.nn.kernels import Mix
from groundup.text.framing import frame
from groundup.text.tokenizer import Tokenizer
from groundup.viz.style import LIGHT, caption, new_figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN, COLUMNS = 8, 4
"""Heads in the picture and the table."""
LABELLED, LONGEST = 34, 256
"""Tokens: so many are written at the axes; more than the longest text are not drawn."""
TEXT = "The red door opened. Behind the green door was a cat. Behind the red door"

Shares = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A model, what it reads, and how badly it foretells it."""

    title: str
    model: Decoder | Encoder
    ids: Tensor
    """(B, T); the first row is drawn."""
    labels: list[str]
    """T, of the first row."""
    loss: Callable[[], float] | None = None
    """In nats; None for a model that foretells nothing."""


@dataclass(frozen=True, kw_only=True)
class Head:
    """What one head does."""

    layer: int
    head: int
    weights: Tensor
    """(T, T), of the first row."""
    shares: Shares
    """How much of its weight lies on keys of each role, on the mean; see `roles`."""
    tokens: float
    """Over how many keys it spreads its weight: e to its entropy, on the mean."""
    loss: float | None = None
    """What the loss grows by without it."""
    chosen_for: str = ""
    """A role of which it does more than other heads."""

    @property
    def role(self) -> str:
        """What it is shown for."""
        return self.chosen_for or max(self.shares, key=self.shares.__getitem__)

    @property
    def name(self) -> str:
        return f"layer {self.layer} head {self.head}"


def show(out: Path, model: str = "", text: str = "") -> str:
    """Draw the heads that do most of one thing, and return a table. Counted from 1.

    Raises UserError when there is no such model, or its kind is not one that reads a text alone.
    """
    require(bool(model) or not text, "--text is for a model of yours: give one with --model.")
    reading = _read(model, text or TEXT) if model else _trained()
    heads = measure(reading)
    drawn = [_with_loss(reading, head) for head in choose(heads)]
    _draw(reading, drawn, out)
    return _table(reading, heads, drawn)


@torch.no_grad()
def measure(reading: Reading) -> list[Head]:
    """Every head of every layer, in order."""
    with capture(reading.model) as seen:
        reading.model.hidden(reading.ids)
    places, heads = roles(reading.ids), []
    for layer, pattern in enumerate(call for calls in seen.values() for call in calls):
        for head, weights in enumerate(pattern.weights.unbind(1)):  # (B, T, T)
            heads.append(
                Head(
                    layer=layer + 1,
                    head=head + 1,
                    weights=weights[0],
                    shares={role: share(weights, keys) for role, keys in places.items()},
                    tokens=torch.special.entr(weights.clamp(min=0)).sum(-1).exp().mean().item(),
                )
            )
    return heads


def roles(ids: Tensor) -> dict[str, Tensor]:
    """(B, T) -> for each query which keys have the role, (B, T, T) bool.

    "after same" are keys that follow an earlier one with the query's own token: what came next.
    """
    length = ids.shape[1]
    query, key = torch.arange(length)[:, None], torch.arange(length)[None, :]
    same = (ids[:, :, None] == ids[:, None, :]) & (key < query)
    everywhere = torch.ones_like(same)
    return {
        "itself": everywhere & (key == query),
        "previous": everywhere & (key == query - 1),
        "next": everywhere & (key == query + 1),
        "first": everywhere & (key == 0) & (query > 1),
        "after same": F.pad(same, (1, 0))[:, :, :-1] & (key < query),
    }


def share(weights: Tensor, keys: Tensor) -> float:
    """(B, T, T) twice -> the weight on these keys, over the queries that have such a key."""
    present = keys.any(-1)
    on_keys = (weights * keys).sum(-1)[present]
    return on_keys.mean().item() if present.any() else 0.0


def choose(heads: Sequence[Head], count: int = SHOWN) -> list[Head]:
    """All heads if there are few, else in turns for every role the one that does it most."""
    if len(heads) <= count:
        return list(heads)
    chosen: list[Head] = []
    while len(chosen) < count:
        for role in heads[0].shares:
            left = [head for head in heads if head.name not in {one.name for one in chosen}]
            best = max(left, key=lambda head: head.shares[role])
            if best.shares[role] > 0 and len(chosen) < count:
                chosen.append(replace(best, chosen_for=role))
    return sorted(chosen, key=lambda head: (head.layer, head.head))


@contextmanager
def without(model: nn.Module, layer: int, head: int) -> Iterator[None]:
    """The model as if this head had found nothing. Both counted from 1."""

    def silence(_mix: nn.Module, _inputs: Any, found: Tensor) -> Tensor:
        silent = found.clone()
        silent[:, head - 1] = 0.0
        return silent

    mix = [part for part in model.modules() if isinstance(part, Mix)][layer - 1]
    hook = mix.register_forward_hook(silence)
    try:
        yield
    finally:
        hook.remove()


def _trained() -> Reading:
    model = induction.train()
    rows = induction.draw(np.random.default_rng(1), 256)

    @torch.no_grad()
    def loss() -> float:
        return induction.loss(model, rows).item()

    chance = math.log(len(induction.LETTERS))
    title = (
        f"A GPT-2 of {induction.LAYERS} layers, trained on letters that begin to repeat, from seed "
        f"{induction.SEED}, the clearest of three: "
        f"{loss():.2f} nats for each that does, where guessing costs {chance:.2f}."
    )
    labels = [induction.LETTERS[letter] for letter in rows.ids[0]]
    return Reading(title=title, model=model, ids=rows.ids, labels=labels, loss=loss)


def _read(name: str, text: str) -> Reading:
    folder = resolve_model(name)
    loaded = load_any(folder, kinds=("decoder", "encoder"))
    model, tokenizer = loaded.model, loaded.tokenizer
    if tokenizer is None:
        raise UserError(f"{folder} has no tokenizer, so it can read no text.")
    assert isinstance(model, (Decoder, Encoder))
    ids = _row(model, tokenizer, text)
    limit = min(LONGEST, model.config.context_length)
    require(len(ids) <= limit, f"The text has {len(ids)} tokens; give one of at most {limit}.")
    require(len(ids) > 2, "The text is too short to show where heads look.")
    row = torch.tensor([ids])
    loss = partial(_loss, model, row) if isinstance(model, Decoder) else None
    title = f"{name} reads {len(ids)} tokens" + (f" at {loss():.2f} nats a token." if loss else ".")
    labels = [_printable(tokenizer.decode([id], special=True)) for id in ids]
    return Reading(title=title, model=model, ids=row, labels=labels, loss=loss)


@torch.no_grad()
def _loss(model: Decoder, row: Tensor) -> float:
    return F.cross_entropy(model(row[:, :-1])[0].float(), row[0, 1:]).item()


def _row(model: Decoder | Encoder, tokenizer: Tokenizer, text: str) -> list[int]:
    ids = tokenizer.encode(text)
    if isinstance(model, Encoder):
        return frame(tokenizer, ids)
    return [tokenizer.special[name] for name in ("<|bos|>",) if name in tokenizer.special] + ids


def _printable(text: str) -> str:
    """A token as a label: what a picture's font lacks becomes a box."""
    marked = text.replace(" ", "·").replace("\n", "⏎")
    return "".join(c if c.isprintable() and ord(c) < 0x2500 else "□" for c in marked)


def _with_loss(reading: Reading, head: Head) -> Head:
    mixes = sum(isinstance(part, Mix) for part in reading.model.modules())
    if reading.loss is None or mixes < reading.model.config.num_layers:  # shared by several layers
        return head
    whole = reading.loss()
    with without(reading.model, head.layer, head.head):
        more = reading.loss() - whole
    return replace(head, loss=more)


def _table(reading: Reading, heads: Sequence[Head], drawn: Sequence[Head]) -> str:
    used = [role for role in heads[0].shares if any(head.shares[role] > 0 for head in heads)]
    rows = [
        [
            head.name,
            *(f"{head.shares[role]:.0%}" for role in used),
            f"{head.tokens:.1f}",
            "–" if head.loss is None else f"{head.loss:+.2f}",
        ]
        for head in drawn
    ]
    header = ["weight on", *used, "spread over", "without it"]
    lines = [reading.title, grid(header, rows), ""]
    if len(drawn) < len(heads):
        lines.append(f"Of {len(heads)} heads those that do most of one thing.")
    lines.append(
        'Shares of a head\'s weight, on the mean over queries; "after same" is what followed the '
        "query's token when it stood there before. Spread over so many tokens. Without it: nats "
        "that the loss grows by when the head finds nothing."
    )
    return "\n".join(lines)


def _draw(reading: Reading, heads: Sequence[Head], out: Path) -> None:
    figure, panels = new_figure(len(heads), min(COLUMNS, len(heads)), LIGHT)
    rows, columns = -(-len(heads) // COLUMNS), min(COLUMNS, len(heads))
    side = 3.3 if len(reading.labels) <= LABELLED else 2.7
    figure.set_size_inches(side * columns, (side + 0.25) * rows)
    for axes, head in zip(panels, heads, strict=True):
        _heat(axes, head.weights, reading.labels)
        caption(axes, LIGHT, head.name, f"{head.role} {head.shares[head.role]:.0%}")
    save(figure, out)


def _heat(axes: Axes, weights: Tensor, labels: list[str]) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    colours = LinearSegmentedColormap.from_list("weight", [LIGHT.surface, LIGHT.first])
    axes.imshow(weights.numpy(), cmap=colours, vmin=0, vmax=1, interpolation="nearest")
    axes.grid(visible=False)
    for side in ("top", "left", "right", "bottom"):
        axes.spines[side].set(visible=True, color=LIGHT.grid)
    places = range(len(labels)) if len(labels) <= LABELLED else []
    names = labels if places else []
    size = 6 if max(map(len, labels)) > 1 else 7
    axes.set_xticks(places, names, fontsize=size, rotation=90 if size == 6 else 0)
    axes.set_yticks(places, names, fontsize=size)
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        label.set_parse_math(False)  # a "$" is a token, and no formula
