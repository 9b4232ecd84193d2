"""How strongly each layer of a deep decoder is pulled, by where the norms of its blocks stand.

One decoder per norm placement, equal but for that, meets the same batch; the length of the gradient
of each block's matrices is what training can work with there. Then each takes a few steps on that
batch, without a warmup, and the losses show what the gradients meant.

The weights start at standard deviation 1/√D (Xavier's, and what the usual 0.02 is at width 2500).
At 0.02 a width of 64 would make every branch a whisper beside the stream, and the placements equal.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from groundup.inspect.show import grid
from groundup.models.config import DecoderConfig
from groundup.models.decoder import Decoder
from groundup.models.presets import llama
from groundup.nn.config import NormPlacement
from groundup.viz.style import LIGHT, caption, legend, new_figure, save

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PLACEMENTS: tuple[NormPlacement, ...] = ("pre", "post", "sandwich", "deepnorm")
LAYERS, WIDTH, VOCABULARY = 24, 64, 256
ROWS, LENGTH = 4, 32
STEPS, LEARNING_RATE = 14, 3e-3
SEED = 1234


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One placement: gradient norm by layer at the start, and the loss of every step (nats)."""

    placement: NormPlacement
    norms: tuple[float, ...]
    losses: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """The last layer's gradient over the first's: 1 is an even pull."""
        return self.norms[-1] / self.norms[0]


def show(out: Path) -> str:
    """Measure all placements, draw them to `out` (.png or .svg), and return a table as text."""
    measurements = [measure(placement) for placement in PLACEMENTS]
    save(picture(measurements), out)
    return table(measurements)


def measure(
    placement: NormPlacement, layers: int = LAYERS, steps: int = STEPS, seed: int = SEED
) -> Measurement:
    """Gradients of a fresh decoder on one batch, and its losses over `steps` steps of Adam.

    The caller's random numbers are left as they were.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Decoder(_shape(placement, layers))
    # Betas and rate of the usual recipes, but no warmup: what that is for should show.
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE, betas=(0.9, 0.95))
    ids = text_like(ROWS, LENGTH + 1, seed)
    losses: list[float] = []
    norms: tuple[float, ...] = ()
    for _ in range(steps + 1):
        loss = _loss(model, ids)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        norms = norms or gradient_norms(model)
        optimizer.step()
    return Measurement(placement=placement, norms=norms, losses=tuple(losses))


def gradient_norms(model: Decoder) -> tuple[float, ...]:
    """The length of the gradient of all matrices of a block, block by block, first block first."""
    lengths = []
    for block in model.blocks:
        gradients = [p.grad for p in block.parameters() if p.ndim == 2 and p.grad is not None]
        lengths.append(torch.stack([gradient.norm() for gradient in gradients]).norm().item())
    return tuple(lengths)


def text_like(rows: int, length: int, seed: int) -> Tensor:
    """-> (rows, length) ids: as unequal as words (Zipf's law), half set by the one before."""
    random = np.random.default_rng(seed)
    weights = 1 / np.arange(1, VOCABULARY + 1)
    ids = random.choice(VOCABULARY, size=(rows, length), p=weights / weights.sum())
    follows = random.random((rows, length)) < 0.5
    for column in range(1, length):
        ids[:, column] = np.where(
            follows[:, column], (7 * ids[:, column - 1] + 1) % VOCABULARY, ids[:, column]
        )
    return torch.from_numpy(ids)


def table(measurements: Sequence[Measurement]) -> str:
    """Gradient norm of five layers, last over first, and losses: one line per placement."""
    last = len(measurements[0].norms) - 1
    layers = [round(last * share / 4) for share in range(5)]
    header = ["norms", *(f"layer {layer + 1}" for layer in layers), "last/first", "loss before"]
    rows = []
    for one in measurements:
        norms = [f"{one.norms[layer]:.3g}" for layer in layers]
        losses = [f"{loss:.2f}" for loss in (one.losses[0], one.losses[-1])]
        rows.append([one.placement, *norms, f"{one.ratio:.3g}", *losses])
    return grid([*header, f"after {len(measurements[0].losses) - 1} steps"], rows)


def picture(measurements: Sequence[Measurement]) -> Figure:
    """Two panels: gradient norm by layer at the start, and loss by step."""
    from matplotlib.ticker import MaxNLocator

    figure, (left, right) = new_figure(2, 2, LIGHT)
    for one, colour in zip(measurements, LIGHT.series, strict=True):
        layers = range(1, len(one.norms) + 1)
        left.plot(layers, one.norms, color=colour, linewidth=1.5)
        right.plot(range(len(one.losses)), one.losses, color=colour, linewidth=1.5)
    left.set_yscale("log")
    left.set_xlim(left=1)
    right.set_xlim(left=0)
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=3))
    caption(left, LIGHT, "Gradient norm at the start", "by layer")
    caption(right, LIGHT, "Loss without warmup", "nats, by step")
    legend(left, LIGHT, [one.placement for one in measurements])
    return figure


def _shape(placement: NormPlacement, layers: int) -> DecoderConfig:
    config = llama(
        vocab_size=VOCABULARY, width=WIDTH, num_layers=layers, num_heads=4, context_length=LENGTH
    )
    norm = dataclasses.replace(config.norm, placement=placement)
    return dataclasses.replace(config, norm=norm, init_std=1 / math.sqrt(WIDTH))


def _loss(model: Decoder, ids: Tensor) -> Tensor:
    logits = model(ids[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
