"""Streaming word wrap: the same lines however the text was cut, and none too wide."""

from __future__ import annotations

import itertools
import textwrap

from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from groundup.serve.wrap import WordWrap, printable


def wrap(pieces: list[str], width: int) -> str:
    wrapper = WordWrap(width)
    return "".join([wrapper.push(piece) for piece in pieces] + [wrapper.finish()])


def test_wraps_like_textwrap() -> None:
    text = "the quick brown fox jumps over the lazy dog and keeps running through the long night"
    for width in range(7, 40):
        assert wrap([text], width) == "\n".join(textwrap.wrap(text, width))


@given(
    st.text(alphabet="ab 語🙂\n", max_size=80),
    st.lists(st.integers(1, 79), max_size=8),
    st.integers(2, 20),
)
@settings(deadline=None, max_examples=200, derandomize=True)
def test_pieces_do_not_matter_and_no_line_is_too_wide(text, cuts, width) -> None:
    bounds = [0, *sorted(cuts), len(text)]
    pieces = [text[a:b] for a, b in itertools.pairwise(bounds)]
    wrapped = wrap(pieces, width)
    assert wrapped == wrap([text], width)
    assert all(cell_len(line) <= width for line in wrapped.split("\n"))
    assert "".join(wrapped.split()) == "".join(text.split())


def test_words_appear_as_soon_as_they_are_whole() -> None:
    wrapper = WordWrap(20)
    assert [wrapper.push(c) for c in "hi you\n"] == ["", "", "hi", "", "", "", " you\n"]


def test_lists_keep_their_indentation() -> None:
    assert wrap(["- one\n  - two"], 30) == "- one\n  - two"


def test_control_characters_cannot_steer_the_terminal() -> None:
    text = "a\x1b[31mred\x07\x9b2J\r\b\tb\n🙂👩\u200d👧"
    assert printable(text) == "a[31mred2J\tb\n🙂👩\u200d👧"
