"""Kernels as every CPU can run them: those for AMX with its instructions imitated."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator

import pytest

from groundup.native import build


@pytest.fixture
def tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels with AMX imitated in C; skips where there can be none."""
    compiler = build.find_compiler()
    if compiler is None or build.obstacle("software"):
        pytest.skip("no compiler, or not a CPU the kernels are for")
    path = build.build(compiler, os.environ.get("GROUNDUP_TEST_KERNELS", "software"))
    loaded = build.Status(path, "AMX imitated", True), ctypes.CDLL(str(path))
    monkeypatch.setattr(build, "_load", lambda: loaded)


@pytest.fixture(params=["avx512", "software"])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The kernels without AMX, then with AMX imitated."""
    compiler = build.find_compiler()
    if compiler is None or build.obstacle(request.param):
        pytest.skip("no compiler, or not a CPU the kernels are for")
    # Under the sanitizer there is one library, whose tiles are imitated.
    mode: str = "software" if "GROUNDUP_TEST_KERNELS" in os.environ else request.param
    path = build.build(compiler, os.environ.get("GROUNDUP_TEST_KERNELS", mode))
    loaded = build.Status(path, mode, mode == "software"), ctypes.CDLL(str(path))
    monkeypatch.setattr(build, "_load", lambda: loaded)
    yield mode
