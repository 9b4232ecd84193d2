"""What a model is made of, as a table: modules, shapes, parameters, bytes; and its totals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from groundup.models.config import num_matmul_weights
from groundup.models.kinds import kind_of


@dataclass(frozen=True, slots=True)
class Row:
    """One parameter, or the equal parameters of `count` layers together."""

    name: str
    shape: tuple[int, ...]
    count: int
    parameters: int
    num_bytes: int


@dataclass(frozen=True, slots=True)
class Totals:
    """The model in a few numbers."""

    parameters: int
    num_bytes: int
    flops: float
    """Of training, forward and backward, per `unit`."""
    unit: str
    """A token, at the full context length where that matters, or an image."""
    matmul_weights: int | None
    """Weights multiplied per token, of a decoder."""
    cache_bytes_per_token: int | None
    """Keys and values of all layers, in the weights' format, of a model that keeps such a cache."""
    head_is_tied: bool | None
    """Whether a decoder's head is its embedding."""


def rows(model: nn.Module) -> list[Row]:
    """One row per parameter, in the order of the forward pass; equal layers are counted together.

    `blocks.*.attention.query.weight` stands for that matrix in every block.
    """
    grouped: dict[tuple[str, tuple[int, ...]], list[int]] = {}
    for name, parameter in model.named_parameters():
        parts = ["*" if part.isdecimal() else part for part in name.split(".")]
        key = ".".join(parts), tuple(parameter.shape)
        grouped.setdefault(key, []).append(parameter.nbytes)
    return [
        Row(name, shape, len(sizes), len(sizes) * _product(shape), sum(sizes))
        for (name, shape), sizes in grouped.items()
    ]


def totals(model: Any) -> Totals:
    """The sums below the table."""
    config, kind = model.config, kind_of(model.config).name
    length = getattr(getattr(config, "language", config), "context_length", 1)
    unit = {"mlp": "image", "vit": "image", "recurrent": "token"}.get(kind)
    writer = model.decoder if kind == "vision_language" else model
    has_cache = kind in ("decoder", "encoder_decoder", "vision_language")
    is_decoder = kind == "decoder"
    return Totals(
        parameters=model.num_parameters(),
        num_bytes=sum(parameter.nbytes for parameter in model.parameters()),
        flops=model.flops_per_token(length),
        unit=unit or f"token at context {length}",
        matmul_weights=num_matmul_weights(config) if is_decoder else None,
        cache_bytes_per_token=writer.new_cache(1, 1).num_bytes if has_cache else None,
        head_is_tied=model.head is None if is_decoder else None,
    )


def table(model: Any) -> str:
    """The table as text, one line per row, totals last."""
    lines = [("parameter", "shape", "layers", "parameters", "bytes")]
    for row in rows(model):
        shape = " × ".join(str(size) for size in row.shape)
        lines.append((row.name, shape, str(row.count), f"{row.parameters:,}", f"{row.num_bytes:,}"))
    sums = totals(model)
    lines.append(("total", "", "", f"{sums.parameters:,}", f"{sums.num_bytes:,}"))
    below = []
    if sums.matmul_weights is not None:
        head = "tied to the embedding" if sums.head_is_tied else "separate"
        below.append(f"Weights multiplied per token: {sums.matmul_weights:,} (head {head})")
    below.append(f"Training FLOPs per {sums.unit}: {sums.flops:,.0f}")
    if sums.cache_bytes_per_token is not None:
        below.append(f"Cache bytes per token: {sums.cache_bytes_per_token:,}")
    return "\n".join([*_aligned(lines), *below])


def _aligned(lines: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]


def _product(shape: tuple[int, ...]) -> int:
    result = 1
    for size in shape:
        result *= size
    return result
