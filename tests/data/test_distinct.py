"""Siblings of one template are found out; texts that only share a subject are not."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.data.distinct import COMMON, distinct, opening, shorten, tidy

STORY = "the quick brown fox jumps over the lazy dog and then runs home to sleep all day long"


def test_one_of_a_template_is_kept() -> None:
    texts = [f"This package contains the development files for lib{name}." for name in range(40)]
    texts += [f"This package contains the documentation of lib{name}." for name in "abcdefghij" * 3]
    assert distinct(texts) == [0, 40]


def test_rare_words_alone_do_not_make_a_template() -> None:
    assert distinct(["alpha beta", "gamma delta"]) == [0], "nothing is known of these words"
    common = [f"{first} {second}" for first in "abcde" for second in "fghij"] * COMMON
    assert distinct(common) == list(range(25))


def test_copies_and_near_copies() -> None:
    texts = [STORY, "another text of some more words than eight of them", STORY.upper() + "!"]
    texts += [STORY + " maybe", "before it " + STORY, STORY.replace("dog and then", "cat but now")]
    words = [word for text in texts for word in text.lower().split()]
    filler = [f"{word} {i}" for i in range(COMMON) for word in words]  # so that no word is rare
    kept = [number for number in distinct([*texts, *filler]) if number < len(texts)]
    assert kept == [0, 1, 5]


def test_no_text_is_lost_without_a_sibling() -> None:
    assert distinct([]) == []
    assert distinct(["", "", "a"]) == [0, 2]


def test_opening() -> None:
    for text in ("Strategy game (data files)", "strategy game - tools", "Strategy game; docs"):
        assert opening(text) == "strategy game"
    assert opening("Strategy game.") == opening("strategy game. It is fun.") == "strategy game"
    assert opening("version 1.2 of a-b") == "version 1.2 of a-b"


def test_tidy_leaves_nothing_invisible() -> None:
    assert tidy(" a\u200bb\u00ad\tc\x00\n\u00a0 d\ufeff ") == "ab c d"
    assert tidy("naïve café — 日本") == "naïve café — 日本"


@given(st.text("ab. !", max_size=60), st.integers(5, 30))
@settings(deadline=None, max_examples=200, derandomize=True)
def test_shortened_texts_are_beginnings(text: str, limit: int) -> None:
    short = shorten(text, limit)
    assert text.startswith(short) and len(short) <= limit
    assert short == text or len(text) > limit


def test_shortened_at_the_best_place() -> None:
    text = "One sentence. Another one that is longer. And a third"
    assert shorten(text, 45) == "One sentence. Another one that is longer."
    assert shorten(text, 30) == "One sentence. Another one that"
    assert shorten(text, 29) == "One sentence. Another one"
    assert shorten("x" * 50, 20) == "x" * 20
