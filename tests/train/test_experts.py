"""Training a mixture of experts: nobody stays idle, and the log says how busy each expert is."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from groundup.data.batch import IGNORE, Batch
from groundup.models.config import DecoderConfig, ExpertsConfig
from groundup.models.decoder import Decoder
from groundup.models.presets import qwen3, with_experts
from groundup.train.objectives import NextTokenLoss, cross_entropy_sum

VOCAB = 61  # that of the fixtures' batches


def config(**experts: Any) -> DecoderConfig:
    dense = qwen3(
        vocab_size=VOCAB,
        width=24,
        num_layers=2,
        num_heads=3,
        context_length=32,
        feed_forward_width=20,
    )
    return with_experts(dense, ExpertsConfig(**({"num_experts": 6, "top_k": 2} | experts)))


@pytest.mark.parametrize("balance", ["loss", "bias"])
@pytest.mark.parametrize("kind", ["muon", "adamw"])
def test_no_expert_dies_in_a_short_run(make_trainer: Any, balance: str, kind: str) -> None:
    parts = make_trainer(steps=40, kind=kind, model=config(balance=balance, bias_rate=0.01))
    parts.trainer.fit()
    figures = [row["experts"] for row in parts.sink.rows if "loss" in row]
    assert len(figures) == 40 and len(figures[-1]["load"]) == 2
    assert parts.sink.losses()[-1] < parts.sink.losses()[0]
    means = torch.tensor([row["load"] for row in figures[-10:]]).mean(0)  # (layers, experts)
    assert means.sum(-1).tolist() == pytest.approx([1, 1], abs=1e-3)
    assert means.min() > 0.25 / 6 and means.max() < 2.5 / 6
    assert min(min(row["entropy"]) for row in figures[-10:]) > 0.8


def test_resuming_equals_never_stopping(make_trainer: Any, tmp_path: Any) -> None:
    shape = config(balance="bias", bias_rate=0.05, capacity_factor=1.0, shared_width=8)
    whole = make_trainer(steps=8, model=shape)
    whole.trainer.fit()
    first = make_trainer(tmp_path, steps=8, model=shape, checkpoint_every=5)
    for _ in range(5):
        first.trainer.train_step()
    first.trainer.save()
    second = make_trainer(tmp_path, steps=8, model=shape, seed=99)
    assert second.trainer.resume() == 5
    second.trainer.fit()
    assert whole.equals(second)
    assert second.sink.losses() == whole.sink.losses()[5:]


def test_micro_batches_and_recomputing_change_no_share(make_trainer: Any) -> None:
    whole = make_trainer(steps=1, model=config())
    parts = make_trainer(steps=1, model=config(), micro_rows=2, activation_checkpointing="full")
    first, second = (p.trainer.train_step()["experts"] for p in (whole, parts))
    assert first["load"] == second["load"]


def test_the_balance_term_adds_a_gradient_and_no_value() -> None:
    torch.manual_seed(0)
    model = Decoder(config(loss_weight=0.5)).train()
    loss = NextTokenLoss(model)
    inputs = torch.randint(0, VOCAB, (3, 9))
    targets = inputs.roll(-1, 1)
    targets[0] = IGNORE
    batch = Batch(inputs, targets, None)
    value = loss(batch.inputs, batch.targets)
    torch.testing.assert_close(value, cross_entropy_sum(model(inputs), targets))
    scorer = model.blocks[0].feed_forward.router.scorer.weight
    (with_term,) = torch.autograd.grad(value, scorer)
    (without,) = torch.autograd.grad(cross_entropy_sum(model(inputs), targets), scorer)
    assert (with_term - without).abs().max() > 1e-4
