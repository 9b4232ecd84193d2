"""`groundup show exposure`: teacher forcing, the gap it leaves, and what scheduled sampling does.

In training every piece of a name is predicted from the true pieces before it (teacher forcing). In
use there is no truth to read, only what the model wrote itself, mistakes included, which it never
met in training: exposure bias. Scheduled sampling (Bengio et al. 2015, arXiv:1506.03099) lets it
read its own pieces in training too, more of them as training goes on.

A small encoder-decoder learns to name numbers, but not to the end: without mistakes there is
nothing to see. Several seeds each, all methods from the same weights and on the same examples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from groundup.data.batch import IGNORE
from groundup.data.number_words import END, PAD, START, Example, Vocabulary, examples
from groundup.data.padding import pad
from groundup.inspect.show import grid
from groundup.models.encoder_decoder import EncoderDecoder
from groundup.models.encoder_decoder_config import t5
from groundup.nn.cache import KVCache
from groundup.optim.build import build_optimizer
from groundup.optim.clip import clip_gradients
from groundup.optim.config import OptimizerConfig, ScheduleConfig
from groundup.optim.schedules import factor, set_learning_rates
from groundup.train.objectives import cross_entropy_sum
from groundup.viz.style import LIGHT, caption, new_figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, ROWS, STEPS = 64, 64, 120
SEEDS = (0, 1, 2, 3, 4)
TESTED = 600
"""Held-out numbers that are named."""
WORDS = Vocabulary(["en"])


@dataclass(frozen=True, kw_only=True)
class Method:
    """A way to train: in the last step `own` of the pieces read are the model's."""

    name: str
    steps: int
    own: float = 0.0

    @property
    def work(self) -> int:
        """In passes forward; one backward costs as much as two."""
        return self.steps * (4 if self.own else 3)


METHODS = (
    Method(name="teacher forcing", steps=STEPS),
    Method(name="scheduled sampling", steps=STEPS, own=1.0),
    Method(name="forcing, same work", steps=STEPS * 4 // 3),
)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One training, scored over held-out numbers; shares of pieces that are right, 0 to 1."""

    forced: tuple[float, ...]
    """By position, given the true pieces before it."""
    free: tuple[float, ...]
    """By position, given what the model itself wrote before it."""
    forced_mean: float
    free_mean: float
    free_after_mistake: float
    """Of the pieces that come after the model's first mistake in a name."""
    names: float
    """The share of names without a mistake. It is the same either way: up to the first mistake,
    what the model wrote is the truth."""

    @property
    def gap(self) -> float:
        return self.forced_mean - self.free_mean


def show(out: Path) -> str:
    """Train and score every method with every seed, draw it to `out`, and return a table."""
    found = {method: [measure(method, seed) for seed in SEEDS] for method in METHODS}
    save(picture(found), out)
    return table(found)


def measure(method: Method, seed: int, tested: int = TESTED) -> Measured:
    """Train afresh and score. The caller's random numbers are left as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build()
        train(model, method, seed)
    rows = list(examples("medium", WORDS.languages, "test"))
    chosen = np.random.default_rng(0).permutation(len(rows))[:tested]
    source, visible, targets = tensors([rows[i] for i in chosen])
    given = model.eval().given(source, visible)
    with torch.no_grad():
        forced = given(model.shift_right(targets)).argmax(-1)
    return compare(forced, write(model, source, visible, targets.shape[1]), targets)


def build() -> EncoderDecoder:
    """One layer to read, one to write: T5's shape, with scales that suit a short training."""
    config = t5(
        vocab_size=WORDS.size,
        width=WIDTH,
        num_layers=1,
        num_heads=2,
        head_width=32,
        context_length=24,
        start_id=START,
    )
    attention = replace(config.attention, scale=None)
    return EncoderDecoder(replace(config, attention=attention, embedding_std=None, head_scale=1.0))


def train(model: EncoderDecoder, method: Method, seed: int) -> None:
    """`method.steps` steps; the share of the model's own pieces grows with each."""
    rows = list(examples("medium", WORDS.languages, "train"))
    order = np.random.default_rng(seed)
    optimizer = build_optimizer(model, OptimizerConfig(kind="muon", learning_rate=3e-3))
    schedule = ScheduleConfig(kind="linear", warmup_steps=20)
    for step in range(method.steps):
        set_learning_rates(optimizer, factor(schedule, step, method.steps))
        batch = [rows[i] for i in order.integers(0, len(rows), ROWS)]
        source, visible, targets = tensors(batch)
        read = model.shift_right(targets)
        if method.own:
            share = method.own * step / method.steps
            read = mix_in_own(lambda ids: model(source, ids, visible), read, share)  # noqa: B023
        loss = cross_entropy_sum(model(source, read, visible), targets)
        (loss / (targets != IGNORE).sum()).backward()
        clip_gradients(model.parameters(), 1.0, 0.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


@torch.no_grad()
def mix_in_own(predict: Callable[[Tensor], Tensor], read: Tensor, share: float) -> Tensor:
    """What is read, true tokens (B, T) -> the same with a random `share` replaced by the model's.

    A transformer reads all positions at once, so what it would have written comes from a pass of
    its own, given the truth: Mihaylova and Martins 2019, arXiv:1906.07651. The first is START.
    """
    own = predict(read).argmax(-1)
    own = torch.cat((read[:, :1], own[:, :-1]), dim=1)
    return torch.where(torch.rand(read.shape, device=read.device) < share, own, read)


def write(model: EncoderDecoder, source: Tensor, visible: Tensor, length: int) -> Tensor:
    """(N, S) sources -> (N, length) ids, always the likeliest, on and on even after END."""
    given = model.given(source, visible)
    cache: KVCache = model.new_cache(len(source), length)
    ids, written = torch.full((len(source), 1), START), []
    with torch.no_grad():
        for _ in range(length):
            ids = given(ids, cache=cache).argmax(-1)
            written.append(ids)
    return torch.cat(written, dim=1)


def compare(forced: Tensor, free: Tensor, targets: Tensor) -> Measured:
    """Ids (N, T) predicted both ways and the true ones -> shares of those that are right."""
    real = targets != IGNORE
    right_forced, right_free = (forced == targets) & real, (free == targets) & real
    mistakes = (real & ~right_free).cumsum(1)
    after = real & (mistakes > (~right_free & real))  # one before this position
    counts = real.sum(0)
    return Measured(
        forced=tuple((right_forced.sum(0) / counts).tolist()),
        free=tuple((right_free.sum(0) / counts).tolist()),
        forced_mean=(right_forced.sum() / counts.sum()).item(),
        free_mean=(right_free.sum() / counts.sum()).item(),
        free_after_mistake=right_free[after].float().mean().item(),
        names=(mistakes[:, -1] == 0).float().mean().item(),
    )


def tensors(rows: Sequence[Example]) -> tuple[Tensor, Tensor, Tensor]:
    """N examples -> source ids (N, S), where they are real (N, S), targets (N, T)."""
    source, visible = pad([WORDS.source(row) for row in rows], PAD)
    targets, _ = pad([[*WORDS.target(row), END] for row in rows], IGNORE)
    return torch.from_numpy(source), torch.from_numpy(visible), torch.from_numpy(targets)


def table(found: dict[Method, list[Measured]]) -> str:
    """Mean over the seeds and their standard deviation, and how often the methods differ alike."""
    header = ("", "steps", "passes", "given truth", "own", "gap", "after a mistake", "names right")
    rows = []
    for method, all_seeds in found.items():
        figures = [
            [getattr(one, key) for one in all_seeds]
            for key in ("forced_mean", "free_mean", "gap", "free_after_mistake", "names")
        ]
        rows.append([method.name, str(method.steps), str(method.work), *map(spread, figures)])
    counts = len(next(iter(found.values())))
    title = f"Held-out numbers named, {TESTED} of them; mean ± standard deviation of {counts} seeds"
    return "\n".join([title, grid(header, rows), "", *notes(found)])


def notes(found: dict[Method, list[Measured]]) -> list[str]:
    """What the figures say, counted over the seeds."""
    forced, sampled, longer = (found[method] for method in METHODS)
    return [
        "Share of pieces right, given the true ones before, or the model's own; names without a "
        "mistake are the same both ways. A pass backward counts as two forward.",
        f"Scheduled sampling: a smaller gap {times(sampled, forced, 'gap', -1)}, more right after "
        f"a mistake {times(sampled, forced, 'free_after_mistake')}, more names right "
        f"{times(sampled, forced, 'names')}.",
        "Against teacher forcing of the same work: a smaller gap "
        f"{times(sampled, longer, 'gap', -1)}, more names right {times(sampled, longer, 'names')}.",
        "A smaller gap alone is not a better model: after a wrong piece the target is still the "
        "true name's next one, and that is not how such a text goes on "
        "(Huszár 2015, arXiv:1511.05101).",
    ]


def times(one: Sequence[Measured], other: Sequence[Measured], key: str, sign: int = 1) -> str:
    """With how many seeds `key` of one is above (or with sign -1 below) that of the other."""
    pairs = zip(one, other, strict=True)
    ahead = sum(sign * (getattr(a, key) - getattr(b, key)) > 0 for a, b in pairs)
    return f"with {ahead} of {len(one)} seeds"


def spread(values: Sequence[float]) -> str:
    """Mean ± standard deviation, in percent."""
    deviation = np.std(values, ddof=1) if len(values) > 1 else 0.0
    return f"{np.mean(values):.1%} ± {100 * deviation:.1f}"


def picture(found: dict[Method, list[Measured]]) -> Figure:
    """By position, given the truth or its own, for two methods; then every seed's figures."""
    figure, panels = new_figure(3, 3, LIGHT)
    for axes, method in zip(panels, METHODS[:2], strict=False):
        _draw_positions(axes, found[method])
        caption(axes, LIGHT, method.name.capitalize(), "right, by position")
    _draw_seeds(panels[2], found)
    caption(panels[2], LIGHT, "Every seed", "share right")
    return figure


def _draw_positions(axes: Axes, seeds: Sequence[Measured]) -> None:
    """Means, with the range of the seeds behind them."""
    for key, colour, label in (
        ("forced", LIGHT.first, "given the truth"),
        ("free", LIGHT.second, "given its own"),
    ):
        values = np.array([getattr(one, key) for one in seeds])
        x = range(1, values.shape[1] + 1)
        axes.fill_between(x, values.min(0), values.max(0), color=colour, alpha=0.18, linewidth=0)
        axes.plot(x, values.mean(0), "o-", color=colour, linewidth=1.5, markersize=3, label=label)
    axes.legend(frameon=False, fontsize=8.5, labelcolor=LIGHT.ink, loc="lower right")
    _percent(axes)


def _draw_seeds(axes: Axes, found: dict[Method, list[Measured]]) -> None:
    """Three groups of dots, a colour per method."""
    keys = {"gap": "gap", "free_after_mistake": "after a mistake", "names": "names"}
    for index, (method, seeds) in enumerate(found.items()):
        colour = LIGHT.series[index]
        for group, key in enumerate(keys):
            values = [getattr(one, key) for one in seeds]
            x = [group + 0.22 * (index - 1)] * len(values)
            label = method.name if group == 0 else None
            axes.plot(x, values, "o", color=colour, markersize=4, alpha=0.7, label=label)
    axes.set_xticks(range(len(keys)), list(keys.values()))
    axes.legend(frameon=False, fontsize=8, labelcolor=LIGHT.ink, loc="upper left")
    _percent(axes)
    axes.set_ylim(0, 1.7)  # the legend stands above all dots


def _percent(axes: Axes) -> None:
    from matplotlib.ticker import PercentFormatter

    axes.set_ylim(0, 1.05)
    axes.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
