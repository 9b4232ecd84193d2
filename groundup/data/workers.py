"""Tokenise chunks of a corpus in several processes: in order, in bounded memory."""

from __future__ import annotations

import multiprocessing
import signal
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from groundup.data.documents import Document
from groundup.text.tokenizer import Tokenizer, load_tokenizer

Result = TypeVar("Result")
Work = Callable[[Tokenizer, list[Document]], Result]

CHUNK_CHARACTERS = 1 << 20
CHUNK_DOCUMENTS = 4096


def map_chunks(
    work: Work[Result], documents: Iterable[Document], tokenizer: Tokenizer, workers: int
) -> Iterator[Result]:
    """Yield `work(tokenizer, chunk)` for each chunk of the documents, in their order.

    `work` must be a module-level function. Chunks do not depend on `workers`, so neither do the
    results. At most `2 * workers` chunks are in flight.
    """
    pieces = chunks(documents)
    head = [piece for _, piece in zip(range(2), pieces, strict=False)]
    if workers <= 1 or len(head) < 2:
        # One chunk is done sooner than a process starts.
        for piece in chain(head, pieces):
            yield work(tokenizer, piece)
        return
    with tempfile.TemporaryDirectory(prefix="groundup-tokenizer-") as folder:
        tokenizer.save(Path(folder))
        # Forking a process that runs threads (torch's) can deadlock, so workers start afresh.
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(workers, context, _start_worker, (folder,))
        try:
            waiting: deque[Future[Result]] = deque()
            for piece in chain(head, pieces):
                waiting.append(pool.submit(_run, work, piece))
                if len(waiting) >= 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def chunks(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """Group documents into lists of about a million characters."""
    chunk: list[Document] = []
    characters = 0
    for document in documents:
        chunk.append(document)
        characters += len(document.text) + _message_characters(document.messages)
        if characters >= CHUNK_CHARACTERS or len(chunk) >= CHUNK_DOCUMENTS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


def _message_characters(messages: Sequence[Any]) -> int:
    return sum(len(message["content"]) for message in messages)


_tokenizer: Tokenizer | None = None


def _start_worker(folder: str) -> None:
    global _tokenizer
    # Ctrl-C reaches the whole process group; only the parent should answer it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _tokenizer = load_tokenizer(Path(folder))


def _run(work: Work[Result], chunk: list[Document]) -> Result:
    assert _tokenizer is not None
    return work(_tokenizer, chunk)
