"""`groundup show cache`: generation with and without a key/value cache, measured on this machine.

Without a cache every new token reads the whole text again, so the n-th costs n times the first.
With one, the prompt is read once, all tokens side by side (prefill), and then each new token alone
against what is kept (decode): the same tokens, at a cost that hardly grows.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from groundup.device import DeviceConfig, detect
from groundup.infer.config import SamplingConfig
from groundup.infer.generate import LogitsReader, PlainReader, Reader, complete_many, generate
from groundup.inspect.show import grid
from groundup.models.decoder import Decoder
from groundup.models.presets import qwen3
from groundup.text.config import TokenizerConfig
from groundup.text.tokenizer import Tokenizer
from groundup.text.train import train_tokenizer
from groundup.viz.style import LIGHT, caption, new_figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, LAYERS, HEADS = 256, 6, 4
NEW_TOKENS = 512
LENGTHS = (16, 32, 64, 128, 256, 512)
"""Of the table: tokens generated so far."""
PROMPTS, SAMPLES, SAMPLE_TOKENS = (8, 32, 128, 512), (1, 2, 4, 8, 16), 48


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was timed; seconds."""

    cached: list[float]
    """From the start to each token."""
    plain: list[float]
    same: bool
    """Whether both gave the same tokens."""
    prefill: dict[int, float]
    """Reading a prompt of so many tokens."""
    samples: dict[int, float]
    """So many replies of SAMPLE_TOKENS to one prompt, at once."""


def show(out: Path) -> str:
    """Measure, draw and tell; about half a minute on two slow cores."""
    policy = detect(DeviceConfig(dtype="float32", deterministic=False))
    tokenizer = train_tokenizer(TokenizerConfig(kind="byte", vocab_size=263), [])
    with torch.random.fork_rng():  # random weights: what it writes does not matter, only how fast
        shape = qwen3(
            vocab_size=tokenizer.vocab_size,
            width=WIDTH,
            num_layers=LAYERS,
            num_heads=HEADS,
            context_length=max(PROMPTS) + NEW_TOKENS,
        )
        model = Decoder(shape).eval().to(policy.torch_device)
    found = measure(model, tokenizer)
    _draw(found, out)
    where = f"{policy.threads} threads" if policy.device == "cpu" else policy.device
    return _table(found, f"{model.num_parameters():,} parameters, fp32, {where}")


def measure(model: Decoder, tokenizer: Tokenizer) -> Measured:
    """Time both readers, prefill, and several replies to one prompt."""
    context = model.config.context_length
    prompt = tokenizer.encode("Once upon a time")
    _timed(model, tokenizer, prompt, Reader(model, context), 8)  # warm up
    cached, cached_ids = _timed(model, tokenizer, prompt, Reader(model, context), NEW_TOKENS)
    plain, plain_ids = _timed(model, tokenizer, prompt, PlainReader(model), NEW_TOKENS)
    prefill = {}
    for length in PROMPTS:
        long = (prompt * length)[:length]
        times = [_timed(model, tokenizer, long, Reader(model, context), 1)[0][0] for _ in range(3)]
        prefill[length] = min(times)
    config = SamplingConfig(seed=0, max_tokens=SAMPLE_TOKENS)
    samples = {}
    for count in SAMPLES:
        start = time.perf_counter()
        complete_many(model, tokenizer, prompt, config, count, ())
        samples[count] = time.perf_counter() - start
    return Measured(
        cached=cached,
        plain=plain,
        same=cached_ids == plain_ids,
        prefill=prefill,
        samples=samples,
    )


def _timed(
    model: Decoder, tokenizer: Tokenizer, prompt: Sequence[int], reader: LogitsReader, count: int
) -> tuple[list[float], list[int]]:
    """Seconds from the start to each of `count` new tokens, and their ids."""
    config = SamplingConfig(seed=0, max_tokens=count)
    seconds, ids, start = [], [], time.perf_counter()
    for piece in generate(model, tokenizer, prompt, config, (), reader=reader):
        seconds.append(time.perf_counter() - start)
        ids.append(piece.id)
    return seconds, ids


def _table(found: Measured, model: str) -> str:
    rows = [
        [
            str(length),
            f"{length / found.cached[length - 1]:,.0f}",
            f"{length / found.plain[length - 1]:,.0f}",
            f"{found.plain[length - 1] / found.cached[length - 1]:.1f} ×",
        ]
        for length in LENGTHS
        if length <= len(found.cached)
    ]
    read, time_to_first = max(found.prefill.items())
    decode = len(found.cached) / found.cached[-1]
    alone, together = found.samples[1], found.samples[max(SAMPLES)] / max(SAMPLES)
    same = "The same tokens both ways." if found.same else "NOT the same tokens both ways."
    return "\n".join(
        [
            f"{model}: tokens per second of one reply.",
            grid(["tokens", "with cache", "without", "gain"], rows),
            "",
            f"{same} Prefill reads {read} tokens at {read / time_to_first:,.0f} tokens/s, decode "
            f"writes at {decode:,.0f}.",
            f"{max(SAMPLES)} replies to one prompt at once take {together / alone:.0%} of the time "
            "of as many one after another.",
        ]
    )


def _draw(found: Measured, out: Path) -> None:
    figure, (speed, each, prefill, samples) = new_figure(4, 2, LIGHT)
    counts = np.arange(1, len(found.cached) + 1)
    for name, seconds, colour in (
        ("with cache", found.cached, LIGHT.first),
        ("without", found.plain, LIGHT.second),
    ):
        rates = counts / np.array(seconds)
        speed.plot(counts, rates, color=colour, linewidth=1.6)
        label: dict[str, Any] = {"color": colour, "fontsize": 8.5, "ha": "right", "va": "top"}
        speed.text(counts[-1], 0.95 * rates[-1], name, **label)
        costs = 1000 * np.diff(seconds, prepend=0.0)
        each.plot(counts, _steady(costs), color=colour, linewidth=1.6)
    speed.set(ylim=(0, None), xlim=(0, None))
    caption(speed, LIGHT, "Speed of a reply", "tokens/s, over its length")
    each.set(ylim=(0, None), xlim=(0, None))
    caption(each, LIGHT, "Cost of each token", "ms, over its place")
    decode = len(found.cached) / found.cached[-1]
    _draw_rates(prefill, {n: n / seconds for n, seconds in found.prefill.items()})
    prefill.axhline(decode, color=LIGHT.third, linewidth=1.6)
    label = {"color": LIGHT.third, "fontsize": 8.5, "ha": "right", "va": "bottom"}
    prefill.text(max(PROMPTS), decode, "decode", **label)
    prefill.set_ylim(bottom=0)
    caption(prefill, LIGHT, "Prefill", "tokens/s, over tokens read")
    _draw_rates(samples, {n: n * SAMPLE_TOKENS / seconds for n, seconds in found.samples.items()})
    samples.set_ylim(bottom=0)
    caption(samples, LIGHT, "Replies at once", "tokens/s of all, over replies")
    save(figure, out)


def _draw_rates(axes: Axes, rates: dict[int, float]) -> None:
    sizes = list(rates)
    axes.plot(sizes, list(rates.values()), "o-", color=LIGHT.first, linewidth=1.6, markersize=4)
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()


def _steady(values: np.ndarray, width: int = 17) -> np.ndarray:
    """(N,) -> (N,): the median of the neighbours, which an interrupted step does not move."""
    padded = np.pad(values, width // 2, mode="edge")
    return np.median(np.lib.stride_tricks.sliding_window_view(padded, width), axis=-1)
