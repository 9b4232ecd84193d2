"""Worker processes that encode: plain Python children fed through pipes.

`multiprocessing` would either fork (unsafe beside the threads of torch) or import the caller's main
program again in every worker (torch included, and an endless loop where it has no main guard).
These children import only the tokenizer, and end when their input does, so also when the parent is
killed.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import numpy as np

from groundup.text.vocabulary import Vocabulary

JOB_CHARACTERS = 1 << 18

_COMMAND = [sys.executable, "-c", "from groundup.text.pool import serve; serve()"]


class WorkerPool:
    """`workers` processes that hold one tokenizer."""

    def __init__(self, vocabulary: Vocabulary, workers: int) -> None:
        self.workers = workers
        package = str(Path(__file__).resolve().parents[2])
        paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        pipe = subprocess.PIPE
        self._idle: SimpleQueue[subprocess.Popen[bytes]] = SimpleQueue()
        processes = []
        for _ in range(workers):
            process = subprocess.Popen(_COMMAND, stdin=pipe, stdout=pipe, env=environment)
            processes.append(process)
            self._idle.put(process)
        self._close = weakref.finalize(self, _close, processes)
        for process in processes:
            _send(process.stdin, vocabulary)

    def map(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Ids of each text, in order."""
        with ThreadPoolExecutor(self.workers) as threads:
            return [ids for answer in threads.map(self._ask, _jobs(texts)) for ids in answer]

    def _ask(self, texts: list[str]) -> list[np.ndarray]:
        process = self._idle.get()
        try:
            _send(process.stdin, texts)
            return pickle.load(process.stdout)  # type: ignore[arg-type]
        except (EOFError, BrokenPipeError):
            raise RuntimeError("A tokenizer worker process died; was it out of memory?") from None
        finally:
            self._idle.put(process)


def serve() -> None:
    """The child: a vocabulary first, then lists of texts until the input ends."""
    from groundup.text.tokenizer import from_vocabulary

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides; its end ends our input
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    try:
        tokenizer = from_vocabulary(pickle.load(source))
        while True:
            _send(sink, tokenizer.encode_batch(pickle.load(source)))
    except (EOFError, BrokenPipeError):
        os._exit(0)  # nothing to flush: whoever read our output is gone


def _jobs(texts: Sequence[str]) -> Iterator[list[str]]:
    job: list[str] = []
    size = 0
    for text in texts:
        job.append(text)
        size += len(text)
        if size >= JOB_CHARACTERS:
            yield job
            job, size = [], 0
    if job:
        yield job


def _send(pipe, item: object) -> None:
    pickle.dump(item, pipe, protocol=pickle.HIGHEST_PROTOCOL)
    pipe.flush()


def _close(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        process.wait()
