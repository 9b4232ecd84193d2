"""Texts that a recipe names and that cannot be trained on: named, with the place in them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("known_roof")

Refused = Callable[..., str]


@pytest.fixture
def recipe(tmp_path: Path, tiny_recipe: Path) -> Callable[[object], Path]:
    """`recipe(source)` writes the tiny recipe with that one source."""

    def write(source: object) -> Path:
        lines = tiny_recipe.read_text().splitlines()
        start = next(i for i, line in enumerate(lines) if "data.sources" in line)
        lines[start : start + 4] = [f'data.sources = [{{ name = "{source}" }}]']
        path = tmp_path / "recipe.toml"
        path.write_text("\n".join(lines))
        return path

    return write


def test_sources_that_are_not_text(
    refused: Refused, recipe: Callable[[object], Path], tmp_path: Path
) -> None:
    def attempt(source: object) -> str:
        return refused("speedrun", recipe(source), "--run", tmp_path / "run")

    assert "There is no file or folder" in attempt(tmp_path / "missing.txt")
    assert "Did you mean 'shakespeare'?" in attempt("shakespere")
    file = tmp_path / "text.txt"
    file.write_bytes(b"")
    assert "is empty" in attempt(file)
    file.write_bytes(b" \n\n\t\n" * 100)
    assert "leaves nothing to train on" in attempt(file)
    file.write_bytes(b"\x7fELF\x02\x01\x01\0\0\0" * 50)
    assert "at byte 7" in attempt(file)
    file.write_bytes(b"good text\n" * 30 + b"\xff\xfe bad")
    assert "is not valid UTF-8 at byte 300" in attempt(file)
    file.write_text("one short text")
    assert "none can be held out" in attempt(file)
    (tmp_path / "folder").mkdir()
    assert "holds no .txt" in attempt(tmp_path / "folder")
    (tmp_path / "slides.pptx").write_text("x")
    assert "should end in" in attempt(tmp_path / "slides.pptx")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (b'{"text": "cut of', "line 3"),
        (b"[1, 2]", "line 3"),
        (b'{"txet": "x"}', "line 3"),
        (b'{"text": 5}', "line 3"),
        (b'{"messages": [{"role": "robot", "content": "x"}]}', "line 3"),
        (b'{"text": "\xff"}', "line 3"),
        (b'{"text": "a\0b"}', "line 3"),
    ],
)
def test_a_broken_json_line_is_named(
    refused: Refused,
    recipe: Callable[[object], Path],
    tmp_path: Path,
    bad: bytes,
    message: str,
) -> None:
    file = tmp_path / "data.jsonl"
    good = b'{"text": "The house grows stone by stone."}\n'
    file.write_bytes(good + b"\n" + bad + b"\n" + good)
    sentence = refused("speedrun", recipe(file), "--run", tmp_path / "run")
    assert f"{file} {message}" in sentence


def write_long_line(path: Path, megabytes: int) -> None:
    block = b"word and word, " * (2**20 // 15)
    with open(path, "wb") as file:
        for _ in range(megabytes):
            file.write(block)


def test_one_long_line_is_text_like_any_other(
    recipe: Callable[[object], Path], tmp_path: Path
) -> None:
    """20 MB without a line break, read as a source; a JSON line has a limit."""
    from groundup.data.config import SourceConfig
    from groundup.data.sources import read_source

    write_long_line(tmp_path / "long.txt", 20)
    lengths = [len(d.text) for d in read_source(SourceConfig(name=str(tmp_path / "long.txt")))]
    assert max(lengths) <= 4096 and sum(lengths) > 19 * 2**20


@pytest.mark.slow
def test_a_line_of_a_gigabyte(
    refused: Refused, recipe: Callable[[object], Path], tmp_path: Path
) -> None:
    """Read in bounded memory as text, refused with its number as JSON."""
    script = """
import resource, sys
from groundup.data.config import SourceConfig
from groundup.data.sources import read_source
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
count = sum(len(document.text) for document in read_source(SourceConfig(name=sys.argv[1])))
print(count, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    write_long_line(tmp_path / "long.txt", 1024)
    words = [sys.executable, "-c", script, str(tmp_path / "long.txt")]
    output = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
    assert int(output[0]) > 1000 * 2**20 * 0.9
    assert int(output[1]) < 64, "megabytes"
    (tmp_path / "long.txt").rename(tmp_path / "long.jsonl")
    sentence = refused("speedrun", recipe(tmp_path / "long.jsonl"), "--run", tmp_path / "run")
    assert "line 1 is longer than 64 MB" in sentence


def test_a_row_longer_than_the_text_is_refused(
    refused: Refused, tiny_recipe: Path, tmp_path: Path
) -> None:
    words = ("--run", tmp_path / "run", "--model.context-length", "1000000")
    sentence = refused("speedrun", tiny_recipe, *words)
    assert "context_length is 1000000, but there are only" in sentence
