"""Presets: all by one name and in the same words; and the size dial, sensible everything."""

from __future__ import annotations

import itertools

import pytest
import torch

from groundup.config import UserError, from_dict, to_dict
from groundup.models import presets
from groundup.models.config import DecoderConfig, num_matmul_weights
from groundup.models.decoder import Decoder
from groundup.models.dial import from_depth, learning_rates
from groundup.models.encoder import Encoder
from groundup.models.encoder_config import ENCODER_PRESETS, EncoderConfig, HeadConfig
from groundup.models.huggingface import family_of
from groundup.models.presets import PRESETS
from parity.zoo import DECODERS

SIZES = {"vocab_size": 131, "width": 64, "num_layers": 7, "num_heads": 4, "context_length": 53}
DEPTHS = [1, 2, 3, 4, 6, 8, 12, 13, 16, 20, 24, 32]


@pytest.mark.parametrize("name", PRESETS)
def test_presets_take_the_same_words(name):
    config = PRESETS[name](**SIZES)
    for field, value in SIZES.items():
        assert field == "num_heads" or getattr(config, field) == value
    assert config.attention.num_heads == 4
    other = PRESETS[name](**SIZES, feed_forward_width=70, dropout=0.1, tie_embeddings=False)
    assert (other.feed_forward.width, other.feed_forward.dropout) == (70, 0.1)
    assert (other.attention.dropout, other.embedding_dropout) == (0.1, 0.1)
    assert not other.tie_embeddings
    assert from_dict(DecoderConfig, to_dict(config)) == config
    with torch.device("meta"):
        model = Decoder(config)
    assert model.num_parameters() > config.vocab_size * config.width
    # Every preset is in the module's table, and among what all tests over models go through.
    family = name.removesuffix("_2025")
    assert any(entry.split("-")[0] == family.split("_")[0] for entry in DECODERS)
    assert f"| {family} " in (presets.__doc__ or "")


@pytest.mark.parametrize("name", ENCODER_PRESETS)
def test_presets_of_encoders_take_the_same_words(name):
    head = HeadConfig(kind="token", num_classes=3)
    config = ENCODER_PRESETS[name](**SIZES, feed_forward_width=70, head=head)
    for field, value in SIZES.items():
        assert field == "num_heads" or getattr(config, field) == value
    assert config.feed_forward.width == 70 and config.head is not None
    assert from_dict(EncoderConfig, to_dict(config)) == config
    assert Encoder(config)(torch.zeros(1, 5, dtype=torch.int64)).shape == (1, 5, 3)


@pytest.mark.parametrize("name", ["llama", "gemma3", "nanochat", "qwen3_moe"])
def test_heads_of_any_width_and_number(name):
    config = PRESETS[name](**SIZES, num_kv_heads=2, head_width=10, theta=77.0)
    heads = config.attention
    assert (heads.num_kv_heads, heads.head_width, config.positions.theta) == (2, 10, 77.0)


@pytest.mark.parametrize("depth", DEPTHS)
def test_every_depth_gives_a_model_transformers_knows(depth):
    dial = from_depth(depth, 4096)
    model = dial.model
    assert family_of(model) == "qwen3"
    assert (model.num_layers, model.width) == (depth, 64 * depth)
    assert model.attention.num_heads * model.attention.head_width == model.width
    assert model.attention.num_kv_heads == (depth // 2 if depth >= 12 and depth % 2 == 0 else depth)
    assert 256 <= model.context_length <= 2048
    assert model.feed_forward.width % 64 == 0


def test_everything_grows_with_depth():
    dials = [from_depth(depth, 4096) for depth in DEPTHS]
    for small, large in itertools.pairwise(dials):
        assert num_matmul_weights(small.model) < num_matmul_weights(large.model)
        assert small.tokens < large.tokens
        assert small.tokens_per_step <= large.tokens_per_step


def test_tokens_and_context_can_be_given():
    dial = from_depth(4, 4096, context_length=512, tokens=5_000_000)
    assert dial.model.context_length == 512
    assert dial.tokens_per_step == 2**14 == dial.rows_per_step * 512
    assert dial.tokens == 5_000_000
    assert from_depth(4, 4096).tokens == 12 * num_matmul_weights(from_depth(4, 4096).model)


def test_rates_follow_batch_and_width():
    small = learning_rates(width=192, tokens_per_step=2**12)
    assert (small.muon, small.adamw, small.embedding) == pytest.approx((0.01, 6e-3, 1.2e-2))
    wide = learning_rates(width=768, tokens_per_step=2**12)
    assert wide.muon == small.muon
    assert wide.adamw == pytest.approx(small.adamw / 2)
    assert wide.embedding == pytest.approx(small.embedding / 2)
    tiny = learning_rates(width=192, tokens_per_step=2**10)
    assert (tiny.muon, tiny.adamw) == pytest.approx((0.005, 3e-3))
    huge = learning_rates(width=192, tokens_per_step=2**20)
    assert (huge.muon, huge.adamw) == pytest.approx((0.02, 2.4e-2)), "both stop growing"


def test_depth_zero_is_refused():
    with pytest.raises(UserError, match="size should be at least 1"):
        from_depth(0, 4096)
