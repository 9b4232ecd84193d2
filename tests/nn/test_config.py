"""Block configs refuse what cannot work, in one sentence that says how to mend it."""

from __future__ import annotations

import pytest

from groundup.config import UserError
from groundup.nn.config import (
    AttentionConfig,
    FeedForwardConfig,
    NormConfig,
    PositionsConfig,
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
