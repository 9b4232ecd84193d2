"""Small trainers made to order: a few thousand weights, batches from a seeded generator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from groundup.data.batch import IGNORE, Batch
from groundup.device import Policy
from groundup.models.config import DecoderConfig
from groundup.models.decoder import Decoder
from groundup.models.presets import qwen3
from groundup.optim.build import build_optimizer
from groundup.optim.config import OptimizerConfig, ScheduleConfig
from groundup.optim.schedules import factor
from groundup.train.checkpoints import Checkpoints
from groundup.train.config import TrainConfig
from groundup.train.trainer import Hooks, Trainer

VOCAB = 61


class MemorySink:
    """Keeps the rows of the log."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def write(self, row: Mapping[str, Any]) -> None:
        self.rows.append(dict(row))

    def losses(self) -> list[float]:
        return [row["loss"] for row in self.rows if "loss" in row]

    def norms(self) -> list[float]:
        return [row["grad_norm"] for row in self.rows if "loss" in row]


class RandomLoader:
    """Batches as a pure function of the step. `ragged` leaves a different number of targets in
    every row, none in some; `fixed` gives the same batch at every step."""

    steps_per_epoch = 10.0

    def __init__(
        self, rows: int = 6, length: int = 17, ragged: bool = False, fixed: bool = False
    ) -> None:
        self.rows_per_step, self.length = rows, length
        self.ragged, self.fixed = ragged, fixed

    def step(self, index: int) -> Batch:
        random = np.random.default_rng([7, 0 if self.fixed else index])
        block = random.integers(0, VOCAB, (self.rows_per_step, self.length + 1))
        inputs, targets = block[:, :-1].copy(), block[:, 1:].copy()
        if self.ragged:
            for row, kept in enumerate(random.integers(0, self.length + 1, self.rows_per_step)):
                targets[row, : self.length - kept] = IGNORE
            targets[0] = IGNORE
        return Batch.from_numpy(inputs, targets)

    def rows(self, index: int, start: int, stop: int) -> Batch:
        return self.step(index).rows(start, stop)


@dataclass
class Parts:
    """A trainer and what a test wants to look at."""

    trainer: Trainer
    sink: MemorySink = field(default_factory=MemorySink)

    @property
    def model(self) -> Decoder:
        return self.trainer.model

    def weights(self) -> dict[str, torch.Tensor]:
        return {name: w.clone() for name, w in self.model.state_dict().items()}

    def equals(self, other: Parts) -> bool:
        """Bit for bit the same weights."""
        a, b = self.weights(), other.weights()
        return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


Maker = Callable[..., Parts]


@pytest.fixture
def loader_type() -> type[RandomLoader]:
    return RandomLoader


@pytest.fixture
def sink() -> MemorySink:
    return MemorySink()


@pytest.fixture
def make_trainer() -> Maker:
    """`make_trainer(folder=…, steps=…, seed=…, dropout=…, hooks=…, model=…, **train_settings)`:
    each call builds new objects, as a new process would."""

    def make(
        folder: Path | None = None,
        *,
        loader: Any = None,
        steps: int = 12,
        seed: int = 3,
        dropout: float = 0.0,
        kind: str = "muon",
        rate: float = 3e-3,
        clip_value: float = 0.0,
        hooks: Hooks | None = None,
        dtype: str = "float32",
        best: bool = False,
        policy: Policy | None = None,
        model: DecoderConfig | None = None,
        **settings: Any,
    ) -> Parts:
        torch.manual_seed(seed)
        shape = model or qwen3(
            vocab_size=VOCAB,
            width=24,
            num_layers=2,
            num_heads=3,
            context_length=32,
            num_kv_heads=1,
            dropout=dropout,
        )
        decoder = Decoder(shape)
        optimizer = OptimizerConfig(kind=kind, learning_rate=rate)  # type: ignore[arg-type]
        schedule = ScheduleConfig(kind="wsd", warmup_steps=2)
        sink = MemorySink()
        config = TrainConfig(**{"log_every": 1, "checkpoint_minutes": 1e6, **settings})
        trainer = Trainer(
            stage="test",
            model=decoder,
            optimizer=build_optimizer(decoder, optimizer),
            schedule=lambda step, total: factor(schedule, step, total),
            loader=loader or RandomLoader(),
            total_steps=steps,
            clip_norm=1.0,
            clip_value=clip_value,
            config=config,
            policy=policy or Policy(device="cpu", compute_dtype=dtype, compile=False, threads=1),
            roof_gflops=100.0,
            sink=sink,
            checkpoints=Checkpoints(folder, config.keep_last) if folder else None,
            best=Checkpoints(folder / "best", 1) if folder and best else None,
            hooks=hooks,
        )
        return Parts(trainer, sink)

    return make
