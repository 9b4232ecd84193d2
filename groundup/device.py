"""The one place that knows devices, number formats, threads, the allocator and seeds.

What a CPU does well is measured, not assumed: bf16 matrix multiplication is eight times faster than
fp32 on a CPU with AMX and slower than fp32 on many without, so `detect` times both before it picks.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import platform
import random
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from groundup.config import UserError, require

if TYPE_CHECKING:
    import torch

DTYPES = ("float32", "bfloat16", "float16")
AttentionKernel = Literal["auto", "sdpa", "flex", "eager"]
# Peak dense bf16/fp16 tensor-core TFLOP/s by device name, from NVIDIA's data sheets (no sparsity).
_GPU_TFLOPS = {
    "B200": 2250.0, "H200": 989.0, "H100": 989.0, "A100": 312.0, "L40S": 362.0, "L4": 121.0,
    "A10": 125.0, "RTX 5090": 209.5, "RTX 4090": 165.2, "RTX 3090": 71.0, "V100": 125.0, "T4": 65.0,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class DeviceConfig:
    """What the user asks for; every "auto" and 0 is decided by `detect`."""

    device: str = "auto"
    """auto, cpu, mps, cuda or cuda:N."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Format of the matrix multiplications; weights and optimizer state stay fp32."""
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile the training step."""
    threads: int = 0
    """CPU threads; 0 takes all cores this process may use."""
    attention: AttentionKernel = "auto"
    """What computes attention: "sdpa" is torch's fused kernel, "flex" is FlexAttention, which skips
    what nobody sees and needs a GPU, "eager" writes all scores out; auto takes the first it can."""
    deterministic: bool = True
    """Take the algorithms whose result is the same in every run, where torch has them for this
    device; it warns where it has none."""

    def __post_init__(self) -> None:
        require(self.threads >= 0, f"device.threads cannot be negative: {self.threads}.")


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Where and how to compute, as decided by `detect`."""

    device: str
    compute_dtype: str
    compile: bool
    threads: int
    reason: str = ""

    @property
    def torch_device(self) -> torch.device:
        import torch

        return torch.device(self.device)

    @property
    def torch_dtype(self) -> torch.dtype:
        import torch

        return getattr(torch, self.compute_dtype)

    @property
    def grad_scaler(self) -> bool:
        """Only fp16 needs loss scaling: its smallest normal number is 6e-5."""
        return self.compute_dtype == "float16"

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """Matrix multiplications in the compute dtype; a no-op for fp32."""
        if self.compute_dtype == "float32":
            return contextlib.nullcontext()
        import torch

        return torch.autocast(self.torch_device.type, dtype=self.torch_dtype)

    def describe(self) -> str:
        compiled = "compiled" if self.compile else "eager"
        threads = f", {self.threads} threads" if self.device == "cpu" else ""
        return f"{self.device}, {self.compute_dtype}, {compiled}{threads} ({self.reason})"


def detect(config: DeviceConfig | None = None, local_rank: int = 0) -> Policy:
    """Decide device, dtype, compilation and threads, and apply the process-wide settings.

    cuda before mps before cpu. Under torchrun each process takes the GPU of its local rank.
    Raises UserError for a device that is not here or a dtype that it cannot compute.
    """
    import torch

    config = config or DeviceConfig()
    device = _pick_device(config.device, local_rank)
    threads = config.threads or _default_threads()
    torch.set_num_threads(threads)
    kind = device.split(":")[0]
    if kind == "cpu":
        keep_large_blocks()
    if kind == "cuda":
        torch.cuda.set_device(torch.device(device))
    dtype, reason = _pick_dtype(config.dtype, kind)
    can_compile = kind == "cuda" or (kind == "cpu" and compiler() is not None)
    if config.compile == "on":
        require(can_compile, "device.compile = 'on' needs a C++ compiler (apt install g++).")
    compile_step = config.compile == "on" or (config.compile == "auto" and can_compile)
    require(
        config.attention != "flex" or kind == "cuda",
        f"device.attention = 'flex' needs a GPU that CUDA runs on, not {kind}; choose auto.",
    )
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
    return Policy(
        device=device, compute_dtype=dtype, compile=compile_step, threads=threads, reason=reason
    )


def seed_everything(seed: int, rank: int = 0) -> None:
    """Seed Python's and torch's generators (all devices); rank 0 gets `seed` itself.

    Each process of a run draws its own numbers, such as dropout masks. Weights start equal all the
    same: data parallelism sends those of rank 0 to everyone.
    """
    import torch

    seed += rank << 32  # far apart, so that the ranks of one run are not the seeds of the next
    random.seed(seed)
    torch.manual_seed(seed)


def available_cores() -> int:
    """Cores this process may use: the affinity mask, cut by a cgroup (v1 or v2) CPU quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    for files in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        with contextlib.suppress(OSError, ValueError):
            texts = [(Path("/sys/fs/cgroup") / file).read_text() for file in files]
            quota, period = map(int, " ".join(texts).split())  # "max" or -1: no quota
            if quota > 0:
                cores = min(cores or 1, max(1, quota // period))
    return cores or 1


def cpu_name() -> str:
    """Model name of the processor, with its model number, since virtual machines hide the name."""
    fields: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            fields.setdefault(key.strip(), value.strip())
    name = fields.get("model name") or platform.processor() or platform.machine()
    model = f" (model {fields['model']})" if "model" in fields else ""
    amx = " with AMX" if "amx_bf16" in fields.get("flags", "").split() else ""
    return f"{name}{model}{amx}"


def cpu_flags() -> frozenset[str]:
    """Instruction-set flags as Linux names them; empty elsewhere."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("flags"):
                return frozenset(line.partition(":")[2].split())
    return frozenset()


def compiler() -> str | None:
    """Path of the C++ compiler that torch.compile would use, or None."""
    return shutil.which(os.environ.get("CXX", "")) or shutil.which("g++") or shutil.which("clang++")


def matmul_dtypes() -> list[str]:
    """Formats whose CPU matrix multiplication is worth timing.

    Without instructions for bf16 it is emulated, so slowly that even timing it takes seconds.
    """
    flags = cpu_flags()
    has_bf16 = not flags or bool(flags & {"amx_bf16", "avx512_bf16", "bf16"})
    return ["float32", "bfloat16"] if has_bf16 else ["float32"]


@functools.cache
def measure_matmul(dtype: str, size: int = 1024, device: str = "cpu") -> float:
    """GFLOP/s of a (size, size) x (size, size) product, the best of seven after two warm-ups."""
    import torch

    a = torch.ones(size, size, dtype=getattr(torch, dtype), device=device)

    def product() -> None:
        torch.mm(a, a)
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        elif device == "mps":
            torch.mps.synchronize()

    return 2 * size**3 / _best_seconds(product) / 1e9


@functools.cache
def measure_bandwidth(megabytes: int = 512) -> float:
    """GB/s at which all threads read a buffer larger than most caches."""
    import torch

    buffer = torch.ones(megabytes * 2**20 // 4)
    return buffer.nbytes / _best_seconds(buffer.sum) / 1e9


def roof_gflops(policy: Policy) -> float:
    """The speed limit that model-FLOP utilisation is measured against, in GFLOP/s.

    CPU: the faster of the measured fp32 and bf16 products, whatever the policy chose. GPU: the
    data-sheet peak for the compute dtype, or the measured product when the model is not listed.
    """
    if policy.device == "cpu":
        return max(measure_matmul(dtype, 2048) for dtype in matmul_dtypes())
    if policy.device.startswith("cuda") and policy.compute_dtype != "float32":
        import torch

        name = torch.cuda.get_device_name(policy.device)
        for key, tflops in _GPU_TFLOPS.items():
            if key in name:
                return tflops * 1e3
    return measure_matmul(policy.compute_dtype, 4096, policy.device)


def keep_large_blocks() -> bool:
    """Tell glibc to reuse large freed blocks instead of returning them to the kernel.

    By default every tensor above 32 MB is a fresh mmap, whose page faults cost about a tenth of a
    training step. `GROUNDUP_MALLOC=default` leaves the allocator alone. Returns whether both
    settings were taken.
    """
    if os.environ.get("GROUNDUP_MALLOC") == "default" or platform.libc_ver()[0] != "glibc":
        return False
    trim_threshold, mmap_threshold = -1, -3
    libc = ctypes.CDLL(None)
    largest = 2**31 - 1
    settings = {mmap_threshold: 2**30, trim_threshold: largest}
    return all([libc.mallopt(name, value) for name, value in settings.items()])  # try both


def peak_memory_mb(device: str = "cpu") -> float:
    """Peak memory of this process in MB: resident memory on CPU, allocated memory on a GPU."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.max_memory_allocated(device) / 2**20
    import resource

    unit = 2**20 if platform.system() == "Darwin" else 2**10  # bytes there, kilobytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _default_threads() -> int:
    """The cores we may use, shared by the processes of this machine; fewer where OMP says so."""
    processes = os.environ.get("LOCAL_WORLD_SIZE")
    if processes:  # torchrun sets OMP_NUM_THREADS to 1 by itself, so it is nobody's wish
        return max(1, available_cores() // int(processes))
    wished = os.environ.get("OMP_NUM_THREADS", "")
    return (
        min(available_cores(), int(wished))
        if wished.isdecimal() and int(wished)
        else (available_cores())
    )


def _pick_device(wanted: str, local_rank: int) -> str:
    import torch

    if wanted == "auto":
        if torch.cuda.is_available():
            wanted = "cuda"
        else:
            wanted = "mps" if torch.backends.mps.is_available() else "cpu"
    if wanted == "cuda":
        wanted = f"cuda:{local_rank}"
    kind = wanted.split(":")[0]
    if kind not in ("cpu", "mps", "cuda"):
        raise UserError(f"device is '{wanted}', but must be auto, cpu, mps, cuda or cuda:N.")
    if kind == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device is '{wanted}', but torch sees no CUDA GPU; use device = 'cpu'.")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise UserError("device is 'mps', but this is not a Mac with Metal; use device = 'cpu'.")
    return wanted


def _pick_dtype(wanted: str, kind: str) -> tuple[str, str]:
    import torch

    if wanted != "auto":
        require(wanted in DTYPES, f"dtype is '{wanted}', but must be auto, {', '.join(DTYPES)}.")
        require(
            not (wanted == "float16" and kind == "cpu"),
            "dtype = 'float16' is for GPUs; on a CPU use bfloat16 or float32.",
        )
        return wanted, "asked for"
    if kind == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bfloat16", "the GPU computes bf16"
        return "float16", "the GPU has no bf16, so fp16 with loss scaling"
    if kind == "mps":
        return "float32", "default on Metal"
    if "bfloat16" not in matmul_dtypes():
        return "float32", "the CPU has no bf16 instructions"
    full, half = measure_matmul("float32"), measure_matmul("bfloat16")
    reason = f"bf16 {half:.0f}, fp32 {full:.0f} GFLOP/s measured"
    # Autocast adds casts around every product: bf16 must be clearly faster to pay for them.
    return ("bfloat16", reason) if half > 1.5 * full else ("float32", reason)


def _best_seconds(run: Callable[[], object], repeats: int = 7) -> float:
    # The best, not the median: other processes can only slow a machine's limit down.
    run()
    run()
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return best
