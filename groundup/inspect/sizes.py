"""`groundup show sizes`: known models from small to very large, each built from its config.

Only shapes are written down here. A model is built on torch's meta device, where tensors have a
shape and no numbers, and its parameters are counted, however many there are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from groundup.inspect.show import grid
from groundup.models.dial import from_depth
from groundup.models.encoder_config import bert, minilm
from groundup.models.encoder_decoder_config import t5, transformer
from groundup.models.kinds import build
from groundup.models.presets import gpt2, llama, mixtral, qwen3, smollm2
from groundup.viz.style import LIGHT, caption, new_figure, save, short_number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PARTS: tuple[str, ...] = ("tables", "attention", "feed-forward", "rest")
"""What parameters are for; tables are those looked up by token or position, and the head."""
SMALL, LARGE = 200e6, 2e9
"""Parameters that part small from medium, and medium from large."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """One model, counted."""

    name: str
    family: str
    width: int
    layers: str
    heads: int
    parts: dict[str, int]

    @property
    def parameters(self) -> int:
        return sum(self.parts.values())

    @property
    def group(self) -> str:
        if self.parameters < SMALL:
            return "small"
        return "medium" if self.parameters < LARGE else "large"


def show(out: Path) -> str:
    """Count all models, draw them to `out`, and return a table."""
    sizes = all_sizes()
    save(picture(sizes), out)
    return table(sizes)


def all_sizes() -> list[Size]:
    """Every model of `MODELS`, smallest first."""
    return sorted((count(*entry) for entry in MODELS), key=lambda size: size.parameters)


def count(name: str, family: str, make: Callable[[], Any]) -> Size:
    """One model's parameters, by what they are for."""
    config = make()
    with torch.device("meta"):
        model = build(config)
    parts: dict[str, int] = dict.fromkeys(PARTS, 0)
    for path, parameter in model.named_parameters():
        parts[_part(path)] += parameter.numel()
    return Size(
        name=name,
        family=family,
        width=config.width,
        layers=_layers(config),
        heads=config.attention.num_heads,
        parts=parts,
    )


def table(sizes: Sequence[Size]) -> str:
    """A line for every model: its shape, its size, and what it takes to hold it."""
    header = ("model", *COLUMNS)
    return "\n".join([grid(header, [[size.name, *cells(size)] for size in sizes]), "", NOTE])


COLUMNS = ("size", "family", "width", "layers", "heads", "parameters", "in tables", "bf16")
NOTE = (
    "In tables: the share of parameters that are looked up by token or position, or make the "
    "logits. bf16: the weights alone; training with AdamW in mixed precision takes eight times as "
    "much, and activations. In a mixture of experts only some of the parameters work on a token."
)


def cells(size: Size) -> list[str]:
    """What the table says about a model, after its name."""
    return [
        size.group,
        size.family,
        str(size.width),
        size.layers,
        str(size.heads),
        f"{size.parameters:,}",
        f"{size.parts['tables'] / size.parameters:.0%}",
        _bytes(2 * size.parameters),
    ]


def picture(sizes: Sequence[Size]) -> Figure:
    """A bar a model, smallest on top: what share of its parameters is for what."""
    from matplotlib.ticker import PercentFormatter

    figure, (axes,) = new_figure(1, 1, LIGHT)
    figure.set_size_inches(7.4, 0.27 * len(sizes) + 0.9)
    left = [0.0] * len(sizes)
    for part, colour in zip(PARTS[:3], LIGHT.series, strict=False):
        shares = [size.parts[part] / size.parameters for size in sizes]
        axes.barh(range(len(sizes)), shares, left=left, color=colour, height=0.7, label=part)
        left = [a + b for a, b in zip(left, shares, strict=True)]
    for row, size in enumerate(sizes):
        label = short_number(size.parameters)
        axes.text(1.01, row, label, va="center", fontsize=8.5, color=LIGHT.ink)
    axes.set_yticks(range(len(sizes)), [size.name for size in sizes], color=LIGHT.ink)
    axes.set(xlim=(0, 1.09), ylim=(len(sizes) - 0.4, -0.6), xticks=[0, 0.25, 0.5, 0.75, 1])
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(visible=False)
    caption(axes, LIGHT, "Where the parameters are", "")
    figure.legend(
        loc="outside lower center", ncols=3, frameon=False, fontsize=8.5, labelcolor=LIGHT.ink
    )
    return figure


def _part(path: str) -> str:
    names = path.split(".")
    if "norm" in names[-2]:
        return "rest"
    if "feed_forward" in names:
        return "feed-forward"
    if any("attention" in name for name in names) or names[1] == "bias":
        return "attention"
    return "tables" if "embedding" in names[0] or names[0] == "head" else "rest"


def _layers(config: Any) -> str:
    if hasattr(config, "num_layers"):
        return str(config.num_layers)
    return f"{config.num_encoder_layers} + {config.num_decoder_layers}"


def _bytes(number: float) -> str:
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.0f} MB"


def _gpt2(width: int, layers: int, heads: int, context: int = 1024) -> Callable[[], Any]:
    return lambda: gpt2(
        vocab_size=50257, width=width, num_layers=layers, num_heads=heads, context_length=context
    )


def _t5(width: int, layers: int, heads: int) -> Callable[[], Any]:
    return lambda: t5(width=width, num_layers=layers, num_heads=heads)


MODELS: tuple[tuple[str, str, Callable[[], Any]], ...] = (
    ("ours, size 2", "decoder", lambda: from_depth(2, vocab_size=4096).model),
    ("MiniLM-L6", "encoder", minilm),
    ("BERT-base", "encoder", bert),
    ("BERT-large", "encoder", lambda: bert(width=1024, num_layers=24, num_heads=16)),
    ("Transformer, base", "encoder-decoder", transformer),
    ("T5-small", "encoder-decoder", _t5(512, 6, 8)),
    ("T5-base", "encoder-decoder", _t5(768, 12, 12)),
    ("T5-large", "encoder-decoder", _t5(1024, 24, 16)),
    ("GPT-2", "decoder", _gpt2(768, 12, 12)),
    ("GPT-2 medium", "decoder", _gpt2(1024, 24, 16)),
    ("GPT-2 large", "decoder", _gpt2(1280, 36, 20)),
    ("GPT-2 XL", "decoder", _gpt2(1600, 48, 25)),
    ("GPT-3", "decoder", _gpt2(12288, 96, 96, 2048)),
    ("SmolLM2-135M", "decoder", smollm2),
    (
        "Qwen3-0.6B",
        "decoder",
        lambda: qwen3(
            vocab_size=151_936,
            width=1024,
            num_layers=28,
            num_heads=16,
            num_kv_heads=8,
            head_width=128,
            feed_forward_width=3072,
            context_length=40_960,
        ),
    ),
    (
        "Llama 2 7B",
        "decoder",
        lambda: llama(
            vocab_size=32_000,
            width=4096,
            num_layers=32,
            num_heads=32,
            feed_forward_width=11_008,
            context_length=4096,
        ),
    ),
    (
        "Mixtral 8x7B",
        "decoder",
        lambda: mixtral(
            vocab_size=32_000,
            width=4096,
            num_layers=32,
            num_heads=32,
            num_kv_heads=8,
            feed_forward_width=14_336,
            context_length=32_768,
        ),
    ),
)
"""Name, family, config. Sources: the papers in each preset's docstring; GPT-3: arXiv:2005.14165."""
