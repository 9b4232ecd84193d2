"""docs/parity.md: every case of this folder, measured; written by scripts/parity_table.py."""

from __future__ import annotations

import platform
import zlib
from pathlib import Path

import torch
import transformers

from parity import attention, blocks, foreign, models, optimizers, positions
from parity.harness import LEAST, MEAN_SLACK, SLACK, TOLERANCE, Case, Error, Row, compare

PATH = Path(__file__).resolve().parents[2] / "docs" / "parity.md"
SECTIONS: dict[str, dict[str, Case]] = {
    "Models": models.cases() | foreign.cases(),
    "Attention": attention.cases(),
    "Positions": positions.cases(),
    "Blocks": blocks.cases(),
    "Optimizers": optimizers.cases(),
}
HEADERS = {
    "float32": (
        "what", "against", "largest output", "error", "allowed", "gradient error", "allowed",
    ),
    "bfloat16": (
        "what", "against", "largest output", "error", "theirs", "allowed", "mean",
        "gradient error", "theirs", "allowed", "mean",
    ),
}  # fmt: skip
ABOUT = f"""\
# Parity

Every block beside `torch.nn`, every model family beside transformers: the same random weights, the
same inputs, small odd sizes (heads wider than the model, 131 ids, 37 tokens). One run of the tests'
own cases writes this page, `python scripts/parity_table.py`; the test suite measures every row
again and compares (`tests/parity`).

*Error* is the largest absolute difference over all outputs (logits, for models), *gradient error*
that over the gradients of all weights and of all inputs that are not ids, of a random weighting of
the outputs, scaled so that the largest gradient is 1.

In float32 the reference is taken for the truth; allowed are {TOLERANCE:g} of the largest output.
In bfloat16 both sides round. The truth is then the reference in float32 on the same rounded weights
and inputs; *theirs* is the reference's own error in bfloat16, and *mean* the root mean square of
our errors divided by that of theirs: below 1 we are nearer to the truth. Allowed are a mean of
{MEAN_SLACK:g}, and {SLACK:g} times their largest error or {LEAST:.1e} of the largest output.
Not in bfloat16: networks in which rounding flips a choice, of experts or between ReLU's sides, so
that one side goes another way than the other; and what is fp32 in any model.
"""


ROWS = [
    (section, what, dtype)
    for section, cases in SECTIONS.items()
    for dtype in HEADERS
    for what, case in cases.items()
    if dtype in case.dtypes
]
"""(section, what, dtype) of every row, in the order of the page."""


def measure(section: str, what: str, dtype: str) -> Row:
    """Run one case. Random numbers depend on its name alone."""
    torch.manual_seed(zlib.crc32(what.encode()))
    return compare(SECTIONS[section][what].build(), dtype)


def render(rows: dict[tuple[str, str, str], Row]) -> str:
    """The page."""
    out = [ABOUT, _setting()]
    for section in SECTIONS:
        for dtype, header in HEADERS.items():
            mine = {key: row for key, row in rows.items() if key[0] == section and key[2] == dtype}
            if not mine:
                continue
            out += [f"\n## {section}, {dtype}\n", _line(header)]
            out.append(_line(("---", "---", *("--:" for _ in header[2:]))))
            for (_, what, _), row in mine.items():
                out.append(_line((what, SECTIONS[section][what].against, *_cells(row))))
    return "\n".join(out) + "\n"


def committed() -> dict[tuple[str, str, str], list[str]]:
    """(section, what, dtype) -> the cells of the page as it is."""
    found: dict[tuple[str, str, str], list[str]] = {}
    section = dtype = ""
    for line in PATH.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            section, dtype = line.removeprefix("## ").rsplit(", ", 1)
        elif line.startswith("| ") and not line.startswith(("| what", "| ---")):
            what, *cells = (cell.strip() for cell in line.strip("|").split("|"))
            found[section, what, dtype] = cells
    return found


def allowed(dtype: str, cells: list[str]) -> tuple[float, float | None]:
    """What the page allows a row's outputs and gradients to be off."""
    names = HEADERS[dtype][1:]
    values = [cell for name, cell in zip(names, cells, strict=True) if name == "allowed"]
    outputs, gradients = values
    return float(outputs), None if gradients == "" else float(gradients)


def _cells(row: Row) -> list[str]:
    cells = [f"{row.outputs.largest:.3g}", *_error(row.outputs)]
    width = len(HEADERS[row.dtype]) - 2 - len(cells)
    return cells + (_error(row.gradients) if row.gradients is not None else [""] * width)


def _error(error: Error) -> list[str]:
    if error.theirs is None or error.ratio is None:
        return [f"{error.ours:.1e}", f"{error.allowed:.1e}"]
    return [f"{value:.1e}" for value in (error.ours, error.theirs, error.allowed)] + [
        f"{error.ratio:.2f}"
    ]


def _line(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


def _setting() -> str:
    return (
        f"torch {torch.__version__}, transformers {transformers.__version__}, one thread of "
        f"{_processor()}."
    )


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = [] if not info.exists() else info.read_text().split("model name")[1:]
    if not names:
        return platform.processor() or platform.machine()
    return names[0].split("\n")[0].strip(" \t:")
