"""T5's adapter: weights both ways, the same greedy text, refusals by name."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from groundup.config import UserError
from groundup.models.adapters.t5 import from_hf_config, from_hf_state, to_hf_config, to_hf_state
from groundup.models.encoder_decoder import EncoderDecoder
from groundup.models.encoder_decoder_config import transformer
from parity.zoo import ENCODER_DECODERS, VOCABULARY

SOURCE = 37
CONFIGS = {False: ENCODER_DECODERS["t5"], True: ENCODER_DECODERS["t5-1.1"]}


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
