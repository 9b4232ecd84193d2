"""Parameter groups: every parameter once, by its kind, decaying only where it should."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from groundup.config import UserError, from_dict
from groundup.models import presets
from groundup.models.decoder import Decoder
from groundup.optim.config import OptimizerConfig
from groundup.optim.groups import parameter_groups, parameter_kinds

SIZES = dict(vocab_size=19, width=24, num_layers=2, num_heads=3, context_length=11)
MODELS = {
    "qwen3": lambda: Decoder(presets.qwen3(**SIZES, num_kv_heads=1)),
    "gpt2": lambda: Decoder(presets.gpt2(**SIZES)),
    "llama": lambda: Decoder(presets.llama(**SIZES)),
}


@pytest.mark.parametrize("kind", ["muon", "adamw"])
@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_in_exactly_one_group(name, kind):
    model = MODELS[name]()
    groups = parameter_groups(model, OptimizerConfig(kind=kind))
    grouped = [id(parameter) for group in groups for _, parameter in group["params"]]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {id(parameter) for parameter in model.parameters()}


@pytest.mark.parametrize("name", MODELS)
def test_kinds_and_decay(name):
    model = MODELS[name]()
    groups = parameter_groups(model, OptimizerConfig(weight_decay=0.3))
    by_parameter = {id(p): group for group in groups for _, p in group["params"]}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            group = by_parameter[id(parameter)]
            if isinstance(module, nn.Embedding):
                assert (group["kind"], group["weight_decay"]) == ("embedding", 0)
            elif parameter.ndim == 1:
                assert (group["kind"], group["weight_decay"]) == ("vector", 0)
            elif parameter is model.head_weight:
                assert (group["kind"], group["weight_decay"]) == ("head", 0.3)
            else:
                assert (group["rule"], group["weight_decay"]) == ("muon", 0.3)
    assert {"head"} <= {group["kind"] for group in groups} or model.head is None


def test_adamw_everywhere_keeps_the_kinds():
    groups = parameter_groups(MODELS["llama"](), OptimizerConfig(kind="adamw"))
    assert {group["kind"] for group in groups} == {"matrix", "embedding", "head", "vector"}
    assert {group["rule"] for group in groups} == {"adamw"}


def test_each_kind_has_its_own_rate():
    config = OptimizerConfig(
        learning_rate=1.0,
        muon_learning_rate=2.0,
        embedding_learning_rate=3.0,
        head_learning_rate=4.0,
    )
    groups = parameter_groups(MODELS["llama"](), config)
    rates = {group["kind"]: group["initial_lr"] for group in groups}
    assert rates == {"vector": 1.0, "matrix": 2.0, "embedding": 3.0, "head": 4.0}
    defaults = parameter_groups(MODELS["llama"](), OptimizerConfig(learning_rate=0.5))
    assert all(g["lr"] == g["initial_lr"] == 0.5 for g in defaults if g["rule"] == "adamw")


def test_a_frozen_parameter_has_no_group_and_a_tied_one_a_single_name():
    model = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 4), nn.Embedding(9, 4))
    tied = nn.Linear(4, 9, bias=False)
    tied.weight = model[2].weight
    model.insert(0, tied)  # the head comes first: it is an embedding's table all the same
    model[1].weight.requires_grad_(False)
    kinds = parameter_kinds(model)
    assert kinds == {
        "0.weight": "embedding",
        "1.bias": "vector",
        "2.weight": "matrix",
        "2.bias": "vector",
    }


@pytest.mark.parametrize(
    "mistake",
    [
        {"learning_rate": -1.0},
        {"muon_learning_rate": float("nan")},
        {"betas": (0.9, 1.0)},
        {"momentum": 1.0},
        {"orthogonalization_steps": 0},
        {"kind": "adamw", "cautious_decay": True},
    ],
)
def test_mistakes_name_the_setting(mistake):
    with pytest.raises(UserError, match=list(mistake)[-1]):
        from_dict(OptimizerConfig, mistake, "optimizer")


def test_config_does_not_import_torch():
    code = "import sys, groundup.optim.schedules; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_row_splits_come_from_the_module():
    class Fused(nn.Linear):
        row_splits = (8, 4, 4)

    model = nn.Sequential(nn.Linear(3, 5), Fused(5, 16, bias=False))
    (group, _) = parameter_groups(model, OptimizerConfig())
    assert group["row_splits"] == {1: (8, 4, 4)}
    assert torch.is_tensor(group["params"][1][1])
