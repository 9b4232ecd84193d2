"""Training: deterministic, exact counts, sensible on tiny texts."""

from __future__ import annotations

import logging
import random

import pytest

from groundup.config import UserError
from groundup.text.config import TokenizerConfig
from groundup.text.train import train_tokenizer

TEXTS = ["the cat sat on the mat, the cat was fat. ", "ééé the naïve 🙂 cat\n", ""]


def pieces(tokenizer) -> list[bytes]:
    return list(tokenizer.vocabulary.pieces[256:-7])


def test_training_is_deterministic_and_streams() -> None:
    rng = random.Random(3)
    texts = ["".join(rng.choices("abcde ", k=200)) for _ in range(50)]
    config = TokenizerConfig(vocab_size=500)
    first = train_tokenizer(config, texts)
    assert first.vocab_size == 500
    assert {train_tokenizer(config, iter(texts)).fingerprint for _ in range(3)} == {
        first.fingerprint
    }


def test_the_most_frequent_pair_comes_first_and_ties_go_to_the_lowest_ids() -> None:
    common = train_tokenizer(TokenizerConfig(vocab_size=263 + 2), ["xy xy xy zz ab"])
    assert pieces(common) == [b"xy", b" xy"]
    tied = train_tokenizer(TokenizerConfig(vocab_size=263 + 3), ["zy", "ba", "dc"])
    assert pieces(tied) == [b"ba", b"dc", b"zy"]


def test_no_merge_crosses_a_word_or_a_text() -> None:
    tokenizer = train_tokenizer(TokenizerConfig(vocab_size=400), ["ab cd"] * 5 + ["a", "b"] * 9)
    assert set(pieces(tokenizer)) == {b"ab", b" c", b" cd"}


@pytest.mark.parametrize("texts", [[], [""], ["a"], ["ab"]])
def test_a_tiny_text_gives_a_smaller_vocabulary_and_says_so(
    texts: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        tokenizer = train_tokenizer(TokenizerConfig(vocab_size=1000), texts)
    assert tokenizer.vocab_size == 263 + len(pieces(tokenizer)) <= 264
    assert "too small for a vocabulary of 1000" in caplog.text
    assert tokenizer.decode(tokenizer.encode("anything é")) == "anything é"


def test_characters_and_words_are_the_most_frequent() -> None:
    char = train_tokenizer(TokenizerConfig(kind="char"), TEXTS)
    assert pieces(char) == ["é".encode(), "ï".encode(), "🙂".encode()]
    assert len(char.encode("é🙂a")) == 3 and len(char.encode("ü")) == 2
    fewer = train_tokenizer(TokenizerConfig(kind="char", vocab_size=264), TEXTS)
    assert pieces(fewer) == ["é".encode()]
    word = train_tokenizer(TokenizerConfig(kind="word", vocab_size=266), TEXTS)
    assert pieces(word) == [b" cat", b" the", b" fat"]
    assert len(word.encode(" the cat")) == 2 and len(word.encode(" dog")) == 4


def test_kinds_without_training() -> None:
    byte = train_tokenizer(TokenizerConfig(kind="byte"), TEXTS)
    assert byte.vocab_size == 263 and byte.encode("é") == list("é".encode())


def test_training_reads_max_characters_and_no_more() -> None:
    text = "".join(random.Random(1).choices("abcdef ", k=40_000))
    config = TokenizerConfig(vocab_size=400, max_characters=20_000)
    whole = train_tokenizer(TokenizerConfig(vocab_size=400), [text[:19_000], text[19_000:20_000]])
    assert train_tokenizer(config, [text[:19_000], text[19_000:]]).fingerprint == whole.fingerprint
    with pytest.raises(UserError, match="max_characters should be positive"):
        TokenizerConfig(max_characters=0)


def test_too_small_a_vocabulary_is_refused() -> None:
    with pytest.raises(UserError, match="vocab_size = 263"):
        TokenizerConfig(vocab_size=262)


def test_surrogates_and_endless_words_do_not_stop_training() -> None:
    texts = ["\ud800 a \udfff", " " * 1_200_000 + "x", "a" * 100_000]
    assert train_tokenizer(TokenizerConfig(vocab_size=280), texts).vocab_size == 280
