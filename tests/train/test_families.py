"""The trainer with other models and losses than the decoder's, and a state that is carried on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from groundup.data.batch import Batch
from groundup.device import Policy
from groundup.models.recurrent import RecurrentModel
from groundup.models.recurrent_config import RecurrentConfig
from groundup.optim.build import build_optimizer
from groundup.optim.config import OptimizerConfig
from groundup.train.checkpoints import Checkpoints
from groundup.train.config import TrainConfig
from groundup.train.objectives import NextTokenLoss
from groundup.train.objectives_recurrent import CarriedStateLoss
from groundup.train.pace import measure_pace
from groundup.train.trainer import Trainer

VOCAB = 23


class Streams:
    """Row r of a step goes on where row r of the step before ended."""

    rows_per_step, length, steps_per_epoch = 4, 7, 9.0

    def __init__(self) -> None:
        self.text = np.random.default_rng(5).integers(0, VOCAB, (4, 9 * 7 + 1))

    def step(self, index: int) -> Batch:
        start = index * self.length
        block = self.text[:, start : start + self.length + 1]
        return Batch.from_numpy(block[:, :-1].copy(), block[:, 1:].copy())

    def rows(self, index: int, start: int, stop: int) -> Batch:
        return self.step(index).rows(start, stop)


def make(sink: Any, kind: str = "lstm", folder: Path | None = None, **settings: Any) -> Trainer:
    torch.manual_seed(2)
    config = RecurrentConfig(vocab_size=VOCAB, width=11, state_width=13, kind=kind)  # type: ignore
    model = RecurrentModel(config)
    return Trainer(
        stage="test",
        model=model,
        loss=CarriedStateLoss(model, Streams.rows_per_step),
        optimizer=build_optimizer(model, OptimizerConfig(kind="adamw", learning_rate=1e-2)),
        schedule=lambda step, total: 1.0,
        loader=Streams(),
        total_steps=9,
        clip_norm=1.0,
        config=TrainConfig(**{"log_every": 1, "checkpoint_minutes": 1e6, **settings}),
        policy=Policy(device="cpu", compute_dtype="float32", compile=False, threads=1),
        roof_gflops=1.0,
        sink=sink,
        checkpoints=Checkpoints(folder) if folder else None,
    )


@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
def test_a_carried_state_reads_the_stream_as_one(sink: Any, kind: str) -> None:
    """With weights that stand still, the pieces cost what the whole text costs."""
    trainer = make(sink, kind, micro_rows=2)
    for group in trainer.optimizer.param_groups:
        group["initial_lr"] = 0.0
    trainer.fit()
    text = torch.from_numpy(trainer.loader.text)  # type: ignore[attr-defined]
    whole = NextTokenLoss(trainer.model)(text[:, :-1], text[:, 1:]) / text[:, 1:].numel()
    assert np.mean(sink.losses()) == pytest.approx(whole.item(), rel=1e-5)


def test_resuming_with_a_state_equals_never_stopping(sink: Any, tmp_path: Path) -> None:
    make(sink).fit()
    whole = sink.losses()
    sink.rows.clear()
    first = make(sink, folder=tmp_path, checkpoint_every=4)
    first.total_steps = 4
    first.fit()
    second = make(sink, folder=tmp_path)
    measure_pace(second)  # leaves no trace, in the state either
    assert not any(part.any() for part in second.carried)
    assert second.resume() == 4
    second.fit()
    assert sink.losses() == whole


def test_evaluating_leaves_the_carried_state_alone(sink: Any) -> None:
    trainer = make(sink)
    trainer.train_step()
    before = [part.clone() for part in trainer.carried]
    loss = trainer.loss.eval()
    batch = Streams().step(3)
    a, b = loss(*batch.arguments), NextTokenLoss(trainer.model)(*batch.arguments)
    torch.testing.assert_close(a, b)
    assert all(map(torch.equal, before, trainer.carried))
