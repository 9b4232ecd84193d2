"""The block's order of operations, and the feed-forward networks."""

from __future__ import annotations

import pytest
import torch

from groundup.nn.block import Block
from groundup.nn.config import AttentionConfig, FeedForwardConfig, NormConfig
from groundup.nn.feed_forward import ACTIVATIONS, build_feed_forward
from groundup.nn.masks import Plan

CAUSAL = Plan(True, None)


@pytest.mark.parametrize("norm", ["rmsnorm", "layernorm"])
@pytest.mark.parametrize("kind", ["gated", "plain"])
def test_the_block_is_two_residual_branches_of_normed_input(norm, kind):
    block = Block(
        14,
        AttentionConfig(num_heads=3, num_kv_heads=1, head_width=4),
        FeedForwardConfig(kind=kind, width=20),
        NormConfig(kind=norm),
    )
    x = torch.randn(2, 5, 14)
    middle = x + block.attention(block.attention_norm(x), CAUSAL)
    expected = middle + block.feed_forward(block.feed_forward_norm(middle))
    torch.testing.assert_close(block(x, CAUSAL), expected)


def test_silent_branches_leave_the_stream_untouched():
    block = Block(
        14,
        AttentionConfig(num_heads=2, num_kv_heads=2, head_width=4),
        FeedForwardConfig(width=20),
        NormConfig(),
    )
    with torch.no_grad():
        block.attention.out.weight.zero_()
        block.feed_forward.down.weight.zero_()
    x = torch.randn(2, 5, 14)
    assert torch.equal(block(x, CAUSAL), x)


@pytest.mark.parametrize("activation", list(ACTIVATIONS))
def test_feed_forward_formulas(activation):
    x = torch.randn(3, 11)
    function = ACTIVATIONS[activation]
    gated = build_feed_forward(FeedForwardConfig(width=17, activation=activation), 11)
    expected = (function(x @ gated.gate.weight.T) * (x @ gated.up.weight.T)) @ gated.down.weight.T
    torch.testing.assert_close(gated(x), expected, atol=1e-6, rtol=1e-5)
    plain = build_feed_forward(
        FeedForwardConfig(kind="plain", width=17, activation=activation, bias=True), 11
    )
    hidden = function(x @ plain.up.weight.T + plain.up.bias)
    expected = hidden @ plain.down.weight.T + plain.down.bias
    torch.testing.assert_close(plain(x), expected, atol=1e-6, rtol=1e-5)


def test_relu_squared():
    x = torch.tensor([-2.0, 0.0, 3.0])
    assert ACTIVATIONS["relu2"](x).tolist() == [0.0, 0.0, 9.0]


def test_feed_forward_dropout_acts_in_training_only():
    network = build_feed_forward(FeedForwardConfig(width=17, dropout=0.5), 11)
    x = torch.randn(3, 11)
    assert (network(x) == 0).any()
    assert not (network.eval()(x) == 0).any()
