"""A server that breaks off, hangs, lies or knows no ranges: the file is whole, or absent."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from groundup.config import UserError
from groundup.data import download as module
from groundup.data.download import Download, download, download_all

DATA = random.Random(5).randbytes(1_234_567)
SHA = hashlib.sha256(DATA).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves `files` and keeps a record of what was asked. Switches make it misbehave."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {"/a.bin": DATA}
        self.asked: list[tuple[str, str | None]] = []
        self.answers: list[int] = []
        """Sent in turn instead of the file."""
        self.cut: list[int] = []
        """After how many bytes each answer in turn breaks off."""
        self.ranges = self.tags = True
        self.wrong_range = self.hang = False
        self.go_on = threading.Event()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that leave early are meant to."""

    def wanted(self, path: Path, name: str = "/a.bin", sha256: str = "") -> Download:
        url = f"http://127.0.0.1:{self.server_address[1]}{name}"
        return Download(url=url, path=path / name.lstrip("/"), sha256=sha256)


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, asked = self.server, self.headers.get("Range")
        server.asked.append((self.path, asked))
        if server.answers:
            self.send_error(server.answers.pop(0))
            return
        if self.path not in server.files:
            self.send_error(404)
            return
        data = server.files[self.path]
        tag = f'"{hashlib.sha256(data).hexdigest()[:8]}"'
        start = 0
        if asked and server.ranges and self.headers.get("If-Range", tag) == tag:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(data):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(data)}")
                self.end_headers()
                return
            self.send_response(206)
            shown = 7 if server.wrong_range else start
            self.send_header("Content-Range", f"bytes {shown}-{len(data) - 1}/{len(data)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(data) - start))
        if server.tags:
            self.send_header("ETag", tag)
        self.end_headers()
        rest = data[start:]
        if server.cut:
            rest = rest[: server.cut.pop(0)]
        self.wfile.write(rest)
        if server.hang:
            self.wfile.flush()
            server.go_on.wait(20)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as found:
        thread = threading.Thread(target=found.serve_forever, args=(0.02,))
        thread.start()
        yield found
        found.go_on.set()
        found.shutdown()
        thread.join()


def fetch(*wanted: Download, **options: Any) -> list[Path]:
    return download_all(wanted, pause=0.01, **options)


def failure(*wanted: Download) -> str:
    with pytest.raises(UserError) as error:
        fetch(*wanted)
    assert "\n" not in str(error.value)
    return str(error.value)


def left(path: Path) -> list[str]:
    return sorted(file.name for file in path.iterdir())


def test_fetched_once(server: Server, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    wanted = server.wanted(tmp_path / "deep", sha256=SHA)
    path = download(wanted, lambda *count: seen.append(count))
    assert path.read_bytes() == DATA
    assert seen[0] == (0, len(DATA)) and seen[-1] == (len(DATA), len(DATA))
    assert seen == sorted(seen)
    assert download(wanted) == path
    assert len(server.asked) == 1
    assert left(tmp_path / "deep") == ["a.bin"]
    path.write_bytes(b"damaged")  # it is not the file that is wanted
    assert download(wanted).read_bytes() == DATA


def test_goes_on_where_it_broke_off(server: Server, tmp_path: Path) -> None:
    server.cut = [100_000, 300_001, 0]
    seen: list[tuple[int, int]] = []
    (path,) = fetch(server.wanted(tmp_path), progress=lambda *count: seen.append(count))
    assert path.read_bytes() == DATA
    ranges = [asked for _, asked in server.asked]
    assert ranges == [None, "bytes=100000-", "bytes=400001-", "bytes=400001-"]
    assert all(total == len(DATA) for _, total in seen)


@pytest.mark.parametrize("tags", [True, False])
def test_a_server_without_ranges_starts_over(server: Server, tmp_path: Path, tags: bool) -> None:
    server.ranges, server.tags = False, tags
    server.cut = [100_000, 700_000]
    (path,) = fetch(server.wanted(tmp_path))
    assert path.read_bytes() == DATA
    # Without a tag and a hash nothing could tell two versions apart: no part is asked for.
    assert [bool(asked) for _, asked in server.asked] == [False, tags, tags]


def test_gives_up_after_attempts_without_a_byte_gained(server: Server, tmp_path: Path) -> None:
    server.cut = [50_000] + [0] * 99
    message = failure(server.wanted(tmp_path))
    assert "broke off after 50,000 of 1,234,567 bytes" in message
    assert "50,000 bytes of it are kept" in message and f"{tmp_path}/a.bin" in message
    assert len(server.asked) == module.ATTEMPTS
    server.cut = []
    assert fetch(server.wanted(tmp_path))[0].read_bytes() == DATA
    assert server.asked[-1] == ("/a.bin", "bytes=50000-")


def test_a_new_version_is_not_glued_to_the_old(server: Server, tmp_path: Path) -> None:
    server.cut = [50_000] + [0] * 99
    failure(server.wanted(tmp_path))
    server.cut, server.files["/a.bin"] = [], DATA[::-1]
    assert fetch(server.wanted(tmp_path))[0].read_bytes() == DATA[::-1]
    assert server.asked[-1][1] == "bytes=50000-"  # asked for, and refused by If-Range


def test_a_part_of_unknown_origin_is_used_when_the_hash_says_so(
    server: Server, tmp_path: Path
) -> None:
    server.tags = False
    for begin, requests in ((DATA[:40], 1), (b"other bytes", 2), (DATA, 1), (DATA + b"!", 2)):
        server.asked.clear()
        (tmp_path / "a.bin.part").write_bytes(begin)
        path = fetch(server.wanted(tmp_path, sha256=SHA))[0]
        assert path.read_bytes() == DATA
        assert len(server.asked) == requests
        path.unlink()


def test_the_wrong_file_is_refused_and_not_kept(server: Server, tmp_path: Path) -> None:
    message = failure(server.wanted(tmp_path, sha256="0" * 64))
    assert "has SHA-256" in message and "expected 0000000000000000…" in message
    assert left(tmp_path) == []


def test_a_wrong_range_is_not_believed(server: Server, tmp_path: Path) -> None:
    server.cut, server.wrong_range = [60_000], True
    assert fetch(server.wanted(tmp_path))[0].read_bytes() == DATA
    assert [asked for _, asked in server.asked] == [None, "bytes=60000-", None]


@pytest.mark.parametrize("code", [404, 403, 410])
def test_a_final_answer_is_not_asked_for_twice(server: Server, tmp_path: Path, code: int) -> None:
    server.answers = [code]
    message = failure(server.wanted(tmp_path))
    assert f"answered {code}" in message and f"{tmp_path}/a.bin" in message
    assert len(server.asked) == 1


def test_a_passing_answer_is(server: Server, tmp_path: Path) -> None:
    server.answers = [503, 429, 500]
    assert fetch(server.wanted(tmp_path))[0].read_bytes() == DATA
    server.answers = [502] * 9
    server.files["/b.bin"] = b"b"
    assert "answered 502" in failure(server.wanted(tmp_path, "/b.bin"))


def test_a_server_that_hangs(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TIMEOUT", 0.3)
    server.cut, server.hang = [100_000, 0, 0, 0, 0, 0], True
    assert "timed out" in failure(server.wanted(tmp_path))
    assert (tmp_path / "a.bin.part").stat().st_size == 100_000


def test_nobody_there(tmp_path: Path) -> None:
    message = failure(Download(url="http://127.0.0.1:9/x.txt", path=tmp_path / "x.txt"))
    assert "Connection refused" in message and "put the file at" in message


def test_several_at_once(server: Server, tmp_path: Path) -> None:
    names = [f"/{i}.bin" for i in range(9)]
    server.files |= {name: DATA[: 90_000 * (i + 1)] for i, name in enumerate(names)}
    server.cut = [1000, 70_000, 3]
    seen: list[tuple[int, int]] = []
    paths = fetch(
        *(server.wanted(tmp_path, name) for name in names),
        workers=3,
        progress=lambda *count: seen.append(count),
    )
    assert [path.read_bytes() for path in paths] == [server.files[name] for name in names]
    assert seen[-1] == (90_000 * 45, 90_000 * 45)
    assert left(tmp_path) == [name[1:] for name in names]


def test_one_that_fails_ends_the_others(server: Server, tmp_path: Path) -> None:
    server.files["/big.bin"] = DATA * 20
    missing, big = server.wanted(tmp_path, "/none.bin"), server.wanted(tmp_path, "/big.bin")
    assert "404" in failure(missing, big)
    assert not (tmp_path / "none.bin").exists()


def test_two_that_want_the_same_file_fetch_it_once(server: Server, tmp_path: Path) -> None:
    paths = fetch(*[server.wanted(tmp_path, sha256=SHA)] * 4)
    assert [path.read_bytes() for path in paths] == [DATA] * 4
    assert len(server.asked) == 1
    assert left(tmp_path) == ["a.bin"]


def test_killed_it_goes_on(server: Server, tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from groundup.data.download import *\n"
    code += "download(Download(url=sys.argv[1], path=Path(sys.argv[2])))"
    server.cut, server.hang = [400_000], True
    wanted, part = server.wanted(tmp_path), tmp_path / "a.bin.part"
    with subprocess.Popen([sys.executable, "-c", code, wanted.url, str(wanted.path)]) as process:
        while not part.exists() or part.stat().st_size < 262_144:
            assert process.poll() is None
            threading.Event().wait(0.02)
        os.kill(process.pid, signal.SIGKILL)
    have = part.stat().st_size
    assert not wanted.path.exists() and have > 0
    server.hang = False
    assert fetch(wanted)[0].read_bytes() == DATA
    assert server.asked[-1] == ("/a.bin", f"bytes={have}-")
