"""Run folders that cannot be written, are full or damaged: nothing is torn or lost."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from groundup.cli import main
from groundup.files import read_json

pytestmark = pytest.mark.usefixtures("known_roof")

Refused = Callable[..., str]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """`small_disk("size=1m")` mounts a small file system of its own."""
    folder = tmp_path / "disk"

    def mount(options: str) -> Path:
        folder.mkdir()
        words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        if shutil.which("mount") is None or subprocess.run(words, capture_output=True).returncode:
            pytest.skip("needs the right to mount a tmpfs")
        return folder

    yield mount
    if os.path.ismount(folder):
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_truncated_checkpoints(
    refused: Refused, tiny_run: Path, tiny_recipe: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(tiny_run, tmp_path / "run")
    (run / "stages" / "pretrain.json").unlink()  # as if it had been killed at the end
    for file in (run / "checkpoints" / "pretrain").rglob("*.distcp"):
        os.truncate(file, file.stat().st_size // 3)
    sentence = refused("speedrun", tiny_recipe, "--run", run)
    assert "Every checkpoint in" in sentence and "is damaged" in sentence
    assert (run / "sft" / "model.safetensors").exists()


def test_a_run_folder_that_cannot_be_written(
    refused: Refused, tiny_recipe: Path, small_disk: Callable[..., Path], tmp_path: Path
) -> None:
    folder = small_disk("size=1m,ro")
    sentence = refused("speedrun", tiny_recipe, "--run", folder / "run")
    assert "Cannot write into the run folder" in sentence and "--run FOLDER" in sentence
    (tmp_path / "file").write_text("x")
    assert "Cannot write" in refused("speedrun", tiny_recipe, "--run", tmp_path / "file")
    assert (tmp_path / "file").read_text() == "x"


@pytest.mark.parametrize("kilobytes", [60, 260, 440, 520, 560, 640])
def test_a_full_disk(
    refused: Refused, tiny_recipe: Path, small_disk: Callable[..., Path], kilobytes: int
) -> None:
    """Full while the text is stored, while checkpoints are, while models are: nothing is torn,
    and with more room the same command goes on."""
    disk = small_disk(f"size={kilobytes}k")
    sentence = refused("speedrun", tiny_recipe, "--run", disk / "run")
    assert "No space left on device" in sentence
    for path in (disk / "run").rglob("*.json"):
        read_json(path)
    subprocess.run(["mount", "-o", "remount,size=50m", str(disk)], check=True)
    main(["speedrun", str(tiny_recipe), "--run", str(disk / "run")])
    assert not list((disk / "run").rglob("*.tmp"))
    assert json.loads((disk / "run" / "report.json").read_text())["val_bpb"] > 0
