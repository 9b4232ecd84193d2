"""Attention against torch: both directions, padded, biased, and across two sequences."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from groundup.nn.attention import Attention
from groundup.nn.config import AttentionConfig, NormConfig
from groundup.nn.kernels import attend, naive_attention
from groundup.nn.masks import Causal, Everything, Padding, Plan, dense, plan

CPU = torch.device("cpu")


def _pair(
    memory_width: int | None = None, bias: bool = True
) -> tuple[Attention, nn.MultiheadAttention]:
    """Ours and torch's with the same weights: 5 heads of width 6."""
    config = AttentionConfig(
        num_heads=5, num_kv_heads=5, head_width=6, qkv_bias=bias, out_bias=bias
    )
    ours = Attention(30, config, NormConfig(), memory_width)
    theirs = nn.MultiheadAttention(
        30, 5, bias=bias, batch_first=True, kdim=memory_width, vdim=memory_width
    )
    parts = (ours.query, ours.key, ours.value)
    with torch.no_grad():
        if memory_width is None:
            theirs.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
        else:
            for name, part in zip("qkv", parts, strict=True):
                getattr(theirs, f"{name}_proj_weight").copy_(part.weight)
        theirs.out_proj.weight.copy_(ours.out.weight)
        if bias:
            theirs.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
            theirs.out_proj.bias.copy_(ours.out.bias.normal_())
    return ours, theirs


def _assert_same(ours, theirs, *inputs: Tensor) -> None:
    """Equal outputs, and equal gradients of every input under the same cotangent."""
    mine, reference = (tuple(x.clone().requires_grad_() for x in inputs) for _ in range(2))
    out, expected = ours(*mine), theirs(*reference)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-4)
    cotangent = torch.randn(out.shape)
    gradients = torch.autograd.grad(out, mine, cotangent)
    for actual, wanted in zip(
        gradients, torch.autograd.grad(expected, reference, cotangent), strict=True
    ):
        torch.testing.assert_close(actual, wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("bias", [False, True])
def test_both_directions(bias):
    ours, theirs = _pair(bias=bias)
    _assert_same(
        lambda x: ours(x, plan(Everything(), 11, 11, CPU)),
        lambda x: theirs(x, x, x, need_weights=False)[0],
        torch.randn(2, 11, 30),
    )


def test_padding():
    ours, theirs = _pair()
    lengths = torch.tensor([4, 11, 1])
    hidden = torch.arange(11) >= lengths[:, None]
    mask = plan(Padding(lengths), 11, 11, CPU)
    x = torch.randn(3, 11, 30)
    _assert_same(
        lambda x: ours(x, mask),
        lambda x: theirs(x, x, x, key_padding_mask=hidden, need_weights=False)[0],
        x,
    )
    changed = x + hidden[..., None] * torch.randn(3, 11, 30)
    real = ~hidden
    assert torch.equal(ours(x, mask)[real], ours(changed, mask)[real])


@pytest.mark.parametrize("rule", [Everything(), Causal()])
def test_a_bias_is_added_to_the_scores(rule):
    ours, theirs = _pair()
    hidden = ~dense(rule, 11, 11, CPU)

    def reference(x: Tensor, bias: Tensor) -> Tensor:
        added = bias.masked_fill(hidden, -torch.inf).repeat(2, 1, 1)
        return theirs(x, x, x, attn_mask=added, need_weights=False)[0]

    _assert_same(
        lambda x, bias: ours(x, plan(rule, 11, 11, CPU, bias)),
        reference,
        torch.randn(2, 11, 30),
        torch.randn(5, 11, 11),
    )


@pytest.mark.parametrize("memory_width", [None, 22])
def test_cross_attention(memory_width):
    ours, theirs = _pair(memory_width)
    lengths = torch.tensor([9, 3])
    mask = plan(Padding(lengths), 7, 9, CPU)
    hidden = torch.arange(9) >= lengths[:, None]
    _assert_same(
        lambda x, memory: ours(x, mask, memory=ours.remember(memory)),
        lambda x, memory: theirs(x, memory, memory, key_padding_mask=hidden)[0],
        torch.randn(2, 7, 30),
        torch.randn(2, 9, memory_width or 30),
    )


@pytest.mark.parametrize("num_kv_heads", [1, 2, 6])
def test_a_memory_is_computed_once_and_serves_every_step(num_kv_heads):
    config = AttentionConfig(
        num_heads=6, num_kv_heads=num_kv_heads, head_width=5, qk_norm=True, scale=0.3
    )
    module, calls = Attention(22, config, NormConfig(), 17), []
    module.key.register_forward_hook(lambda *_: calls.append(1))
    x, mask = torch.randn(2, 8, 22), Plan(False, None)
    memory = module.remember(torch.randn(2, 9, 17))
    whole = module(x, mask, memory=memory)
    steps = [module(x[:, i : i + 1], mask, memory=memory) for i in range(8)]
    torch.testing.assert_close(torch.cat(steps, 1), whole, atol=1e-6, rtol=1e-5)
    assert memory.keys.shape == (2, num_kv_heads, 9, 5) and len(calls) == 1
    query = module.query_norm(module.query(x).unflatten(-1, (6, 5))).transpose(1, 2)
    slow, _ = naive_attention(query, *memory, torch.ones(8, 9).bool(), scale=0.3)
    expected = module.out(slow.transpose(1, 2).flatten(2))
    torch.testing.assert_close(whole, expected, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_biased_query_that_sees_nothing_gets_zeros(dtype):
    query = torch.randn(2, 4, 5, 6, dtype=dtype, requires_grad=True)
    key, value = torch.randn(2, 2, 2, 7, 6, dtype=dtype)
    bias = torch.randn(4, 5, 7, requires_grad=True)
    mask = plan(Padding(torch.tensor([0, 4])), 5, 7, CPU, bias)
    out = attend(query, key, value, mask)
    visible = dense(Padding(torch.tensor([0, 4])), 5, 7, CPU)[:, None]
    slow, _ = naive_attention(query, key, value, visible, bias)
    tolerance = 1e-6 if dtype == torch.float32 else 3e-2
    torch.testing.assert_close(out, slow, atol=tolerance, rtol=tolerance)
    assert not out[0].any() and out[1].abs().min() > 0
    gradients = torch.autograd.grad(out.float().sum(), (query, bias))
    assert all(gradient.isfinite().all() for gradient in gradients)
