"""Latent, differential and gated attention: their formulas, their caches, and DeepSeek's module."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from groundup.config import UserError
from groundup.models.config import DecoderConfig
from groundup.models.decoder import Decoder
from groundup.models.encoder_config import bert
from groundup.models.encoder_decoder_config import transformer
from groundup.models.presets import llama
from groundup.nn.attention import Attention
from groundup.nn.block import build_attention
from groundup.nn.config import AttentionConfig, LatentConfig, NormConfig, PositionsConfig
from groundup.nn.differential_attention import DifferentialAttention
from groundup.nn.kernels import naive_attention
from groundup.nn.latent_attention import LatentAttention
from groundup.nn.masks import Causal, Plan, plan
from groundup.nn.positions import RotaryPositions

CAUSAL = Plan(True, None)
LATENT = LatentConfig(rank=12, rope_width=6, value_width=10, query_rank=14)


def _latent(latent: LatentConfig = LATENT, width: int = 22) -> LatentAttention:
    config = AttentionConfig(num_heads=3, num_kv_heads=3, head_width=8, latent=latent)
    module = build_attention(width, config, NormConfig())
    assert isinstance(module, LatentAttention)
    return module.eval()


@pytest.mark.parametrize("query_rank", [None, 14])
def test_latent_attention_equals_deepseeks(query_rank):
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
    theirs = deepseek.DeepseekV2Attention(config, 0).eval()
    ours = _latent(dataclasses.replace(LATENT, query_rank=query_rank), 21)
    names = {
        "query": "q_proj" if query_rank is None else "q_b_proj",
        "query_down": "q_a_proj",
        "query_norm": "q_a_layernorm",
        "latent_down": "kv_a_proj_with_mqa",
        "latent_norm": "kv_a_layernorm",
        "latent_up": "kv_b_proj",
        "out": "o_proj",
    }
    state = theirs.state_dict()
    ours.load_state_dict({name: state[f"{names[name[:-7]]}.weight"] for name in ours.state_dict()})
    rotary = deepseek.DeepseekV2RotaryEmbedding(config)
    x = torch.randn(2, 11, 21)
    hidden = torch.full((11, 11), -torch.inf).triu(1)[None, None]
    expected = theirs(x, hidden, position_embeddings=rotary(x, torch.arange(11)[None]))[0]
    rotation = RotaryPositions(6, 11, PositionsConfig(layout="interleaved"))(0, 11)
    torch.testing.assert_close(ours(x, CAUSAL, rotation), expected, atol=1e-6, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("pieces", [[11], [4, 1, 1, 5], [1] * 11])
def test_attending_to_the_latents_is_the_same_as_reading_keys_off_them(pieces):
    module, x = _latent(), torch.randn(2, 11, 22)
    rotary = RotaryPositions(6, 11, PositionsConfig())
    cache, outputs = module.new_cache(2, 11), []
    for new in pieces:
        start = cache.length
        mask = plan(Causal(), new, start + new, torch.device("cpu"))
        piece = x[:, start : start + new]
        outputs.append(module(piece, mask, rotary(start, new), cache))
    expected = module(x, CAUSAL, rotary(0, 11))
    torch.testing.assert_close(torch.cat(outputs, 1), expected, atol=1e-6, rtol=1e-4)


def test_the_latent_cache_is_small():
    cache = _latent().new_cache(2, 50)
    assert cache.keys.nbytes + cache.values.nbytes == 2 * 50 * (12 + 6) * 4
    plain = Attention(
        22, AttentionConfig(num_heads=3, num_kv_heads=3, head_width=8), NormConfig()
    ).new_cache(2, 50)
    assert plain.keys.nbytes + plain.values.nbytes == 2 * 50 * 2 * 3 * 8 * 4


@pytest.mark.parametrize("num_kv_heads", [1, 2, 4])
def test_differential_attention_is_a_difference_of_maps(num_kv_heads):
    config = AttentionConfig(num_heads=4, num_kv_heads=num_kv_heads, head_width=5, differential=0.7)
    module = build_attention(22, config, NormConfig())
    assert isinstance(module, DifferentialAttention)
    x, visible = torch.randn(2, 9, 22), torch.ones(9, 9).tril().bool()
    query = module.query(x).view(2, 9, 4, 2, 5).permute(3, 0, 2, 1, 4)
    key = module.key(x).view(2, 9, num_kv_heads, 2, 5).permute(3, 0, 2, 1, 4)
    value = module.value(x).view(2, 9, num_kv_heads, 10).transpose(1, 2)
    first, second = (naive_attention(query[i], key[i], value, visible)[1] for i in (0, 1))
    values = value.repeat_interleave(4 // num_kv_heads, dim=1)
    mixed = (first - module.factor() * second) @ values
    mixed = mixed / (mixed.square().mean(-1, keepdim=True) + 1e-6).sqrt() * (1 - 0.7)
    expected = module.out(mixed.transpose(1, 2).flatten(2))
    torch.testing.assert_close(module(x, CAUSAL), expected, atol=1e-6, rtol=1e-4)
    with torch.no_grad():
        module.lambdas.zero_()
    assert module.factor().item() == pytest.approx(0.7)


def test_a_gate_of_zero_weights_halves_the_output():
    config = AttentionConfig(num_heads=2, num_kv_heads=1, head_width=6, gate=True)
    module, x = Attention(22, config, NormConfig()), torch.randn(1, 5, 22)
    plain = Attention(22, dataclasses.replace(config, gate=False), NormConfig())
    plain.load_state_dict({k: v for k, v in module.state_dict().items() if k != "gate.weight"})
    with torch.no_grad():
        module.gate.weight.zero_()
    torch.testing.assert_close(module(x, CAUSAL), plain(x, CAUSAL) / 2)


def _decoder(**attention: object) -> DecoderConfig:
    config = llama(vocab_size=131, width=24, num_layers=2, context_length=20, num_heads=4)
    heads = dataclasses.replace(config.attention, num_kv_heads=4, **attention)
    return dataclasses.replace(config, attention=heads)


@pytest.mark.parametrize(
    "attention",
    [{"gate": True}, {"differential": 0.8}, {"latent": LATENT},
     {"latent": dataclasses.replace(LATENT, query_rank=None)}],
)  # fmt: skip
def test_the_formula_counts_the_weights_there_are(attention):
    config = _decoder(**attention)
    model = Decoder(config)
    linears = [m for m in model.blocks[0].attention.modules() if isinstance(m, torch.nn.Linear)]
    assert config.attention.num_weights(24) == sum(m.weight.numel() for m in linears)
    assert model.flops_per_token(20) > 0


def test_differential_vectors_start_the_same_through_the_meta_device():
    config = _decoder(differential=0.8)
    with torch.device("meta"):
        late = Decoder(config)
    late.to_empty(device="cpu")
    torch.manual_seed(3)
    late.initialize()
    reference = Decoder(config)
    torch.manual_seed(3)
    reference.initialize()
    ids = torch.randint(0, 131, (1, 9))
    assert torch.equal(late(ids), reference(ids))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"latent": LATENT, "differential": 0.8}, "differential is not available with"),
        ({"latent": LATENT, "gate": True}, "gate is not available with attention.latent"),
        ({"differential": 0.8, "qk_norm": True}, "qk_norm is not available with"),
        ({"differential": 1.5}, "between 0 and 1, but is 1.5"),
        ({"latent": LATENT, "num_kv_heads": 2}, "num_kv_heads below num_heads is not"),
        ({"windows": (0, 0)}, "windows should be numbers of keys"),
        ({"scale": 0.0}, "scale should be above 0"),
    ],
)
def test_what_does_not_go_together_is_refused(fields, words):
    with pytest.raises(UserError, match=words):
        AttentionConfig(**({"num_heads": 4, "num_kv_heads": 4, "head_width": 8} | fields))


@pytest.mark.parametrize("fields", [{"windows": (4,)}, {"differential": 0.8}, {"latent": LATENT}])
def test_what_acts_in_decoders_alone_is_refused_elsewhere(fields):
    encoder = bert(vocab_size=131, width=24, num_layers=1, num_heads=4, context_length=20)
    pair = transformer(vocab_size=131, width=24, num_layers=1, num_heads=4, context_length=20)
    for config in (pair,) if "windows" in fields else (pair, encoder):  # it may see windows
        attention = dataclasses.replace(config.attention, **fields)
        with pytest.raises(UserError, match=f"{next(iter(fields))} is for decoders"):
            dataclasses.replace(config, attention=attention)
