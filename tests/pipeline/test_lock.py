"""Two runs never write into one folder: the second is told who is there, and a kill frees it."""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from groundup.config import UserError
from groundup.pipeline import lock
from groundup.pipeline.lock import locked

HOLD = """
import os, subprocess, sys, time
from pathlib import Path
from groundup.pipeline.lock import locked
with locked(Path(sys.argv[1])):
    child = subprocess.Popen(["sleep", "600"], close_fds=False)
    forked = os.fork()
    if not forked:
        time.sleep(600)
    print(child.pid, forked, flush=True)
    sys.stdin.read()
"""
# A run that stops and waits as soon as it has the folder; the rest of the words are a command line.
WAIT = """
import sys
from groundup.pipeline import run
def wait(*_):
    print("in", flush=True)
    sys.stdin.read()
    raise KeyboardInterrupt
run.walk = wait
run.roof_gflops = lambda policy: 100.0
from groundup.cli import main
main(sys.argv[1:])
"""


def start(code: str, *words: str, launcher: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    command = [sys.executable, *launcher, *(() if launcher else ("-c", code)), *words]
    pipe = subprocess.PIPE
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment
    )


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout and process.stderr
    found = process.stdout.readline()
    assert found, process.stderr.read()
    return found.strip()


def test_the_second_is_told_who_the_first_is(tmp_path: Path) -> None:
    with start(HOLD, str(tmp_path)) as first:
        children = [int(pid) for pid in line(first).split()]
        with pytest.raises(UserError) as refusal, locked(tmp_path):
            pass
        message = str(refusal.value)
        assert f"process {first.pid} on {socket.gethostname()} since 20" in message
        assert str(tmp_path) in message and "--run FOLDER" in message
        # Killed, it frees the folder, though children that inherited its files live on.
        first.kill()
        first.wait(timeout=100)
        with locked(tmp_path):
            assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()
        for child in children:
            os.kill(child, signal.SIGKILL)


def test_released_at_the_end_and_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), locked(tmp_path):
        raise RuntimeError
    code = "import sys; from pathlib import Path; from groundup.pipeline.lock import locked\n"
    code += "with locked(Path(sys.argv[1])): print('free')"
    with start(code, str(tmp_path)) as other:
        assert line(other) == "free"


def test_an_owner_that_has_not_signed_yet(tmp_path: Path) -> None:
    code = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX)\n"
    code += "print('held', flush=True); sys.stdin.read()"
    with start(code, str(tmp_path / ".lock")) as first:
        assert line(first) == "held"
        with pytest.raises(UserError, match="in use by another process"), locked(tmp_path):
            pass
        first.kill()


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EIO])
def test_a_file_system_without_locks_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, code: int
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(lock.fcntl, "lockf", fail)
    if code == errno.EIO:
        with pytest.raises(OSError, match="Input/output"), locked(tmp_path):
            pass
        return
    with caplog.at_level(logging.WARNING, "groundup"), locked(tmp_path):
        pass
    assert "no second run" in caplog.text


def test_two_speedruns_of_one_folder(
    tiny_recipe: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    run = tmp_path / "run"
    words = ("speedrun", str(tiny_recipe), "--run", str(run))
    with start(WAIT, *words) as first:
        assert line(first) == "in"
        config = (run / "config.toml").read_text()
        assert f"in use by process {first.pid} on " in refused(*words, "--seed", "9")
        assert (run / "config.toml").read_text() == config  # the second changed nothing
        first.communicate("", timeout=280)
        assert first.returncode == 130


@pytest.mark.slow
def test_the_processes_of_one_run_share_it(tiny_recipe: Path, tmp_path: Path) -> None:
    """Under torchrun the first process holds the lock, and a refusal reaches them all."""
    driver = tmp_path / "driver.py"
    driver.write_text(WAIT)
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--")
    words = (str(driver), "speedrun", str(tiny_recipe), "--run", str(tmp_path / "run"))
    with start("", *words, launcher=launcher) as first:
        assert line(first) + line(first) == "inin"  # not always on two lines
        holder = json.loads((tmp_path / "run" / ".lock").read_text())["pid"]
        with start("", *words, launcher=launcher) as second:
            _, error = second.communicate(timeout=280)
        assert second.returncode != 0
        assert error.count(f"in use by process {holder} on ") == 2
        first.terminate()
        first.communicate(timeout=280)
