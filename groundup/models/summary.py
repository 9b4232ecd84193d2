"""What a model is made of, as a table: modules, shapes, parameters, bytes; and its totals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from groundup.models.config import flops_per_token, num_matmul_weights
from groundup.models.decoder import Decoder


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
    """The model in six numbers."""

    parameters: int
    matmul_weights: int
    num_bytes: int
    flops_per_token: int
    """Forward and backward, at the full context length."""
    cache_bytes_per_token: int
    """Keys and values of all layers, in the weights' format."""
    head_is_tied: bool


def rows(model: Decoder) -> list[Row]:
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


def totals(model: Decoder) -> Totals:
    """The sums below the table."""
    config = model.config
    per_layer = 2 * config.attention.num_kv_heads * config.attention.head_width
    return Totals(
        parameters=model.num_parameters(),
        matmul_weights=num_matmul_weights(config),
        num_bytes=sum(parameter.nbytes for parameter in model.parameters()),
        flops_per_token=flops_per_token(config, config.context_length),
        cache_bytes_per_token=config.num_layers * per_layer * model.embedding.weight.element_size(),
        head_is_tied=model.head is None,
    )


def table(model: Decoder) -> str:
    """The table as text, one line per row, totals last."""
    lines = [("parameter", "shape", "layers", "parameters", "bytes")]
    for row in rows(model):
        shape = " × ".join(str(size) for size in row.shape)
        lines.append((row.name, shape, str(row.count), f"{row.parameters:,}", f"{row.num_bytes:,}"))
    sums = totals(model)
    lines.append(("total", "", "", f"{sums.parameters:,}", f"{sums.num_bytes:,}"))
    head = "tied to the embedding" if sums.head_is_tied else "separate"
    return "\n".join(
        [
            *_aligned(lines),
            f"Weights multiplied per token: {sums.matmul_weights:,} (head {head})",
            f"Training FLOPs per token at context {model.config.context_length}: "
            f"{sums.flops_per_token:,}",
            f"Cache bytes per token: {sums.cache_bytes_per_token:,}",
        ]
    )


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
