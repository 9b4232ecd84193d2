"""The log as JSON lines and its sinks: readable after a kill, and rewound on resume."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from groundup.config import UserError
from groundup.train.log import Fanout, JsonLog, TensorBoardSink


def test_rows_come_back_in_order(tmp_path: Path) -> None:
    log = JsonLog(tmp_path / "deep" / "log.jsonl")
    assert log.rows() == []
    rows = [{"stage": "pretrain", "step": step, "loss": step / 3} for step in range(4)]
    for row in rows:
        log.write(row)
    assert log.rows() == rows


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x1c", "\x0b", "\r", "\n"])
def test_a_sample_may_hold_any_line_separator(tmp_path: Path, separator: str) -> None:
    log = JsonLog(tmp_path / "log.jsonl")
    log.write({"step": 1, "sample": f"a{separator}b"})
    log.write({"step": 2})
    assert [row.get("sample") for row in log.rows()] == [f"a{separator}b", None]


def test_not_a_number_becomes_null(tmp_path: Path) -> None:
    log = JsonLog(tmp_path / "log.jsonl")
    log.write({"step": 1, "loss": math.nan, "grad_norm": math.inf})
    text = log.path.read_text()
    assert json.loads(text, parse_constant=lambda name: pytest.fail(name)) == {
        "step": 1,
        "loss": None,
        "grad_norm": None,
    }


@pytest.mark.parametrize("kept", [1, 7, 19])
def test_a_torn_last_line_is_left_out(tmp_path: Path, kept: int) -> None:
    log = JsonLog(tmp_path / "log.jsonl")
    log.write({"step": 1})
    whole = log.path.read_bytes()
    log.write({"step": 2, "sample": "日本"})
    log.path.write_bytes(log.path.read_bytes()[: len(whole) + kept])
    assert log.rows() == [{"step": 1}]
    log.rewind(lambda row: True)
    log.write({"step": 2})
    assert log.rows() == [{"step": 1}, {"step": 2}]


def test_a_broken_line_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(UserError, match=r"log\.jsonl line 2 is not valid JSON"):
        JsonLog(path).rows()


def test_rewind_keeps_what_it_is_told(tmp_path: Path) -> None:
    log = JsonLog(tmp_path / "log.jsonl")
    for stage in ("pretrain", "sft"):
        for step in range(1, 5):
            log.write({"stage": stage, "step": step, "loss": 1 / step})
    before = log.rows()
    log.rewind(lambda row: row["stage"] != "sft" or row["step"] <= 2)
    assert log.rows() == before[:6]
    assert [p.name for p in tmp_path.iterdir()] == ["log.jsonl"]


def test_tensorboard_writes_scalars_and_texts(tmp_path: Path) -> None:
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    ).EventAccumulator
    sink = TensorBoardSink(tmp_path)
    for step in (1, 2):
        sink.write({"stage": "sft", "step": step, "loss": step / 2, "skipped": True})
    sink.write({"stage": "sft", "step": 2, "sample": "hello", "loss": math.nan})
    sink.writer.close()
    found = accumulator(str(tmp_path))
    found.Reload()
    assert "sft/loss" in found.Tags()["scalars"]
    points = [(event.step, event.value) for event in found.Scalars("sft/loss")]
    assert points[:2] == [(1, 0.5), (2, 1.0)]
    assert any("sample" in tag for tag in found.Tags()["tensors"])


def test_fanout_reaches_every_sink() -> None:
    class Keep:
        def __init__(self) -> None:
            self.rows: list[Any] = []

        def write(self, row: Any) -> None:
            self.rows.append(row)

    first, second = Keep(), Keep()
    Fanout(first, second).write({"step": 3})
    assert first.rows == second.rows == [{"step": 3}]


def test_a_row_is_on_the_disk_when_write_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, synced = JsonLog(tmp_path / "log.jsonl"), []
    monkeypatch.setattr("os.fsync", lambda file: synced.append(log.path.read_text()))
    log.write({"step": 1})
    log.write({"step": 2})
    assert synced == ['{"step": 1}\n', '{"step": 1}\n{"step": 2}\n']
