"""Scores of written texts, against values worked out by hand."""

from __future__ import annotations

import math

import pytest

from groundup.config import UserError
from groundup.eval.ngram import CharacterNgrams
from groundup.eval.writing import (
    character_error_rate,
    chrf,
    edit_distance,
    exact_match,
    word_accuracy,
)


@pytest.mark.parametrize(
    ("a", "b", "edits"),
    [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("abc", "cab", 2), ("aa", "aaaa", 2)],
)
def test_edits(a: str, b: str, edits: int) -> None:
    assert edit_distance(a, b) == edit_distance(b, a) == edits


def test_exact_match_and_error_rate() -> None:
    assert exact_match(["one ", "two"], ["one", "tow"]) == 0.5
    assert character_error_rate(["one", "two"], ["one", "tow"]) == pytest.approx(2 / 6)
    assert word_accuracy(["A B", "C D E"], ["A X", "C D"]) == 0.75
    with pytest.raises(UserError, match="2 texts cannot be compared with 1"):
        exact_match(["a", "b"], ["a"])


def test_chrf() -> None:
    assert chrf(["the same"], ["the same"]) == pytest.approx(1.0)
    assert chrf(["abc"], ["xyz"]) == 0.0
    assert chrf(["ab cd"], ["abcd"]) == pytest.approx(1.0)  # white space does not count
    # n = 1: 2 of 2 found, 2 of 3 wanted; n = 2: 1 of 1, 1 of 2; n = 3: nothing is found.
    precision, recall = (2 / 2 + 1 / 1) / 2, (2 / 3 + 1 / 2) / 2
    expected = 5 * precision * recall / (4 * precision + recall)
    assert chrf(["ab"], ["abc"]) == pytest.approx(expected)
    # Recall weighs more: leaving out costs more than adding.
    assert chrf(["abcd"], ["abcdefgh"]) < chrf(["abcdefgh"], ["abcd"])


def test_character_ngrams() -> None:
    model = CharacterNgrams(["abab" * 20], order=3)
    chances = [model.probability("ab", c) for c in "abc"]
    assert chances[0] > 0.9 > 0.05 > chances[1] > chances[2] > 0
    seen = sum(model.probability("ab", c) for c in "ab")
    rest = (CharacterNgrams.ALPHABET - 2) * model.probability("ab", "z")
    assert seen + rest == pytest.approx(1.0)
    first = CharacterNgrams(["aab"], order=1)
    bits = -math.log2((2 + 2 / 0x110000) / 5)
    assert first.bits_per_character(["a"]) == pytest.approx(bits)
    assert model.bits_per_character(["abababab"]) < 1 < model.bits_per_character(["bbaa"])
