"""T5's adapter: weights both ways, the same greedy text, refusals by name."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from groundup.config import UserError
from groundup.models.adapters.t5 import (
    from_hf_config,
    from_hf_state,
    to_hf_config,
    to_hf_state,
    with_its_scales,
)
from groundup.models.encoder_decoder import EncoderDecoder
from groundup.models.encoder_decoder_config import EncoderDecoderConfig, transformer
from groundup.models.export import export
from groundup.models.folder import load_any, save_any
from parity.zoo import ENCODER_DECODERS, VOCABULARY

SOURCE = 37
CONFIGS = {False: ENCODER_DECODERS["t5"], True: ENCODER_DECODERS["t5-1.1"]}


def scaled(gated: bool, scale: float | None) -> EncoderDecoderConfig:
    """A config with scales of its own, as `groundup train` has them where `scale` is None."""
    config = CONFIGS[gated]
    heads = dataclasses.replace(config.attention, scale=scale)
    return dataclasses.replace(
        config,
        attention=heads,
        head_scale=1.0 if scale is None else 0.7,
        embedding_std=None,
        init_std=0.02,
    )


def pair(gated: bool) -> tuple[EncoderDecoder, Any]:
    """transformers' model with random weights, and ours with the same."""
    config = CONFIGS[gated]
    theirs = transformers.T5ForConditionalGeneration(transformers.T5Config(**to_hf_config(config)))
    if gated:  # transformers ties it all the same, until it is taken apart
        theirs.lm_head.weight = nn.Parameter(torch.empty_like(theirs.lm_head.weight))
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.3)
    nn.init.normal_(theirs.shared.weight)
    ours = EncoderDecoder(config).eval()
    ours.load_state_dict(from_hf_state(config, theirs.state_dict()))
    return ours, theirs.eval()


@pytest.mark.parametrize("gated", [False, True], ids=["t5", "t5-1.1"])
def test_weights_go_there_and_back(gated: bool) -> None:
    ours, theirs = pair(gated)
    exported = to_hf_state(ours.config, ours.state_dict())
    missing, unexpected = theirs.load_state_dict(exported, strict=False)
    assert not unexpected
    assert all("embed_tokens" in key or key == "lm_head.weight" for key in missing)
    back = from_hf_state(ours.config, exported)
    assert back.keys() == ours.state_dict().keys()
    for key, tensor in ours.state_dict().items():
        assert torch.equal(back[key], tensor)
    assert from_hf_config(to_hf_config(ours.config)) == ours.config


def test_greedy_generation_equals_transformers() -> None:
    ours, theirs = pair(gated=False)
    source = torch.randint(2, VOCABULARY, (1, SOURCE))
    expected = theirs.generate(
        source, max_new_tokens=12, do_sample=False, eos_token_id=None, use_cache=False
    )
    given, ids = ours.given(source), torch.zeros(1, 1, dtype=torch.int64)
    with torch.no_grad():
        for _ in range(12):
            ids = torch.cat((ids, given(ids)[:, -1:].argmax(-1)), dim=1)
    assert ids.tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"model_type": "mt5"}, "mt5"),
        ({"feed_forward_proj": "gated-relu"}, "gated-relu"),
        ({"d_model": None}, "d_model"),
    ],
)
def test_what_we_cannot_express_is_refused_by_name(changes: dict, word: str) -> None:
    with pytest.raises(UserError, match=word):
        from_hf_config(to_hf_config(CONFIGS[False]) | changes)


def test_what_t5_is_not_is_not_exported() -> None:
    with pytest.raises(UserError, match="positions.kind"):
        to_hf_config(transformer(vocab_size=9, width=8, num_heads=2))
    with pytest.raises(UserError, match="attention.scale"):
        heads = dataclasses.replace(CONFIGS[False].attention, scale=None)
        to_hf_config(dataclasses.replace(CONFIGS[False], attention=heads))
    with pytest.raises(UserError, match="unexpected tensor 'x.weight'"):
        from_hf_state(CONFIGS[False], {"x.weight": torch.ones(1)})


@pytest.mark.parametrize("scale", [None, 0.31], ids=["by √E", "0.31"])
@pytest.mark.parametrize("gated", [False, True], ids=["t5", "t5-1.1"])
@torch.no_grad()
def test_other_scales_are_exported_in_the_weights(
    gated: bool, scale: float | None, tmp_path: Path, tiny_tokenizer
) -> None:
    config = dataclasses.replace(scaled(gated, scale), vocab_size=331)
    ours = EncoderDecoder(config).eval()
    for name, parameter in ours.named_parameters():
        nn.init.normal_(parameter, mean=float("norm" in name), std=0.2)
    save_any(tmp_path / "ours", ours, tiny_tokenizer, {"task": "x"})
    assert load_any(tmp_path / "ours").model.config == config  # it is kept as it is
    export(str(tmp_path / "ours"), "hf", tmp_path / "out")
    theirs = transformers.T5ForConditionalGeneration.from_pretrained(tmp_path / "out").eval()
    source, target = torch.randint(0, 331, (3, SOURCE)), torch.randint(0, 331, (3, 11))
    expected = ours(source, target)
    found = theirs(input_ids=source, decoder_input_ids=target).logits
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    back = load_any(tmp_path / "out")
    assert back.meta == {"task": "x"} and back.model.config.attention.scale == 1.0
    torch.testing.assert_close(back.model(source, target), expected, atol=1e-4, rtol=1e-4)


def test_scales_make_no_t5_of_another_architecture() -> None:
    for config, field in (
        (transformer(vocab_size=9, width=8, num_heads=2), "positions.kind"),
        (dataclasses.replace(scaled(False, None), embedding_scale=2.0), "embedding_scale"),
    ):
        with pytest.raises(UserError, match=field):
            with_its_scales(config, EncoderDecoder(config).state_dict())
