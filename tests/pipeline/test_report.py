"""The report shows what a run has, leaves out what it has not, and trusts no text."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from groundup.config import UserError
from groundup.pipeline.report import facts, render, show, write_report

HOSTILE = "</pre><script>alert(1)</script><img src=x onerror='alert(2)'>\u202e\x00\ud800&amp;\""

REPORT: dict[str, Any] = {
    "name": "little",
    "created": "2026-03-04T05:06:07+00:00",
    "machine": {"cpu": "Abacus 3000", "cores": 3, "policy": "cpu, float32", "roof_gflops": 243.75},
    "val_bpb": 1.6873,
    "wall_seconds": 838.4,
    "model": {"parameters": 12_345_678, "attention": {"num_heads": 6, "qk_norm": True}},
    "data": {
        "documents": 9123,
        "dropped": {"duplicates": 12, "slurs": 0},
        "sources": {"plays": {"documents": 36}, "chats": {"documents": 7087, "turns": 258_145}},
    },
    "tokenizer": {"kind": "bpe", "vocab_size": 4096, "bytes_per_token": 3.71, "note": None},
    "stages": [
        {"name": "data", "seconds": 14.2, "documents": 9123},
        {"name": "base", "seconds": 610.1, "tokens": 14_745_600, "tokens_per_second": 21300.2}
        | {"mfu": 0.4123, "train_loss": 3.05, "val_loss": 3.11, "val_bpb": 1.7123}
        | {"split": {"data": 0.003, "forward_backward": 0.447, "optimizer": 0.05}}
        | {"peak_memory_mb": 1234.6},
        {"name": "sft", "seconds": 120.3, "tokens": 1_638_400, "train_loss": 2.3, "val_loss": None},
    ],
    "evaluation": {"documents": 456, "val_loss": 3.11},
    "samples": [{"step": "final", "text": "To be & not to be"}],
    "chats": [
        [{"role": "user", "content": "Hello!"}, {"role": "assistant", "content": "hi, you?"}],
        [{"role": "tool_call", "content": "17 * 23"}, {"role": "tool_output", "content": "391"}],
    ],
    "config": {"name": "little", "size": 4, "data": {"sources": [{"name": "plays"}]}},
}
ROWS = [
    {"stage": "base", "step": 10, "tokens": 700, "loss": 6.0, "lr": 0.1, "mfu": 0.3},
    {"stage": "base", "step": 20, "tokens": 1400, "loss": 4.0, "lr": 0.2, "mfu": 0.4},
    {"stage": "base", "step": 20, "val_bpb": 2.0, "val_loss": 4.4},
    {"stage": "base", "step": 1200, "sample": "To bee"},
    {"stage": "sft", "step": 5, "tokens": 50, "loss": 3.0, "lr": 0.01},
]


class Outline(HTMLParser):
    """Collects tags, attributes and text, and checks that every element is closed in order."""

    VOID = frozenset({"meta", "img", "link", "input", "br", "use", "path"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == [], "an element is never closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def outline(report: Mapping[str, Any], rows: list[dict[str, Any]]) -> Outline:
    return Outline(render(report, rows, Path("runs/little")))


def test_every_part_of_a_run_is_on_the_page() -> None:
    words = outline(REPORT, ROWS).words
    for text in (
        "1.687 bits per held-out byte", "13m58s", "16.4M tokens trained on", "12.3M parameters",
        "2026-03-04 05:06 · Abacus 3000 · cpu, float32",
        "groundup chat runs/little", "Hello!", "hi, you?", "tool call 17 * 23",
        "base 10m10s 14.7M 21,300 41.2% 3.050 3.110 1.7123", "documents 9,123",
        "base, step 1,200 To bee To be & not to be", "val loss 3.11",
        "a training step time data forward backward optimizer peak memory "
        "base 500.0 ms 0.6% 89.4% 10.0% 1,235 MB",
        "dropped duplicates 12", "chats 7,087 258,145",
        "bytes per token 3.71", "attention qk norm yes", "roof gflops 243.8",
        'name = "little"', "Learning rate",
    ):  # fmt: skip
        assert text in words, text


def test_the_page_stands_alone() -> None:
    page = render(REPORT, ROWS, Path("runs/little"))
    tree = Outline(page)
    assert not tree.tags & {"script", "link", "img", "iframe", "object"}
    assert not tree.attributes & {"src", "href", "onerror", "onload", "onclick"}
    assert page == render(REPORT, ROWS, Path("runs/little")), "equal runs give equal pages"


@pytest.mark.parametrize("missing", REPORT)
def test_a_missing_part_is_left_out(missing: str) -> None:
    outline({key: value for key, value in REPORT.items() if key != missing}, [])


def test_an_empty_run_has_a_page_with_its_name_and_commands() -> None:
    words = outline({}, []).words
    assert "little" in words and "groundup chat runs/little" in words
    assert "Training" not in words and "Stages" not in words and "unedited" not in words


def poison(value: Any) -> Any:
    """The same structure with hostile text for every text and every key of free choice."""
    if isinstance(value, str):
        return HOSTILE
    if isinstance(value, list):
        return [poison(item) for item in value]
    if isinstance(value, dict):
        return {key: poison(item) for key, item in value.items()}
    return value


def test_no_text_becomes_markup() -> None:
    report = poison(REPORT) | {"data": {HOSTILE: {HOSTILE: {HOSTILE: HOSTILE}}, f"{HOSTILE} ": 3}}
    rows = [poison(row) | {"stage": HOSTILE + row["stage"]} for row in ROWS]
    page = render(report, rows, Path("runs") / HOSTILE.replace("/", ""))
    page.encode("utf-8")
    tree = Outline(page)
    assert "script" not in tree.tags and "img" not in tree.tags
    assert not {"onerror", "src"} & tree.attributes
    assert "<script>alert(1)</script>" in tree.words  # it is there to read
    assert not set("\u202e\x00\ud800") & set(page)


def test_without_matplotlib_the_rest_still_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    words = outline(REPORT, ROWS).words
    assert "pip install 'groundup[viz]'" in words and "Hello!" in words


def test_the_page_is_written_beside_the_figures(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(json.dumps(REPORT), encoding="utf-8")
    lines = [json.dumps(row) for row in ROWS]
    # A kill can leave the log with half a line.
    (tmp_path / "log.jsonl").write_text("\n".join([*lines, '{"stage": "ba']), encoding="utf-8")
    path = write_report(tmp_path)
    assert path == tmp_path / "report.html"
    assert "To be &amp; not to be" in path.read_text(encoding="utf-8")


def test_a_run_without_figures_is_the_users_to_mend(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"report\.json does not exist"):
        write_report(tmp_path)
    assert not list(tmp_path.glob("*.html"))


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("x", None, "–"), ("x", True, "yes"), ("x", 12345, "12,345"), ("x", "a_b", "a_b"),
        ("x", 0.000123456, "0.0001235"), ("x", 12345.678, "12,346"), ("mfu", 0.4123, "41.2%"),
        ("load_seconds", 125, "2m05s"), ("heldout_fraction", 0.05, "5.0%"),
        ("x", [0.9, 0.95], "0.9, 0.95"),
    ],
)  # fmt: skip
def test_values_are_shown_in_their_unit(key: str, value: Any, text: str) -> None:
    assert show(key, value) == text


def test_a_list_of_groups_is_a_table() -> None:
    words = Outline(facts({"sources": [{"name": "a", "size": 3}, {"size": 4, "odd": 1}]})).words
    assert words == "sources size odd a 3 2 4 1"
