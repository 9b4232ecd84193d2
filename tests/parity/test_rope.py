"""Slowed-down RoPE against transformers: frequencies, whole models both ways, config fields."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch
import transformers
from safetensors.torch import save_file
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from groundup.config import UserError
from groundup.models.config import DecoderConfig, PositionsConfig, RopeScaling
from groundup.models.decoder import Decoder
from groundup.models.huggingface import from_hf_config, from_hf_state, to_hf_config, to_hf_state
from groundup.models.huggingface_rope import read_rope
from groundup.models.presets import llama, qwen3
from groundup.nn.rope_scaling import frequencies

CPU = torch.device("cpu")
SCALINGS = {
    "linear": RopeScaling(kind="linear", factor=3.0),
    "ntk": RopeScaling(kind="ntk", factor=3.0),
    "yarn": RopeScaling(kind="yarn", factor=4.0, original_context=17),
    "yarn-sharp": RopeScaling(
        kind="yarn", factor=2.5, original_context=29, slow_turns=0.7, fast_turns=9.0,
        attention_factor=1.7,
    ),
    "llama3": RopeScaling(kind="llama3", factor=8.0, original_context=23),
}  # fmt: skip


def _config(family: str, scaling: RopeScaling | None, layout: str = "half") -> DecoderConfig:
    """H·E = 60 over D = 48: the heads together are wider than the model."""
    preset = {"llama": llama, "qwen3": qwen3}[family]
    config = preset(
        vocab_size=131, width=48, num_layers=2, num_heads=6, num_kv_heads=2, head_width=10,
        context_length=53, feed_forward_width=70, theta=500.0,
    )  # fmt: skip
    positions = PositionsConfig(theta=500.0, scaling=scaling, layout=layout)  # type: ignore[arg-type]
    return dataclasses.replace(config, positions=positions)


def _randomised(model: torch.nn.Module) -> torch.nn.Module:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))
    return model.eval()


@pytest.mark.parametrize("head_width", [2, 6, 26, 128])
@pytest.mark.parametrize(
    ("scaling", "theta", "theirs"),
    [
        (RopeScaling(kind="linear", factor=7.0), 1e4, {}),
        (RopeScaling(kind="yarn", factor=4.0, original_context=32768), 1e6, {}),
        (RopeScaling(kind="yarn", factor=40.0, original_context=4096), 1e4,
         {"mscale": 1.0, "mscale_all_dim": 0.707}),
        (RopeScaling(kind="yarn", factor=1.0, original_context=97), 500.0, {}),
        (RopeScaling(kind="llama3", factor=8.0, original_context=8192), 5e5, {}),
        (RopeScaling(kind="llama3", factor=32.0, original_context=101, slow_turns=2.0,
                     fast_turns=3.0), 1e4, {}),
    ],
)  # fmt: skip
def test_frequencies_and_attention_factor(scaling, theta, theirs, head_width):
    fields = {"rope_type": scaling.kind, "rope_theta": theta, "factor": scaling.factor, **theirs}
    if scaling.kind != "linear":
        fields["original_max_position_embeddings"] = scaling.original_context
    if scaling.kind == "llama3":
        fields["low_freq_factor"] = scaling.slow_turns
        fields["high_freq_factor"] = scaling.fast_turns
    config = transformers.LlamaConfig(
        head_dim=head_width, max_position_embeddings=131072, rope_parameters=fields
    )
    expected, factor = ROPE_INIT_FUNCTIONS[scaling.kind](config, CPU)
    read = read_rope(json.loads(config.to_json_string(use_diff=False)))
    assert read.scaling is not None and read.theta == theta
    assert (read.scaling.attention_factor or 1.0) == pytest.approx(factor, abs=1e-6)
    for ours in (scaling, read.scaling):
        found = frequencies(head_width, theta, ours, CPU)
        torch.testing.assert_close(found, expected, atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("head_width", [6, 26, 128])
def test_ntk_is_transformers_dynamic_scaling_held_at_one_length(head_width):
    """Dynamic NTK grows with the sequence; at (2 - 1/f) times the context its growth is f."""
    config = transformers.LlamaConfig(
        head_dim=head_width, max_position_embeddings=64,
        rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0},
    )  # fmt: skip
    expected, _ = ROPE_INIT_FUNCTIONS["dynamic"](config, CPU, seq_len=112)
    found = frequencies(head_width, 1e4, RopeScaling(kind="ntk", factor=4.0), CPU)
    torch.testing.assert_close(found, expected, atol=1e-7, rtol=1e-6)
    plain = frequencies(head_width, 1e4, None, CPU)
    assert found[0] == plain[0]
    torch.testing.assert_close(found[-1], plain[-1] / 4)


@pytest.mark.parametrize("layout", ["half", "interleaved"])
@pytest.mark.parametrize("family", ["llama", "qwen3"])
@pytest.mark.parametrize("scaling", SCALINGS)
def test_whole_models_agree_both_ways(scaling, family, layout, tmp_path):
    config = _config(family, SCALINGS[scaling], layout)
    ours = _randomised(Decoder(config))
    state = to_hf_state(config, ours.state_dict())
    (tmp_path / "config.json").write_text(json.dumps(to_hf_config(config)))
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    ids = torch.randint(0, 131, (2, 53))
    with torch.no_grad():
        logits, expected = ours(ids), theirs(ids, use_cache=False).logits
        torch.testing.assert_close(logits, expected, atol=2e-5, rtol=1e-5)
        plain = Decoder(_config(family, None, layout)).eval()
        plain.load_state_dict(ours.state_dict())
        assert (plain(ids) - logits).abs().max() > 0.05, "the scaling should matter"

        imported = from_hf_config(json.loads(theirs.config.to_json_string(use_diff=False)))
        back = Decoder(imported).eval()
        back.load_state_dict(from_hf_state(imported, theirs.state_dict()))
        torch.testing.assert_close(back(ids), expected, atol=2e-5, rtol=1e-5)
    if scaling != "ntk" and layout == "half":
        assert imported == config
    again = from_hf_state(config, state)
    assert all(torch.equal(again[name], tensor) for name, tensor in ours.state_dict().items())


def test_fields_of_older_files():
    old = {"max_position_embeddings": 640, "rope_theta": 5e5}
    linear = {"rope_scaling": {"type": "linear", "factor": 2}}
    assert read_rope(old | linear) == PositionsConfig(
        theta=5e5, scaling=RopeScaling(kind="linear", factor=2.0)
    )
    yarn = {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}
    assert read_rope(old | yarn).scaling == RopeScaling(
        kind="yarn", factor=4.0, original_context=640
    )
    beside = old | yarn | {"original_max_position_embeddings": 160}
    assert read_rope(beside).scaling == RopeScaling(kind="yarn", factor=4.0, original_context=160)
    assert read_rope({"rope_theta": 77.0, "rope_scaling": None}) == PositionsConfig(theta=77.0)


def test_older_readers_see_the_scaling_too():
    written = to_hf_config(_config("llama", SCALINGS["llama3"]))
    assert written["rope_theta"] == 500.0
    assert written["rope_scaling"]["rope_type"] == "llama3"
    ntk = to_hf_config(_config("llama", SCALINGS["ntk"]))
    assert "rope_scaling" not in ntk
    assert math.isclose(ntk["rope_theta"], 500.0 * 3 ** (10 / 8))


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"rope_type": "longrope", "factor": 2.0}, "rope_type = 'longrope' is not supported"),
        ({"type": "dynamic", "factor": 2.0}, "rope_type = 'dynamic' is not supported"),
        ({"rope_type": "linear"}, "rope_scaling.factor should be a number, but is None"),
        ({"rope_type": "yarn", "factor": 2.0, "truncate": False}, "truncate = False"),
        ({"rope_type": "linear", "factor": 0.25}, "factor should be at least 1"),
    ],
)
def test_what_we_cannot_express_is_refused_by_name(section, message):
    with pytest.raises(UserError, match=message):
        read_rope({"max_position_embeddings": 64, "rope_scaling": section})
