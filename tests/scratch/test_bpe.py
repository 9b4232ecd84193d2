"""The readable BPE learns the merges of the fast trainer and encodes as the fast encoder."""

from __future__ import annotations

import inspect
import pydoc_data.topics
import random

import pytest

from groundup.scratch import bpe
from groundup.text.config import TokenizerConfig
from groundup.text.train import train_tokenizer

PROSE = "".join(pydoc_data.topics.topics.values())[:150_000]


@pytest.mark.parametrize(
    ("texts", "merges"),
    [
        ([PROSE], 600),
        ([inspect.getsource(random), "It's naïve, 日本語! 🙂🙂🙂 don't\n\n\t x"], 300),
        (["a" * 7 + " " + "a" * 11, "hahaha haha", "-----", "aab aba baa"], 40),
    ],
)
def test_merges_equal_the_fast_trainers(texts: list[str], merges: int) -> None:
    slow = bpe.train(texts, 256 + merges)
    fast = train_tokenizer(TokenizerConfig(vocab_size=263 + merges), texts)
    assert slow.pieces() == list(fast.vocabulary.pieces[:-7])  # type: ignore[attr-defined]
    for text in texts:
        assert slow.encode(text[:5000]) == fast.encode(text[:5000])
        assert slow.decode(slow.encode(text[:5000])) == text[:5000]


@pytest.mark.parametrize("seed", range(20))
def test_ties_and_repeats(seed: int) -> None:
    rng = random.Random(seed)
    alphabet = rng.choice(["ab", "abc ", "ha-! ", "aé 1\n"])
    text = "".join(rng.choices(alphabet, k=rng.choice([20, 100, 400])))
    fast = train_tokenizer(TokenizerConfig(vocab_size=310), [text])
    slow = bpe.train(text, 303)
    assert slow.pieces() == list(fast.vocabulary.pieces[:-7])  # type: ignore[attr-defined]
    other = "".join(rng.choices(alphabet, k=200))
    assert slow.encode(other) == fast.encode(other)


def test_stops_when_nothing_is_left_to_merge() -> None:
    assert bpe.train("ab", 1000).pieces()[256:] == [b"ab"]
    assert bpe.train([], 300).encode("é") == list("é".encode())


def test_merge_goes_from_left_to_right() -> None:
    assert bpe.merge([1, 1, 1, 2, 1, 1], (1, 1), 9) == [9, 1, 2, 9]
    assert bpe.merge([], (1, 2), 3) == []
