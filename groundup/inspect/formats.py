"""`groundup show formats`: the range and spacing of number formats, and what is lost in them.

Every number comes from `torch.finfo` or from a cast that is really made; nothing is quoted. Ranges
and spacings are those of IEEE 754 and, for eight bits, of Micikevicius et al. 2022,
arXiv:2209.05433; scaling the loss is from Micikevicius et al. 2018, arXiv:1710.03740.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from groundup import device
from groundup.inspect.show import grid
from groundup.viz.style import LIGHT, caption, new_figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp8 e5m2": torch.float8_e5m2,
    "fp8 e4m3": torch.float8_e4m3fn,
}
COLOURS = dict(zip(FORMATS, (LIGHT.muted, *LIGHT.series), strict=True))
UPDATE, UPDATES = 1e-4, 1000
GRADIENT = 1e-8
"""Of the size of the gradients that fp16 loses."""
POWERS = range(0, 33, 2)
"""Of the loss scales."""


@dataclass(frozen=True, kw_only=True)
class Format:
    """What a format can hold, and what becomes of what it cannot."""

    name: str
    exponent_bits: int
    fraction_bits: int
    smallest: float
    """The smallest number above zero, a subnormal one."""
    smallest_normal: float
    largest: float
    epsilon: float
    """From 1 to the next number."""
    overflow: float
    """What twice the largest number becomes."""
    smallest_update: float
    """The smallest power of two that still changes 1 when it is added."""
    after_updates: float
    """1 after UPDATES additions of UPDATE, rounded each time."""
    gradient: float
    """What GRADIENT becomes."""


def show(out: Path) -> str:
    """Draw ranges, spacing, lost updates and lost gradients; a table of the same."""
    formats = [measure(name) for name in FORMATS]
    figure, (ranges, gaps, updates, gradients) = new_figure(4, 2, LIGHT)
    _draw_ranges(ranges, formats)
    _draw_gaps(gaps, formats)
    _draw_updates(updates)
    _draw_gradients(gradients)
    save(figure, out)
    header = ("", *(found.name for found in formats))
    return "\n".join([grid(header, _rows(formats)), "", *_notes()])


def measure(name: str) -> Format:
    """Cast this and that to the format of this name."""
    dtype = FORMATS[name]
    info = torch.finfo(dtype)
    fraction_bits = round(-math.log2(info.eps))
    smallest = info.smallest_normal * info.eps
    assert cast(smallest, dtype) == smallest and cast(smallest / 2, dtype) == 0
    powers = (2.0**-power for power in range(30, 0, -1))
    return Format(
        name=name,
        exponent_bits=info.bits - 1 - fraction_bits,
        fraction_bits=fraction_bits,
        smallest=smallest,
        smallest_normal=info.smallest_normal,
        largest=info.max,
        epsilon=info.eps,
        overflow=cast(2 * info.max, dtype),
        smallest_update=next(size for size in powers if cast(1 + size, dtype) > 1),
        after_updates=updated(dtype)[-1],
        gradient=cast(GRADIENT, dtype),
    )


def cast(value: float, dtype: torch.dtype) -> float:
    """The number that `value` becomes in a format: rounded to nearest, ties to even."""
    return torch.tensor(value, dtype=torch.float64).to(dtype).double().item()


def updated(dtype: torch.dtype) -> list[float]:
    """A weight of 1 after 0, 1, … UPDATES updates, each rounded as the format's own sum would be.

    Sums are made in fp32 and then rounded: so do CPUs and GPUs, and for 8 bits there is no other.
    """
    weight, values = torch.ones((), dtype=dtype), [1.0]
    for _ in range(UPDATES):
        weight = (weight.float() + UPDATE).to(dtype)
        values.append(weight.item())
    return values


def lost_share(scale: float, dtype: torch.dtype, gradients: torch.Tensor) -> float:
    """The share of gradients that are no longer usable, zero or not finite, after `* scale`."""
    scaled = (gradients * scale).to(dtype).float()
    # Where a format has no infinity, too large a number becomes its largest.
    usable = scaled.isfinite() & (scaled != 0) & (scaled.abs() < torch.finfo(dtype).max)
    return 1 - usable.double().mean().item()


def scaled_backward(scale: float) -> float:
    """The gradient of a weight in fp16 whose true gradient is GRADIENT, by a loss times `scale`."""
    weight = torch.ones((), dtype=torch.float16, requires_grad=True)
    loss = weight.float() * GRADIENT
    (loss * scale).backward()
    assert weight.grad is not None and weight.grad.dtype == torch.float16
    return weight.grad.float().item() / scale


def _rows(formats: list[Format]) -> list[list[str]]:
    def row(title: str, key: str, text: str = "{:.3g}") -> list[str]:
        return [title, *(text.format(getattr(found, key)) for found in formats)]

    return [
        row("exponent bits", "exponent_bits"),
        row("fraction bits", "fraction_bits"),
        row("largest", "largest"),
        row("smallest normal", "smallest_normal"),
        row("smallest subnormal", "smallest"),
        row("eps: from 1 to the next", "epsilon"),
        row("2 × largest becomes", "overflow"),
        row("smallest update of 1 (power of 2)", "smallest_update"),
        row(
            f"1 + {UPDATES} × {UPDATE:g} (exactly {1 + UPDATES * UPDATE:g})",
            "after_updates",
            "{:.5g}",
        ),
        row(f"a gradient of {GRADIENT:g} becomes", "gradient"),
    ]


def _notes() -> list[str]:
    kept = scaled_backward(2.0**16)
    flags = device.cpu_flags() & {"avx512_bf16", "amx_bf16", "avx512_fp16", "amx_fp16", "bf16"}
    gpu = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return [
        f"Lost updates: with 16 bits a weight of 1 does not notice {UPDATE:g}, however often it is "
        "added. So weights and optimizer state stay fp32, and only products are made in 16 bits.",
        f"Loss scaling: through fp16, the gradient {GRADIENT:g} arrives as "
        f"{scaled_backward(1.0):g}; with the loss times 2^16, and divided again in fp32, as "
        f"{kept:.4g}. bf16 has the range of fp32 and needs none of it.",
        "bf16 is computed by NVIDIA GPUs from Ampere (RTX 30) on, by TPUs and by many CPUs. Here: "
        f"CPU {', '.join(sorted(flags)) or 'without instructions for it'}; "
        f"GPU {'with bf16' if gpu else 'none, or without'}.",
    ]


def _draw_ranges(axes: Axes, formats: list[Format]) -> None:
    for row, found in enumerate(reversed(formats)):
        low, normal, high = map(math.log10, (found.smallest, found.smallest_normal, found.largest))
        colour = COLOURS[found.name]
        axes.barh(row, normal - low, left=low, height=0.5, color=colour, alpha=0.35, linewidth=0)
        axes.barh(row, high - normal, left=normal, height=0.5, color=colour, linewidth=0)
    axes.axvline(math.log10(GRADIENT), color=LIGHT.ink, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.text(
        math.log10(GRADIENT) - 1,
        4.62,
        f"a gradient of {GRADIENT:g}",
        ha="right",
        va="top",
        fontsize=8.5,
    )
    axes.set_yticks(range(len(formats)), [found.name for found in reversed(formats)])
    ticks = range(-40, 41, 20)
    axes.set_xticks(ticks, [f"$10^{{{power}}}$" for power in ticks])
    axes.set_ylim(-0.5, 4.7)
    axes.grid(visible=False)
    caption(axes, LIGHT, "Range", "pale: subnormal")


def _draw_gaps(axes: Axes, formats: list[Format]) -> None:
    for found in formats:
        low, high = math.frexp(found.smallest)[1] - 1, math.frexp(found.largest)[1]
        powers = range(max(low, -44), min(high, 44))
        starts = [2.0**power for power in powers]
        gaps = [max(start * found.epsilon, found.smallest) / start for start in starts]
        axes.plot(starts, gaps, color=COLOURS[found.name], linewidth=1.6)
    axes.set(xscale="log", yscale="log", ylim=(3e-8, 2))
    axes.minorticks_off()
    axes.set_xticks([1e-12, 1e-8, 1e-4, 1, 1e4, 1e8, 1e12])
    places = {"fp32": (1e8, "bottom"), "bf16": (1e8, "bottom"), "fp8 e4m3": (1e4, "top")}
    for found in formats:
        x, side = places.get(found.name, (found.largest * 1.5, "center"))
        _label(axes, x, found.epsilon, found.name, va=side)
    caption(axes, LIGHT, "Spacing", "gap to the next number ÷ number")


def _draw_updates(axes: Axes) -> None:
    for name in ("fp32", "bf16", "fp16"):
        axes.plot(updated(FORMATS[name]), color=COLOURS[name], linewidth=1.6)
    _label(axes, 500, 1.045, "fp32", va="top")
    _label(axes, 200, 1.002, "bf16", va="bottom")
    _label(axes, 350, 1.002, "fp16", va="bottom")
    caption(axes, LIGHT, "Lost updates", f"1 + {UPDATES} × {UPDATE:g}")


def _draw_gradients(axes: Axes) -> None:
    noise = torch.randn(200_000, generator=torch.Generator().manual_seed(0))
    gradients = torch.exp(2.5 * noise) * GRADIENT
    places = {
        "bf16": (0.2, 0.02),
        "fp16": (2.8, 0.42),
        "fp8 e5m2": (11.4, 0.34),
        "fp8 e4m3": (17, 0.5),
    }
    for name, (x, y) in places.items():
        shares = [lost_share(2.0**power, FORMATS[name], gradients) for power in POWERS]
        axes.plot(POWERS, shares, color=COLOURS[name], linewidth=1.6)
        _label(axes, x, y, name, va="bottom")
    caption(axes, LIGHT, "Lost gradients", "share, by log₂ of loss scale")


def _label(axes: Axes, x: float, y: float, name: str, va: str) -> None:
    axes.text(x, y, name.removeprefix("fp8 "), color=COLOURS[name], fontsize=8.5, va=va)
