"""Attention's edges: a memory that serves every step, queries that see nothing, both formats."""

from __future__ import annotations

import pytest
import torch

from groundup.nn.attention import Attention
from groundup.nn.config import AttentionConfig, NormConfig
from groundup.nn.kernels import attend, naive_attention
from groundup.nn.masks import Padding, Plan, dense, plan

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", ["causal", "mask", "all"])
def test_naive_attention_against_the_kernel(dtype, shape):
    query = torch.randn(2, 6, 9, 14).to(dtype)
    key, value = torch.randn(2, 2, 3, 9, 14).to(dtype)
    visible = torch.ones(9, 9, dtype=torch.bool)
    if shape == "causal":
        visible = visible.tril()
    elif shape == "mask":
        visible = (torch.rand(2, 1, 9, 9) < 0.5) | torch.eye(9, dtype=torch.bool)
    plan = Plan(shape == "causal", visible if shape == "mask" else None)
    slow, _ = naive_attention(query, key, value, visible)
    tolerance = 1e-6 if dtype == torch.float32 else 1.6e-2
    torch.testing.assert_close(
        attend(query, key, value, plan), slow, atol=tolerance, rtol=tolerance
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
