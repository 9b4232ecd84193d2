"""Checkpoints: whole or absent, damage noticed, the newest good one found, nothing good dropped."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from groundup.config import UserError
from groundup.train import checkpoints as module
from groundup.train.checkpoints import Checkpoints, load_checkpoint


def tensors(step: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    return {
        "model.weight": torch.randn(7, 33, generator=generator),
        "optimizer.weight.exp_avg": torch.randn(33, generator=generator).bfloat16(),
        "rng.cpu.0": torch.randint(0, 255, (50,), generator=generator, dtype=torch.uint8),
        "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(step),
    }


def saved(folder: Path, *steps: int, keep_last: int = 2) -> Checkpoints:
    checkpoints = Checkpoints(folder, keep_last)
    for step in steps:
        checkpoints.save(step, tensors(step), {"progress": {"step": step}})
    return checkpoints


def largest_file(folder: Path, step: int) -> Path:
    path = folder / f"step-{step:08d}"
    return max((f for f in path.iterdir() if f.suffix == ".distcp"), key=lambda f: f.stat().st_size)


def test_round_trip(tmp_path: Path) -> None:
    found, facts = saved(tmp_path, 5).load_latest() or ({}, {})
    expected = tensors(5)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)
    assert facts["step"] == 5 and facts["progress"] == {"step": 5}


def test_none_yet(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "none")
    assert checkpoints.load_latest() is None
    assert checkpoints.steps() == []


@pytest.mark.parametrize("keep_last", [1, 3])
def test_the_newest_few_are_kept(tmp_path: Path, keep_last: int) -> None:
    checkpoints = saved(tmp_path, 1, 2, 30, 100, keep_last=keep_last)
    assert checkpoints.steps() == [2, 30, 100][-keep_last:]
    assert len(list(tmp_path.iterdir())) == keep_last


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def alter(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("which", "damage"),
    [
        ("data", truncate),
        ("data", alter),
        ("data", Path.unlink),
        (".metadata", truncate),
        (".metadata", alter),
        (".metadata", Path.unlink),
        ("state.json", truncate),
        ("state.json", Path.unlink),
    ],
)
def test_a_damaged_checkpoint_is_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: object, which: str
) -> None:
    checkpoints = saved(tmp_path, 10, 20)
    folder = tmp_path / "step-00000020"
    damage(largest_file(tmp_path, 20) if which == "data" else folder / which)  # type: ignore[operator]
    with caplog.at_level(logging.WARNING, "groundup"):
        found, facts = checkpoints.load_latest() or ({}, {})
    assert facts["step"] == 10
    assert torch.equal(found["model.weight"], tensors(10)["model.weight"])
    if (damage, which) != (Path.unlink, "state.json"):  # without it, no checkpoint was finished
        (record,) = [r for r in caplog.records if r.name == "groundup"]
        assert "step-00000020" in record.message
        assert "Trying the checkpoint before it" in record.message


def test_all_damaged_is_an_error_not_a_fresh_start(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 10, 20)
    truncate(largest_file(tmp_path, 10))
    truncate(largest_file(tmp_path, 20))
    with pytest.raises(UserError, match="Every checkpoint in .* is damaged. Delete that folder"):
        checkpoints.load_latest()


def test_a_damaged_newer_one_pushes_out_no_good_one(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 10, 20, keep_last=1)
    truncate(largest_file(tmp_path, 20))
    checkpoints.save(15, tensors(15), {})
    assert 15 in checkpoints.steps()
    assert (checkpoints.load_latest() or ({}, {}))[1]["step"] == 15
    checkpoints.save(20, tensors(21), {})  # written over when the run gets there again
    found, _ = checkpoints.load_latest() or ({}, {})
    assert torch.equal(found["model.weight"], tensors(21)["model.weight"])
    assert checkpoints.steps() == [20]


def test_a_failed_write_leaves_the_older_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = saved(tmp_path, 10)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    for name in ("write_json", "_dcp_save"):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, full)
            with pytest.raises(OSError, match="No space"):
                checkpoints.save(20, tensors(20), {})
        assert [p.name for p in tmp_path.iterdir()] == ["step-00000010"]
    assert (checkpoints.load_latest() or ({}, {}))[1]["step"] == 10


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_leaves_the_older_one(
    small_disk: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    big = {"weight": torch.ones(140_000)}  # 560 kB: one fits, two do not
    checkpoints = Checkpoints(small_disk)
    checkpoints.save(1, big, {})
    with pytest.raises(OSError, match="No space left on device"):
        checkpoints.save(2, big, {})
    assert checkpoints.steps() == [1]
    assert sorted(p.name for p in small_disk.iterdir()) == ["step-00000001"]
    assert torch.equal((checkpoints.load_latest() or ({}, {}))[0]["weight"], big["weight"])
    assert "Traceback" not in capfd.readouterr().err


def test_killed_while_saving(tmp_path: Path) -> None:
    """Killed at any moment, what can be loaded is whole."""
    script = f"""
import os, threading, torch
from groundup.train.checkpoints import Checkpoints
checkpoints = Checkpoints({str(tmp_path)!r}, 2)
threading.Timer(0.3, lambda: os.kill(os.getpid(), 9)).start()
for step in range(1, 10_000):
    checkpoints.save(step, {{"weight": torch.full((20_000,), float(step))}}, {{}})
"""
    process = subprocess.run([sys.executable, "-c", script], capture_output=True)
    assert process.returncode == -9, process.stderr
    checkpoints = Checkpoints(tmp_path)
    found = checkpoints.load_latest()
    if found is not None:
        assert (found[0]["weight"] == found[1]["step"]).all()
    checkpoints.save(20_000, tensors(1), {})
    assert not list(tmp_path.glob(".*"))  # what the kill left behind is gone


def test_a_checkpoint_holds_no_weights_as_pickle(tmp_path: Path) -> None:
    saved(tmp_path, 3)
    facts = json.loads((tmp_path / "step-00000003" / "state.json").read_text())
    assert facts["files"].keys() == {".metadata", "__0_0.distcp"}
    assert load_checkpoint(tmp_path / "step-00000003")[1] == facts
