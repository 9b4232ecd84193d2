"""Building the kernels: once, for this CPU, and never at the price of a run."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from groundup.config import UserError
from groundup.native import build

REPORT = "from groundup.native.build import status; print(status())"


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A compiler, and a cache folder of the test's own."""
    found = build.find_compiler()
    if found is None or build.obstacle("avx512"):
        pytest.skip("no compiler, or not a CPU the kernels are for")
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path))
    return found


def fake_compiler(path: Path, script: str) -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def report(**environment: str) -> str:
    """What a process of its own says of the kernels."""
    done = subprocess.run(
        [sys.executable, "-c", REPORT],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_is_built_once(compiler: str) -> None:
    path = build.build(compiler)
    changed = path.stat().st_mtime_ns
    assert build.build(compiler) == path and path.stat().st_mtime_ns == changed
    assert build.build(compiler, "amx") != path


def test_two_at_once_leave_one_whole_library(compiler: str, tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: build.build(compiler, "avx512"), range(2))
    assert first == second
    assert [path.name for path in (tmp_path / "native").iterdir()] == [first.name]


def test_a_failing_compiler_leaves_nothing_and_is_quoted(compiler: str, tmp_path: Path) -> None:
    failing = fake_compiler(tmp_path / "cc", "echo 'x.c:1: error: no luck' >&2; exit 1")
    with pytest.raises(OSError, match="no luck"):
        build.build(str(failing))
    assert not list((tmp_path / "native").iterdir())
    assert "no luck" in report(CC=str(failing), GROUNDUP_CACHE=str(tmp_path))


def test_a_library_is_tried_once_in_a_process_of_its_own(compiler: str, tmp_path: Path) -> None:
    path = build.build(compiler, "software")
    assert build.is_proven(path) and path.with_suffix(".proof").read_text() == "0"
    # One that computes something else, and one that ends its process.
    for number, body in enumerate(("return 0;", "__builtin_trap();")):
        source, wrong = tmp_path / f"{number}.c", tmp_path / f"{number}.so"
        source.write_text(
            "int groundup_tiles(void) { return 1; }\n"
            f"int groundup_linear_backward(void *call) {{ (void)call; {body} }}\n"
        )
        command = [compiler, "-shared", "-fPIC", str(source), "-o", str(wrong)]
        subprocess.run(command, check=True)
        assert not build.is_proven(wrong)


def test_without_compiler_or_by_wish_there_are_none(compiler: str, tmp_path: Path) -> None:
    assert "no C compiler" in report(PATH=str(tmp_path), CC="")
    assert "turns them off" in report(GROUNDUP_NATIVE="0")


def test_another_cpu_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "cpu_flags", lambda: frozenset({"avx2"}))
    assert "no avx512f" in build.obstacle("avx512")
    monkeypatch.setattr(build.platform, "machine", lambda: "aarch64")
    assert "aarch64" in build.obstacle("avx512")


def test_a_mode_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROUNDUP_NATIVE", "sofware")
    build._load.cache_clear()
    with pytest.raises(UserError, match="software"):
        build.status()
    build._load.cache_clear()
