"""Killed at random steps, the run goes on as if nothing had happened, bit for bit."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from groundup.train.log import JsonLog

STEPS = 30
# The command line, in a process that may be told to die: some milliseconds after the given row of
# the log is written, which is anywhere in the steps, evaluations and savings that follow.
DRIVER = """
import json, os, sys, threading
from groundup.pipeline import run
from groundup.train.log import JsonLog
from groundup.cli import main

run.roof_gflops = lambda policy: 100.0
stage, step, seconds = json.loads(sys.argv[1])
write = JsonLog.write

def deadly(log, row):
    write(log, row)
    if (row["stage"], row["step"]) == (stage, step) and "loss" in row:
        threading.Timer(seconds, os.kill, (os.getpid(), 9)).start()

JsonLog.write = deadly
main(sys.argv[2:])
"""


def command(recipe: Path, run: Path, kill: tuple[str, int, float]) -> list[str]:
    words = ["--pretrain.steps", str(STEPS), "--sft.steps", str(STEPS)]
    for stage in ("pretrain", "sft"):
        words += [f"--{stage}.train.checkpoint_every", "4", f"--{stage}.train.evaluate_every", "7"]
    words += ["--model.dropout", "0.1"]  # the state of the random numbers counts too
    driver = [sys.executable, "-c", DRIVER, json.dumps(kill)]
    return [*driver, "speedrun", str(recipe), "--run", str(run), *words]


def start(recipe: Path, run: Path, kill: tuple[str, int, float] = ("", 0, 0.0)) -> tuple[int, str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    words = command(recipe, run, kill)
    result = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=280)
    return result.returncode, result.stderr


def curve(run: Path) -> list[tuple[Any, ...]]:
    """What a step computed, without what the clock measured."""
    timed = ("seconds", "tokens_per_second", "mfu", "split", "peak_memory_mb")
    rows = JsonLog(run / "log.jsonl").rows()
    return [tuple((k, v) for k, v in row.items() if k not in timed) for row in rows]


@pytest.mark.slow
def test_killed_at_random_steps(tiny_recipe: Path, tmp_path: Path) -> None:
    assert start(tiny_recipe, tmp_path / "whole")[0] == 0
    generator = random.Random(1)
    for stage in ("pretrain", "sft"):
        for step in sorted(generator.sample(range(2, STEPS), 3)):
            kill = (stage, step, generator.random() * 0.03)
            code, error = start(tiny_recipe, tmp_path / "killed", kill)
            assert code == -signal.SIGKILL, (kill, error)
    code, error = start(tiny_recipe, tmp_path / "killed")
    assert code == 0, error
    assert curve(tmp_path / "killed") == curve(tmp_path / "whole")
    steps = [dict(row)["step"] for row in curve(tmp_path / "whole") if "loss" in dict(row)]
    assert steps == [*range(1, STEPS + 1)] * 2
    for name in ("base", "sft"):
        files = [tmp_path / r / name / "model.safetensors" for r in ("killed", "whole")]
        assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.slow
def test_sigterm_saves_and_says_how_to_go_on(tiny_recipe: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = command(tiny_recipe, run, ("", 0, 0.0))
    words[words.index("--pretrain.steps") + 1] = "100000"
    words[words.index("--pretrain.train.checkpoint_every") + 1] = "0"
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 120
        while not (run / "log.jsonl").exists() or len(JsonLog(run / "log.jsonl").rows()) < 9:
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 143
    last = error.strip().splitlines()[-1]
    assert "Stopped by SIGTERM" in last and "Run the same command again" in last
    (saved,) = (run / "checkpoints" / "pretrain").glob("step-*")
    assert int(saved.name.removeprefix("step-")) == JsonLog(run / "log.jsonl").rows()[-1]["step"]
