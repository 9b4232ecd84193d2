"""Package descriptions: how they are read, paired with their translations, and divided."""

from __future__ import annotations

import bz2
import lzma
from collections.abc import Callable

import pytest

from groundup.data import task_debian
from groundup.data.task_debian import parse_descriptions, read_titles, read_translation

STANZAS = """Package: chess
Description-md5: 01
Description-en: game of chess for two
 A board with sixty-four squares and
 thirty-two pieces.
 .
 It comes with:
  * a board
  * pieces
 .
 Have fun!

Package: broken
Description-en: no sum

Package: tiny
Description-md5: 02
Description-en: nothing more to say
"""


def stanza(key: int, package: str, language: str, *texts: str) -> str:
    body = "\n .\n ".join(texts[1:])
    head = f"Package: {package}\nDescription-md5: {key:032x}\nDescription-{language}: {texts[0]}"
    return f"{head}\n {body}" if body else head


def test_stanzas_are_parsed() -> None:
    (first, chess), (second, tiny) = parse_descriptions(STANZAS)
    assert (first, second) == ("01", "02")
    assert chess.package == "chess" and chess.synopsis == "game of chess for two"
    assert chess.paragraphs == (
        "A board with sixty-four squares and thirty-two pieces.",
        "",  # a list, and what leads to it
        "Have fun!",
    )
    assert tiny.paragraphs == ()


def words(seed: int, count: int) -> str:
    """A text that is unlike those of other seeds, of words that are in many of them."""
    state, found = seed * 7919 + 13, []
    for _ in range(count):
        state = (state * 1103515245 + 12345) % 2**31
        found.append("abcdefghijklmnopqrstuvwxyz"[state >> 16 & 15] * 3)
    return " ".join(found)


@pytest.fixture
def archive(store: Callable[..., None]) -> None:
    """A hundred packages in two languages, and some that are to be left out."""
    english, german = [], []
    for i in range(100):
        texts = [words(3 * i, 6), words(3 * i + 1, 14) + ".", words(3 * i + 2, 20) + "."]
        english.append(stanza(i, f"p{i}", "en", *texts))
        german.append(stanza(i, f"p{i}", "de", *(f"ü{text}" for text in texts)))
    odd = {
        "same": (words(900, 6), words(900, 6)),
        "long": (words(901, 70), "ü" + words(901, 70)),
        "lopsided": (words(902, 30), "ü"),
        "damaged": (words(903, 6), f"\ufffd{words(903, 6)}"),
    }
    for number, (package, (source, target)) in enumerate(odd.items(), 200):
        english.append(stanza(number, package, "en", source))
        german.append(stanza(number, package, "de", target))
    english.append(stanza(300, "uneven", "en", words(904, 6), words(905, 9), words(906, 9)))
    german.append(stanza(300, "uneven", "de", "ü" + words(904, 6), "ü" + words(905, 9)))
    german.append(stanza(301, "unknown", "de", words(907, 6)))
    store(task_debian, "ENGLISH", lzma.compress("\n\n".join(english).encode()))
    store(task_debian, "GERMAN", bz2.compress("\n\n".join(german).encode()))


def test_translations_are_joined_by_the_sum_and_paired_in_order(archive: None) -> None:
    data = read_translation(task_debian.GERMAN)
    examples = [*data.train, *data.heldout]
    assert all(example.target == f"ü{example.source}" for example in examples)
    sources = {example.source for example in examples}
    assert len(sources) == len(examples)
    for number in range(0, 300, 3):
        assert words(number, 6) in sources
    assert words(904, 6) in sources  # the synopsis of uneven paragraphs is still a pair
    for left_out in (words(905, 9), words(900, 6), words(901, 70), words(902, 30), words(903, 6)):
        assert left_out not in sources
    assert 10 < len(data.heldout) < 60
    assert data == read_translation(task_debian.GERMAN)


def test_titles_sum_up_first_paragraphs(archive: None) -> None:
    data = read_titles()
    pairs = {example.source: example.target for example in [*data.train, *data.heldout]}
    assert pairs[words(1, 14) + "."] == words(0, 6)
    assert len(pairs) == 100


def test_of_packages_that_begin_alike_the_shortest_name_counts(store) -> None:
    body = words(5, 30)
    stanzas = [
        stanza(1, "libgame-doc", "en", "game library (manual)", body, "The manual."),
        stanza(2, "libgame", "en", "game library", body),
        stanza(3, "libgame-dev", "en", "game library (headers)", body, "The headers."),
        stanza(4, "talkative", "en", body, words(6, 12)),
    ]
    store(task_debian, "ENGLISH", lzma.compress("\n\n".join(stanzas).encode()))
    data = read_titles()
    (example,) = [*data.train, *data.heldout]
    assert (example.source, example.target) == (body, "game library")
