"""Adapters of families with fields of their own: older files, and what is refused by name."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
import transformers

from groundup.config import UserError
from groundup.models.decoder import Decoder
from groundup.models.huggingface import from_hf_config, from_hf_state, to_hf_config, to_hf_state
from parity.zoo import PUBLISHED, attending


def test_older_files_say_less_and_mean_the_same() -> None:
    """Before transformers 5, patterns and second thetas were spelled in other fields, or in none.

    These are the fields of the published google/gemma-3-1b, gemma-2-2b and EleutherAI/pythia-70m.
    """
    sizes = {
        "vocab_size": 131,
        "hidden_size": 1152,
        "intermediate_size": 6912,
        "num_hidden_layers": 26,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 256,
        "max_position_embeddings": 32768,
    }
    third = from_hf_config(
        sizes
        | {"model_type": "gemma3_text", "rope_theta": 1e6, "rope_local_base_freq": 10000}
        | {"sliding_window": 512, "sliding_window_pattern": 6, "query_pre_attn_scalar": 256}
    )
    assert third.attention.windows == (512,) * 5 + (0,)
    assert (third.positions.theta, third.positions.window_theta) == (1e6, 1e4)
    assert third.attention.scale is None and third.logit_soft_cap is None

    second = from_hf_config(sizes | {"model_type": "gemma2", "sliding_window": 4096})
    assert second.attention.windows == (4096, 0) and second.positions.theta == 1e4
    assert (second.attention.soft_cap, second.logit_soft_cap) == (50.0, 30.0)

    del sizes["num_key_value_heads"], sizes["head_dim"]
    pythia = from_hf_config(
        sizes | {"model_type": "gpt_neox", "rotary_pct": 0.25, "rotary_emb_base": 10000}
    )
    assert pythia.positions.fraction == 0.25 and pythia.norm.placement == "parallel"
    state = to_hf_state(PUBLISHED["pythia"], Decoder(PUBLISHED["pythia"]).state_dict())
    state["embed_out.weight"] = state.pop("lm_head.weight")
    assert "head.weight" in from_hf_state(PUBLISHED["pythia"], state)


@pytest.mark.parametrize(
    ("name", "changes", "field"),
    [
        ("gemma2", {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
        ("gemma2", {"layer_types": ["full_attention", "chunked_attention"] * 2}, "layer_types"),
        ("gemma2", {"layer_types": 7}, "layer_types"),
        ("gemma2", {"layer_types": ["full_attention"]}, "1 names for 3 layers"),
        ("gemma2", {"sliding_window": None}, "a window should be a number of tokens"),
        ("gemma2", {"query_pre_attn_scalar": 0}, "query_pre_attn_scalar"),
        ("gemma2", {"attn_logit_softcapping": "50"}, "attn_logit_softcapping"),
        ("gemma2", {"layer_types": None, "sliding_window_pattern": "6"}, "sliding_window_pattern"),
        ("gemma3", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
        ("nanochat", {"final_logit_softcapping": True}, "final_logit_softcapping"),
        ("pythia", {"attention_bias": False}, "attention_bias"),
        ("phi", {"qk_layernorm": True}, "qk_layernorm"),
        ("nanochat", {"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
    ],
)
def test_what_we_cannot_express_is_refused_by_name(name: str, changes: dict, field: str) -> None:
    with pytest.raises(UserError, match=field):
        from_hf_config(to_hf_config(PUBLISHED[name]) | changes)


LLAMA, GEMMA2, PYTHIA = (PUBLISHED[name] for name in ("llama", "gemma2", "pythia"))


@pytest.mark.parametrize(
    ("config", "field"),
    [
        (replace(LLAMA, logit_soft_cap=30.0), "logit_soft_cap"),
        (replace(LLAMA, distinct_layers=1), "distinct_layers"),
        (replace(LLAMA, stream_scales=True), "stream_scales"),
        (replace(LLAMA, embedding_norm=True), "embedding_norm"),
        (replace(LLAMA, positions=replace(LLAMA.positions, fraction=0.5)), "positions.fraction"),
        (attending(LLAMA, soft_cap=50.0), "attention.soft_cap"),
        (replace(PUBLISHED["nanochat"], stream_scales=True), "stream_scales"),
        (attending(GEMMA2, windows=(3, 5)), r"attention.windows = \(5, 5\), but it is \(3, 5\)"),
        (attending(GEMMA2, scale=0.11), "attention.scale"),
        (attending(PUBLISHED["gemma3"], soft_cap=50.0), "attention.soft_cap"),
        (replace(PYTHIA, norm=replace(PYTHIA.norm, placement="parallel_shared")), "head_bias"),
        (replace(PYTHIA, norm=replace(PYTHIA.norm, placement="post")), "norm.placement"),
        (replace(PYTHIA, norm=replace(PYTHIA.norm, bias=False)), "norm.bias"),
    ],
)
def test_a_model_transformers_has_no_class_for_is_refused_by_name(config, field) -> None:
    with pytest.raises(UserError, match=field):
        to_hf_config(config)


@pytest.mark.parametrize("family", ["gemma2", "gemma3_text", "gpt_neox", "phi", "nanochat"])
def test_models_of_the_published_sizes_have_as_many_parameters(family: str) -> None:
    """What transformers' own defaults describe, 0.3 to 20 billion parameters, without memory."""
    theirs = transformers.AutoConfig.for_model(family)
    config = from_hf_config(json.loads(theirs.to_json_string(use_diff=False)))
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(theirs)
        expected = sum(parameter.numel() for parameter in model.parameters())
        assert Decoder(config).num_parameters() == expected
