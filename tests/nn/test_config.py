"""Block configs refuse what cannot work, in one sentence that says how to mend it."""

from __future__ import annotations

import math

import pytest

from groundup.config import UserError, from_dict, to_dict
from groundup.nn.config import (
    AttentionConfig,
    FeedForwardConfig,
    NormConfig,
    PositionsConfig,
    RopeScaling,
    gated_width,
)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: AttentionConfig(num_heads=6, num_kv_heads=4, head_width=8),
            r"num_kv_heads 4 does not divide attention.num_heads 6.*Choose one of 1, 2, 3, 6",
        ),
        (
            lambda: AttentionConfig(num_heads=-1, num_kv_heads=1, head_width=8),
            r"attention.num_heads should be at least 1, but is -1",
        ),
        (
            lambda: AttentionConfig(num_heads=2, num_kv_heads=0, head_width=8),
            r"attention.num_kv_heads should be at least 1",
        ),
        (
            lambda: AttentionConfig(num_heads=2, num_kv_heads=2, head_width=8, dropout=1.0),
            r"attention.dropout should be at least 0 and below 1, but is 1.0",
        ),
        (lambda: FeedForwardConfig(width=0), r"feed_forward.width should be at least 1"),
        (
            lambda: FeedForwardConfig(width=3, activation="sliu"),  # type: ignore[arg-type]
            r"feed_forward.activation cannot be 'sliu'. Did you mean 'silu'",
        ),
        (lambda: NormConfig(kind="rms"), r"norm.kind cannot be 'rms'"),  # type: ignore[arg-type]
        (
            lambda: NormConfig(placement="past"),  # type: ignore[arg-type]
            r"norm.placement cannot be 'past'. Did you mean 'post'",
        ),
        (lambda: NormConfig(eps=0.0), r"norm.eps should be above 0"),
        (lambda: PositionsConfig(theta=0.0), r"positions.theta should be above 1"),
        (
            lambda: PositionsConfig(layout="halves"),  # type: ignore[arg-type]
            r"positions.layout cannot be 'halves'. Did you mean 'half'",
        ),
        (
            lambda: PositionsConfig(kind="learned", scaling=RopeScaling(kind="ntk", factor=2.0)),
            r"no effect on kind 'learned'",
        ),
        (
            lambda: RopeScaling(kind="yarm", factor=2.0),  # type: ignore[arg-type]
            r"positions.scaling.kind cannot be 'yarm'. Did you mean 'yarn'",
        ),
        (
            lambda: RopeScaling(kind="linear", factor=0.5),
            r"positions.scaling.factor should be at least 1, but is 0.5",
        ),
        (lambda: RopeScaling(kind="yarn", factor=2.0), r"'yarn' needs original_context"),
        (
            lambda: RopeScaling(kind="llama3", factor=2.0, original_context=9, slow_turns=4.0),
            r"slow_turns should be above 0 and below fast_turns, but they are 4.0 and 4.0",
        ),
        (
            lambda: RopeScaling(kind="ntk", factor=2.0, original_context=64),
            r"positions.scaling.original_context has no effect on kind 'ntk'",
        ),
        (
            lambda: RopeScaling(
                kind="llama3", factor=2.0, original_context=9, attention_factor=1.0
            ),
            r"positions.scaling.attention_factor has no effect on kind 'llama3'",
        ),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_gated_width_weighs_as_much_as_a_plain_network_of_four_times_the_width():
    assert gated_width(384) == 1024
    assert gated_width(512, multiple_of=256) == 1536
    for width in range(8, 700, 13):
        wide = gated_width(width, multiple_of=1)
        assert 0 <= 3 * wide - 8 * width < 3


def test_a_scaling_states_its_defaults():
    yarn = RopeScaling(kind="yarn", factor=4.0, original_context=32)
    assert (yarn.slow_turns, yarn.fast_turns) == (1.0, 32.0)
    assert yarn.attention_factor == pytest.approx(0.1 * math.log(4) + 1)
    assert from_dict(RopeScaling, to_dict(yarn), "scaling") == yarn
    llama3 = RopeScaling(kind="llama3", factor=8.0, original_context=8192)
    assert (llama3.slow_turns, llama3.fast_turns, llama3.attention_factor) == (1.0, 4.0, None)
