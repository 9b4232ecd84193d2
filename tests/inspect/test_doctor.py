"""The doctor reports what the machine says, advises on what can be changed, and stays readable."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from groundup import device
from groundup.config import UserError
from groundup.inspect import doctor

CONFIG = device.DeviceConfig(device="cpu", dtype="float32", threads=1, deterministic=False)


@pytest.fixture(scope="module")
def found() -> doctor.Diagnosis:
    speeds = {"float32": 210.4, "bfloat16": 1650.0, "float16": 205.0}
    with pytest.MonkeyPatch.context() as patch:
        # Timing belongs to device.py and its own tests.
        patch.setattr(device, "measure_matmul", lambda dtype, *_: speeds[dtype])
        patch.setattr(device, "measure_bandwidth", lambda *_: 12.34)
        return doctor.diagnose(CONFIG)


def healthy(found: doctor.Diagnosis, **changes: object) -> doctor.Diagnosis:
    base = dataclasses.replace(
        found,
        busy_cores=0.0,
        usable_cores=8,
        logical_cores=8,
        compiler="g++ 14",
        memory_free_gb=16.0,
        disk_free_gb=100.0,
        instructions=("avx2", "amx_bf16"),
        matmul_gflops={"float32": 200.0, "bfloat16": 1600.0},
    )
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


def test_facts_are_plausible_and_consistent(found: doctor.Diagnosis) -> None:
    assert 1 <= found.usable_cores <= found.logical_cores
    assert found.physical_cores is None or 1 <= found.physical_cores <= found.logical_cores
    assert 0 < found.memory_free_gb <= found.memory_gb
    assert found.disk_free_gb > 0
    assert found.policy["compute_dtype"] == "float32" and found.policy["threads"] == 1
    assert found.roof_gflops == 1650.0  # the best the machine does, whatever the policy chose
    assert set(found.instructions) <= device.cpu_flags()


def fake_cores(monkeypatch: pytest.MonkeyPatch, usable: int, lines: list[str]) -> None:
    """Four cores in the affinity mask; each look at /proc/stat gives the next of `lines`."""
    texts = iter(lines)
    monkeypatch.setattr(doctor, "Path", lambda name: SimpleNamespace(read_text=lambda: next(texts)))
    monkeypatch.setattr(doctor.os, "sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(doctor.os, "sysconf", lambda name: 100)
    monkeypatch.setattr(device, "available_cores", lambda: usable)
    clock = iter([0.0, 2.0])
    monkeypatch.setattr(
        doctor,
        "time",
        SimpleNamespace(
            process_time=lambda: 7.0, perf_counter=lambda: next(clock), sleep=lambda seconds: None
        ),
    )


@pytest.mark.parametrize(("usable", "expected"), [(4, 1.5), (3, 0.5), (2, 0.0)])
def test_only_what_runs_now_on_our_cores_counts(
    monkeypatch: pytest.MonkeyPatch, usable: int, expected: float
) -> None:
    before = "cpu 9 9 9 9 9 9 9 9 0 0\ncpu0 100 0 0 5 0 0 0 0 0 0\ncpu7 0 0 0 0 0 0 0 0 0 0\n"
    # Two seconds later: core 0 has worked for 1.5 + 0.25 + 0.25 s niced, core 2 for 1 s in all.
    after = before.replace("cpu0 100 0 0", "cpu0 250 25 25").replace("cpu7 0", "cpu7 200")
    fake_cores(monkeypatch, usable, [before, after + "cpu2 50 10 10 8 0 20 10 0 0 0\n"])
    assert doctor._busy_cores() == pytest.approx(expected)


def test_a_system_that_does_not_tell_is_not_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_busy_seconds", Path("/nonexistent/stat").read_text)
    assert doctor._busy_cores() is None


def test_the_allocator_line_follows_the_allocator() -> None:
    if not device.keep_large_blocks():
        pytest.skip("not glibc")
    assert doctor._allocator().endswith("kept for reuse")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"busy_cores": 3.0}, "keep 3.0 cores busy"),
        ({"usable_cores": 3}, "3 of 8 cores"),
        ({"compiler": "none"}, "apt install g++"),
        ({"matmul_gflops": {"float32": 200.0, "bfloat16": 210.0}}, "AMX"),
        ({"memory_free_gb": 1.25}, "1.2 GB of memory"),
        ({"disk_free_gb": 0.5}, "0.5 GB of disk"),
    ],
)
def test_each_remediable_fault_gets_one_sentence(
    found: doctor.Diagnosis, changes: dict[str, object], words: str
) -> None:
    assert list(doctor.advise(healthy(found))) == []
    (sentence,) = doctor.advise(healthy(found, **changes))
    assert words in sentence and sentence.endswith((".", "?"))


def test_json_round_trips_every_field(found: doctor.Diagnosis) -> None:
    data = json.loads(doctor.as_json(found))
    assert data.keys() == {field.name for field in dataclasses.fields(found)}
    assert data["bandwidth_gb_per_second"] == 12.3
    assert data["policy"]["device"] == "cpu"


@pytest.mark.parametrize("width", [60, 100])
def test_the_table_shows_everything_within_the_terminal(
    found: doctor.Diagnosis, width: int
) -> None:
    screen = io.StringIO()
    odd = dataclasses.replace(found, cpu="[bold]Odd[/] CPU", advice=("Mend [this].",))
    Console(file=screen, width=width, color_system=None).print(doctor.as_table(odd))
    text = screen.getvalue()
    assert max(map(len, text.splitlines())) <= width
    assert "[bold]Odd[/] CPU" in text and "Mend [this]." in text  # text, not markup
    assert "float32 210, bfloat16 1650" in text
    assert "12.3 GB/s" in text and "1650 GFLOP/s" in text


def test_fp16_is_timed_only_where_the_cpu_computes_it() -> None:
    assert "float16" not in doctor._dtypes_worth_timing("cpu", frozenset({"avx2"}))
    assert "float16" in doctor._dtypes_worth_timing("cpu", frozenset({"avx512_fp16"}))
    assert "float16" in doctor._dtypes_worth_timing("cuda:0", frozenset())


def test_an_impossible_device_is_the_users_to_mend() -> None:
    with pytest.raises(UserError, match="abacus"):
        doctor.diagnose(dataclasses.replace(CONFIG, device="abacus"))
