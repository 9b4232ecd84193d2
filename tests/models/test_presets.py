"""The size dial: one number, sensible everything."""

from __future__ import annotations

import itertools

import pytest

from groundup.config import UserError
from groundup.models.config import num_matmul_weights
from groundup.models.dial import from_depth, learning_rates
from groundup.models.huggingface import family_of

DEPTHS = [1, 2, 3, 4, 6, 8, 12, 13, 16, 20, 24, 32]


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
