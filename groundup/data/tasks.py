"""Tasks to learn, by name: what each is, where its data comes from, and how to read them.

Nothing is fetched before a task is read. Adding a task is an entry in `TASKS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from groundup.config import UserError, did_you_mean
from groundup.data import corpora, images, number_words
from groundup.data.examples import Example, TaskData, divide

Kind = Literal["classify", "tag", "write", "continue", "image", "caption"]
"""What an example of a task holds: see `groundup.data.examples`."""


@dataclass(frozen=True)
class Task:
    """A named task."""

    name: str
    kind: Kind
    description: str
    licence: str
    url: str
    megabytes: float
    """What there is to fetch; 0 where nothing is."""
    read: Callable[[], TaskData]
    """The examples, in an order that is always the same. Fetches what is not there yet."""


def find_task(name: str) -> Task:
    """The task of that name. Raises UserError where there is none."""
    if name not in TASKS:
        hint = did_you_mean(name, TASKS) or f" There are {', '.join(TASKS)}."
        raise UserError(f"There is no task {name!r}.{hint}")
    return TASKS[name]


def read_numbers() -> TaskData:
    """ "de 427" -> "vierhundertsiebenundzwanzig"; whole numbers are held out."""
    return _named(lambda one: Example(f"{one.language} {one.number}", one.text))


def read_last_digit() -> TaskData:
    """ "vierhundertsiebenundzwanzig" -> "7"."""
    return _named(lambda one: Example(one.text, str(one.number % 10)), tuple("0123456789"))


def read_characters() -> TaskData:
    """Scenes of Shakespeare's plays, to be continued; one of ten is held out."""
    scenes = corpora.read_corpus("shakespeare")
    return divide((Example(target=scene.text) for scene in scenes), key=lambda one: one.target)


def read_images(name: str) -> TaskData:
    """One of the sets of `groundup.data.images`."""
    train, test = (images.load_images(name, split) for split in ("train", "test"))
    return TaskData(train.examples(), test.examples(), train.names)


def _named(
    make: Callable[[number_words.Example], Example], classes: tuple[str, ...] = ()
) -> TaskData:
    train, heldout = (
        [make(one) for one in number_words.examples("medium", ("en", "de", "fr"), split)]
        for split in ("train", "test")
    )
    return TaskData(train, heldout, classes)


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            name="numbers",
            kind="write",
            description="the names of numbers below 10,000 in English, German and French",
            licence="made here: free of any",
            url="",
            megabytes=0,
            read=read_numbers,
        ),
        Task(
            name="last-digit",
            kind="classify",
            description="the last digit of a number, of its name in English, German or French",
            licence="made here: free of any",
            url="",
            megabytes=0,
            read=read_last_digit,
        ),
        Task(
            name="characters",
            kind="continue",
            description="scenes of 38 plays by William Shakespeare, letter by letter",
            licence=corpora.CORPORA["shakespeare"].licence,
            url=corpora.CORPORA["shakespeare"].url,
            megabytes=corpora.CORPORA["shakespeare"].megabytes,
            read=read_characters,
        ),
        Task(
            name="shapes",
            kind="image",
            description="outlines of eight shapes under noise, 16 × 16 pixels",
            licence="made here: free of any",
            url="",
            megabytes=0,
            read=lambda: read_images("shapes"),
        ),
        Task(
            name="digits",
            kind="image",
            description="1,797 handwritten digits, 8 × 8 pixels; needs scikit-learn",
            licence="CC BY 4.0 (Alpaydin and Kaynak 1998, UCI)",
            url="https://archive.ics.uci.edu/dataset/80",
            megabytes=0,
            read=lambda: read_images("digits"),
        ),
    )
}
