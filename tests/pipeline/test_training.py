"""What training stages share: the planned steps, changed files, the limit of several processes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from groundup.config import UserError
from groundup.data.documents import Document
from groundup.data.shards import Shards, write_shards
from groundup.device import Policy
from groundup.files import read_json, write_json
from groundup.parallel.world import World
from groundup.pipeline import run as run_module
from groundup.pipeline import training
from groundup.pipeline.console import Console
from groundup.pipeline.training import TrainingSection, verify
from groundup.text.tokenizer import Tokenizer
from groundup.train.pace import Pace


def test_steps_are_planned_once_within_the_minutes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []

    def measure_pace(trainer: Any, seconds: float) -> Pace:
        asked.append(seconds)
        return Pace(step=0.5, evaluation=1.0, sample=1.0)

    def steps_within(trainer: Any, seconds: float, pace: Pace) -> int:
        return int(seconds / pace.step)

    run: Any = SimpleNamespace(
        folder=tmp_path,
        world=World(),
        console=Console(quiet=True),
        work_folder=lambda stage: tmp_path / stage,
        write_json=lambda name, data: write_json(tmp_path / name, data),
    )
    monkeypatch.setattr("groundup.train.pace.measure_pace", measure_pace)
    monkeypatch.setattr("groundup.train.pace.steps_within", steps_within)
    loader: Any = SimpleNamespace(rows_per_step=2, length=8, steps_per_epoch=10.0)
    for minutes in (5.0, 7.0):  # the second finds a plan
        section = TrainingSection(minutes=minutes)
        steps = training._planned_steps(run, "pretrain", section, None, loader)
        assert 595 <= steps <= 600
    assert asked == [pytest.approx(0.05 * 300)]
    assert read_json(tmp_path / "pretrain" / "plan.json")["seconds_per_evaluation"] == 1.0


def test_a_changed_token_file_is_refused_by_name(
    tmp_path: Path, tiny_tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = [Document(source="s", id="1", text="a fire, a roof and rain")]
    write_shards(tmp_path / "shards", documents, tiny_tokenizer, workers=1)
    shards = Shards(tmp_path / "shards", tiny_tokenizer.fingerprint)
    run: Any = SimpleNamespace(world=World())
    verify(run, [shards])
    file = max((tmp_path / "shards").glob("*.bin"))
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match=file.name):
        verify(run, [shards])
    monkeypatch.setattr(training, "VERIFY_BYTES", 3)
    verify(run, [shards])


def test_gpus_add_up_and_a_shared_cpu_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[int] = []

    def roof(policy: Policy) -> float:
        threads.append(torch.get_num_threads())
        return 100.0

    monkeypatch.setattr(run_module, "roof_gflops", roof)
    monkeypatch.setattr(run_module, "available_cores", lambda: 6)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    gpu = Policy(device="cuda:0", compute_dtype="bfloat16", compile=True, threads=1)
    cpu = Policy(device="cpu", compute_dtype="float32", compile=False, threads=2)
    before = torch.get_num_threads()
    try:
        assert run_module._roof(gpu, World(rank=0, size=4)) == 400.0
        assert run_module._roof(cpu, World(rank=0, size=2)) == 100.0
        assert run_module._roof(cpu, World(rank=0, size=4)) == 200.0  # two machines
        assert threads[1:] == [4, 4] and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_the_last_words_fit_the_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    Console().done(Path("runs/my run"), 3.0, "It's [late]\n", chats=True)
    error = capsys.readouterr().err
    assert "groundup chat 'runs/my run'" in error
    assert "[late]" in error and "ROMEO" not in error
