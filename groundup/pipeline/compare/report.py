"""What a comparison looks like: one picture, and a page with everything that was measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from groundup.config import UserError
from groundup.data.tasks import TASKS
from groundup.device import DeviceConfig, detect
from groundup.files import atomic_write, check_writable, write_json
from groundup.inspect import sizes
from groundup.pipeline.compare.comparison import (
    ASKED,
    HEADER,
    CompareConfig,
    Comparison,
    compare,
    findings,
    rows,
    table,
)
from groundup.pipeline.compare.competitors import COMPETITORS
from groundup.pipeline.compare.learning import Progress
from groundup.pipeline.compare.pictures import Draw, bars, curves, masks, picture
from groundup.pipeline.tasks.families import GUIDE
from groundup.viz import page
from groundup.viz.style import LIGHT, check_picture, new_figure, save, to_svg

PICTURE, PAGE = "compare.png", "compare.html"
STRUCTURE = {
    "purpose": (
        "to understand a text as a whole",
        "to go on writing",
        "to turn one text into another",
    ),
    "attention": (
        "every token sees all others",
        "each token sees what stands before it: all of it",
        "the question sees itself; the answer sees it, and what stands before",
    ),
    "for": (
        "a step learns from the whole text at once; one pass answers",
        "every token of a text teaches; one model for every task that can be written",
        "the question is read both ways, once; its keys and values are kept",
    ),
    "against": (
        "writes nothing by itself; places filled at once do not know of each other",
        "the question is read one way, and answers come token by token",
        "two stacks and pairs to learn from; answers come token by token",
    ),
}
"""What follows from the structure; how much it matters, the tables say."""
USES = (
    "Where to begin; at equal size the scores above may well be level. A decoder can do all that "
    "can be written, and sees all that stands before; how many parameters a model has is a choice."
)
WHO_SEES = (
    "A row is a token of the question (q) or the answer (a), and marks the tokens it sees: of its "
    "own text, or, in the second colour, of the other; then the share of pairs that is seen."
)


def run(
    out: str = "runs/compare", json: str = "", progress: Progress | None = None, **settings: Any
) -> Iterator[str]:
    """Compare on this machine: yields the tables, then writes, and yields what was written."""
    config = CompareConfig(**settings)
    if json:
        check_writable(json)
    if out:
        check_folder(Path(out))
    comparison = compare(config, detect(DeviceConfig(dtype="float32", compile="off")), progress)
    yield "\n\n".join([table(comparison), "\n".join(findings(comparison))])
    if json:
        write_json(Path(json), comparison.as_dict())
    if out:
        yield f"\nSaved {' and '.join(map(str, write(comparison, Path(out))))}."


def check_folder(folder: Path) -> None:
    """Raise UserError where nothing could be written: before the long work."""
    if folder.is_file():
        raise UserError(f"{folder} is a file; name a folder for the pictures.")
    for name in PICTURE, PAGE:
        check_writable(folder / name)
    folder.mkdir(parents=True, exist_ok=True)
    check_picture(folder / PICTURE)


def write(comparison: Comparison, folder: Path) -> tuple[Path, Path]:
    """compare.png and compare.html in `folder`."""
    check_folder(folder)
    image, document = folder / PICTURE, folder / PAGE
    save(picture(comparison), image)
    with atomic_write(document) as file:
        file.write(render(comparison))
    return image, document


def render(comparison: Comparison) -> str:
    """The page."""
    per_task = (
        page.section(
            f"{task}: {ASKED[task]}",
            page.table(HEADER, rows(comparison, task)),
            _answers(comparison, task),
        )
        for task in comparison.config.tasks
    )
    told = "".join(f"<p>{page.escape(line)}</p>\n" for line in findings(comparison))
    subtitle = "<header>\n<h1>Three families, the same tasks</h1>\n</header>\n"
    return page.page(
        "Three families compared · groundup",
        [
            subtitle,
            page.section("What came out", told),
            *per_task,
            page.section("Learning", _key(), _drawings(curves(comparison))),
            page.section("Score, speed and cost", _drawings(bars(comparison))),
            page.section(
                "Who sees whom",
                _drawings(masks()),
                hint=WHO_SEES,
            ),
            page.section("How they differ", *_structure()),
            page.section("Which family for what", _uses(), hint=USES),
            page.section(
                "Known models",
                page.table(("model", *sizes.COLUMNS), _known()),
                hint=sizes.NOTE,
            ),
        ],
    )


def _drawings(panels: Mapping[str, Draw]) -> str:
    drawn = []
    for label, draw in panels.items():
        figure, (axes,) = new_figure(1, 1, LIGHT)
        draw(axes)
        drawn.append(to_svg(figure, LIGHT, label))
    return f"<div class=curves>\n{''.join(drawn)}</div>\n"


def _key() -> str:
    names = zip(COMPETITORS, ("first", "second", "third"), strict=True)
    spans = (
        f'<span><i style="background: var(--{colour})"></i>{page.escape(family)}</span>'
        for family, colour in names
    )
    return f"<div class=key>{''.join(spans)}</div>\n"


def _answers(comparison: Comparison, task: str) -> str:
    """A few questions and what each family says."""
    found = {family: outcomes[0].samples for family, outcomes in comparison.of(task).items()}
    lines = (
        [f"{question}\n{expected}", *(found[family][i][2] for family in COMPETITORS)]
        for i, (question, expected, _) in enumerate(next(iter(found.values())))
    )
    return page.folded(
        "Some answers", page.table(("question, and what is right", *COMPETITORS), lines)
    )


def _structure() -> list[str]:
    """What is so of each family by its structure, a list of facts for each."""
    return [
        f"<h3>{page.escape(family)}</h3>\n"
        + page.table(("", ""), [(fact, texts[index]) for fact, texts in STRUCTURE.items()])
        for index, family in enumerate(COMPETITORS)
    ]


def _uses() -> str:
    """A use a line, with the command that shows it."""
    lines = (
        (f"{use.case}\n{use.why}", use.family, f"groundup train {use.tasks[0]}")
        for use in GUIDE
        if set(use.tasks) <= set(TASKS)
    )
    return page.table(("to", "take", "try"), lines)


def _known() -> list[list[str]]:
    return [[size.name, *sizes.cells(size)] for size in sizes.all_sizes()]
