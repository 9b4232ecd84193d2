"""The log of a run: rows of numbers, written as JSON lines and passed on to thin sinks."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from groundup.config import UserError
from groundup.files import atomic_write

Row = Mapping[str, Any]


class Sink(Protocol):
    """Anything that wants the rows of the log as they happen."""

    def write(self, row: Row) -> None: ...


class JsonLog:
    """`log.jsonl`: one JSON object per line, the truth about a run.

    A row is on the disk when `write` returns: what a checkpoint continues from is in the log.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, row: Row) -> None:
        clean = {key: _finite(value) for key, value in row.items()}
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(clean, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def rows(self) -> list[dict[str, Any]]:
        """All rows; a last line that a kill cut short is left out."""
        if not self.path.exists():
            return []
        # Not splitlines(): it also cuts at U+2028 and U+0085, which samples may hold.
        lines = self.path.read_text(encoding="utf-8", errors="replace").split("\n")
        if not lines[-1]:
            lines.pop()
        rows = []
        for number, line in enumerate(lines, 1):
            try:
                rows.append(json.loads(line))
            except ValueError:
                if number < len(lines):
                    raise UserError(f"{self.path} line {number} is not valid JSON.") from None
        return rows

    def rewind(self, keep: Callable[[dict[str, Any]], bool]) -> None:
        """Drop rows, atomically: those a resumed stage is about to write again."""
        rows = self.rows()
        with atomic_write(self.path) as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows if keep(row))


class TensorBoardSink:
    """Scalars and samples for TensorBoard, one tag per stage and key. Needs the `track` extra."""

    def __init__(self, folder: str | Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise UserError(
                "tensorboard = true needs TensorBoard: pip install 'groundup[track]'."
            ) from None
        self.writer = SummaryWriter(str(folder))

    def write(self, row: Row) -> None:
        for key, value in row.items():
            if key in ("stage", "step"):
                continue
            tag = f"{row.get('stage', 'run')}/{key}"
            if isinstance(value, str):
                self.writer.add_text(tag, value, row["step"])
            for name, number in _numbers(tag, value):
                self.writer.add_scalar(name, number, row["step"])
        self.writer.flush()


class Fanout:
    """One sink in front of several."""

    def __init__(self, *sinks: Sink) -> None:
        self.sinks = sinks

    def write(self, row: Row) -> None:
        for sink in self.sinks:
            sink.write(row)


def _numbers(tag: str, value: Any) -> Iterator[tuple[str, float]]:
    """A number under its own tag, those of a group each under the group's tag and their name."""
    if isinstance(value, int | float):
        yield tag, value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _numbers(f"{tag}/{name}", inner)


def _finite(value: Any) -> Any:
    # JSON has no NaN; null keeps the file readable for everyone.
    return None if isinstance(value, float) and not math.isfinite(value) else value
