"""The device policy: what it decides, what it refuses, and what it applies."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import pytest
import torch

from groundup import device
from groundup.config import UserError
from groundup.device import DeviceConfig, Policy, detect, roof_gflops, seed_everything

CPU = Policy(device="cpu", compute_dtype="float32", compile=False, threads=1)


@pytest.fixture(autouse=True)
def restore_torch_settings() -> Iterator[None]:
    yield
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(False)


def measured(monkeypatch: pytest.MonkeyPatch, full: float, half: float) -> None:
    speeds = {"float32": full, "bfloat16": half}
    monkeypatch.setattr(device, "measure_matmul", lambda dtype, *_: speeds[dtype])


@pytest.mark.parametrize(
    ("full", "half", "expected"),
    [(244.0, 138.0, "float32"), (90.0, 900.0, "bfloat16"), (100.0, 120.0, "float32")],
)
def test_the_cpu_dtype_is_the_one_that_measures_faster(
    monkeypatch: pytest.MonkeyPatch, full: float, half: float, expected: str
) -> None:
    measured(monkeypatch, full, half)
    policy = detect(DeviceConfig(device="cpu", compile="off", threads=1))
    assert policy.compute_dtype == expected
    assert f"bf16 {half:.0f}, fp32 {full:.0f}" in policy.describe()
    assert roof_gflops(policy) == max(full, half)  # the machine's limit, whatever was chosen


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (DeviceConfig(device="gpu"), "device is 'gpu', but must be auto, cpu, mps, cuda or cuda:N"),
        (DeviceConfig(device="cuda"), "torch sees no CUDA GPU"),
        (DeviceConfig(device="cuda:3"), "torch sees no CUDA GPU"),
        (DeviceConfig(device="mps"), "not a Mac with Metal"),
        (DeviceConfig(device="cpu", dtype="float16"), "'float16' is for GPUs"),
        (DeviceConfig(device="cpu", dtype="float8"), "must be auto, float32"),  # type: ignore[arg-type]
    ],
)
def test_what_is_not_here_is_refused(
    monkeypatch: pytest.MonkeyPatch, config: DeviceConfig, message: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UserError, match=message):
        detect(config)


def test_threads_cannot_be_negative() -> None:
    with pytest.raises(UserError, match="threads cannot be negative"):
        DeviceConfig(threads=-1)


def test_compile_needs_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "compiler", lambda: None)
    asked = DeviceConfig(device="cpu", dtype="float32", threads=1, compile="on")
    with pytest.raises(UserError, match=r"needs a C\+\+ compiler"):
        detect(asked)
    assert not detect(DeviceConfig(device="cpu", dtype="float32", threads=1)).compile
    monkeypatch.setattr(device, "compiler", lambda: "/usr/bin/g++")
    assert detect(asked).compile
    assert not detect(DeviceConfig(device="cpu", dtype="float32", threads=1, compile="off")).compile


def test_threads_are_shared_between_the_processes_of_a_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(device, "available_cores", lambda: 8)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    config = DeviceConfig(device="cpu", dtype="float32", compile="off")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # torchrun's, not the user's
    assert detect(config).threads == 2 == torch.get_num_threads()


@pytest.mark.parametrize(("wished", "threads"), [("3", 3), ("99", 8), ("", 8), ("all", 8)])
def test_fewer_threads_where_omp_says_so(
    monkeypatch: pytest.MonkeyPatch, wished: str, threads: int
) -> None:
    monkeypatch.setattr(device, "available_cores", lambda: 8)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", wished)
    before = torch.get_num_threads()
    try:
        config = DeviceConfig(device="cpu", dtype="float32", compile="off")
        assert detect(config).threads == threads == torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def test_available_cores_is_cut_by_affinity() -> None:
    assert 1 <= device.available_cores() <= (device.os.cpu_count() or 1)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_autocast_computes_in_the_policy_dtype(dtype: str) -> None:
    policy = Policy(device="cpu", compute_dtype=dtype, compile=False, threads=1)
    with policy.autocast():
        product = torch.ones(3, 5) @ torch.ones(5, 2)
    assert product.dtype == policy.torch_dtype == getattr(torch, dtype)
    assert policy.torch_device == torch.device("cpu")
    assert not policy.grad_scaler


def test_fp16_scales_its_gradients() -> None:
    policy = Policy(device="cuda:0", compute_dtype="float16", compile=True, threads=1)
    assert policy.grad_scaler
    assert "compiled" in policy.describe()
    assert isinstance(CPU.autocast(), contextlib.nullcontext)


def test_seeds() -> None:
    seed_everything(5)
    first = random.random(), torch.rand(3).tolist()
    seed_everything(5)
    assert (random.random(), torch.rand(3).tolist()) == first


def test_every_rank_draws_its_own_numbers() -> None:
    drawn = set()
    for seed, rank in [(5, 0), (5, 1), (5, 2), (6, 0), (6, 1)]:
        seed_everything(seed, rank)
        drawn.add((random.random(), *torch.rand(3).tolist()))
    assert len(drawn) == 5


def test_a_refused_allocator_setting_does_not_hide_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    class Libc:
        def mallopt(self, name: int, value: int) -> int:
            asked.append(name)
            return 0

    monkeypatch.delenv("GROUNDUP_MALLOC", raising=False)
    monkeypatch.setattr(device.platform, "libc_ver", lambda: ("glibc", "2.36"))
    monkeypatch.setattr(device.ctypes, "CDLL", lambda name: Libc())
    assert not device.keep_large_blocks()
    assert len(asked) == 2


def test_a_gpu_is_timed_until_it_has_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    waits = []
    ones = torch.ones
    monkeypatch.setattr(torch, "ones", lambda *sizes, dtype, device: ones(*sizes, dtype=dtype))
    monkeypatch.setattr(torch.mps, "synchronize", lambda: waits.append(1))
    assert device.measure_matmul("float32", 31, "mps") > 0
    assert waits


def test_measurements_are_positive_and_cached() -> None:
    speed = device.measure_matmul("float32", 96)
    assert speed > 0
    assert device.measure_matmul("float32", 96) is speed
    assert device.measure_bandwidth(4) > 0
    assert device.peak_memory_mb() > 10
    assert device.cpu_name()
