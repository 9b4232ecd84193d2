"""Our encoder-decoders against transformers' T5 and torch's Transformer layers."""

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
from groundup.models.encoder_decoder_config import (
    EncoderDecoderConfig,
    t5,
    transformer,
)
from groundup.nn.config import PositionsConfig

VOCABULARY, SOURCE, TARGET = 131, 37, 23


def tiny(gated: bool) -> EncoderDecoderConfig:
    config = t5(
        vocab_size=VOCABULARY,
        width=48,
        num_layers=2,
        num_decoder_layers=3,
        num_heads=3,
        head_width=20,
        context_length=53,
        feed_forward_width=70,
        gated=gated,
    )
    return dataclasses.replace(
        config, positions=PositionsConfig(kind="t5", num_buckets=12, max_distance=30)
    )


def pair(gated: bool) -> tuple[EncoderDecoder, Any]:
    """transformers' model with random weights, and ours with the same."""
    config = tiny(gated)
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
def test_logits_and_gradients_equal_those_of_transformers(gated: bool) -> None:
    ours, theirs = pair(gated)
    source = torch.randint(1, VOCABULARY, (3, SOURCE))
    target = torch.randint(1, VOCABULARY, (3, TARGET))
    visible = torch.arange(SOURCE) < torch.tensor([[SOURCE], [11], [1]])
    expected = theirs(source, attention_mask=visible.long(), decoder_input_ids=target).logits
    logits = ours(source, target, visible)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    weights = torch.randn_like(logits)
    (logits * weights).sum().backward()
    (expected * weights).sum().backward()
    gradients = {key: parameter.grad for key, parameter in theirs.named_parameters()}
    for key, gradient in from_hf_state(ours.config, gradients).items():  # type: ignore[arg-type]
        mine = ours.get_parameter(key).grad
        assert mine is not None, key
        scale = gradient.abs().max().clamp(min=1)
        assert (mine - gradient).abs().max() / scale < 1e-5, key


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


def test_the_original_transformer_equals_torchs_layers() -> None:
    config = transformer(
        vocab_size=VOCABULARY, width=42, num_layers=2, num_heads=3, feed_forward_width=50
    )
    model = EncoderDecoder(config).eval()
    shape = {"d_model": 42, "nhead": 3, "dim_feedforward": 50, "dropout": 0.0, "batch_first": True}
    encoder = [nn.TransformerEncoderLayer(**shape).eval() for _ in range(2)]
    decoder = [nn.TransformerDecoderLayer(**shape).eval() for _ in range(2)]
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    for layer, block in zip([*encoder, *decoder], model_blocks(model), strict=True):
        copy_block(block, layer)
    source, target = torch.randn(2, 17, 42), torch.randn(2, 9, 42)
    hidden = source
    for layer in encoder:
        hidden = layer(hidden)
    expected, causal = target, nn.Transformer.generate_square_subsequent_mask(9)
    for layer in decoder:
        expected = layer(expected, hidden, tgt_mask=causal, tgt_is_causal=True)
    # The embeddings are ours alone: both models get the same vectors in their place.
    embedded = iter((source, target))
    model._embed = lambda ids, start: next(embedded)  # type: ignore[method-assign]
    ids = torch.zeros(2, 17, dtype=torch.int64)
    actual = model.hidden(ids[:, :9], model.read(ids))
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


def model_blocks(model: EncoderDecoder) -> list[nn.Module]:
    return [*model.encoder.blocks, *model.decoder.blocks]


@torch.no_grad()
def copy_block(block: nn.Module, layer: nn.Module) -> None:
    """Our weights into torch's layer, whose query, key and value are one matrix."""
    theirs = dict(layer.named_modules())
    crosses = "multihead_attn" in theirs
    for ours, name in (("attention", "self_attn"), ("cross_attention", "multihead_attn")):
        if name in theirs:
            attention = block.get_submodule(ours)
            for leaf in ("weight", "bias"):
                names = [f"{part}.{leaf}" for part in ("query", "key", "value")]
                parts = [attention.get_parameter(name).data for name in names]
                theirs[name].get_parameter(f"in_proj_{leaf}").copy_(torch.cat(parts))
            theirs[f"{name}.out_proj"].load_state_dict(attention.get_submodule("out").state_dict())
    norms = ["attention_norm", *(["cross_norm"] if crosses else []), "feed_forward_norm"]
    pairs = {f"norm{place}": name for place, name in enumerate(norms, 1)}
    pairs |= {"linear1": "feed_forward.up", "linear2": "feed_forward.down"}
    for name, ours in pairs.items():
        theirs[name].load_state_dict(block.get_submodule(ours).state_dict())


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
        from_hf_config(to_hf_config(tiny(False)) | changes)


def test_what_t5_is_not_is_not_exported() -> None:
    with pytest.raises(UserError, match="positions.kind"):
        to_hf_config(transformer(vocab_size=9, width=8, num_heads=2))
    with pytest.raises(UserError, match="attention.scale"):
        heads = dataclasses.replace(tiny(False).attention, scale=None)
        to_hf_config(dataclasses.replace(tiny(False), attention=heads))
    with pytest.raises(UserError, match="unexpected tensor 'x.weight'"):
        from_hf_state(tiny(False), {"x.weight": torch.ones(1)})
