"""Where the norms of a block stand: the six formulas, their start, and a decoder of each."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F

from groundup.config import UserError
from groundup.models.config import DecoderConfig
from groundup.models.decoder import Decoder
from groundup.models.encoder_decoder_config import t5
from groundup.models.huggingface import to_hf_config
from groundup.models.presets import gpt2, llama, qwen3
from groundup.nn.block import Block
from groundup.nn.config import AttentionConfig, FeedForwardConfig, NormConfig
from groundup.nn.masks import Plan

CAUSAL = Plan(True, None)
AFTER = ("post", "deepnorm")
PARALLEL = ("parallel", "parallel_shared")
BEFORE = ("pre", "sandwich", *PARALLEL)
SHAPE = {"vocab_size": 131, "width": 120, "num_layers": 5, "num_heads": 4, "context_length": 41}


def _placed(config: DecoderConfig, placement: str) -> DecoderConfig:
    return dataclasses.replace(
        config,
        norm=dataclasses.replace(config.norm, placement=placement),  # type: ignore[arg-type]
    )


def _block(placement: str, stream_scale: float = 1.0) -> Block:
    block = Block(
        14,
        AttentionConfig(num_heads=3, num_kv_heads=1, head_width=4),
        FeedForwardConfig(width=20),
        NormConfig(placement=placement),  # type: ignore[arg-type]
        stream_scale,
    )
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter)
    return block


def test_post_norm_and_deepnorm_normalise_the_sum():
    x = torch.randn(2, 5, 14)
    for placement, scale in (("post", 1.0), ("deepnorm", 1.7)):
        block = _block(placement, scale)
        middle = block.attention_norm(scale * x + block.attention(x, CAUSAL))
        expected = block.feed_forward_norm(scale * middle + block.feed_forward(middle))
        torch.testing.assert_close(block(x, CAUSAL), expected)


def test_sandwich_normalises_both_sides_of_a_branch():
    block, x = _block("sandwich"), torch.randn(2, 5, 14)
    assert block.attention_out_norm is not None and block.feed_forward_out_norm is not None
    middle = x + block.attention_out_norm(block.attention(block.attention_norm(x), CAUSAL))
    branch = block.feed_forward(block.feed_forward_norm(middle))
    torch.testing.assert_close(block(x, CAUSAL), middle + block.feed_forward_out_norm(branch))


def test_parallel_branches_read_the_same_stream():
    block, x = _block("parallel"), torch.randn(2, 5, 14)
    assert block.feed_forward_norm is not None
    expected = x + block.attention(block.attention_norm(x), CAUSAL)
    expected = expected + block.feed_forward(block.feed_forward_norm(x))
    torch.testing.assert_close(block(x, CAUSAL), expected)
    shared = _block("parallel_shared")
    assert shared.feed_forward_norm is None
    read = shared.attention_norm(x)
    expected = x + shared.attention(read, CAUSAL) + shared.feed_forward(read)
    torch.testing.assert_close(shared(x, CAUSAL), expected)


@pytest.mark.parametrize("placement", PARALLEL)
def test_three_branches_have_no_parallel_form(placement):
    config = t5(vocab_size=31, width=24, num_layers=1, num_heads=4)
    with pytest.raises(UserError, match=f"placement '{placement}' is for blocks of two branches"):
        _placed(config, placement)


@pytest.mark.parametrize("placement", [*BEFORE, *AFTER])
@pytest.mark.parametrize("preset", [qwen3, gpt2])
def test_only_a_stream_that_no_block_normalises_is_normalised_at_the_end(preset, placement):
    model = Decoder(_placed(preset(**SHAPE), placement)).eval()
    assert (model.final_norm is None) == (placement in AFTER)
    hidden = model.hidden(torch.randint(0, 131, (2, 37)))
    torch.testing.assert_close(
        hidden.square().mean(-1).sqrt(), torch.ones(2, 37), atol=2e-2, rtol=0
    )


@pytest.mark.parametrize("placement", [*BEFORE, *AFTER])
def test_cached_equals_uncached_and_gradients_reach_everything(placement):
    model = Decoder(_placed(qwen3(**SHAPE), placement))
    ids = torch.randint(0, 131, (2, 23))
    logits = model(ids)
    with torch.no_grad():
        cache = model.new_cache(2, 23)
        parts = [model(ids[:, :9], cache=cache), model(ids[:, 9:], cache=cache)]
    torch.testing.assert_close(torch.cat(parts, dim=1), logits, atol=1e-5, rtol=1e-4)
    F.cross_entropy(logits.flatten(0, 1), torch.randint(0, 131, (46,))).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("placement", ["post", "sandwich", "deepnorm", *PARALLEL])
@pytest.mark.parametrize("preset", [llama, gpt2])
def test_standard_deviations_by_role(preset, placement):
    config = _placed(preset(**SHAPE), placement)
    scaled = ("value.weight", "out.weight", "gate.weight", "up.weight", "down.weight")
    for name, parameter in Decoder(config).named_parameters():
        if parameter.ndim == 1:
            assert (parameter == (1.0 if "norm.weight" in name else 0.0)).all(), name
            continue
        beta = (8 * 5) ** -0.25 if placement == "deepnorm" and name.endswith(scaled) else 1.0
        if placement in PARALLEL and name.endswith(("out.weight", "down.weight")):
            beta = (2 * 5) ** -0.5
        assert parameter.std().item() == pytest.approx(0.02 * beta, rel=0.05), name


def test_deepnorm_multiplies_the_stream_by_the_fourth_root_of_twice_the_layers():
    model = Decoder(_placed(qwen3(**SHAPE), "deepnorm"))
    assert [block.stream_scale for block in model.blocks] == [math.sqrt(math.sqrt(10))] * 5


@pytest.mark.parametrize("preset", [qwen3, llama, gpt2])
def test_a_placement_that_transformers_lacks_is_not_exported(preset):
    for placement in ("post", "sandwich", "deepnorm", *PARALLEL):
        with pytest.raises(UserError, match=f"norm.placement = 'pre', but it is '{placement}'"):
            to_hf_config(_placed(preset(**SHAPE), placement))
