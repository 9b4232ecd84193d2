"""The report of a run: `report.json` and `log.jsonl` become one page, `report.html`.

A part that a run does not have is left out of its report: each section shows what there is.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from groundup.config import UserError, to_toml
from groundup.files import atomic_write, read_json
from groundup.pipeline.console import format_seconds
from groundup.train.log import JsonLog
from groundup.train.metrics import PARTS
from groundup.viz import curves, page
from groundup.viz.style import short_number

# Of a stage's results, those that have a column of their own: (key, heading, format).
STAGE_COLUMNS = (
    ("seconds", "time", format_seconds),
    ("tokens", "tokens", short_number),
    ("tokens_per_second", "tokens/s", "{:,.0f}".format),
    ("mfu", "MFU", "{:.1%}".format),
    ("train_loss", "train loss", "{:.3f}".format),
    ("val_loss", "held-out loss", "{:.3f}".format),
    ("val_bpb", "bits per byte", "{:.4f}".format),
)
STAGES_HINT = (
    "Held-out figures of a stage are of a sample, taken while it trained; those at the top and "
    "under Evaluation are of all held-out text."
)


def write_report(folder: str | Path) -> Path:
    """Write `report.html` beside a run's `report.json`. Raises UserError when that is missing."""
    folder = Path(folder)
    text = render(read_json(folder / "report.json"), JsonLog(folder / "log.jsonl").rows(), folder)
    path = folder / "report.html"
    with atomic_write(path) as file:
        file.write(text)
    return path


def render(report: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], folder: Path) -> str:
    """The page, from the two files' content; `folder` is what the commands on it name."""
    name = report.get("name", folder.name)
    return page.page(
        f"{name} · groundup",
        [
            _header(name, report),
            page.tiles(_figures(report)),
            page.section("Talk to it", page.preformatted(_commands(folder))),
            page.section("Conversations", _chats(report), hint="As they came, unedited."),
            page.section("Training", _curves(rows)),
            page.section(
                "Stages",
                _stages(report.get("stages", ())),
                _steps(report.get("stages", ())),
                hint=STAGES_HINT,
            ),
            page.section("Learning to write", _samples(report, rows), hint="Unedited."),
            page.section("Evaluation", facts(report.get("evaluation", {}))),
            page.section("Data", facts(report.get("data", {}))),
            page.section("Tokenizer", facts(report.get("tokenizer", {}))),
            page.section("Model", facts(report.get("model", {}))),
            page.section("Machine", facts(report.get("machine", {}))),
            page.section("Recipe", _recipe(report)),
        ],
    )


def facts(values: Mapping[str, Any]) -> str:
    """Names and values as a table; nested groups of like shape become a table of their own."""
    plain: list[tuple[str, str]] = []
    tables: list[str] = []
    for key, value in values.items():
        if isinstance(value, Mapping) and value and all(_is_group(v) for v in value.values()):
            tables.append(_grid(key, value))
        elif isinstance(value, Mapping):
            plain += [(_words(f"{key} {inner}"), show(inner, v)) for inner, v in value.items()]
        elif isinstance(value, list) and value and all(_is_group(v) for v in value):
            named = {str(item.get("name", number)): item for number, item in enumerate(value, 1)}
            tables.append(_grid(key, named))
        else:
            plain.append((_words(key), show(key, value)))
    return page.table(("", ""), plain) + "".join(tables)


def show(key: str, value: Any) -> str:
    """A value for a reader, in the unit that its name tells."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float) and key.endswith("seconds"):
        return format_seconds(value)
    if isinstance(value, float) and key.endswith(("fraction", "share", "mfu")):
        return f"{value:.1%}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    if isinstance(value, list):
        return ", ".join(show(key, item) for item in value)
    return str(value)


def _header(name: str, report: Mapping[str, Any]) -> str:
    machine = report.get("machine", {})
    created = str(report.get("created", "")).replace("T", " ")[:16]
    parts = [created, machine.get("cpu"), machine.get("policy")]
    line = " · ".join(str(part) for part in parts if part)
    return f"<header>\n<h1>{page.escape(name)}</h1>\n<p>{page.escape(line)}</p>\n</header>\n"


def _figures(report: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """The big figures, each with what it is."""
    tokens = sum(
        stage.get("tokens") or 0
        for stage in report.get("stages", ())
        if stage.get("train_loss") is not None
    )
    parameters = report.get("model", {}).get("parameters")
    if report.get("val_bpb") is not None:
        yield f"{report['val_bpb']:.3f}", "bits per held-out byte (lower is better)"
    if report.get("wall_seconds") is not None:
        yield format_seconds(report["wall_seconds"]), "from raw text to chat"
    if tokens:
        yield short_number(tokens), "tokens trained on"
    if parameters:
        yield short_number(parameters), "parameters"


def _commands(folder: Path) -> str:
    model = shlex.quote(str(folder))
    return (
        f"groundup chat {model}\n"
        f'groundup generate {model} --prompt "Once upon a time" --max-tokens 200\n'
        f"groundup score {model} --text FILE"
    )


def _chats(report: Mapping[str, Any]) -> str:
    chats = "".join(
        page.conversation((turn["role"], turn["content"]) for turn in chat)
        for chat in report.get("chats", ())
    )
    return f"<div class=chats>\n{chats}</div>\n" if chats else ""


def _curves(rows: Sequence[Mapping[str, Any]]) -> str:
    names = curves.stages(rows)
    if not names:
        return ""
    try:
        drawings = curves.panel_svgs(rows)
    except UserError as error:  # no matplotlib: the figures above still stand
        return f"<p class=hint>{page.escape(error)}</p>\n"
    colours = ("first", "second", "third", "fourth") * len(names)
    key = "".join(
        f'<span><i style="background: var(--{colour})"></i>{page.escape(name)}</span>'
        for name, colour in zip(names, colours, strict=False)
    )
    note = "<span>over tokens trained on; dots are held-out text</span>"
    return f"<div class=key>{key}{note}</div>\n<div class=curves>\n{''.join(drawings)}</div>\n"


def _stages(stages: Iterable[Mapping[str, Any]]) -> str:
    known = {"name", "peak_memory_mb", *(key for key, _, _ in STAGE_COLUMNS)}
    rows = []
    for stage in stages:
        others = (
            f"{_words(key)} {show(key, value)}"
            for key, value in stage.items()
            if key not in known and isinstance(value, int | float | str)
        )
        figures = (
            as_text(stage[key]) if stage.get(key) is not None else ""
            for key, _, as_text in STAGE_COLUMNS
        )
        rows.append((f"{stage.get('name', '')}\n{', '.join(others)}", *figures))
    return page.table(("stage", *(heading for _, heading, _ in STAGE_COLUMNS)), rows)


def _steps(stages: Iterable[Mapping[str, Any]]) -> str:
    """Where the time of a training step goes, and how much memory the stage took."""
    rows = []
    for stage in stages:
        split = stage.get("split")
        if split:
            total = sum(split.values()) or 1.0
            shares = (f"{split[part] / total:.1%}" for part in PARTS)
            memory = stage.get("peak_memory_mb")
            peak = f"{memory:,.0f} MB" if memory is not None else ""
            rows.append((stage.get("name", ""), f"{1000 * total:,.1f} ms", *shares, peak))
    return page.table(("a training step", "time", *map(_words, PARTS), "peak memory"), rows)


def _samples(report: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> str:
    """What it wrote while it learned, folded; and at the end, open."""
    folds = "".join(
        page.folded(
            f"{row.get('stage')}, step {show('step', row.get('step'))}",
            page.preformatted(row["sample"]),
        )
        for row in rows
        if row.get("sample") is not None
    )
    final = (page.preformatted(sample["text"]) for sample in report.get("samples", ()))
    return folds + "".join(final)


def _recipe(report: Mapping[str, Any]) -> str:
    config = report.get("config")
    return page.folded("config.toml", page.preformatted(to_toml(config))) if config else ""


def _grid(name: str, groups: Mapping[str, Mapping[str, Any]]) -> str:
    """A row per group, a column per key."""
    keys = list(dict.fromkeys(key for group in groups.values() for key in group if key != "name"))
    rows = (
        (title, *(show(key, group[key]) if key in group else "" for key in keys))
        for title, group in groups.items()
    )
    return page.table((_words(name), *map(_words, keys)), rows)


def _is_group(value: Any) -> bool:
    return isinstance(value, Mapping) and not any(isinstance(v, Mapping) for v in value.values())


def _words(key: str) -> str:
    return key.replace("_", " ")
