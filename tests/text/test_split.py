"""Words and stretches: the same for every engine, and nothing lost at the cuts."""

from __future__ import annotations

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex
from tokenizers.pre_tokenizers import Split

from groundup.text.split import PATTERNS, stretches, well_formed

LIVELY = st.text(alphabet="aZé日² 1٣.,'’-_\n\r\t\u00a0\u2028🙂\u0301s", max_size=60)
BYTES = {bytes([value]): value for value in range(256)}


def words(text: str, pattern: str) -> list[str]:
    return [word for word, _ in Split(Regex(pattern), "isolated").pre_tokenize_str(text)]


@pytest.mark.parametrize("signs", [r"\p{L}", r"\p{N}", r"\s", r"[^\s\p{L}\p{N}]"])
def test_all_engines_class_every_character_alike(signs: str) -> None:
    everything = "".join(chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000)
    split = Split(Regex(signs), "removed", invert=True)
    ours = "".join(part for part, _ in split.pre_tokenize_str(everything))
    matched = tiktoken.Encoding("", pat_str=signs, mergeable_ranks=BYTES, special_tokens={})
    assert bytes(matched.encode_ordinary(everything)).decode() == ours
    assert len(ours) > 20


@pytest.mark.parametrize("name", PATTERNS)
@settings(deadline=None, max_examples=150, derandomize=True)
@given(text=LIVELY)
def test_patterns_cover_every_text(name: str, text: str) -> None:
    assert "".join(words(text, PATTERNS[name])) == text


def test_gpt4_cuts_words_digits_and_signs() -> None:
    text = "I'll pay 12345 €!!\n\n  We'LL see"
    expected = ["I", "'ll", " pay", " ", "123", "45", " €!!\n\n", " ", " We", "'LL", " see"]
    assert words(text, PATTERNS["gpt4"]) == expected
    assert words("12345", PATTERNS["digits"]) == list("12345")
    assert words("x  12345\n\ny", PATTERNS["gpt2"]) == ["x", " ", " 12345", "\n", "\n", "y"]


@pytest.mark.parametrize("name", PATTERNS)
@settings(deadline=None, max_examples=150, derandomize=True)
@given(text=LIVELY, size=st.integers(1, 9))
def test_stretches_join_to_the_text_and_are_bounded(name: str, text: str, size: int) -> None:
    parts = list(stretches(text, size))
    assert "".join(parts) == text
    assert all(len(part) <= 2 * size for part in parts)


@pytest.mark.parametrize("name", PATTERNS)
@settings(deadline=None, max_examples=150, derandomize=True)
@given(texts=st.lists(LIVELY, min_size=2, max_size=6))
def test_a_safe_cut_changes_no_word(name: str, texts: list[str]) -> None:
    # "a b" and "1\n" offer a safe cut in every stretch, whatever stands around them
    text = "a b1\n".join(texts)
    pattern = PATTERNS[name]
    size = max(map(len, texts)) + 5
    parts = list(stretches(text, size))
    assert [word for part in parts for word in words(part, pattern)] == words(text, pattern)


def test_surrogates() -> None:
    assert well_formed("a\ud83d\ude42b") == "a🙂b"
    assert well_formed("a\udc00b\ud800") == "a\ufffdb\ufffd"
    assert well_formed("naïve 🙂") == "naïve 🙂"
