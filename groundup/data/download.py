"""Files from the network: resumed where they broke off, checked, several at a time, never half.

What has arrived is kept in `NAME.part` until it is whole, so a kill or a lost connection costs
nothing: the next attempt asks the server for the rest (RFC 9110, section 14), and only of the same
version of the file, which `If-Range` makes sure of. A server that cannot do that sends it all.
"""

from __future__ import annotations

import fcntl
import http.client
import logging
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from groundup.config import UserError
from groundup.files import sha256_file

logger = logging.getLogger("groundup")
Progress = Callable[[int, int], None]
"""Called with the bytes that are there and the bytes there will be, as far as is known."""

WORKERS = 4
ATTEMPTS = 5  # in a row, without a byte gained
TIMEOUT = 30.0  # seconds without an answer
BLOCK = 1 << 18
_PASSING = (408, 425, 429, 500, 502, 503, 504)  # what a server may well not say again


@dataclass(frozen=True, kw_only=True)
class Download:
    """A file at `url` (http or https), wanted at `path`; `sha256` in hex, "" where not known."""

    url: str
    path: Path
    sha256: str = ""


def download(wanted: Download, progress: Progress | None = None) -> Path:
    """Fetch one file unless it is there; returns its path. See `download_all`."""
    return download_all([wanted], progress)[0]


def download_all(
    wanted: Sequence[Download],
    progress: Progress | None = None,
    workers: int = WORKERS,
    pause: float = 1.0,
) -> list[Path]:
    """Fetch the files that are not there yet, `workers` at a time; returns their paths.

    A connection that breaks off or hangs is tried again, after `pause` seconds, then twice that
    and so on. A file counts as there when it exists and has the sha256, where one is given. Safe
    when several processes want the same file. Raises UserError when a file cannot be had or is
    not the one that was asked for; what has arrived of the others is kept.
    """
    meter, stop = _Meter(progress), threading.Event()
    pool = ThreadPoolExecutor(max(1, min(workers, len(wanted))))
    try:
        pending = [pool.submit(_Transfer(one, meter, stop, pause).run) for one in wanted]
        return [one.result() for one in pending]
    finally:
        stop.set()  # also the way out of Ctrl-C: threads look at it between two blocks
        pool.shutdown(cancel_futures=True)


class _Interrupted(Exception):
    """The network's doing: what was received so far is good, and trying again may help."""


class _Transfer:
    """One file on its way."""

    def __init__(
        self, wanted: Download, meter: _Meter, stop: threading.Event, pause: float
    ) -> None:
        self.wanted, self.meter, self.stop, self.pause = wanted, meter, stop, pause
        self.part = wanted.path.with_name(f"{wanted.path.name}.part")
        self.tag = wanted.path.with_name(f"{wanted.path.name}.part.tag")

    def run(self) -> Path:
        wanted = self.wanted
        if self._is_there():
            return wanted.path
        wanted.path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(self.part) as file:
            if not self._is_there():  # nobody else has fetched it while we waited for the lock
                resumed = file.tell() > 0
                self._receive(file)
                if resumed and not self._is_right(self.part):
                    file.truncate(0)  # the beginning may have been of another version
                    self._receive(file)
                if not self._is_right(self.part):
                    found = sha256_file(self.part)
                    self._forget()
                    raise UserError(
                        f"{wanted.url} has SHA-256 {found[:16]}…, expected {wanted.sha256[:16]}…: "
                        "it is damaged or not the file that was meant, so it is not used."
                    )
                os.fsync(file.fileno())
                os.replace(self.part, wanted.path)
            self._forget()
        return wanted.path

    def _is_there(self) -> bool:
        return self.wanted.path.exists() and self._is_right(self.wanted.path)

    def _is_right(self, path: Path) -> bool:
        return not self.wanted.sha256 or sha256_file(path) == self.wanted.sha256

    def _forget(self) -> None:
        self.part.unlink(missing_ok=True)
        self.tag.unlink(missing_ok=True)

    def _receive(self, file: IO[bytes]) -> None:
        """Complete the part, in as many attempts as it takes."""
        failures = 0
        while True:
            before = file.seek(0, os.SEEK_END)
            try:
                return self._attempt(file, before)
            except _Interrupted as error:
                kept = file.tell()
                failures = failures + 1 if kept <= before else 1
                delay = self.pause * 2 ** (failures - 1)
                if failures < ATTEMPTS and not self.stop.is_set():
                    url = self.wanted.url
                    logger.warning("%s: %s; trying again in %g s.", url, error, delay)
                if failures == ATTEMPTS or self.stop.wait(delay):
                    raise UserError(
                        f"Could not fetch {self.wanted.url} ({error}); {kept:,} bytes of it are "
                        "kept. Run the command again to go on, or put the file at "
                        f"{self.wanted.path} yourself."
                    ) from None

    def _attempt(self, file: IO[bytes], have: int) -> None:
        """One request for what is missing after the first `have` bytes."""
        known = self.tag.read_text() if self.tag.exists() else ""
        headers = {"User-Agent": "groundup", "Accept-Encoding": "identity"}
        if have and (known or self.wanted.sha256):
            headers["Range"] = f"bytes={have}-"
            headers |= {"If-Range": known} if known else {}
        with _network():
            answer = self._open(headers, file)
        if answer is None:
            return
        with answer:
            total = int(answer.headers.get("Content-Length") or 0)
            tag = _tag(answer)
            if answer.status == 206:
                span = answer.headers.get("Content-Range", "")
                if not span.startswith(f"bytes {have}-") or (known and tag and tag != known):
                    file.truncate(0)
                    raise _Interrupted("the server sent another part than was asked for")
                total += have if total else 0
            else:
                file.truncate(0)
                self.tag.write_text(tag)
            self.meter.report(self, file.seek(0, os.SEEK_END), total)
            for block in _blocks(answer):
                file.write(block)
                self.meter.report(self, file.tell(), total)
                if self.stop.is_set():
                    raise _Interrupted("stopped")
            file.flush()
            if file.tell() < total:
                raise _Interrupted(f"broke off after {file.tell():,} of {total:,} bytes")

    def _open(self, headers: dict[str, str], file: IO[bytes]) -> Any:
        """The answer of the server, or None when the part is whole already."""
        request = urllib.request.Request(self.wanted.url, headers=headers)
        try:
            return urllib.request.urlopen(request, timeout=TIMEOUT)
        except urllib.error.HTTPError as error:
            error.close()
            said = f"{error.code} {error.reason}"
            if error.code == 416:  # it has no bytes after ours
                if error.headers.get("Content-Range") == f"bytes */{file.tell()}":
                    return None
                file.truncate(0)
                raise _Interrupted(said) from None
            if error.code in _PASSING:
                raise _Interrupted(f"the server answered {said}") from None
            raise UserError(
                f"Could not fetch {self.wanted.url}: the server answered {said}. Check the "
                f"address, or put the file at {self.wanted.path} yourself."
            ) from None


class _Meter:
    """Adds up the bytes of several files for one progress function."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress, self._lock = progress, threading.Lock()
        self._counts: dict[_Transfer, tuple[int, int]] = {}

    def report(self, transfer: _Transfer, done: int, total: int) -> None:
        if self._progress is not None:
            with self._lock:
                self._counts[transfer] = done, max(done, total)
                counts = self._counts.values()
                self._progress(sum(done for done, _ in counts), sum(total for _, total in counts))


@contextmanager
def _locked(part: Path) -> Iterator[IO[bytes]]:
    """The part file, opened to be added to by this process and thread alone."""
    while True:
        with open(part, "ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            # Whoever had it before us may have renamed it into place; then it is not the part.
            if part.exists() and os.path.samestat(os.fstat(file.fileno()), part.stat()):
                yield file
                return


@contextmanager
def _network() -> Iterator[None]:
    try:
        yield
    except urllib.error.URLError as error:
        raise _Interrupted(str(error.reason)) from None
    except (OSError, http.client.HTTPException) as error:
        raise _Interrupted(str(error) or type(error).__name__) from None


def _blocks(answer: Any) -> Iterator[bytes]:
    while True:
        with _network():
            block = answer.read1(BLOCK)
        if not block:
            return
        yield block


def _tag(answer: Any) -> str:
    """What tells this version of the file from another: a strong ETag, or its date."""
    tag = answer.headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else answer.headers.get("Last-Modified", "")
