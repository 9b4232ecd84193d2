"""`groundup show TOPIC`: one picture and one table about how something works, computed afresh.

A topic is a module of this folder with a `show(out) -> str`, which saves the picture and returns
the table. A new topic is a new module and a line in `TOPICS`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path

from groundup.config import UserError, did_you_mean, require

TOPICS = {
    "schedules": "every learning-rate schedule over a run, with warmup, floor and what comes after",
    "formats": "fp32, fp16, bf16 and fp8: range, spacing, lost updates, and why losses are scaled",
    "memory": "what activation checkpointing saves and costs, measured (half a minute)",
    "gradients": "what reaches the blocks of a deep decoder, by where its norms stand (a minute)",
    "masks": "who sees whom in attention: windows, prefixes, documents, sparse patterns",
    "attention": "time and memory by length: written out, tiled, fused, windowed (half a minute)",
    "patterns": "where heads look and what for: of a model, or one trained now (half a minute)",
    "positions": "how a model is told where a token stands, and what that does to attention",
    "exposure": "what a model does with its own mistakes, and scheduled sampling (a minute)",
    "sizes": "known models from small to very large, and where their parameters are",
    "cache": "generation with and without a key/value cache, measured (half a minute)",
}
"""Topic, which is also the module's name, and one line about it."""


def show(
    topic: str,
    out: str | Path | None = None,
    model: str = "",
    text: str = "",
    tell: Callable[[str], None] | None = None,
) -> str:
    """Save the topic's picture to `out` (default: TOPIC.png here) and return its table.

    `model` and `text` are for patterns: whose, and what it reads. `tell` hears what begins, and
    how long it takes where it does.

    Raises UserError, before anything is computed, when there is no such topic, when the picture
    could not be written, or when matplotlib is missing.
    """
    if topic == "all":
        return show_all(Path(out or "."), tell)
    if topic not in TOPICS:
        raise UserError(f"There is no topic '{topic}'.{did_you_mean(topic, TOPICS)}")
    given = {name: value for name, value in (("model", model), ("text", text)) if value}
    require(
        not given or topic == "patterns", "--model and --text are for patterns; leave them out."
    )
    from groundup.viz.style import check_picture

    path = Path(out or f"{topic}.png")
    check_picture(path)
    if tell is not None:
        tell(f"{topic}: {TOPICS[topic]}")
    table = importlib.import_module(f"groundup.inspect.{topic}").show(path, **given)
    return f"{table}\n\nSaved {path}."


def show_all(folder: Path, tell: Callable[[str], None] | None = None) -> str:
    """Every topic's picture in a folder, as TOPIC.png, and all tables under their names."""
    require(not folder.is_file(), f"{folder} is a file; name a folder for all the pictures.")
    folder.mkdir(parents=True, exist_ok=True)
    parts = (f"# {topic}\n\n{show(topic, folder / f'{topic}.png', tell=tell)}" for topic in TOPICS)
    return "\n\n".join(parts)


def topics() -> str:
    """All topics, a line each."""
    width = max(map(len, TOPICS))
    lines = (f"  {topic:<{width}}  {about}" for topic, about in TOPICS.items())
    return "\n".join(["groundup show TOPIC [--out FILE] [--model MODEL] [--text TEXT]", *lines])


def grid(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Texts as a table: the first column to the left, the others to the right."""
    lines = [header, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
