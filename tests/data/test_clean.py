"""What is worth training on: the slur filter, one-sided chats and near-duplicates."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.data import clean
from groundup.data.clean import (
    Deduplicator,
    contains_slur,
    is_one_sided,
    jaccard,
    shingles,
    signature,
)
from groundup.data.documents import Document
from groundup.text.chat import Message


def text_document(text: str) -> Document:
    return Document("test", "1", text)


def random_words(generator: random.Random, count: int) -> list[str]:
    return [f"w{generator.randrange(5000)}" for _ in range(count)]


@pytest.fixture
def a_slur(monkeypatch: pytest.MonkeyPatch) -> str:
    digest = hashlib.sha256(b"grobble").hexdigest()[:16]
    monkeypatch.setattr(clean, "_SLURS", frozenset([int(digest, 16)]))
    return "grobble"


def test_slurs_are_whole_words_in_any_case(a_slur):
    assert contains_slur(f"You {a_slur.title()}!")
    assert contains_slur(f"x-{a_slur.upper()}_x")
    assert not contains_slur(f"un{a_slur} {a_slur}ing")
    assert not contains_slur("")


def test_the_slur_list_is_hashes_and_spares_ordinary_words():
    assert len(clean._SLURS) > 100
    innocent = (
        "gypsy queer spade black white jew muslim gay lesbian negro slave hell damn niggardly"
    )
    assert not contains_slur(innocent)


def test_one_sided_conversations():
    user: Message = {"role": "user", "content": "hello?"}
    reply: Message = {"role": "assistant", "content": "hi"}
    silent: Message = {"role": "assistant", "content": "  "}
    assert is_one_sided(Document("test", "1", messages=(user,)))
    assert is_one_sided(Document("test", "1", messages=(user, silent)))
    assert not is_one_sided(Document("test", "1", messages=(user, reply)))
    assert not is_one_sided(text_document("plain text"))


def verdicts(texts: list[str]) -> list[str]:
    """ "exact" or "near" for each text that is a copy of an earlier one, else ""."""
    deduplicator = Deduplicator()
    exact = [deduplicator.is_copy(text) for text in texts]
    noted = [text for text, copy in zip(texts, exact, strict=True) if not copy]
    near = iter(deduplicator.near_copies(noted.__getitem__).tolist())
    return ["exact" if copy else "near" if next(near) else "" for copy in exact]


def test_copies_and_near_copies_are_dropped_and_the_first_is_kept():
    generator = random.Random(3)
    words = random_words(generator, 400)
    edited = [*words[:200], "inserted", *words[200:]]
    half = words[:200] + random_words(generator, 200)
    documents = [
        text_document(" ".join(words)),
        text_document(" ".join(random_words(generator, 300))),
        text_document(" ".join(edited)),
        text_document(" ".join(words)),
        text_document(" ".join(word.upper() + "," for word in words)),
        text_document(" ".join(half)),
    ]
    assert verdicts([document.text for document in documents]) == [
        "",
        "",
        "near",
        "exact",
        "near",
        "",
    ]


def test_short_texts_are_compared_whole():
    texts = ["hi", "Hi!", "hi there", "?", "!", ""]
    assert [verdicts([text]) for text in texts] == [[""]] * 6
    assert verdicts(texts) == ["", "near", "", "", "", ""]


def test_every_near_copy_is_found_and_no_other_pair():
    """Against the quadratic search that compares each document with all kept ones."""
    generator = random.Random(11)
    documents = []
    for _ in range(60):
        words = random_words(generator, generator.randrange(30, 300))
        documents.append(text_document(" ".join(words)))
        for _ in range(generator.randrange(4)):
            copy = list(words)
            for _ in range(generator.randrange(0, max(2, len(words) // 20))):
                copy[generator.randrange(len(copy))] = "changed"
            documents.append(text_document(" ".join(copy)))
    generator.shuffle(documents)
    kept: list[Document] = []
    for document in documents:
        own = shingles(document.text)
        if all(jaccard(own, shingles(other.text)) < clean.SIMILAR for other in kept):
            kept.append(document)
    assert 60 <= len(kept) < len(documents) - 20
    found = verdicts([document.text for document in documents])
    assert [one for one, copy in zip(documents, found, strict=True) if not copy] == kept


def test_no_documents_have_no_copies():
    assert Deduplicator().near_copies(lambda number: "").tolist() == []


def test_equal_signature_entries_estimate_similarity():
    generator = random.Random(5)
    words = random_words(generator, 3000)
    other = words[:2000] + random_words(generator, 700)
    first, second = shingles(" ".join(words)), shingles(" ".join(other))
    agreement = float(np.mean(signature(first) == signature(second)))
    assert abs(agreement - jaccard(first, second)) < 0.2
    assert signature(first).shape == (clean.BANDS, clean.ROWS)


@settings(deadline=None, max_examples=50, derandomize=True)
@given(
    st.lists(st.sampled_from("abcdefg"), min_size=1, max_size=40),
    st.lists(st.sampled_from("abcdefg"), min_size=1, max_size=40),
)
def test_jaccard_is_that_of_the_sets_of_word_groups(first, second):
    def groups(words: list[str]) -> set[tuple[str, ...]]:
        span = min(clean.SHINGLE, len(words))
        return {tuple(words[i : i + span]) for i in range(len(words) - span + 1)}

    one, two = groups(first), groups(second)
    expected = len(one & two) / len(one | two)
    assert jaccard(shingles(" ".join(first)), shingles(" ".join(second))) == pytest.approx(expected)
