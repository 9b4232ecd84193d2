"""The decoder config: what it refuses, its TOML round trip, and the counts it gives."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import tomllib

import pytest

from groundup.config import UserError, from_dict, to_dict, to_toml
from groundup.models.config import (
    AttentionConfig,
    DecoderConfig,
    FeedForwardConfig,
    PositionsConfig,
    flops_per_token,
    num_matmul_weights,
)
from groundup.models.presets import gpt2, llama, qwen3

CONFIG = DecoderConfig(
    vocab_size=131,
    width=48,
    num_layers=3,
    context_length=64,
    attention=AttentionConfig(num_heads=4, num_kv_heads=2, head_width=10, qk_norm=True),
    feed_forward=FeedForwardConfig(width=70),
)


@pytest.mark.parametrize("config", [CONFIG, gpt2(vocab_size=9, width=8, num_layers=1, num_heads=2,
                                                 context_length=4)])  # fmt: skip
def test_round_trip_through_toml(config):
    assert from_dict(DecoderConfig, tomllib.loads(to_toml(config))) == config
    assert from_dict(DecoderConfig, to_dict(config)) == config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab_size": 0}, "vocab_size should be at least 1, but is 0"),
        ({"num_layers": -2}, "num_layers should be at least 1, but is -2"),
        ({"embedding_dropout": 1.5}, "embedding_dropout should be at least 0 and below 1"),
        ({"init_std": 0.0}, "init_std should be above 0"),
        (
            {"attention": AttentionConfig(num_heads=2, num_kv_heads=1, head_width=7)},
            "head_width 7 is odd, but rotary positions turn channels in pairs: choose 8",
        ),
        (
            {"positions": PositionsConfig(fraction=0.3)},
            "fraction 0.3 turns 3 of 10 channels, but rotary positions turn channels in pairs",
        ),
        ({"positions": PositionsConfig(window_theta=50.0)}, "no effect without attention.windows"),
        ({"logit_soft_cap": -1.0}, "logit_soft_cap should be above 0"),
        ({"distinct_layers": 4}, "distinct_layers should be from 0 to num_layers 3, but is 4"),
    ],
)
def test_mistakes_are_named(changes, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(CONFIG, **changes)


def test_an_odd_head_is_fine_without_rotation():
    heads = AttentionConfig(num_heads=2, num_kv_heads=1, head_width=7)
    dataclasses.replace(CONFIG, attention=heads, positions=PositionsConfig(kind="none"))


@pytest.mark.parametrize("preset", [qwen3, llama, gpt2])
def test_heads_that_do_not_divide_the_width(preset):
    with pytest.raises(UserError, match="width 50 does not divide into 4 heads"):
        preset(vocab_size=9, width=50, num_layers=1, num_heads=4, context_length=8)


def test_counts_by_hand():
    layer = 48 * (4 + 2 + 2) * 10 + 4 * 10 * 48 + 3 * 48 * 70
    assert num_matmul_weights(CONFIG) == 3 * layer + 131 * 48
    assert flops_per_token(CONFIG, 37) == 6 * (3 * layer + 131 * 48) + 6 * 3 * 37 * 40


def test_counts_of_gpt2_small():
    """124,439,808 parameters; 85 M of them in the blocks' matrices."""
    config = gpt2(vocab_size=50257, width=768, num_layers=12, num_heads=12, context_length=1024)
    assert num_matmul_weights(config) == 12 * 12 * 768**2 + 50257 * 768


def test_configs_and_presets_load_without_torch():
    code = "import sys, groundup.models.presets; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
