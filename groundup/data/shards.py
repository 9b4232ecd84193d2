"""Token shards: a tokenised corpus on disk, memory-mapped, with a manifest that vouches for it.

A folder holds one stream of tokens, `tokens_00000.bin`, `tokens_00001.bin`, ..., cut into files of
equal size without regard to documents; `documents.bin`, where in the stream each document starts;
and `manifest.json`. Every document starts with `<|bos|>`. Integers are little-endian: tokens uint16
(uint32 when the vocabulary needs it), starts uint64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from groundup.config import UserError
from groundup.data.documents import Document
from groundup.data.manifest import (
    Manifest,
    open_manifest,
    record_file,
    verify_files,
    write_manifest,
)
from groundup.files import atomic_folder
from groundup.text.tokenizer import Tokenizer

KIND = "tokens"
VERSION = 1
TOKENS_PER_FILE = 1 << 28
STARTS_FILE = "documents.bin"
CHUNK_CHARACTERS = 1 << 22

Progress = Callable[[int], None]
"""Called as work goes on with the number of documents done so far."""


@dataclass(frozen=True, kw_only=True)
class ShardManifest(Manifest):
    """Counts of a stream; `num_bytes` is the UTF-8 size of the text, the unit of bits per byte."""

    dtype: str
    num_documents: int
    num_tokens: int
    num_bytes: int
    tokens_per_file: int


def write_shards(
    folder: str | Path,
    documents: Iterable[Document],
    tokenizer: Tokenizer,
    workers: int = 2,
    progress: Progress | None = None,
    tokens_per_file: int = TOKENS_PER_FILE,
) -> ShardManifest:
    """Tokenise `documents` into `folder`, atomically; the bytes do not depend on `workers`.

    Takes the documents as they come, a few megabytes at a time, and encodes those in `workers`
    processes. An empty document is kept, as a lone `<|bos|>`. Raises UserError when there are no
    documents.
    """
    dtype = token_dtype(tokenizer.vocab_size)
    num_bytes = 0
    starts = [np.zeros(0, dtype="<u8")]
    with atomic_folder(folder) as temporary:
        stream = _StreamWriter(temporary, tokens_per_file)
        num_documents = 0
        for texts in chunks(documents):
            tokens, lengths = _encode(tokenizer, texts, workers)
            starts.append((stream.num_tokens + np.cumsum(lengths) - lengths).astype("<u8"))
            stream.append(tokens)
            num_documents += len(lengths)
            num_bytes += sum(len(text.encode("utf-8", errors="replace")) for text in texts)
            if progress is not None:
                progress(num_documents)
        if num_documents == 0:
            raise UserError(f"There are no documents to tokenise into {folder}.")
        (temporary / STARTS_FILE).write_bytes(np.concatenate(starts).tobytes())
        manifest = ShardManifest(
            version=VERSION,
            kind=KIND,
            tokenizer=tokenizer.fingerprint,
            bos_id=tokenizer.special["<|bos|>"],
            dtype=dtype,
            num_documents=num_documents,
            num_tokens=stream.num_tokens,
            num_bytes=num_bytes,
            tokens_per_file=tokens_per_file,
            files=tuple(record_file(path) for path in sorted(temporary.iterdir())),
        )
        write_manifest(temporary, manifest)
    return manifest


class Shards:
    """A folder of token shards, opened for reading. Nothing is read until it is asked for.

    Raises UserError when the folder is incomplete, or was made with another tokenizer than the one
    whose fingerprint is given.
    """

    def __init__(self, folder: str | Path, tokenizer_fingerprint: str) -> None:
        self.folder = Path(folder)
        manifest = open_manifest(
            self.folder,
            ShardManifest,
            kind=KIND,
            version=VERSION,
            fingerprint=tokenizer_fingerprint,
        )
        self.manifest = manifest
        self.bos_id = manifest.bos_id
        self.num_tokens = manifest.num_tokens
        self.num_documents = manifest.num_documents
        self.num_bytes = manifest.num_bytes
        self._starts = _map(self.folder / STARTS_FILE, "<u8")
        self._files = [
            _map(self.folder / record.name, manifest.dtype)
            for record in manifest.files
            if record.name != STARTS_FILE
        ]

    def document(self, index: int) -> np.ndarray:
        """The (N,) tokens of a document, `<|bos|>` first."""
        if not 0 <= index < self.num_documents:
            raise IndexError(f"document {index} of {self.num_documents}")
        last = index + 1 == self.num_documents
        stop = self.num_tokens if last else int(self._starts[index + 1])
        return self.tokens(int(self._starts[index]), stop)

    def tokens(self, start: int, stop: int) -> np.ndarray:
        """(stop - start,) tokens of the stream; a view of the file where one file has them all."""
        if not 0 <= start <= stop <= self.num_tokens:
            raise IndexError(f"tokens {start}:{stop} of {self.num_tokens}")
        size = self.manifest.tokens_per_file
        first = min(start, self.num_tokens - 1) // size
        last = max(first, (stop - 1) // size)
        parts = [
            self._files[number][max(0, start - number * size) : stop - number * size]
            for number in range(first, last + 1)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def verify(self) -> None:
        """Read every byte; raise UserError where a sha256 is not the one in the manifest."""
        verify_files(self.folder, self.manifest.files)


def token_dtype(vocab_size: int) -> str:
    """The smallest integer type that holds every id, in numpy's little-endian notation."""
    return "<u2" if vocab_size <= 1 << 16 else "<u4"


def chunks(documents: Iterable[Document]) -> Iterator[list[str]]:
    """Group the texts of documents into lists of about CHUNK_CHARACTERS."""
    texts: list[str] = []
    characters = 0
    for document in documents:
        texts.append(document.as_text())
        # The one is for empty texts, which take memory too.
        characters += 1 + len(texts[-1])
        if characters >= CHUNK_CHARACTERS:
            yield texts
            texts, characters = [], 0
    if texts:
        yield texts


def _map(path: Path, dtype: str) -> np.ndarray:
    # As a plain array: slicing the memmap class costs several times as much.
    return np.asarray(np.memmap(path, dtype=dtype, mode="r"))


def _encode(tokenizer: Tokenizer, texts: list[str], workers: int) -> tuple[np.ndarray, np.ndarray]:
    """The tokens of texts end to end, and the (N,) number of tokens of each."""
    bos = np.array([tokenizer.special["<|bos|>"]])
    encoded = tokenizer.encode_batch(texts, workers)
    lengths = np.array([1 + len(ids) for ids in encoded], dtype=np.int64)
    tokens = np.concatenate([part for ids in encoded for part in (bos, ids)])
    return tokens.astype(token_dtype(tokenizer.vocab_size)), lengths


class _StreamWriter:
    """Appends tokens to the files of a stream, `tokens_per_file` to each."""

    def __init__(self, folder: Path, tokens_per_file: int) -> None:
        assert tokens_per_file > 0
        self.folder = folder
        self.tokens_per_file = tokens_per_file
        self.num_tokens = 0

    def append(self, tokens: np.ndarray) -> None:
        while len(tokens):
            number, filled = divmod(self.num_tokens, self.tokens_per_file)
            part = tokens[: self.tokens_per_file - filled]
            with open(self.folder / f"tokens_{number:05d}.bin", "ab") as file:
                file.write(part.tobytes())
            self.num_tokens += len(part)
            tokens = tokens[len(part) :]
