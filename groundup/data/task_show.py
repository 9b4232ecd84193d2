"""`groundup data`: the corpora and tasks there are, and examples of a task to look at."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence

import numpy as np

from groundup.config import require
from groundup.data import corpora, number_words
from groundup.data.examples import Example
from groundup.data.tasks import TASKS, Task, find_task

WIDTH = 96
LONGEST = 600
"""Characters of a text that are shown."""
INK = " .:-=+*#%@"
PICTURE = 32
"""Characters that a row of an image takes at most."""


def overview() -> str:
    """All corpora and tasks: what each is, its licence and home, and what is to be fetched."""
    return "\n".join(
        [
            "Texts that a recipe can name in data.sources:\n",
            corpora.table(),
            'Your own files work too: data.sources = [{ name = "book.txt" }].',
            "\nTasks that `groundup train` can learn and `groundup data show` shows:\n",
            *map(_summary, TASKS.values()),
        ]
    )


def show(name: str, count: int = 5) -> str:
    """Examples from all over both sides of a task. Reads it, which may fetch its files."""
    task = find_task(name)
    require(count >= 1, f"--n should be at least 1, but is {count}.")
    data = task.read()
    lines = [_summary(task)]
    if data.classes:
        lines += _wrapped("    ", f"classes: {', '.join(data.classes)}")
    sides = (("to train on", data.train), ("held out", data.heldout))
    for title, examples in sides:
        lines.append(f"\n{len(examples):,} examples {title}")
        for number in _spread(count, len(examples)):
            lines += ["", *_lines(examples[number], task)]
    if task.name == "numbers":
        lines += ["", *_as_models_see_numbers()]
    return "\n".join(lines)


def _spread(count: int, size: int) -> list[int]:
    """Up to `count` different numbers below `size`, far from each other and at no regular step."""
    golden = (math.sqrt(5) - 1) / 2
    return sorted({int((number * golden + 0.5) % 1 * size) for number in range(min(count, size))})


def _summary(task: Task) -> str:
    if not task.packages:
        state = "nothing to fetch"
    else:
        state = f"{task.megabytes:g} MB, {'fetched' if task.is_fetched() else 'to fetch'}"
    lines = [f"{task.name}: {task.description}", f"    {task.kind}; {state}"]
    lines += [f"    licence: {task.licence}", *([f"    {task.url}"] if task.url else [])]
    return "\n".join(lines)


def _lines(example: Example, task: Task) -> Iterator[str]:
    if example.image is not None:
        yield from _drawing(example.image)
    if task.kind == "tag":
        pairs = zip(example.source.split(), example.target.split(), strict=True)
        yield from _wrapped("  ", " ".join(f"{word}/{tag}" for word, tag in pairs))
        return
    if example.source:
        yield from _wrapped("  ", example.source)
    yield from _wrapped("  → " if task.kind != "continue" else "  ", example.target)


def _wrapped(first: str, text: str) -> Iterator[str]:
    """Lines of a text, its own ends of lines kept, its end left out where it is long."""
    if len(text) > LONGEST:
        text = text[:LONGEST].rpartition(" ")[0] + " …"
    for line in text.splitlines():
        yield from textwrap.wrap(
            line,
            WIDTH,
            initial_indent=first,
            subsequent_indent=" " * len(first),
            break_on_hyphens=False,
        ) or [""]
        first = " " * len(first)


def _drawing(image: np.ndarray) -> list[str]:
    """(C, H, W) -> lines of characters, darker where there is more ink.

    A character is about twice as high as wide, so each stands for twice as many rows as columns.
    """
    grey = image.mean(axis=0) if len(image) == 1 else 255 - image.mean(axis=0)
    if 2 * grey.shape[1] <= PICTURE:
        grey = grey.repeat(2, axis=0).repeat(2, axis=1)
    scale = max(1, -(-grey.shape[1] // PICTURE))
    height, width = (size // scale // 2 * 2 * scale for size in grey.shape)
    blocks = grey[:height, :width].reshape(height // scale // 2, 2 * scale, width // scale, scale)
    levels = (blocks.mean(axis=(1, 3)) * (len(INK) - 1) / 255).round().astype(int)
    lines = ["".join(INK[level] for level in row).rstrip() for row in levels]
    drawn = [number for number, line in enumerate(lines) if line]
    return [f"  {line}" for line in lines[drawn[0] : drawn[-1] + 1]] if drawn else []


def _as_models_see_numbers() -> Iterator[str]:
    """The vocabulary, and the rows of two examples with what is predicted and what is padding."""
    words = number_words.Vocabulary(("en", "de", "fr"))
    yield (
        f"As models see it: {words.size} ids, for padding, start and end, ten digits, three "
        f"languages and the {len(words.pieces)} pieces of names, of which some begin with a space:"
    )
    pieces = " ".join(piece.replace(" ", "␣") for piece in words.pieces)
    yield from textwrap.wrap(
        pieces, WIDTH, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
    )
    sources = [["de", *"427"], ["fr", *"90"]]
    targets = [number_words.pieces_of(427, "de"), number_words.pieces_of(90, "fr")]
    yield "A decoder reads a row and predicts the next token where the mask is 1:"
    for source, target in zip(sources, targets, strict=True):
        tokens = [*source, "START", *target, "END"]
        mask = [0] * len(source) + [1] * (len(target) + 1)
        yield from _columns(tokens[:-1], tokens[1:], mask)
    yield "An encoder reads all of a row at once, except the padding, where the mask is 0:"
    longest = max(map(len, sources))
    for source in sources:
        filler = longest - len(source)
        yield from _columns([*source, *["PAD"] * filler], [1] * len(source) + [0] * filler)


def _columns(*rows: Sequence[object]) -> Iterator[str]:
    """Rows of cells, one below the other."""
    widths = [max(len(str(cell)) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (f"{cell!s:<{width}}" for cell, width in zip(row, widths, strict=True))
        yield "  " + " ".join(cells).rstrip()
