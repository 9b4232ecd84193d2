"""From a data config to clean documents in two parts: one to train on, one held out.

The order of work matters: read, clean, drop near-duplicates over all sources together, and only
then split, so that no copy of a held-out document is trained on. Which part a document falls into
depends on its content alone; it does not move when other documents come or go.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

from groundup.config import UserError
from groundup.data.clean import Deduplicator, contains_slur, is_one_sided
from groundup.data.config import DataConfig, SourceConfig
from groundup.data.corpora import CORPORA
from groundup.data.documents import Document
from groundup.data.sources import read_source


@dataclass
class SourceStats:
    """What was read from a source, what was dropped and why, and what is left (as text)."""

    read: int = 0
    empty: int = 0
    one_sided: int = 0
    slurs: int = 0
    exact_duplicates: int = 0
    near_duplicates: int = 0
    train_documents: int = 0
    train_characters: int = 0
    train_bytes: int = 0
    heldout_documents: int = 0
    heldout_characters: int = 0
    heldout_bytes: int = 0


@dataclass
class PreparedSource:
    """The clean documents of one source."""

    config: SourceConfig
    train: list[Document] = field(default_factory=list)
    heldout: list[Document] = field(default_factory=list)
    stats: SourceStats = field(default_factory=SourceStats)

    @property
    def has_messages(self) -> bool:
        """Whether the source holds conversations, which chat fine-tuning can use."""
        return any(document.messages for document in self.train)


@dataclass
class PreparedData:
    """The clean documents of all sources, in the order of the config."""

    sources: list[PreparedSource]

    @property
    def train(self) -> list[Document]:
        return [document for source in self.sources for document in source.train]

    @property
    def heldout(self) -> list[Document]:
        return [document for source in self.sources for document in source.heldout]

    def stats(self) -> dict[str, dict[str, int]]:
        """Counts by source name, and their sums under "total"."""
        table = {source.config.name: asdict(source.stats) for source in self.sources}
        keys = asdict(SourceStats())
        table["total"] = {key: sum(row[key] for row in table.values()) for key in keys}
        return table


def prepare(config: DataConfig, progress: Callable[[str, int], None] | None = None) -> PreparedData:
    """Read, clean, deduplicate and split all sources. Documents stay in memory.

    `progress(source name, documents read so far)` is called every 256 documents and at the end of
    a source. Raises UserError when nothing is left to train on or to hold out.
    """
    deduplicator = Deduplicator()
    sources = []
    for source in config.sources:
        prepared = PreparedSource(source)
        documents = _clean(prepared, config, deduplicator, progress)
        if not documents:
            raise UserError(
                f"Source {source.name} leaves nothing to train on: of its {prepared.stats.read} "
                f"documents{_dropped(prepared.stats)}."
            )
        prepared.train, prepared.heldout = split(documents, config.heldout_fraction)
        _count(prepared)
        sources.append(prepared)
    if config.heldout_fraction > 0 and not any(source.heldout for source in sources):
        raise UserError(
            "The sources hold one document each, so none can be held out: add documents, or set "
            "data.heldout_fraction to 0."
        )
    return PreparedData(sources)


def split(documents: Sequence[Document], fraction: float) -> tuple[list[Document], list[Document]]:
    """(train, held out), each in the given order; `fraction` of documents is held out on average.

    A document is held out when the hash of its content, as a number from 0 to 1, is below
    `fraction`. Of two documents or more at least one is held out and one is not: where the hashes
    would have it otherwise, the document with the lowest (highest) hash changes sides.
    """
    if fraction == 0 or len(documents) < 2:
        return list(documents), []
    places = [_place(document) for document in documents]
    limit = min(max(fraction, min(places) + 2**-53), max(places))
    train = [document for document, place in zip(documents, places, strict=True) if place >= limit]
    heldout = [document for document, place in zip(documents, places, strict=True) if place < limit]
    return train, heldout


def _place(document: Document) -> float:
    """Hash of the content (roles included, for conversations) as a number in [0, 1)."""
    roles = " ".join(message["role"] for message in document.messages)
    digest = hashlib.sha256(f"{roles}\n{document.as_text()}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def _clean(
    source: PreparedSource,
    config: DataConfig,
    deduplicator: Deduplicator,
    progress: Callable[[str, int], None] | None,
) -> list[Document]:
    name, stats = source.config.name, source.stats
    filter_slurs = config.filter_slurs and not (name in CORPORA and CORPORA[name].historical)
    kept = []
    for document in read_source(source.config):
        stats.read += 1
        if progress and stats.read % 256 == 0:
            progress(name, stats.read)
        text = document.as_text()
        if not text.strip():
            stats.empty += 1
        elif is_one_sided(document):
            stats.one_sided += 1
        elif filter_slurs and contains_slur(text):
            stats.slurs += 1
        elif verdict := (deduplicator.judge(document) if config.deduplicate else ""):
            stats.exact_duplicates += verdict == "exact"
            stats.near_duplicates += verdict == "near"
        else:
            kept.append(document)
    if progress:
        progress(name, stats.read)
    return kept


def _count(source: PreparedSource) -> None:
    stats = source.stats
    train = [document.as_text() for document in source.train]
    heldout = [document.as_text() for document in source.heldout]
    stats.train_documents, stats.heldout_documents = len(train), len(heldout)
    stats.train_characters, stats.heldout_characters = sum(map(len, train)), sum(map(len, heldout))
    stats.train_bytes = sum(len(text.encode()) for text in train)
    stats.heldout_bytes = sum(len(text.encode()) for text in heldout)


def _dropped(stats: SourceStats) -> str:
    """ " 3 were empty, 2 held slurs"."""
    reasons = {
        "empty": "were empty",
        "one_sided": "were conversations without a reply",
        "slurs": "held slurs",
        "exact_duplicates": "were copies of earlier ones",
        "near_duplicates": "were near-copies of earlier ones",
    }
    counts = asdict(stats)
    drops = [f" {counts[key]} {why}" for key, why in reasons.items() if counts[key]]
    return ",".join(drops) or " none could be used"
