"""Soft-capped scores and sinks: transformers' own formulas, FlexAttention, caches, refusals."""

from __future__ import annotations

import dataclasses
import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from groundup.config import UserError
from groundup.models.adapters import bert as bert_adapter
from groundup.models.adapters import t5 as t5_adapter
from groundup.models.decoder import Decoder
from groundup.models.encoder_config import bert
from groundup.models.encoder_decoder_config import t5
from groundup.models.gguf.names import architecture_of
from groundup.models.huggingface import to_hf_config
from groundup.models.presets import gpt2, llama, qwen3
from groundup.nn.attention import Attention
from groundup.nn.config import AttentionConfig, LatentConfig, NormConfig, PositionsConfig
from groundup.nn.kernels import attend, attention_weights, naive_attention
from groundup.nn.masks import (
    Causal,
    Everything,
    Padding,
    Plan,
    Rule,
    Window,
    dense,
    flex_plan,
    plan,
)
from groundup.nn.positions import RotaryPositions

CPU = torch.device("cpu")
CAUSAL = Plan(True, None)
SHAPE = {"vocab_size": 131, "width": 24, "num_layers": 2, "num_heads": 4, "context_length": 20}


def _inputs(queries: int = 11, keys: int = 11) -> tuple[Tensor, Tensor, Tensor]:
    """6 heads on 2 key/value heads of width 5, with scores large enough to be bent."""
    return 4 * torch.randn(2, 6, queries, 5), *torch.randn(2, 2, 2, keys, 5)


def _theirs(sinks: Tensor | None = None) -> SimpleNamespace:
    """What transformers' attention functions ask of their module."""
    return SimpleNamespace(num_key_value_groups=3, training=False, sinks=sinks)


def _assert_same(ours, theirs, inputs: tuple[Tensor, ...]) -> None:
    """Equal outputs, and equal gradients of every input under the same cotangent."""
    mine, reference = (tuple(x.clone().requires_grad_() for x in inputs) for _ in range(2))
    out, expected = ours(*mine), theirs(*reference)
    torch.testing.assert_close(out, expected, atol=1e-6, rtol=1e-5)
    cotangent = torch.randn(out.shape)
    for actual, wanted in zip(
        torch.autograd.grad(out, mine, cotangent),
        torch.autograd.grad(expected, reference, cotangent),
        strict=True,
    ):
        torch.testing.assert_close(actual, wanted, atol=1e-5, rtol=1e-4)


RULES: dict[str, tuple[Rule, int]] = {
    "causal": (Causal(), 11),
    "after a cache": (Causal(), 4),
    "window": (Causal() & Window(3), 11),
    "encoder": (Everything(), 11),
}


@pytest.mark.parametrize(("rule", "queries"), RULES.values(), ids=list(RULES))
def test_a_soft_cap_is_gemmas(rule, queries):
    from transformers.models.gemma2.modeling_gemma2 import eager_attention_forward

    hidden = torch.where(dense(rule, queries, 11, CPU), 0.0, -torch.inf)[:, None]
    _assert_same(
        lambda *x: attend(*x, plan(rule, queries, 11, CPU), scale=0.3, soft_cap=2.0),
        lambda *x: eager_attention_forward(_theirs(), *x, hidden, scaling=0.3, softcap=2.0)[
            0
        ].transpose(1, 2),
        _inputs(queries),
    )


@pytest.mark.parametrize(("rule", "queries"), RULES.values(), ids=list(RULES))
def test_sinks_are_those_of_gpt_oss(rule, queries):
    from transformers.models.gpt_oss.modeling_gpt_oss import eager_attention_forward

    hidden = torch.where(dense(rule, queries, 11, CPU), 0.0, -torch.inf)[:, None]
    _assert_same(
        lambda *x: attend(*x[:3], plan(rule, queries, 11, CPU), scale=0.3, sinks=x[3]),
        lambda *x: eager_attention_forward(_theirs(x[3]), *x[:3], hidden, scaling=0.3)[0].transpose(
            1, 2
        ),
        (*_inputs(queries), torch.randn(6)),
    )


def test_the_module_is_gpt_oss_own():
    from transformers.models.gpt_oss import modeling_gpt_oss as gpt_oss

    config = gpt_oss.GptOssConfig(
        hidden_size=21, num_attention_heads=6, num_key_value_heads=2, head_dim=10,
        rope_parameters={"rope_type": "default", "rope_theta": 500.0},
        layer_types=["full_attention"], num_hidden_layers=1, attn_implementation="eager",
    )  # fmt: skip
    theirs = gpt_oss.GptOssAttention(config, 0).eval()
    torch.nn.init.normal_(theirs.sinks)
    heads = AttentionConfig(
        num_heads=6, num_kv_heads=2, head_width=10, qkv_bias=True, out_bias=True, sinks=True
    )
    ours = Attention(21, heads, NormConfig()).eval()
    names = {"mix": "", "query": "q_proj.", "key": "k_proj.", "value": "v_proj.", "out": "o_proj."}
    state = theirs.state_dict()
    ours.load_state_dict(
        {f"{name}.{leaf}": state[names[name] + leaf]
         for name, leaf in (key.split(".") for key in ours.state_dict())}
    )  # fmt: skip
    x, hidden = torch.randn(2, 13, 21), torch.full((13, 13), -torch.inf).triu(1)[None, None]
    turned = gpt_oss.GptOssRotaryEmbedding(config)(x, torch.arange(13)[None])
    rotation = RotaryPositions(10, 13, PositionsConfig(theta=500.0))(0, 13)
    torch.testing.assert_close(
        ours(x, CAUSAL, rotation), theirs(x, turned, hidden)[0], atol=1e-6, rtol=1e-4
    )


def test_a_cap_out_of_reach_and_sinks_without_weight_change_nothing():
    inputs, sinks = _inputs(), torch.full((6,), -torch.inf)
    expected = attend(*inputs, CAUSAL)
    torch.testing.assert_close(attend(*inputs, CAUSAL, soft_cap=1e5), expected)
    torch.testing.assert_close(attend(*inputs, CAUSAL, sinks=sinks), expected)


def test_a_cap_bounds_what_one_key_can_weigh_and_a_sink_what_all_can():
    query, key = torch.ones(1, 1, 1, 1), torch.tensor([1e6, 0.0, 1e6]).view(1, 1, 3, 1)
    visible = torch.tensor([True, True, False])
    _, capped = naive_attention(query, key, key, visible, soft_cap=3.0)
    likely = 1 / (1 + math.exp(-3))
    assert capped.flatten().tolist() == pytest.approx([likely, 1 - likely, 0])
    weights = attention_weights(torch.zeros(1, 2, 1, 3), torch.tensor([0.0, 5.0]))
    assert weights.sum(-1).flatten().tolist() == pytest.approx([3 / 4, 3 / (3 + math.exp(5))])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("biased", [False, True])
def test_a_query_that_sees_nothing_gets_zeros_and_finite_gradients(dtype, biased):
    query, key, value = (x.to(dtype).requires_grad_() for x in _inputs(5, 7))
    sinks = torch.randn(6, requires_grad=True)
    bias = torch.randn(6, 5, 7, requires_grad=True) if biased else None
    inputs = [query, key, value, *([bias] if bias is not None else [])]
    for extra in ({"soft_cap": 2.0}, {"sinks": sinks}, {"soft_cap": 2.0, "sinks": sinks}):
        mask = plan(Padding(torch.tensor([0, 4])), 5, 7, CPU, bias)
        out = attend(query, key, value, mask, **extra)
        assert out.dtype == dtype and not out[0].any() and out[1].abs().min() > 0
        gradients = torch.autograd.grad(out.float().square().sum(), inputs)
        assert all(gradient.isfinite().all() and gradient.any() for gradient in gradients)


def test_autocast_does_not_round_the_scores():
    query, key, value = (x.bfloat16() for x in _inputs())
    outside = attend(query, key, value, CAUSAL, soft_cap=2.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(attend(query, key, value, CAUSAL, soft_cap=2.0), outside)


def test_dropout_falls_on_the_weights():
    query, key = torch.zeros(1, 1, 3000, 5), torch.zeros(1, 1, 2, 5)
    value = torch.tensor([1.0, 0.0]).view(1, 1, 2, 1)
    found = attend(query, key, value, Plan(False, None), dropout=0.25, soft_cap=1.0).flatten()
    assert found.unique().tolist() == pytest.approx([0, 0.5 / 0.75])
    assert (found > 0).float().mean().item() == pytest.approx(0.75, abs=0.03)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize(("rule", "queries"), RULES.values(), ids=list(RULES))
def test_flex_attention_computes_the_same(rule, queries):
    inputs, sinks = _inputs(queries), torch.randn(6)
    for extra in ({"soft_cap": 2.0}, {"sinks": sinks}, {"soft_cap": 2.0, "sinks": sinks}):
        expected = attend(*inputs, plan(rule, queries, 11, CPU), scale=0.3, **extra)
        actual = attend(*inputs, flex_plan(rule, queries, 11, CPU), scale=0.3, **extra)
        torch.testing.assert_close(actual, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("rule", "queries"), RULES.values(), ids=list(RULES))
def test_a_plan_spelled_out_is_its_rule(rule, queries):
    expected = dense(rule, queries, 11, CPU)[:, None].expand(1, 6, -1, -1)
    bias = torch.randn(6, queries, 11)
    for made in (plan(rule, queries, 11, CPU), flex_plan(rule, queries, 11, CPU)):
        visible, added = made.spelled_out(queries, 11, CPU)
        assert torch.equal(visible.expand(1, 6, queries, 11), expected) and added is None
    visible, added = plan(rule, queries, 11, CPU, bias).spelled_out(queries, 11, CPU)
    assert added is not None and torch.equal(visible.expand(1, 6, queries, 11), expected)
    assert torch.equal(added.expand(1, 6, -1, -1)[expected], bias[None][expected])


def test_cross_attention_has_them_too():
    config = AttentionConfig(
        num_heads=6, num_kv_heads=2, head_width=5, soft_cap=0.5, sinks=True, scale=0.3
    )
    module = Attention(22, config, NormConfig(), 17)
    torch.nn.init.normal_(module.mix.sinks)
    x, memory = torch.randn(2, 8, 22), module.remember(torch.randn(2, 9, 17))
    query = module.query(x).unflatten(-1, (6, 5)).transpose(1, 2)
    visible = torch.ones(8, 9, dtype=torch.bool)
    found, weights = naive_attention(query, *memory, visible, None, 0.3, 0.5, module.mix.sinks)
    expected = module.out(found.transpose(1, 2).flatten(2))
    torch.testing.assert_close(module(x, Plan(False, None), memory=memory), expected)
    assert (weights.sum(-1) < 1).all()


def _with(config, **attention):
    return dataclasses.replace(config, attention=dataclasses.replace(config.attention, **attention))


def test_sinks_start_at_zero_also_through_the_meta_device():
    config = _with(llama(**SHAPE), sinks=True)
    with torch.device("meta"):
        model = Decoder(config)
    model.to_empty(device="cpu")
    model.initialize()
    sinks = {name: p for name, p in model.named_parameters() if "sinks" in name}
    assert list(sinks) == [f"blocks.{i}.attention.mix.sinks" for i in range(2)]
    assert all(p.shape == (4,) and not p.any() for p in sinks.values())


@pytest.mark.parametrize("attention", [{"soft_cap": 30.0}, {"sinks": True}])
def test_families_without_them_refuse_them(attention):
    name = f"attention.{next(iter(attention))} ="
    for config in (
        qwen3(**SHAPE),
        gpt2(**SHAPE),
        llama(**SHAPE),
        _with(llama(**SHAPE), qkv_bias=True),  # Qwen2
        _with(llama(**SHAPE), windows=(4,)),  # Mistral
        dataclasses.replace(llama(**SHAPE), embedding_scale=2.0),  # Gemma
    ):
        with pytest.raises(UserError, match=name):
            to_hf_config(_with(config, **attention))
        with pytest.raises(UserError, match=name):
            architecture_of(_with(config, **attention))
    with pytest.raises(UserError, match=name):
        bert_adapter.to_hf_config(_with(bert(**SHAPE), **attention))
    with pytest.raises(UserError, match=name):
        t5_adapter.to_hf_config(_with(t5(**SHAPE), **attention))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"soft_cap": 0.0}, "soft_cap should be above 0, but is 0.0"),
        ({"soft_cap": 5.0, "differential": 0.8}, "soft_cap is not available with"),
        (
            {"sinks": True, "latent": LatentConfig(rank=4, rope_width=2, value_width=3)},
            "sinks is not available with attention.latent",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(fields, words):
    with pytest.raises(UserError, match=words):
        AttentionConfig(**({"num_heads": 4, "num_kv_heads": 4, "head_width": 8} | fields))


@pytest.mark.parametrize("num_kv_heads", [1, 2, 6])
@pytest.mark.parametrize(("length", "window"), [(37, 5), (40, 10), (12, 3), (23, 1)])
def test_a_window_in_blocks_is_the_window(length, window, num_kv_heads):
    rule = Causal() & Window(window)
    mask = plan(rule, length, length, CPU)
    assert mask.window == window
    inputs = (torch.randn(2, 6, length, 5), *torch.randn(2, 2, num_kv_heads, length, 5))
    _assert_same(
        lambda *x: attend(*x, mask, scale=0.7),
        lambda *x: naive_attention(*x, dense(rule, length, length, CPU), scale=0.7)[0],
        inputs,
    )
    torch.testing.assert_close(
        attend(*inputs, mask, soft_cap=1.5),
        attend(*inputs, Plan(False, dense(rule, length, length, CPU)[:, None]), soft_cap=1.5),
    )
