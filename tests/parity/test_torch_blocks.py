"""Our blocks against torch.nn: outputs and gradients, on odd shapes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from groundup.nn.attention import Attention
from groundup.nn.config import AttentionConfig, FeedForwardConfig, NormConfig
from groundup.nn.feed_forward import build_feed_forward
from groundup.nn.kernels import attend, naive_attention
from groundup.nn.masks import Plan
from groundup.nn.norms import LayerNorm, RMSNorm


def _assert_same(ours, theirs, x: Tensor, atol: float = 1e-5) -> None:
    """Equal outputs, and equal gradients of the input under the same random cotangent."""
    mine, reference = x.clone().requires_grad_(), x.clone().requires_grad_()
    out, expected = ours(mine), theirs(reference)
    torch.testing.assert_close(out, expected, atol=atol, rtol=1e-4)
    cotangent = torch.randn(out.shape)
    out.backward(cotangent)
    expected.backward(cotangent)
    torch.testing.assert_close(mine.grad, reference.grad, atol=atol, rtol=1e-4)


@pytest.mark.parametrize("eps", [1e-5, 1e-6])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_layer_norm(eps, scale):
    ours, theirs = LayerNorm(37, eps), nn.LayerNorm(37, eps)
    nn.init.normal_(ours.weight)
    nn.init.normal_(ours.bias)
    theirs.load_state_dict(ours.state_dict())
    _assert_same(ours, theirs, scale * (torch.randn(3, 5, 37) + 2), atol=1e-4 / min(scale, 1))
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(ours.bias.grad, theirs.bias.grad, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("eps", [1e-5, 1e-6])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_rms_norm(eps, scale):
    ours, theirs = RMSNorm(37, eps), nn.RMSNorm(37, eps)
    nn.init.normal_(ours.weight)
    theirs.load_state_dict(ours.state_dict())
    _assert_same(ours, theirs, scale * torch.randn(3, 5, 37), atol=1e-4 / min(scale, 1))
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("bias", [False, True])
def test_multi_head_attention(bias):
    config = AttentionConfig(
        num_heads=5, num_kv_heads=5, head_width=6, qkv_bias=bias, out_bias=bias
    )
    ours = Attention(30, config, NormConfig())
    theirs = nn.MultiheadAttention(30, 5, bias=bias, batch_first=True)
    parts = (ours.query, ours.key, ours.value)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
        theirs.out_proj.weight.copy_(ours.out.weight)
        if bias:
            theirs.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
            theirs.out_proj.bias.copy_(ours.out.bias)
    future = torch.ones(11, 11, dtype=torch.bool).triu(1)
    _assert_same(
        lambda x: ours(x, Plan(True, None)),
        lambda x: theirs(x, x, x, attn_mask=future, need_weights=False)[0],
        torch.randn(2, 11, 30),
    )


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


def test_plain_feed_forward():
    ours = build_feed_forward(
        FeedForwardConfig(kind="plain", activation="gelu", width=41, bias=True), 23
    )
    theirs = nn.Sequential(nn.Linear(23, 41), nn.GELU(), nn.Linear(41, 23))
    theirs[0].load_state_dict(ours.up.state_dict())
    theirs[2].load_state_dict(ours.down.state_dict())
    _assert_same(ours, theirs, torch.randn(3, 7, 23))


@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("placement", ["pre", "post"])
def test_a_whole_block(placement, activation):
    from groundup.nn.block import Block

    ours = Block(
        30,
        AttentionConfig(num_heads=5, num_kv_heads=5, head_width=6, qkv_bias=True, out_bias=True),
        FeedForwardConfig(kind="plain", activation=activation, width=44, bias=True),
        NormConfig(kind="layernorm", eps=1e-5, placement=placement),
    )
    theirs = nn.TransformerEncoderLayer(
        30, 5, 44, dropout=0.0, activation=activation, batch_first=True,
        norm_first=placement == "pre",
    )  # fmt: skip
    for norm in (ours.attention_norm, ours.feed_forward_norm):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    parts = (ours.attention.query, ours.attention.key, ours.attention.value)
    with torch.no_grad():
        theirs.self_attn.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
        theirs.self_attn.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
    for mine, reference in (
        (ours.attention.out, theirs.self_attn.out_proj),
        (ours.attention_norm, theirs.norm1),
        (ours.feed_forward_norm, theirs.norm2),
        (ours.feed_forward.up, theirs.linear1),
        (ours.feed_forward.down, theirs.linear2),
    ):
        reference.load_state_dict(mine.state_dict())
    future = torch.ones(8, 8, dtype=torch.bool).triu(1)
    _assert_same(
        lambda x: ours(x, Plan(True, None)),
        lambda x: theirs(x, src_mask=future),
        torch.randn(2, 8, 30),
    )
