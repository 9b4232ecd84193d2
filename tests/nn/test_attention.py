"""Attention: three plain implementations, the module, and the ways to share key/value heads."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from groundup.nn.attention import Attention
from groundup.nn.config import AttentionConfig, NormConfig, PositionsConfig
from groundup.nn.kernels import attend
from groundup.nn.masks import Causal, Plan, plan
from groundup.nn.positions import RotaryPositions
from groundup.scratch.attention import (
    einsum_heads,
    list_of_heads,
    one_head,
    reshaped_heads,
)

CAUSAL = Plan(True, None)


@pytest.mark.parametrize("num_kv_heads", [1, 2, 6])
def test_four_implementations_agree(num_kv_heads):
    config = AttentionConfig(num_heads=6, num_kv_heads=num_kv_heads, head_width=5)
    module = Attention(22, config, NormConfig())
    x = torch.randn(2, 9, 22)
    weights = [m.weight for m in (module.query, module.key, module.value, module.out)]
    expected = module(x, CAUSAL)
    for plain in (list_of_heads, reshaped_heads, einsum_heads):
        actual = plain(x, *weights, num_heads=6, num_kv_heads=num_kv_heads)
        torch.testing.assert_close(actual, expected, atol=1e-6, rtol=1e-4)


def test_weights_of_one_head_are_a_causal_average():
    query, key, value = torch.randn(3, 2, 7, 4)
    out, weights = one_head(query, key, value)
    assert out.shape == (2, 7, 4)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 7))
    assert not weights.triu(1).any()


@pytest.mark.parametrize("num_kv_heads", [1, 3])
def test_sharing_heads_by_repeat_expand_or_the_kernel_is_the_same(num_kv_heads):
    query = torch.randn(2, 6, 8, 10)
    key, value = torch.randn(2, 2, num_kv_heads, 8, 10)
    group = 6 // num_kv_heads
    mask = plan(Causal(), 8, 8, torch.device("cpu"))
    kernel = attend(query, key, value, mask)
    repeated = attend(
        query, key.repeat_interleave(group, 1), value.repeat_interleave(group, 1), mask
    )

    def expand(x: torch.Tensor) -> torch.Tensor:
        return x[:, :, None].expand(-1, -1, group, -1, -1).flatten(1, 2)

    expanded = attend(query, expand(key), expand(value), mask)
    torch.testing.assert_close(kernel, repeated, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(kernel, expanded, atol=1e-6, rtol=1e-5)


def test_query_key_norm_bounds_the_scores():
    config = AttentionConfig(num_heads=2, num_kv_heads=1, head_width=10, qk_norm=True)
    module = Attention(12, config, NormConfig())
    x, rotation = torch.randn(1, 6, 12), RotaryPositions(10, 6, PositionsConfig())(0, 6)
    torch.testing.assert_close(
        module(x, CAUSAL, rotation), self_scaled(module, x, rotation), atol=1e-5, rtol=1e-4
    )


def self_scaled(module: Attention, x: torch.Tensor, rotation) -> torch.Tensor:
    """The same output when queries and keys grow a thousandfold: only direction matters."""
    with torch.no_grad():
        module.query.weight.mul_(1000)
        module.key.weight.mul_(1000)
    return module(x, CAUSAL, rotation)


def test_dropout_acts_in_training_only():
    config = AttentionConfig(
        num_heads=2, num_kv_heads=2, head_width=6, dropout=0.3, out_dropout=0.3
    )
    module, x = Attention(12, config, NormConfig()), torch.randn(2, 6, 12)
    assert not torch.equal(module(x, CAUSAL), module(x, CAUSAL))
    module.eval()
    assert torch.equal(module(x, CAUSAL), module(x, CAUSAL))


def test_biases_are_there_when_asked_for():
    config = AttentionConfig(num_heads=2, num_kv_heads=1, head_width=6, qkv_bias=True)
    module = Attention(12, config, NormConfig())
    assert module.query.bias.shape == (12,) and module.value.bias.shape == (6,)
    assert module.out.bias is None
    x = torch.randn(1, 5, 12)
    with torch.no_grad():
        module.value.bias.zero_()
        before = module(x, CAUSAL)
        module.value.bias.fill_(1.0)
        shift = module(x, CAUSAL) - before
    # Weights of an average sum to one, so a value bias arrives unchanged at the output matrix.
    torch.testing.assert_close(
        shift, F.linear(torch.ones(12), module.out.weight).expand(1, 5, 12), atol=1e-5, rtol=1e-4
    )
