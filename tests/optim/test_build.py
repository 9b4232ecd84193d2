"""The combined optimizer: it learns, and its state survives a round trip bit for bit."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import nn

from groundup.config import UserError
from groundup.models import presets
from groundup.models.decoder import Decoder
from groundup.optim.adamw import AdamW
from groundup.optim.build import build_optimizer
from groundup.optim.config import OptimizerConfig
from groundup.optim.muon import Muon


def make(seed=0, **sizes):
    torch.manual_seed(seed)
    sizes = dict(vocab_size=17, width=12, num_layers=2, num_heads=3, context_length=9) | sizes
    return Decoder(presets.llama(**sizes))


def train(model, optimizer, steps, seed=0):
    generator = torch.Generator().manual_seed(seed)
    losses = []
    for _ in range(steps):
        ids = torch.randint(0, 17, (5, 8), generator=generator)
        loss = nn.functional.cross_entropy(model(ids).flatten(0, 1), ids.flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("kind", ["muon", "adamw"])
def test_it_learns(kind):
    model = make()
    losses = train(model, build_optimizer(model, OptimizerConfig(kind=kind)), 60)
    assert losses[-1] < 0.5 * losses[0]


def test_the_same_as_a_muon_and_an_adamw_side_by_side():
    ours, theirs = make(), make()
    config = OptimizerConfig(head_learning_rate=1e-2)
    combined = build_optimizer(ours, config)
    matrices = [p for p in theirs.blocks.parameters() if p.ndim == 2]
    vectors = [p for p in theirs.parameters() if p.ndim == 1]
    muon = Muon(matrices)
    adamw = AdamW(
        [
            {"params": [theirs.embedding.weight, *vectors], "weight_decay": 0.0},
            {"params": [theirs.head_weight], "lr": 1e-2, "weight_decay": 0.1},
        ],
        lr=3e-3,
        betas=(0.9, 0.95),
    )
    both = _Both(muon, adamw)
    for step in range(5):
        train(ours, combined, 1, seed=step)
        train(theirs, both, 1, seed=step)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b)


class _Both:
    def __init__(self, *optimizers):
        self.optimizers = optimizers

    def step(self):
        for optimizer in self.optimizers:
            optimizer.step()

    def zero_grad(self, set_to_none):
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=set_to_none)


@pytest.mark.parametrize("kind", ["muon", "adamw"])
def test_resuming_equals_not_stopping(kind):
    config = OptimizerConfig(kind=kind)
    whole = make()
    optimizer = build_optimizer(whole, config)
    train(whole, optimizer, 4, seed=1)
    weights = copy.deepcopy(whole.state_dict())
    saved = copy.deepcopy(optimizer.state_dict())
    expected = train(whole, optimizer, 4, seed=2)

    resumed = make(seed=9)
    resumed.load_state_dict(weights)
    optimizer = build_optimizer(resumed, config)
    optimizer.load_state_dict(saved)
    assert train(resumed, optimizer, 4, seed=2) == expected
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_distributed_checkpoint_round_trip(tmp_path):
    model, other = make(), make(seed=3)
    optimizer = build_optimizer(model, OptimizerConfig())
    train(model, optimizer, 3)
    with pytest.warns(UserWarning):  # it says that no process group is there
        dcp.save({"optimizer": optimizer.state_dict()}, checkpoint_id=tmp_path / "saved")
        fresh = build_optimizer(other, OptimizerConfig())
        state = {"optimizer": fresh.state_dict()}
        dcp.load(state, checkpoint_id=tmp_path / "saved")
    fresh.load_state_dict(state["optimizer"])
    ours, theirs = optimizer.state_dict(), fresh.state_dict()
    assert ours["param_groups"] == theirs["param_groups"]
    for name, tensors in ours["state"].items():
        for key, tensor in tensors.items():
            assert torch.equal(tensor, theirs["state"][name][key]), (name, key)


def test_state_is_keyed_by_name_and_ready_before_the_first_step():
    model = make()
    state = build_optimizer(model, OptimizerConfig()).state_dict()["state"]
    assert state.keys() == dict(model.named_parameters()).keys()
    assert state["blocks.1.attention.query.weight"].keys() == {"momentum_buffer"}
    assert state["embedding.weight"]["exp_avg"].shape == (17, 12)


def test_loading_restores_settings():
    optimizer = build_optimizer(make(), OptimizerConfig(muon_learning_rate=0.01))
    optimizer.param_groups[0]["lr"] = 0.004
    other = build_optimizer(make(), OptimizerConfig())
    other.load_state_dict(optimizer.state_dict())
    assert other.param_groups[0]["lr"] == 0.004
    assert other.param_groups[0]["initial_lr"] == 0.01
    assert other.param_groups[0]["params"][0] is not optimizer.param_groups[0]["params"][0]


def test_another_model_or_rule_is_refused():
    saved = build_optimizer(make(), OptimizerConfig()).state_dict()
    with pytest.raises(UserError, match="another model"):
        build_optimizer(make(num_layers=1), OptimizerConfig()).load_state_dict(saved)
    with pytest.raises(UserError, match="another rule"):
        build_optimizer(make(), OptimizerConfig(kind="adamw")).load_state_dict(saved)


def test_bf16_is_chosen_by_the_compute_dtype():
    for compute, iteration in (
        ("float32", "float32"),
        ("bfloat16", "bfloat16"),
        ("float16", "float32"),
    ):
        (matrices, *_) = build_optimizer(make(), OptimizerConfig(), compute).param_groups
        assert matrices["iteration_dtype"] == iteration


def test_a_gradient_scaler_drives_it():
    model = make()
    optimizer = build_optimizer(model, OptimizerConfig())
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**6)
    before = model.embedding.weight.clone()
    loss = nn.functional.cross_entropy(
        model(torch.zeros(1, 4, dtype=torch.int64))[0], torch.ones(4).long()
    )
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()
    assert not torch.equal(before, model.embedding.weight)
