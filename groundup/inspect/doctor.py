"""`groundup doctor`: what this machine has, what it measures, and what groundup will therefore use.

Facts come from the operating system, speeds from short measurements, and the policy from the same
`groundup.device.detect` that training calls, so the report cannot disagree with a run.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import json
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import groundup
from groundup import device

if TYPE_CHECKING:
    from rich.table import Table

GIGABYTE = 2**30
# The instruction sets that decide how fast matrices multiply, fastest last.
INSTRUCTIONS = (
    "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16",
    "amx_int8", "amx_bf16", "amx_fp16", "asimd", "bf16", "sve", "i8mm",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """Everything `groundup doctor` found. Sizes in GB (2^30 bytes), speeds as the names say."""

    groundup: str
    system: str
    python: str
    torch: str
    cpu: str
    physical_cores: int | None
    """None where the operating system does not tell."""
    logical_cores: int
    usable_cores: int
    """Logical cores left to this process by its affinity mask and control group."""
    busy_cores: float | None
    """How many of the usable cores other programs kept busy just before we measured; None where
    the operating system does not tell."""
    instructions: tuple[str, ...]
    memory_gb: float
    memory_free_gb: float
    disk_free_gb: float
    """In the current folder, where runs are written."""
    allocator: str
    compiler: str
    gpus: tuple[str, ...]
    matmul_gflops: Mapping[str, float]
    """Measured product of two 2048 x 2048 matrices, by dtype, on the policy's device."""
    bandwidth_gb_per_second: float
    policy: Mapping[str, object]
    roof_gflops: float
    """The limit that model-FLOP utilisation (MFU) is counted against."""
    advice: tuple[str, ...]


def diagnose(config: device.DeviceConfig | None = None) -> Diagnosis:
    """Look at the machine and time it; ten seconds or so. Sets threads and allocator like a run.

    Raises UserError when `config` asks for a device or dtype that is not here.
    """
    import torch

    busy_cores = _busy_cores()
    policy = device.detect(config)
    flags = device.cpu_flags()
    memory, memory_free = _memory()
    found = Diagnosis(
        groundup=groundup.__version__,
        system=f"{_distribution()}, {platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        torch=torch.__version__,
        cpu=device.cpu_name(),
        physical_cores=_physical_cores(),
        logical_cores=os.cpu_count() or 1,
        usable_cores=device.available_cores(),
        busy_cores=busy_cores,
        instructions=tuple(name for name in INSTRUCTIONS if name in flags),
        memory_gb=memory / GIGABYTE,
        memory_free_gb=memory_free / GIGABYTE,
        disk_free_gb=shutil.disk_usage(".").free / GIGABYTE,
        allocator=_allocator(),
        compiler=_compiler_version(),
        gpus=tuple(_gpus()),
        matmul_gflops={
            dtype: device.measure_matmul(dtype, 2048, policy.device)
            for dtype in _dtypes_worth_timing(policy.device, flags)
        },
        bandwidth_gb_per_second=device.measure_bandwidth(),
        policy=dataclasses.asdict(policy),
        roof_gflops=device.roof_gflops(policy),
        advice=(),
    )
    return dataclasses.replace(found, advice=tuple(advise(found)))


def advise(found: Diagnosis) -> Iterator[str]:
    """One sentence for each thing that the user could change to train faster or at all."""
    busy = found.busy_cores
    if busy is not None and busy > 0.3 * found.usable_cores:
        yield f"Other programs keep {busy:.1f} cores busy: the speeds above are too low."
    if found.usable_cores < found.logical_cores:
        yield (
            f"This process may use {found.usable_cores} of {found.logical_cores} cores: "
            "widen its affinity mask or container limit to use the rest."
        )
    if found.compiler == "none":
        yield "No C++ compiler, so no torch.compile: install one (apt install g++)."
    speeds = found.matmul_gflops
    if "amx_bf16" in found.instructions and speeds["bfloat16"] < 2 * speeds["float32"]:
        yield "The CPU has AMX but bf16 is not much faster: is ONEDNN_MAX_CPU_ISA set lower?"
    if found.memory_free_gb < 4:
        yield f"Only {found.memory_free_gb:.1f} GB of memory are free; recipes/demo.toml wants 4."
    if found.disk_free_gb < 4:
        yield f"Only {found.disk_free_gb:.1f} GB of disk are free; recipes/demo.toml wants 4."


def as_json(found: Diagnosis) -> str:
    """The diagnosis as one JSON object; numbers rounded to a tenth."""

    def rounded(value: object) -> object:
        if isinstance(value, float):
            return round(value, 1)
        if isinstance(value, Mapping):
            return {key: rounded(item) for key, item in value.items()}
        return value

    return json.dumps(rounded(dataclasses.asdict(found)), indent=2)


def as_table(found: Diagnosis) -> Table:
    """The diagnosis as a rich table: what there is, what it measures, what follows."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"groundup {found.groundup} doctor", title_justify="left", box=None)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for section in _sections(found):
        for name, value in section:
            table.add_row(name, Text(value))
        table.add_row()
    for sentence in found.advice:
        table.add_row("[yellow]note[/]", Text(sentence))
    return table


def _sections(found: Diagnosis) -> list[list[tuple[str, str]]]:
    policy = found.policy
    physical = f"{found.physical_cores} physical, " if found.physical_cores else ""
    step = "compiled" if policy["compile"] else "eager"
    speeds = ", ".join(f"{name} {speed:.0f}" for name, speed in found.matmul_gflops.items())
    return [
        [
            ("system", found.system),
            ("python", f"{found.python}, torch {found.torch}"),
            ("cpu", found.cpu),
            ("cores", f"{physical}{found.logical_cores} logical, {found.usable_cores} usable"),
            ("instructions", " ".join(found.instructions) or "unknown"),
            ("gpu", "; ".join(found.gpus) or "none"),
            ("memory", f"{found.memory_gb:.1f} GB, {found.memory_free_gb:.1f} GB free"),
            ("disk", f"{found.disk_free_gb:.0f} GB free in {Path.cwd()}"),
            ("allocator", found.allocator),
            ("compiler", found.compiler),
        ],
        [
            ("matmul", f"{speeds} GFLOP/s (2048 x 2048)"),
            ("bandwidth", f"{found.bandwidth_gb_per_second:.1f} GB/s read from memory"),
        ],
        [
            ("will use", f"{policy['device']}, {policy['compute_dtype']}, {step} training step"),
            ("threads", str(policy["threads"])),
            ("because", str(policy["reason"])),
            ("MFU roof", f"{found.roof_gflops:.0f} GFLOP/s"),
        ],
    ]


def _dtypes_worth_timing(name: str, flags: frozenset[str]) -> list[str]:
    """fp16 without fp16 instructions runs element by element and would take minutes to time."""
    if name != "cpu":
        return ["float32", "bfloat16", "float16"]
    has_fp16 = flags & {"avx512_fp16", "amx_fp16", "asimdhp"}
    return device.matmul_dtypes() + (["float16"] if has_fp16 else [])


def _distribution() -> str:
    with contextlib.suppress(OSError):
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    return platform.platform(terse=True)


def _physical_cores() -> int | None:
    """Distinct sets of hyper-thread siblings on Linux; sysctl on a Mac."""
    siblings = Path("/sys/devices/system/cpu").glob("cpu[0-9]*/topology/thread_siblings_list")
    if count := len({path.read_text() for path in siblings}):
        return count
    if platform.system() == "Darwin":
        return int(_output(["sysctl", "-n", "hw.physicalcpu"]) or 0) or None
    return None


def _busy_cores(seconds: float = 0.5) -> float | None:
    """Cores' worth of work by other programs over the next moment, on the cores we may use.

    Not the load average: that is a mean over the minutes past, so a run that has just ended would
    still count.
    """
    if not hasattr(os, "sched_getaffinity"):
        return None
    try:
        before, own = _busy_seconds(), time.process_time()
        started = time.perf_counter()
        time.sleep(seconds)
        elapsed, own = time.perf_counter() - started, time.process_time() - own
        busy = (_busy_seconds() - before - own) / elapsed
    except OSError:
        return None
    # With a CPU quota we own no particular cores: what others do on the rest takes nothing away.
    spare = len(os.sched_getaffinity(0)) - device.available_cores()
    return max(0.0, busy - spare)


def _busy_seconds() -> float:
    """Processor time since the machine started, of all programs, on the cores of our affinity."""
    ours = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    ticks = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *times = line.split()
        if name in ours:
            user, nice, system, _idle, _waiting, interrupts, soft_interrupts = map(int, times[:7])
            ticks += user + nice + system + interrupts + soft_interrupts
    return ticks / os.sysconf("SC_CLK_TCK")


def _memory() -> tuple[int, int]:
    """Bytes of memory (total, free for use), within the control group's limit if there is one."""
    total = free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) * 1024
    group = Path("/sys/fs/cgroup")
    for limit, used in (
        ("memory.max", "memory.current"),  # control groups version 2, then version 1
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
            total = min(total, int((group / limit).read_text()))
            free = min(free, total - int((group / used).read_text()))
    return total, free


class _MallocInfo(ctypes.Structure):
    """glibc's `struct mallinfo2`; `hblks` counts the blocks that have a memory map of their own."""

    _fields_ = (
        *((name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks")),
        ("rest", ctypes.c_size_t * 6),
    )


def _allocator() -> str:
    """Which malloc this process runs on and, for glibc, what becomes of a large block."""
    with contextlib.suppress(OSError):
        maps = Path("/proc/self/maps").read_text()
        for name in ("tcmalloc", "jemalloc", "mimalloc"):
            if f"lib{name}" in maps:
                return name
    library, version = platform.libc_ver()
    if library != "glibc":
        return library or "system"
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallinfo2"):
        return f"glibc {version}"
    libc.mallinfo2.restype = _MallocInfo
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, (ctypes.c_size_t,)
    libc.free.argtypes = (ctypes.c_void_p,)
    before = libc.mallinfo2().hblks
    block = libc.malloc(64 * 2**20)
    mapped = libc.mallinfo2().hblks > before
    libc.free(block)
    fate = "mapped anew each time (slow)" if mapped else "kept for reuse"
    return f"glibc {version}, blocks of 64 MB are {fate}"


def _compiler_version() -> str:
    path = device.compiler()
    return f"{_output([path, '--version']).splitlines()[0]} ({path})" if path else "none"


def _output(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def _gpus() -> Iterator[str]:
    import torch

    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        capability = f"compute capability {properties.major}.{properties.minor}"
        yield f"{properties.name}, {properties.total_memory / GIGABYTE:.0f} GB, {capability}"
    if torch.backends.mps.is_available():
        yield "Apple GPU (mps)"
