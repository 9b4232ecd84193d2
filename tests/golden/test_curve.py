"""A training curve stored as numbers: no change may move it unnoticed.

On the CPU model and torch version that it was recorded with it must match exactly, elsewhere to
1e-4. After a change that is meant to move it:

    python tests/golden/test_curve.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from groundup.data.batch import IGNORE, Batch
from groundup.device import Policy, cpu_name
from groundup.models.decoder import Decoder
from groundup.models.presets import gpt2, qwen3
from groundup.optim.build import build_optimizer
from groundup.optim.config import OptimizerConfig, ScheduleConfig
from groundup.optim.schedules import factor
from groundup.train.config import TrainConfig
from groundup.train.trainer import Trainer

STORED = Path(__file__).with_name("curve.json")
STEPS = 30
SHAPE = {"vocab_size": 97, "width": 48, "num_layers": 2, "num_heads": 3, "context_length": 40}
RUNS = {
    "qwen3 with muon": (qwen3(**SHAPE, num_kv_heads=1), OptimizerConfig(kind="muon")),
    "gpt2 with adamw": (gpt2(**SHAPE), OptimizerConfig(kind="adamw", learning_rate=2e-3)),
}


class Sequences:
    """Arithmetic sequences modulo the vocabulary: learnable, and the same on every machine."""

    rows_per_step, length, steps_per_epoch = 8, 40, 1.0

    def step(self, index: int) -> Batch:
        random = np.random.default_rng([11, index])
        start = random.integers(0, 97, (self.rows_per_step, 1))
        stride = random.integers(1, 6, (self.rows_per_step, 1))
        block = (start + stride * np.arange(self.length + 1)) % 97
        inputs, targets = block[:, :-1].copy(), block[:, 1:].copy()
        targets[:, 0] = IGNORE
        return Batch.from_numpy(inputs, targets)

    def rows(self, index: int, start: int, stop: int) -> Batch:
        return self.step(index).rows(start, stop)


def curve(name: str) -> list[float]:
    """The losses of one of the runs."""
    losses: list[float] = []

    class Sink:
        def write(self, row: Any) -> None:
            losses.append(row["loss"])

    shape, optimizer = RUNS[name]
    torch.manual_seed(1234)
    model = Decoder(shape)
    schedule = ScheduleConfig(kind="wsd", warmup_steps=3)
    Trainer(
        stage="golden",
        model=model,
        optimizer=build_optimizer(model, optimizer),
        schedule=lambda step, total: factor(schedule, step, total),
        loader=Sequences(),
        total_steps=STEPS,
        clip_norm=1.0,
        config=TrainConfig(log_every=1, micro_rows=4),
        policy=Policy(device="cpu", compute_dtype="float32", compile=False, threads=1),
        roof_gflops=1.0,
        sink=Sink(),
    ).fit()
    return losses


@pytest.mark.parametrize("name", RUNS)
def test_the_curve_has_not_moved(name: str) -> None:
    stored = json.loads(STORED.read_text(encoding="utf-8"))
    found, expected = curve(name), stored["losses"][name]
    if (stored["cpu"], stored["torch"]) == (cpu_name(), torch.__version__):
        assert found == expected
    assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", RUNS)
def test_the_curve_is_one_of_learning(name: str) -> None:
    losses = json.loads(STORED.read_text(encoding="utf-8"))["losses"][name]
    assert len(losses) == STEPS
    assert losses[0] == pytest.approx(np.log(97), rel=0.05)
    assert losses[-1] < 0.75 * losses[0]


if __name__ == "__main__":
    torch.set_num_threads(1)
    machine = {"cpu": cpu_name(), "torch": torch.__version__}
    STORED.write_text(
        json.dumps(machine | {"losses": {name: curve(name) for name in RUNS}}, indent=1) + "\n",
        encoding="utf-8",
    )
