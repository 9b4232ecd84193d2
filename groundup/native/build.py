"""The C kernels, compiled with the system's compiler for this very CPU on first use.

The library is kept under the user's cache folder, named by a hash of the sources, the compiler, its
flags and what the CPU can do: a change of any makes a new one. Two processes that build at once
write a file each and rename it; whoever is last wins, with equal content.

Where there is no compiler, or another kind of CPU, there is no library: callers take torch's own
operations, and `status` says why. GROUNDUP_NATIVE says otherwise:

    0          no kernels
    avx512     none that need AMX: the default, until those have run on a CPU that has it
    amx        those for AMX, too
    software   AMX imitated in C: for tests on other CPUs, and slow
    checked    the same under the address sanitizer, which has to be loaded first
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from groundup.config import UserError, did_you_mean
from groundup.device import cpu_flags
from groundup.files import atomic_write, cache_folder

SOURCES = Path(__file__).parent / "csrc"
FLAGS = ("-std=c11", "-O3", "-march=native", "-fopenmp", "-fPIC", "-shared", "-D_GNU_SOURCE")
NEEDED = ("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni")
"""Without these there is nothing to compile: the kernels are written for vectors of 64 bytes."""
_MODES = {
    "0": "",
    "avx512": "-DGROUNDUP_NO_TILES",
    "amx": "",
    "software": "-DGROUNDUP_SOFTWARE_TILES",
    "checked": "-DGROUNDUP_SOFTWARE_TILES -g -O1 -fsanitize=address,undefined "
    "-fno-sanitize-recover",
}


@dataclass(frozen=True)
class Status:
    """Which kernels there are, and why no others."""

    library: Path | None
    reason: str
    tiles: bool = False
    """Those for AMX, too."""


def library() -> ctypes.CDLL | None:
    """The loaded kernels, built if need be; None where there are none (see `status`)."""
    return _load()[1]


def status() -> Status:
    """Where the kernels are, or why there are none; builds them if they are missing."""
    return _load()[0]


@functools.cache
def _load() -> tuple[Status, ctypes.CDLL | None]:
    mode = os.environ.get("GROUNDUP_NATIVE", "avx512")
    if mode not in _MODES:
        hint = did_you_mean(mode, _MODES)
        raise UserError(f"GROUNDUP_NATIVE is {mode!r}; it can be {', '.join(_MODES)}.{hint}")
    if reason := obstacle(mode):
        return Status(None, reason), None
    compiler = find_compiler()
    if compiler is None:
        return Status(None, "there is no C compiler (apt install gcc)"), None
    try:
        path, note = build(compiler, mode), ""
        if not is_proven(path):
            path, note = build(compiler, "avx512"), "; those for AMX fail their first test"
        kernels = ctypes.CDLL(str(path))
    except OSError as error:
        return Status(None, f"they could not be compiled: {error}"), None
    if kernels.groundup_tiles():
        return Status(path, "AVX-512 and AMX" if mode == "amx" else "AMX imitated", True), kernels
    if not note and mode == "amx" and "amx_bf16" in cpu_flags():
        note = "; the system denies AMX"
    return Status(path, f"AVX-512{note}"), kernels


def obstacle(mode: str) -> str:
    """Why there cannot be kernels here; "" if nothing stands against them."""
    if mode == "0":
        return "GROUNDUP_NATIVE=0 turns them off"
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return f"they are for Linux on x86-64, not {platform.system()} on {platform.machine()}"
    missing = [flag for flag in NEEDED if flag not in cpu_flags()]
    return f"this CPU has no {missing[0]}" if missing else ""


def build(compiler: str, mode: str = "avx512") -> Path:
    """Path of the compiled library for this CPU. Raises OSError with the compiler's first words."""
    flags = [*FLAGS, *_MODES[mode].split()]
    folder = cache_folder() / "native"
    target = folder / f"kernels-{_fingerprint(compiler, flags)}.so"
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=folder, suffix=".so.tmp")
    os.close(handle)
    try:
        files = [str(path) for path in sorted(SOURCES.glob("*.c"))]
        command = [compiler, *flags, *files, "-o", temporary, "-lm"]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            errors = [line for line in result.stderr.splitlines() if "error" in line]
            raise OSError((errors or ["the compiler does not say why"])[0])
        os.replace(temporary, target)
    finally:
        Path(temporary).unlink(missing_ok=True)
    return target


def is_proven(path: Path) -> bool:
    """Whether this library passed `groundup.native.selftest`, which it takes once."""
    proof = path.with_suffix(".proof")
    if not proof.exists():
        command = [sys.executable, "-m", "groundup.native.selftest", str(path)]
        done = subprocess.run(command, capture_output=True, check=False)
        with atomic_write(proof, "w") as file:
            file.write(str(done.returncode))
    return proof.read_text() == "0"


def find_compiler() -> str | None:
    """$CC, or the first of cc, gcc and clang on PATH."""
    wanted = os.environ.get("CC", "").split()
    names = wanted[:1] or ["cc", "gcc", "clang"]
    return next((found for name in names if (found := shutil.which(name))), None)


def _fingerprint(compiler: str, flags: list[str]) -> str:
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False)
    digest = hashlib.sha256()
    for path in sorted(SOURCES.iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    digest.update("\0".join((version.stdout, *flags, *sorted(cpu_flags()))).encode())
    return digest.hexdigest()[:20]
