"""Descriptions of Debian's packages: translated by volunteers, and summed up in a line each.

The archive keeps them in one file a language (https://wiki.debian.org/RepositoryFormat): stanzas
of a package's name, the MD5 sum of its English description, a synopsis and paragraphs. The sum
joins a translation to what it translates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from groundup.data.archives import unpack
from groundup.data.distinct import distinct, opening, tidy
from groundup.data.examples import Example, TaskData, divide
from groundup.data.packages import DebianFile, fetch

LONGEST = 240
"""Characters of a paragraph to translate, and of its translation."""
LONGEST_BODY = 480
"""Characters of a paragraph to sum up."""
SHORTEST = 12
BROKEN = "\ufffd"
"""A character that was lost before the archive got it."""


def _file(name: str, sha256: str) -> DebianFile:
    return DebianFile(f"main/i18n/Translation-{name}", "bookworm", sha256)


ENGLISH = _file("en.xz", "a3d4a0bfd8e9242810b0885eda7c1a6e05dac15b333ddbaab03ba56f2dfa4bf0")
GERMAN = _file("de.bz2", "2cc65c7f8b85d8a2964c3735bbf86be79bfd3342ef8908150e268137fe5dac7f")
ITALIAN = _file("it.bz2", "f01a5f14992838ff8140da6e025c514c900c4f55d3169d5ef1710ed2deee2bde")


class Description(NamedTuple):
    """What one package says of itself; a paragraph that is no running text is empty."""

    package: str
    synopsis: str
    paragraphs: tuple[str, ...]


def read_translation(language: DebianFile) -> TaskData:
    """English synopses and paragraphs, and what volunteers made of them.

    Only where a translation has as many paragraphs as the original: they are paired in order.
    """
    foreign = _descriptions(language)
    pairs = dict[str, str]()
    for key, description in _descriptions(ENGLISH, foreign.__contains__).items():
        pairs |= _aligned(description, foreign[key])
    return _differing(pairs)


def read_titles() -> TaskData:
    """First paragraph -> synopsis.

    Packages made of one source often begin alike. Of those the one with the shortest name is
    taken: it is the thing itself, and the others are its documentation, data and parts.
    """
    found = dict[str, Description]()
    for description in _descriptions(ENGLISH).values():
        body = description.paragraphs[0] if description.paragraphs else ""
        synopsis = description.synopsis
        if not SHORTEST <= len(synopsis) < len(body) / 2 <= LONGEST_BODY / 2:
            continue
        other = found.get(body)
        if other is None or len(description.package) < len(other.package):
            found[body] = description
    return _differing({body: description.synopsis for body, description in found.items()})


def parse_descriptions(
    text: str, wanted: Callable[[str], bool] = lambda key: True
) -> Iterator[tuple[str, Description]]:
    """MD5 sum and description of each stanza whose sum is wanted, in order."""
    for stanza in text.split("\n\n"):
        head, _, body = stanza.partition("\n ")
        fields = dict(line.split(": ", 1) for line in head.split("\n") if ": " in line)
        key = fields.pop("Description-md5", "")
        titles = [tidy(value) for name, value in fields.items() if name.startswith("Description-")]
        if key and wanted(key) and titles and titles[0] and BROKEN not in titles[0]:
            paragraphs = body.replace("\n ", "\n").split("\n.\n") if body else []
            running = tuple(map(_running, paragraphs))
            yield key, Description(fields.get("Package", ""), titles[0], running)


def _descriptions(
    file: DebianFile, wanted: Callable[[str], bool] = lambda key: True
) -> dict[str, Description]:
    data = unpack(fetch(file).read_bytes(), file.filename)
    return dict(parse_descriptions(data.decode("utf-8", "replace"), wanted))


def _running(paragraph: str) -> str:
    """A paragraph on one line; "" for lists, tables and what only leads to them."""
    lines = paragraph.split("\n")
    if any(line.startswith((" ", "\t", "* ", "- ", "o ", "+ ")) for line in lines):
        return ""
    text = tidy(" ".join(lines))
    return "" if BROKEN in text or text.endswith((":", ",")) else text


def _aligned(english: Description, foreign: Description) -> dict[str, str]:
    pairs = [(english.synopsis, foreign.synopsis)]
    if len(english.paragraphs) == len(foreign.paragraphs):
        pairs += zip(english.paragraphs, foreign.paragraphs, strict=True)
    found = {}
    for source, target in pairs:
        shorter, longer = sorted((len(source), len(target)))
        if shorter >= SHORTEST and longer <= min(LONGEST, 2 * shorter) and source != target:
            found[source] = target
    return found


def _differing(pairs: dict[str, str]) -> TaskData:
    """One pair of each family of sources, and each target once."""
    sources, of_target = list(pairs), dict[str, str]()
    for number in distinct(sources):
        of_target.setdefault(pairs[sources[number]], sources[number])
    return divide(
        (Example(source, target) for target, source in of_target.items()),
        key=lambda one: opening(one.source),
    )
