"""Our presets against transformers: logits, gradients and round trips on random tiny models."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
import transformers
from safetensors.torch import save_file

from groundup.config import UserError
from groundup.models.config import DecoderConfig
from groundup.models.decoder import Decoder
from groundup.models.huggingface import (
    from_hf_config,
    from_hf_state,
    to_hf_config,
    to_hf_state,
)
from groundup.models.presets import gemma, gpt2, llama, llama3, mistral, qwen2, qwen3

VOCABULARY, LENGTH = 131, 37


def _with_biases(config: DecoderConfig, attention: bool, feed_forward: bool) -> DecoderConfig:
    heads = dataclasses.replace(config.attention, qkv_bias=attention, out_bias=attention)
    network = dataclasses.replace(config.feed_forward, bias=feed_forward)
    return dataclasses.replace(config, attention=heads, feed_forward=network)


def _shape(**changes: object) -> dict:
    """D = 48, H = 3, E = 20: the heads together are wider than the model."""
    shape = {
        "vocab_size": VOCABULARY,
        "width": 48,
        "num_layers": 3,
        "num_heads": 3,
        "head_width": 20,
        "context_length": 53,
        "feed_forward_width": 70,
    }
    return shape | changes


CONFIGS = {
    "llama-mha": llama(**_shape()),
    "llama-mqa-tied": llama(**_shape(num_kv_heads=1, tie_embeddings=True)),
    "llama-gqa-theta": llama(**_shape(num_heads=6, num_kv_heads=2, head_width=10, theta=500.0)),
    "llama-biases": _with_biases(llama(**_shape(num_kv_heads=1)), True, True),
    "llama-mlp-bias": _with_biases(llama(**_shape()), False, True),
    "qwen3-mha-tied": qwen3(**_shape()),
    "qwen3-mqa": qwen3(**_shape(num_kv_heads=1, tie_embeddings=False)),
    "qwen3-gqa": qwen3(**_shape(num_heads=4, num_kv_heads=2, theta=1e6, width=50)),
    "qwen3-bias": _with_biases(qwen3(**_shape(num_kv_heads=1)), True, False),
    "llama3": llama3(**_shape(), original_context=16),
    "qwen2": qwen2(**_shape(num_heads=6, num_kv_heads=2, head_width=10)),
    "mistral": mistral(**_shape(num_kv_heads=1), window=7),
    "gemma": gemma(**_shape()),
    "gpt2": gpt2(vocab_size=VOCABULARY, width=48, num_layers=3, num_heads=3, context_length=53),
    "gpt2-untied": dataclasses.replace(
        gpt2(vocab_size=VOCABULARY, width=45, num_layers=2, num_heads=5, context_length=41),
        tie_embeddings=False,
    ),
}


@pytest.fixture(params=CONFIGS, ids=list(CONFIGS))
def config(request: pytest.FixtureRequest) -> DecoderConfig:
    return CONFIGS[request.param]


def _randomised(model: torch.nn.Module) -> torch.nn.Module:
    """Give every parameter, biases and norms included, values that a mistake would show in."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(0.2 * noise)
    return model.eval()


def _ids() -> torch.Tensor:
    return torch.randint(0, VOCABULARY, (2, LENGTH), generator=torch.Generator().manual_seed(3))


def _export(model: Decoder, folder) -> transformers.PreTrainedModel:
    (folder / "config.json").write_text(json.dumps(to_hf_config(model.config)))
    state = to_hf_state(model.config, model.state_dict())
    save_file(
        {name: tensor.contiguous() for name, tensor in state.items()},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    theirs, report = transformers.AutoModelForCausalLM.from_pretrained(
        folder, output_loading_info=True, dtype=torch.float32
    )
    assert not report["missing_keys"] and not report["unexpected_keys"], report
    return theirs.eval()


def test_ours_to_transformers_gives_equal_logits_and_gradients(config, tmp_path):
    ours = _randomised(Decoder(config))
    theirs = _export(ours, tmp_path)
    ids = _ids()
    logits, expected = ours(ids), theirs(ids, use_cache=False).logits
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    assert sum(p.numel() for p in theirs.parameters()) == ours.num_parameters()

    weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(5)) / logits.numel()
    (logits * weights).sum().backward()
    (expected * weights).sum().backward()
    gradients = {name: parameter.grad for name, parameter in ours.named_parameters()}
    renamed = to_hf_state(config, gradients)
    if config.embedding_scale != 1:  # Gemma's norms are shifted by one, which gradients are not
        renamed = {k: v + 1 if k.endswith("norm.weight") else v for k, v in renamed.items()}
    for name, parameter in theirs.named_parameters():
        scale = parameter.grad.abs().max()
        error = (renamed[name] - parameter.grad).abs().max()
        assert error <= 1e-4 * scale + 1e-9, (name, error, scale)


def test_transformers_to_ours_gives_equal_logits(config):
    theirs = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.for_model(**to_hf_config(config))
    )
    _randomised(theirs)
    imported = from_hf_config(json.loads(theirs.config.to_json_string(use_diff=False)))
    ours = Decoder(imported).eval()
    ours.load_state_dict(from_hf_state(imported, theirs.state_dict()))
    ids = _ids()
    with torch.no_grad():
        expected = theirs(ids, use_cache=False).logits
        torch.testing.assert_close(ours(ids), expected, atol=1e-5, rtol=1e-5)


def test_config_and_state_round_trip_exactly(config):
    assert from_hf_config(to_hf_config(config)) == config
    state = Decoder(config).state_dict()
    back = from_hf_state(config, to_hf_state(config, state))
    assert back.keys() == state.keys()
    for name, tensor in state.items():
        assert torch.equal(back[name], tensor), name


def test_bfloat16_logits_agree_with_transformers(config, tmp_path):
    ours = _randomised(Decoder(config))
    theirs = _export(ours, tmp_path)
    ids = _ids()
    with torch.no_grad():
        expected = theirs(ids).logits
        scale = expected.abs().max()
        theirs_error = (theirs.bfloat16()(ids).logits.float() - expected).abs().max() / scale
        ours_error = (ours.bfloat16()(ids).float() - expected).abs().max() / scale
    assert ours_error < max(1.5 * theirs_error, 0.03)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rope_scaling", {"type": "dynamic", "factor": 2.0}),
        ("rope_parameters", {"rope_type": "longrope", "factor": 4.0, "rope_theta": 1e4}),
        ("use_sliding_window", True),
        ("layer_types", ["full_attention", "sliding_attention"]),
        ("hidden_act", "quick_gelu"),
        ("model_type", "mamba"),
        ("partial_rotary_factor", 0.5),
        ("quantization_config", {"bits": 4}),
        ("hidden_size", "48"),
    ],
)
def test_what_we_cannot_express_is_refused_by_name(field, value):
    data = to_hf_config(CONFIGS["qwen3-gqa"]) | {field: value}
    with pytest.raises(UserError, match=field):
        from_hf_config(data)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"head_bias": True}, "head_bias"),
        ({"norm": CONFIGS["gpt2"].norm}, "norm.kind"),
        ({"positions": dataclasses.replace(CONFIGS["gpt2"].positions, kind="none")}, "positions"),
    ],
)
def test_a_model_transformers_has_no_class_for_is_refused_by_name(changes, field):
    config = dataclasses.replace(CONFIGS["qwen3-gqa"], **changes)
    with pytest.raises(UserError, match=field):
        to_hf_config(config)


def test_old_gpt2_files_load():
    """The first published files lack the `transformer.` prefix and store the causal mask."""
    config = CONFIGS["gpt2"]
    model = _randomised(Decoder(config))
    state = to_hf_state(config, model.state_dict())
    old = {name.removeprefix("transformer."): tensor for name, tensor in state.items()}
    old["h.0.attn.bias"] = torch.ones(1, 1, 53, 53).tril()
    old["lm_head.weight"] = old["wte.weight"]
    loaded = Decoder(config).eval()
    loaded.load_state_dict(from_hf_state(config, old))
    with torch.no_grad():
        assert torch.equal(loaded(_ids()), model(_ids()))
