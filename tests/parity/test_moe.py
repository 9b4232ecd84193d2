"""Mixtral and Qwen3-MoE against transformers, both ways, through files."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from groundup.config import UserError
from groundup.models.decoder import Decoder
from groundup.models.huggingface import from_hf_config, from_hf_state, to_hf_config, to_hf_state
from groundup.models.presets import mixtral, qwen3_moe

SHAPE = {
    "vocab_size": 131,
    "width": 48,
    "num_layers": 3,
    "context_length": 53,
    "feed_forward_width": 40,
}
CONFIGS = {
    "mixtral": mixtral(num_heads=6, num_kv_heads=2, head_width=10, num_experts=5, **SHAPE),
    "mixtral-one-of-three": mixtral(num_heads=3, num_experts=3, top_k=1, **SHAPE),
    "qwen3-moe": qwen3_moe(
        num_heads=4, num_kv_heads=1, head_width=14, num_experts=7, top_k=3, **SHAPE
    ),
}
CONFIGS["qwen3-moe-unnormalised"] = dataclasses.replace(
    CONFIGS["qwen3-moe"],
    feed_forward=dataclasses.replace(
        CONFIGS["qwen3-moe"].feed_forward,
        experts=dataclasses.replace(
            CONFIGS["qwen3-moe"].feed_forward.experts,
            normalize=False,
            balance="none",
            loss_weight=0.01,
        ),
    ),
)


@pytest.fixture(params=CONFIGS, ids=list(CONFIGS))
def config(request):
    return CONFIGS[request.param]


def randomised(model):
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator) + 0.02)
    return model.eval()


def ids():
    return torch.randint(0, 131, (2, 37), generator=torch.Generator().manual_seed(3))


def test_ours_to_transformers_gives_equal_logits_and_gradients(config, tmp_path):
    ours = randomised(Decoder(config))
    (tmp_path / "config.json").write_text(json.dumps(to_hf_config(config)))
    state = to_hf_state(config, ours.state_dict())
    tensors = {name: tensor.contiguous() for name, tensor in state.items()}
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    theirs, report = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, output_loading_info=True, dtype=torch.float32
    )
    assert not report["missing_keys"] and not report["unexpected_keys"], report
    assert sum(p.numel() for p in theirs.parameters()) == ours.num_parameters()
    logits, expected = ours(ids()), theirs.eval()(ids(), use_cache=False).logits
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(5)) / logits.numel()
    (logits * weights).sum().backward()
    (expected * weights).sum().backward()
    block, layer = ours.blocks[1], theirs.model.layers[1]
    pairs = {
        "embedding": (ours.embedding.weight, theirs.model.embed_tokens.weight),
        "router": (block.feed_forward.router.scorer.weight, layer.mlp.gate.weight),
        "down": (block.feed_forward.down.weight, layer.mlp.experts.down_proj),
    }
    for name, (own, other) in pairs.items():
        scale = other.grad.abs().max()
        assert (own.grad - other.grad).abs().max() <= 1e-4 * scale + 1e-9, name


def test_transformers_to_ours_gives_equal_logits(config, tmp_path):
    theirs = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.for_model(**to_hf_config(config))
    )
    randomised(theirs).save_pretrained(tmp_path)
    imported = from_hf_config(json.loads((tmp_path / "config.json").read_text()))
    ours = Decoder(imported).eval()
    ours.load_state_dict(from_hf_state(imported, load_file(tmp_path / "model.safetensors")))
    with torch.no_grad():
        expected = theirs(ids(), use_cache=False).logits
        torch.testing.assert_close(ours(ids()), expected, atol=1e-5, rtol=1e-5)


def test_config_and_state_round_trip_exactly(config):
    assert from_hf_config(to_hf_config(config)) == config
    state = Decoder(config).state_dict()
    back = from_hf_state(config, to_hf_state(config, state))
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize(
    ("field", "value"),
    [("score", "sigmoid"), ("shared_width", 8), ("balance", "bias"), ("scale", 2.0)],
)
def test_experts_that_transformers_cannot_express_are_refused_by_name(field, value):
    config = CONFIGS["qwen3-moe"]
    experts = dataclasses.replace(config.feed_forward.experts, **{field: value})
    network = dataclasses.replace(config.feed_forward, experts=experts)
    with pytest.raises(UserError, match=field):
        to_hf_config(dataclasses.replace(config, feed_forward=network))


def test_a_missing_expert_is_named():
    config = CONFIGS["mixtral"]
    state = to_hf_state(config, Decoder(config).state_dict())
    del state["model.layers.2.block_sparse_moe.experts.4.w2.weight"]
    with pytest.raises(UserError, match="layers.2.block_sparse_moe.experts.4.w2"):
        from_hf_state(config, state)
