"""Documents that pass through a file come out as if they had all been kept in memory."""

from __future__ import annotations

import json
import random
import tracemalloc
from pathlib import Path

import pytest

from groundup.data.clean import SIMILAR, contains_slur, is_one_sided, jaccard, shingles, signature
from groundup.data.config import DataConfig, SourceConfig
from groundup.data.corpora import CORPORA
from groundup.data.documents import Document, documents_file, read_documents
from groundup.data.sources import read_source
from groundup.data.split import place, prepare, split


def in_memory(config: DataConfig) -> list[tuple[list[Document], list[Document]]]:
    """(train, held out) of each source, by the plainest means."""
    kept: list[Document] = []
    parts = []
    seen: set[str] = set()
    buckets: dict[tuple[int, bytes], list[int]] = {}
    for source in config.sources:
        own = []
        exempt = source.name in CORPORA and CORPORA[source.name].historical
        for document in read_source(source):
            text = document.as_text()
            if not text.strip() or is_one_sided(document) or text in seen:
                continue
            if contains_slur(text) and not exempt:
                continue
            seen.add(text)
            mine = shingles(text)
            bands = [(band, row.tobytes()) for band, row in enumerate(signature(mine))]
            rivals = {number for band in bands for number in buckets.get(band, ())}
            if any(jaccard(mine, shingles(kept[i].as_text())) >= SIMILAR for i in rivals):
                continue
            for band in bands:
                buckets.setdefault(band, []).append(len(kept))
            kept.append(document)
            own.append(document)
        sides = split([place(document) for document in own], config.heldout_fraction)
        parts.append(
            tuple([d for d, out in zip(own, sides, strict=True) if out == side] for side in (0, 1))
        )
    return parts


def in_files(config: DataConfig, folder: Path) -> list[tuple[list[Document], list[Document]]]:
    sources = prepare(config, folder).sources
    return [
        tuple(
            list(read_documents(documents_file(folder, source.key, part)))
            for part in ("train", "heldout")
        )
        for source in sources
    ]


def write_sources(folder: Path, count: int) -> tuple[SourceConfig, ...]:
    """Two sources of texts and chats, with copies and near-copies within and across them."""
    generator = random.Random(17)
    texts: list[str] = []
    for _ in range(count):
        if texts and generator.random() < 0.3:
            words = generator.choice(texts).split()
            for _ in range(generator.choice([0, 0, 1, 2, 5])):
                words[generator.randrange(len(words))] = "other"
        else:
            words = [f"w{generator.randrange(900)}" for _ in range(generator.randrange(1, 120))]
        texts.append(" ".join(words))
    rows = [
        {"text": text}
        if generator.random() < 0.6
        else {
            "messages": [
                {"role": "user", "content": "“quoted” ü\n?"},
                {"role": generator.choice(["assistant", "user"]), "content": text},
            ]
        }
        for text in texts
    ]
    paths = [folder / "one.jsonl", folder / "two.jsonl"]
    for path, part in zip(paths, (rows[::2], rows[1::2]), strict=True):
        path.write_text("".join(json.dumps(row) + "\n" for row in part))
    return tuple(SourceConfig(name=str(path)) for path in paths)


def test_the_same_documents_in_the_same_order(tmp_path: Path) -> None:
    config = DataConfig(sources=write_sources(tmp_path, 700), heldout_fraction=0.1)
    expected = in_memory(config)
    assert all(len(train) > 100 and len(heldout) > 10 for train, heldout in expected)
    assert in_files(config, tmp_path / "out") == expected
    stats = prepare(config, tmp_path / "again").stats()["total"]
    assert stats["exact_duplicates"] > 20 and stats["near_duplicates"] > 20


def test_memory_does_not_grow_with_the_text(tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    generator = random.Random(3)
    with open(path, "w") as file:
        for _ in range(600):
            words = (f"w{generator.randrange(5000)}" for _ in range(1_500))
            file.write(json.dumps({"text": " ".join(words)}) + "\n")
    config = DataConfig(sources=(SourceConfig(name=str(path)),))
    tracemalloc.start()
    try:
        prepare(config, tmp_path / "out")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 0.8 * path.stat().st_size  # less than a copy of the text alone


@pytest.mark.slow
@pytest.mark.network
def test_the_same_for_the_default_corpora(tmp_path: Path) -> None:
    assert in_files(DataConfig(), tmp_path) == in_memory(DataConfig())
