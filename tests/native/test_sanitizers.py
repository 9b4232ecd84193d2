"""The kernels' own tests again, with every memory access and every overflow checked."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from groundup.native import build

HERE = Path(__file__).parent


@pytest.mark.slow
def test_nothing_is_read_or_written_out_of_bounds() -> None:
    compiler = build.find_compiler()
    if compiler is None or build.obstacle("checked"):
        pytest.skip("no compiler, or not a CPU the kernels are for")
    command = [compiler, "-print-file-name=libasan.so"]
    library = Path(
        subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    )
    if not library.is_absolute():
        pytest.skip("the compiler has no address sanitizer")
    tests = [str(HERE / f"test_{name}.py") for name in ("attention", "linear", "step")]
    # torch and Python are not built for it: what they never free is not ours to find.
    environment = os.environ | {
        "LD_PRELOAD": str(library),
        "ASAN_OPTIONS": "detect_leaks=0",
        "GROUNDUP_TEST_KERNELS": "checked",
    }
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-n", "0", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, *tests], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert " passed" in done.stdout
