"""From config to two parts: what decides the side of a document, the order of work, the counts."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.config import UserError
from groundup.data import clean
from groundup.data.config import DataConfig, SourceConfig
from groundup.data.corpora import CORPORA
from groundup.data.documents import Document, documents_file, read_documents
from groundup.data.split import PreparedSource, place, prepare, split


def documents(count: int, seed: int = 0) -> list[Document]:
    generator = random.Random(seed)
    return [Document("test", str(i), f"text {generator.random()}") for i in range(count)]


def write(path: Path, rows: list[dict]) -> SourceConfig:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return SourceConfig(name=str(path))


def texts(count: int, seed: int) -> list[str]:
    generator = random.Random(seed)
    return [" ".join(f"w{generator.randrange(9999)}" for _ in range(40)) for _ in range(count)]


def divide(source: list[Document], fraction: float) -> tuple[list[Document], list[Document]]:
    """(train, held out), each in the given order."""
    sides = split([place(document) for document in source], fraction)
    pairs = list(zip(source, sides, strict=True))
    return [d for d, out in pairs if not out], [d for d, out in pairs if out]


def written(folder: Path, source: PreparedSource, split: str) -> list[Document]:
    return list(read_documents(documents_file(folder, source.key, split)))


def test_the_share_held_out_is_the_fraction():
    train, heldout = divide(documents(4000), 0.05)
    assert len(train) + len(heldout) == 4000
    assert 150 < len(heldout) < 250


@settings(deadline=None, max_examples=40, derandomize=True)
@given(st.integers(2, 60), st.floats(0.001, 0.999), st.integers(0, 99))
def test_both_parts_hold_something_and_nothing_is_lost(count, fraction, seed):
    source = documents(count, seed)
    train, heldout = divide(source, fraction)
    assert train and heldout
    assert sorted(train + heldout, key=source.index) == source
    assert train == sorted(train, key=source.index)


def test_the_side_of_a_document_depends_on_its_content_alone():
    source = documents(900)
    _, heldout = divide(source, 0.1)
    shuffled = [Document("other", f"x{i}", d.text) for i, d in enumerate(reversed(source))]
    more = divide(shuffled + documents(300, seed=1), 0.1)[1]
    assert {d.text for d in heldout} == {d.text for d in more} & {d.text for d in source}


def test_copies_stay_together():
    source = documents(200)
    train, heldout = divide(source + source, 0.2)
    assert not {d.text for d in train} & {d.text for d in heldout}


def test_nothing_is_held_out_of_one_document_or_at_fraction_zero():
    assert divide(documents(1), 0.5) == (documents(1), [])
    assert divide(documents(9), 0.0) == (documents(9), [])


def test_prepare_cleans_all_sources_and_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(clean, "_SLURS", frozenset([clean._HASHES["grobble"]]))
    plain, talk = texts(50, seed=1), texts(30, seed=2)
    near = plain[7].replace(" ", ", ")
    chats = [
        [{"role": "user", "content": text}, {"role": "assistant", "content": "ü"}] for text in talk
    ]
    first = write(
        tmp_path / "plain.jsonl",
        [{"text": text} for text in [*plain, plain[3], near, "  ", "You Grobble!"]],
    )
    second = write(
        tmp_path / "chats.jsonl",
        [{"messages": chat} for chat in [*chats, chats[0][:1]]] + [{"text": plain[9]}],
    )
    seen: list[tuple[str, int]] = []
    folder = tmp_path / "out"
    data = prepare(DataConfig(sources=(first, second)), folder, lambda *args: seen.append(args))
    assert seen == [(first.name, 54), (second.name, 32)]
    one, two = data.sources
    stats = data.stats()
    train, heldout = (written(folder, one, split) for split in ("train", "heldout"))
    more = [*written(folder, two, "train"), *written(folder, two, "heldout")]
    assert len(list(folder.iterdir())) == 4  # the temporary file is gone
    assert stats[first.name] == {
        "read": 54,
        "empty": 1,
        "one_sided": 0,
        "slurs": 1,
        "exact_duplicates": 1,
        "near_duplicates": 1,
        "train_documents": len(train),
        "train_characters": sum(len(d.text) for d in train),
        "train_bytes": sum(len(d.text) for d in train),
        "heldout_documents": len(heldout),
        "heldout_characters": sum(len(d.text) for d in heldout),
        "heldout_bytes": sum(len(d.text) for d in heldout),
    }
    assert [d.text for d in train] == [t for t in plain if t in {d.text for d in train}]
    assert [d.text for d in heldout] == [t for t in plain if t in {d.text for d in heldout}]
    assert sorted(d.text for d in train + heldout) == sorted(plain)
    assert sorted(d.messages[0]["content"] for d in more) == sorted(talk)
    # A copy is dropped across sources too, so none of the held-out text is trained on.
    assert stats[second.name]["exact_duplicates"] == 1
    assert stats[second.name]["one_sided"] == 1
    assert stats[second.name]["train_bytes"] == (
        stats[second.name]["train_characters"] + stats[second.name]["train_documents"]
    )
    assert stats["total"]["read"] == 86
    assert stats["total"]["train_documents"] + stats["total"]["heldout_documents"] == 80
    assert (one.has_messages, two.has_messages) == (False, True)

    kept = prepare(
        DataConfig(sources=(first, second), deduplicate=False, filter_slurs=False), folder
    ).stats()["total"]
    assert kept["train_documents"] + kept["heldout_documents"] == 84


def test_historical_corpora_are_exempt_from_the_slur_filter():
    assert CORPORA["shakespeare"].historical
    assert not CORPORA["chitchat"].historical


def test_nothing_left_is_one_clear_error(tmp_path):
    one = write(tmp_path / "one.jsonl", [{"text": "alone"}])
    with pytest.raises(UserError, match="none can be held out"):
        prepare(DataConfig(sources=(one,)), tmp_path)
    (source,) = prepare(DataConfig(sources=(one,), heldout_fraction=0.0), tmp_path).sources
    assert [d.text for d in written(tmp_path, source, "train")] == ["alone"]
    assert written(tmp_path, source, "heldout") == []
    blank = write(tmp_path / "blank.jsonl", [{"text": " "}] * 3)
    with pytest.raises(UserError, match=r"of its 3 documents 3 were empty\.$"):
        prepare(DataConfig(sources=(blank,)), tmp_path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DataConfig(sources=()), "sources is empty"),
        (lambda: DataConfig(sources=(SourceConfig(name="a"),) * 2), "listed twice"),
        (lambda: DataConfig(heldout_fraction=1.0), "heldout_fraction"),
        (lambda: SourceConfig(name=""), "no name"),
        (lambda: SourceConfig(name="a", weight=0.0), "weight"),
        (lambda: SourceConfig(name="a", max_documents=-1), "max_documents"),
    ],
)
def test_bad_configs(make, message):
    with pytest.raises(UserError, match=message):
        make()
