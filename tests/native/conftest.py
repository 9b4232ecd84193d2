"""Kernels as every CPU can run them: those for AMX with its instructions imitated."""

from __future__ import annotations

import ctypes
import os

import pytest

from groundup.native import build


def use(mode: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Load these kernels for the test; skip where there can be none. Under the sanitizer there is
    one library for all, whose tiles are imitated."""
    compiler = build.find_compiler()
    if compiler is None or build.obstacle(mode):
        pytest.skip("no compiler, or not a CPU the kernels are for")
    checked = os.environ.get("GROUNDUP_TEST_KERNELS")
    mode = "software" if checked else mode
    path = build.build(compiler, checked or mode)
    loaded = build.Status(path, mode, mode == "software"), ctypes.CDLL(str(path))
    monkeypatch.setattr(build, "_load", lambda: loaded)
    return mode


@pytest.fixture
def tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels with AMX imitated in C."""
    use("software", monkeypatch)


@pytest.fixture(params=["avx512", "software"])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The kernels without AMX, then with AMX imitated."""
    return use(request.param, monkeypatch)
