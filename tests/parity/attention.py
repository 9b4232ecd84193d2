"""Attention beside torch.nn.MultiheadAttention, torch's kernel, and transformers' own kinds."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.nn.attention import Attention
from groundup.nn.block import build_attention
from groundup.nn.config import AttentionConfig, LatentConfig, NormConfig, PositionsConfig
from groundup.nn.masks import Causal, Everything, Padding, Plan, Rule, dense, plan
from groundup.nn.positions import RotaryPositions
from parity.harness import Case, Pair, Weights, module_function, random_weights

CPU = torch.device("cpu")
QUERIES, KEYS = 37, 29
LENGTHS = torch.tensor([KEYS, 11, 1])


def heads(weights: Weights, name: str = "") -> Weights:
    """Our query, key and value as torch.nn.MultiheadAttention's one matrix, or three."""
    parts = [weights[f"{name}{part}.weight"] for part in ("query", "key", "value")]
    found = {"out_proj.weight": weights[f"{name}out.weight"]}
    if len({part.shape for part in parts}) == 1:
        found["in_proj_weight"] = torch.cat(parts)
    else:
        found |= {f"{key}_proj_weight": part for key, part in zip("qkv", parts, strict=True)}
    if f"{name}query.bias" in weights:
        biases = [weights[f"{name}{part}.bias"] for part in ("query", "key", "value")]
        found |= {"in_proj_bias": torch.cat(biases), "out_proj.bias": weights[f"{name}out.bias"]}
    return found


def _config(bias: bool = True) -> AttentionConfig:
    """Five heads of width 6."""
    return AttentionConfig(num_heads=5, num_kv_heads=5, head_width=6, qkv_bias=bias, out_bias=bias)


def self_pair(rule: Rule, bias: bool = True) -> Pair:
    """Self-attention under a rule."""
    ours = Attention(30, _config(bias), NormConfig())
    theirs = nn.MultiheadAttention(30, 5, bias=bias, batch_first=True)
    hidden = ~dense(rule, QUERIES, QUERIES, CPU)
    if len(hidden) > 1:
        hidden = hidden.repeat_interleave(5, 0)

    def expected(module: nn.Module, x: Tensor) -> Tensor:
        mask = hidden[0] if len(hidden) == 1 else hidden
        return module(x, x, x, attn_mask=mask, need_weights=False)[0]

    mask = plan(rule, QUERIES, QUERIES, CPU)
    return Pair(
        ours=module_function(ours, call=lambda module, x: module(x, mask)),
        theirs=module_function(theirs, heads, expected),
        weights=random_weights(ours),
        inputs=(torch.randn(3, QUERIES, 30),),
    )


def biased_pair(rule: Rule) -> Pair:
    """Self-attention with numbers added to the scores, which learn."""
    ours = Attention(30, _config(), NormConfig())
    theirs = nn.MultiheadAttention(30, 5, batch_first=True)
    hidden = ~dense(rule, QUERIES, QUERIES, CPU)

    def expected(module: nn.Module, x: Tensor, bias: Tensor) -> Tensor:
        added = bias.masked_fill(hidden, -torch.inf).repeat(2, 1, 1)
        return module(x, x, x, attn_mask=added, need_weights=False)[0]

    def mine(module: nn.Module, x: Tensor, bias: Tensor) -> Tensor:
        return module(x, plan(rule, QUERIES, QUERIES, CPU, bias))

    return Pair(
        ours=module_function(ours, call=mine),
        theirs=module_function(theirs, heads, expected),
        weights=random_weights(ours),
        inputs=(torch.randn(2, QUERIES, 30), torch.randn(5, QUERIES, QUERIES)),
    )


def cross_pair(memory_width: int) -> Pair:
    """Attention to another, padded sequence."""
    ours = Attention(30, _config(), NormConfig(), memory_width)
    theirs = nn.MultiheadAttention(30, 5, batch_first=True, kdim=memory_width, vdim=memory_width)
    mask = plan(Padding(LENGTHS), QUERIES, KEYS, CPU)
    hidden = torch.arange(KEYS) >= LENGTHS[:, None]

    def expected(module: nn.Module, x: Tensor, memory: Tensor) -> Tensor:
        return module(x, memory, memory, key_padding_mask=hidden, need_weights=False)[0]

    def mine(module: Attention, x: Tensor, memory: Tensor) -> Tensor:
        return module(x, mask, memory=module.remember(memory))

    return Pair(
        ours=module_function(ours, call=mine),
        theirs=module_function(theirs, heads, expected),
        weights=random_weights(ours),
        inputs=(torch.randn(3, QUERIES, 30), torch.randn(3, KEYS, memory_width)),
    )


def shared_pair(num_kv_heads: int, memory_width: int | None, gate: bool = False) -> Pair:
    """Six query heads that share key/value heads; a gate on what they found."""
    config = AttentionConfig(num_heads=6, num_kv_heads=num_kv_heads, head_width=10, gate=gate)
    ours = Attention(22, config, NormConfig(), memory_width)
    group = 6 // num_kv_heads

    def expected(weights: Weights, x: Tensor, memory: Tensor | None = None) -> Tensor:
        source = x if memory is None else memory
        query, key, value = (
            F.linear(inputs, weights[f"{name}.weight"]).unflatten(-1, (-1, 10)).transpose(1, 2)
            for name, inputs in (("query", x), ("key", source), ("value", source))
        )
        key, value = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=memory is None)
        found = mixed.transpose(1, 2).flatten(2)
        if gate:
            found = found * torch.sigmoid(F.linear(x, weights["gate.weight"]))
        return F.linear(found, weights["out.weight"])

    def mine(module: Attention, x: Tensor, memory: Tensor | None = None) -> Tensor:
        if memory is None:
            return module(x, Plan(True, None))
        return module(x, Plan(False, None), memory=module.remember(memory))

    x = torch.randn(2, QUERIES, 22)
    other = () if memory_width is None else (torch.randn(2, KEYS, memory_width),)
    return Pair(module_function(ours, call=mine), expected, random_weights(ours), (x, *other))


def latent_pair(query_rank: int | None) -> Pair:
    """Multi-head latent attention with rotated shared keys."""
    from transformers.models.deepseek_v2 import modeling_deepseek_v2 as deepseek

    config = deepseek.DeepseekV2Config(
        hidden_size=21,
        num_attention_heads=3,
        num_key_value_heads=3,
        q_lora_rank=query_rank,
        kv_lora_rank=12,
        qk_rope_head_dim=6,
        qk_nope_head_dim=8,
        v_head_dim=10,
        attn_implementation="eager",
    )
    latent = LatentConfig(rank=12, rope_width=6, value_width=10, query_rank=query_rank)
    heads = AttentionConfig(num_heads=3, num_kv_heads=3, head_width=8, latent=latent)
    ours, theirs = build_attention(21, heads, NormConfig()), deepseek.DeepseekV2Attention(config, 0)
    rotary, hidden = deepseek.DeepseekV2RotaryEmbedding(config), _future()
    rotation = RotaryPositions(6, QUERIES, PositionsConfig(layout="interleaved"))(0, QUERIES)

    def expected(module: nn.Module, x: Tensor) -> Tensor:
        angles = rotary(x, torch.arange(QUERIES)[None])
        return module(x, hidden.to(x.dtype), position_embeddings=angles)[0]

    return Pair(
        ours=module_function(ours, call=lambda m, x: m(x, Plan(True, None), rotation)),
        theirs=module_function(theirs.eval(), deepseek_names, expected),
        weights=random_weights(ours),
        inputs=(torch.randn(2, QUERIES, 21),),
    )


def deepseek_names(weights: Weights) -> Weights:
    """Latent attention's weights under the names of DeepSeek-V2."""
    names = {
        "query": "q_b_proj" if "query_down.weight" in weights else "q_proj",
        "query_down": "q_a_proj",
        "query_norm": "q_a_layernorm",
        "latent_down": "kv_a_proj_with_mqa",
        "latent_norm": "kv_a_layernorm",
        "latent_up": "kv_b_proj",
        "out": "o_proj",
    }
    return {f"{names[key.removesuffix('.weight')]}.weight": w for key, w in weights.items()}


def scores_pair(kind: str) -> Pair:
    """Scores bent below a cap as in Gemma 2, or shared with a learned sink as in gpt-oss."""
    from transformers.models.gemma2 import modeling_gemma2 as gemma2
    from transformers.models.gpt_oss import modeling_gpt_oss as gpt_oss

    capped = kind == "capped"
    options: Any = {"soft_cap": 1.5} if capped else {"sinks": True}
    config = AttentionConfig(num_heads=6, num_kv_heads=2, head_width=10, **options)
    ours, hidden = Attention(22, config, NormConfig()), _future()

    def expected(weights: Weights, x: Tensor) -> Tensor:
        query, key, value = (
            F.linear(x, weights[f"{name}.weight"]).unflatten(-1, (-1, 10)).transpose(1, 2)
            for name in ("query", "key", "value")
        )
        module = SimpleNamespace(
            num_key_value_groups=3, training=False, sinks=weights.get("mix.sinks")
        )
        given = (module, query, key, value, hidden.to(x.dtype))
        if capped:
            found, _ = gemma2.eager_attention_forward(*given, scaling=10**-0.5, softcap=1.5)
        else:
            found, _ = gpt_oss.eager_attention_forward(*given, scaling=10**-0.5)
        return F.linear(found.flatten(2), weights["out.weight"])

    mine = module_function(ours, call=lambda module, x: module(x, Plan(True, None)))
    return Pair(mine, expected, random_weights(ours, 0.3), (2 * torch.randn(2, QUERIES, 22),))


def differential_pair() -> Pair:
    """The difference of two maps; transformers keeps a head's two halves H/2 heads apart."""
    from transformers.models.diffllama import modeling_diffllama as diffllama

    config = diffllama.DiffLlamaConfig(
        hidden_size=22,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=6,
        attn_implementation="eager",
        rms_norm_eps=1e-6,
    )
    theirs = diffllama.DiffLlamaAttention(config, 0).eval()
    start = theirs.lambda_init
    heads = AttentionConfig(num_heads=4, num_kv_heads=2, head_width=6, differential=start)
    ours = build_attention(22, heads, NormConfig())
    rotary, hidden = diffllama.DiffLlamaRotaryEmbedding(config), _future()
    rotation = RotaryPositions(6, QUERIES, PositionsConfig())(0, QUERIES)

    def apart(weight: Tensor) -> Tensor:
        return weight.unflatten(0, (-1, 2, 6)).transpose(0, 1).flatten(0, 2)

    def translate(weights: Weights) -> Weights:
        named = dict(zip(("q1", "k1", "q2", "k2"), weights["lambdas"], strict=True))
        found = {f"lambda_{name}": part for name, part in named.items()}
        for name in ("query", "key", "value"):
            found[f"{name[0]}_proj.weight"] = apart(weights[f"{name}.weight"])
        # Its norm has no weights; before a matrix, they can as well be the matrix's.
        found["o_proj.weight"] = weights["out.weight"] * weights["head_norm.weight"].repeat(4)
        return found

    def expected(module: nn.Module, x: Tensor) -> Tensor:
        angles = rotary(x, torch.arange(QUERIES)[None])
        return module(x, angles, hidden.to(x.dtype))[0]

    return Pair(
        ours=module_function(ours, call=lambda m, x: m(x, Plan(True, None), rotation)),
        theirs=module_function(theirs, translate, expected),
        weights=random_weights(ours, spread=0.1),
        inputs=(torch.randn(2, QUERIES, 22),),
    )


def _future() -> Tensor:
    """(1, 1, T, T): -inf where a query may not look."""
    return torch.full((QUERIES, QUERIES), -torch.inf).triu(1)[None, None]


def cases() -> dict[str, Case]:
    """Multi-head, shared heads, and the other kinds."""
    torch_mha, kernel = "nn.MultiheadAttention", "F.scaled_dot_product_attention"
    deepseek = "transformers DeepseekV2Attention"
    short = torch.tensor([QUERIES, 11, 1])
    return {
        "attention": Case(torch_mha, partial(self_pair, Everything())),
        "attention, causal": Case(torch_mha, partial(self_pair, Causal())),
        "attention, causal, no biases": Case(torch_mha, partial(self_pair, Causal(), bias=False)),
        "attention, padded": Case(torch_mha, partial(self_pair, Padding(short))),
        "attention, scores biased": Case(torch_mha, partial(biased_pair, Everything())),
        "attention, causal, scores biased": Case(torch_mha, partial(biased_pair, Causal())),
        "cross-attention, padded": Case(torch_mha, partial(cross_pair, 30)),
        "cross-attention to another width": Case(torch_mha, partial(cross_pair, 22)),
        "grouped-query attention": Case(kernel, partial(shared_pair, 2, None)),
        "multi-query attention": Case(kernel, partial(shared_pair, 1, None)),
        "grouped-query cross-attention": Case(kernel, partial(shared_pair, 3, 17)),
        "multi-query cross-attention": Case(kernel, partial(shared_pair, 1, 17)),
        "gated attention": Case(kernel, partial(shared_pair, 2, None, gate=True)),
        "latent attention": Case(deepseek, partial(latent_pair, None)),
        "latent attention, queries too": Case(deepseek, partial(latent_pair, 14)),
        "soft-capped attention": Case(
            "transformers gemma2 eager_attention_forward", partial(scores_pair, "capped")
        ),
        "attention with sinks": Case(
            "transformers gpt_oss eager_attention_forward", partial(scores_pair, "sinks")
        ),
        "differential attention": Case("transformers DiffLlamaAttention", differential_pair),
    }
