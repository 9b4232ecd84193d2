"""transformers' folders and ours: files both ways, exact round trips, refusals by name."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from groundup.config import UserError
from groundup.models.config import DecoderConfig
from groundup.models.decoder import Decoder
from groundup.models.huggingface import from_hf_config, from_hf_state, to_hf_config, to_hf_state
from parity.zoo import PUBLISHED, VOCABULARY


@pytest.fixture(params=PUBLISHED, ids=list(PUBLISHED))
def config(request: pytest.FixtureRequest) -> DecoderConfig:
    return PUBLISHED[request.param]


def randomised(model: torch.nn.Module) -> torch.nn.Module:
    """Give every parameter, biases and norms included, values that a mistake would show in."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))
    return model.eval()


def ids() -> torch.Tensor:
    return torch.randint(0, VOCABULARY, (2, 37), generator=torch.Generator().manual_seed(3))


def test_a_folder_of_ours_is_one_of_theirs_and_comes_back(
    config: DecoderConfig, tmp_path: Path
) -> None:
    ours = randomised(Decoder(config))
    (tmp_path / "config.json").write_text(json.dumps(to_hf_config(config)))
    state = to_hf_state(config, ours.state_dict())
    tensors = {name: tensor.contiguous() for name, tensor in state.items()}
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    theirs, report = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path,
        output_loading_info=True,
        dtype=torch.float32,
        experts_implementation="eager",  # the other one asks for widths of 16 bytes
    )
    assert not report["missing_keys"] and not report["unexpected_keys"], report
    assert sum(p.numel() for p in theirs.parameters()) == ours.num_parameters()
    with torch.no_grad():
        logits, expected = ours(ids()), theirs.eval()(ids(), use_cache=False).logits
        torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)

        theirs.save_pretrained(tmp_path / "theirs")  # with every field their config has
        fields = json.loads((tmp_path / "theirs" / "config.json").read_text())
        imported = from_hf_config(fields)
        back = Decoder(imported).eval()
        files = load_file(tmp_path / "theirs" / "model.safetensors")
        back.load_state_dict(from_hf_state(imported, files))
        torch.testing.assert_close(back(ids()), expected, atol=1e-5, rtol=1e-5)


def test_config_and_state_round_trip_exactly(config: DecoderConfig) -> None:
    assert from_hf_config(to_hf_config(config)) == config
    state = Decoder(config).state_dict()
    back = from_hf_state(config, to_hf_state(config, state))
    assert back.keys() == state.keys()
    for name, tensor in state.items():
        torch.testing.assert_close(back[name], tensor, atol=1e-6, rtol=0)


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
    data = to_hf_config(PUBLISHED["qwen3-gqa"]) | {field: value}
    with pytest.raises(UserError, match=field):
        from_hf_config(data)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"head_bias": True}, "head_bias"),
        ({"norm": PUBLISHED["gpt2"].norm}, "norm.kind"),
        ({"positions": dataclasses.replace(PUBLISHED["gpt2"].positions, kind="none")}, "positions"),
    ],
)
def test_a_model_transformers_has_no_class_for_is_refused_by_name(changes, field):
    config = dataclasses.replace(PUBLISHED["qwen3-gqa"], **changes)
    with pytest.raises(UserError, match=field):
        to_hf_config(config)


def test_old_gpt2_files_load():
    """The first published files lack the `transformer.` prefix and store the causal mask."""
    config = PUBLISHED["gpt2"]
    model = randomised(Decoder(config))
    state = to_hf_state(config, model.state_dict())
    old = {name.removeprefix("transformer."): tensor for name, tensor in state.items()}
    old["h.0.attn.bias"] = torch.ones(1, 1, 53, 53).tril()
    old["lm_head.weight"] = old["wte.weight"]
    loaded = Decoder(config).eval()
    loaded.load_state_dict(from_hf_state(config, old))
    with torch.no_grad():
        assert torch.equal(loaded(ids()), model(ids()))
