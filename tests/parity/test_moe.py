"""Mixtral's and Qwen3-MoE's adapters: what is refused by name, and what is missing."""

from __future__ import annotations

import dataclasses

import pytest

from groundup.config import UserError
from groundup.models.decoder import Decoder
from groundup.models.huggingface import from_hf_config, from_hf_state, to_hf_config, to_hf_state
from parity.zoo import PUBLISHED


def test_scores_that_are_not_normalised_go_both_ways() -> None:
    config = PUBLISHED["qwen3-moe"]
    experts = dataclasses.replace(
        config.feed_forward.experts, normalize=False, balance="none", loss_weight=0.01
    )
    network = dataclasses.replace(config.feed_forward, experts=experts)
    changed = dataclasses.replace(config, feed_forward=network)
    assert from_hf_config(to_hf_config(changed)) == changed


@pytest.mark.parametrize(
    ("field", "value"),
    [("score", "sigmoid"), ("shared_width", 8), ("balance", "bias"), ("scale", 2.0)],
)
def test_experts_that_transformers_cannot_express_are_refused_by_name(field, value):
    config = PUBLISHED["qwen3-moe"]
    experts = dataclasses.replace(config.feed_forward.experts, **{field: value})
    network = dataclasses.replace(config.feed_forward, experts=experts)
    with pytest.raises(UserError, match=field):
        to_hf_config(dataclasses.replace(config, feed_forward=network))


def test_a_missing_expert_is_named():
    config = PUBLISHED["mixtral"]
    state = to_hf_state(config, Decoder(config).state_dict())
    del state["model.layers.2.block_sparse_moe.experts.4.w2.weight"]
    with pytest.raises(UserError, match="layers.2.block_sparse_moe.experts.4.w2"):
        from_hf_state(config, state)
