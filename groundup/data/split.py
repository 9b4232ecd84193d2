"""From a data config to clean documents in two parts: one to train on, one held out.

The order of work matters: read, clean, drop near-duplicates over all sources together, and only
then split, so that no copy of a held-out document is trained on. Which part a document falls into
depends on its content alone; it does not move when other documents come or go.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from groundup.config import UserError
from groundup.data.clean import Deduplicator, contains_slur, is_one_sided
from groundup.data.config import DataConfig, SourceConfig
from groundup.data.corpora import CORPORA
from groundup.data.documents import Document, documents_file, read_line
from groundup.data.sources import read_source
from groundup.files import atomic_write


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
    """What became of one source. `key` names its files: see `documents_file`."""

    config: SourceConfig
    key: str
    stats: SourceStats = field(default_factory=SourceStats)
    has_messages: bool = False
    """Whether there are conversations to train on, which chat fine-tuning can use."""


@dataclass
class PreparedData:
    """What became of all sources, in the order of the config."""

    sources: list[PreparedSource]

    def stats(self) -> dict[str, dict[str, int]]:
        """Counts by source name, and their sums under "total"."""
        table = {source.config.name: asdict(source.stats) for source in self.sources}
        keys = asdict(SourceStats())
        table["total"] = {key: sum(row[key] for row in table.values()) for key in keys}
        return table


def prepare(
    config: DataConfig, folder: Path, progress: Callable[[str, int], None] | None = None
) -> PreparedData:
    """Read, clean, deduplicate and split all sources into files of documents in `folder`.

    The documents pass through a temporary file in `folder`, and about 500 bytes of each stay in
    memory. `progress(source name, documents read so far)` is called every 256 documents and at the
    end of a source. Raises UserError when nothing is left to train on or to hold out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        spool, deduplicator = _Spool(file), Deduplicator()
        sources, numbers = [], []
        for position, source in enumerate(config.sources):
            prepared = PreparedSource(source, _key(position, source.name))
            first = len(spool.entries)
            _clean(prepared, config, spool, deduplicator, progress)
            sources.append(prepared)
            numbers.append(np.arange(first, len(spool.entries)))
        if config.deduplicate:
            near = deduplicator.near_copies(lambda number: spool.document(number).as_text())
            for prepared, own in zip(sources, numbers, strict=True):
                prepared.stats.near_duplicates = int(near[own].sum())
            numbers = [own[~near[own]] for own in numbers]
        for prepared, own in zip(sources, numbers, strict=True):
            if not len(own):
                raise UserError(
                    f"Source {prepared.config.name} leaves nothing to train on: of its "
                    f"{prepared.stats.read} documents{_dropped(prepared.stats)}."
                )
            _write(prepared, own.tolist(), config.heldout_fraction, spool, folder)
    if config.heldout_fraction > 0 and not any(one.stats.heldout_documents for one in sources):
        raise UserError(
            "The sources hold one document each, so none can be held out: add documents, or set "
            "data.heldout_fraction to 0."
        )
    return PreparedData(sources)


def split(places: Sequence[float], fraction: float) -> list[bool]:
    """Which documents are held out, by the `place` of each; `fraction` of them on average.

    A document is held out when its place is below `fraction`. Of two documents or more at least
    one is held out and one is not: where the places would have it otherwise, the document with the
    lowest (highest) place changes sides.
    """
    if fraction == 0 or len(places) < 2:
        return [False] * len(places)
    limit = min(max(fraction, min(places) + 2**-53), max(places))
    return [place < limit for place in places]


def place(document: Document) -> float:
    """Hash of the content (roles included, for conversations) as a number in [0, 1)."""
    roles = " ".join(message["role"] for message in document.messages)
    digest = hashlib.sha256(f"{roles}\n{document.as_text()}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


class _Entry(NamedTuple):
    """What is remembered of a document in the spool: where it begins there, and its figures."""

    offset: int
    place: float
    characters: int
    bytes: int
    has_messages: bool


class _Spool:
    """Documents in a file, to be read again by number."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.entries: list[_Entry] = []

    def add(self, document: Document) -> None:
        text = document.as_text()
        where, size = self._file.tell(), len(text.encode())
        entry = _Entry(where, place(document), len(text), size, bool(document.messages))
        self.entries.append(entry)
        self._file.write(document.as_line())

    def line(self, number: int) -> bytes:
        self._file.seek(self.entries[number].offset)
        return self._file.readline()

    def document(self, number: int) -> Document:
        return read_line(self.line(number))


def _clean(
    source: PreparedSource,
    config: DataConfig,
    spool: _Spool,
    deduplicator: Deduplicator,
    progress: Callable[[str, int], None] | None,
) -> None:
    """Put into the spool what is worth training on, near-copies included."""
    name, stats = source.config.name, source.stats
    filter_slurs = config.filter_slurs and not (name in CORPORA and CORPORA[name].historical)
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
        elif config.deduplicate and deduplicator.is_copy(text):
            stats.exact_duplicates += 1
        else:
            spool.add(document)
    if progress:
        progress(name, stats.read)


def _write(
    source: PreparedSource, numbers: list[int], fraction: float, spool: _Spool, folder: Path
) -> None:
    """Divide the documents of a source between its two files, and count them."""
    held_out = split([spool.entries[number].place for number in numbers], fraction)
    stats = source.stats
    with (
        atomic_write(documents_file(folder, source.key, "train"), "wb") as train,
        atomic_write(documents_file(folder, source.key, "heldout"), "wb") as heldout,
    ):
        for number, out in zip(numbers, held_out, strict=True):
            entry = spool.entries[number]
            (heldout if out else train).write(spool.line(number))
            if out:
                stats.heldout_documents += 1
                stats.heldout_characters += entry.characters
                stats.heldout_bytes += entry.bytes
            else:
                stats.train_documents += 1
                stats.train_characters += entry.characters
                stats.train_bytes += entry.bytes
                source.has_messages |= entry.has_messages


def _key(position: int, name: str) -> str:
    """A name for the files of a source, such as "0-shakespeare"."""
    return f"{position}-{re.sub(r'[^A-Za-z0-9]+', '-', name).strip('-')[-40:]}"


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
