"""Captured patterns: what the heads really were given and found, at no cost outside."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from groundup.config import UserError
from groundup.models.config import DecoderConfig, PositionsConfig
from groundup.models.decoder import Decoder
from groundup.models.encoder import Encoder
from groundup.models.encoder_config import bert
from groundup.models.encoder_decoder import EncoderDecoder
from groundup.models.encoder_decoder_config import t5
from groundup.models.presets import gpt2, llama, qwen3
from groundup.nn.attention import Attention
from groundup.nn.capture import Pattern, capture
from groundup.nn.config import AttentionConfig, LatentConfig, NormConfig
from groundup.nn.kernels import naive_attention
from groundup.nn.masks import Causal, Window, flex_plan, plan

CPU = torch.device("cpu")
LENGTH, VOCABULARY = 17, 31
SHAPE: dict[str, Any] = {"vocab_size": VOCABULARY, "num_layers": 3, "context_length": 20}
PLAIN = llama(**SHAPE, width=40, num_heads=4, num_kv_heads=2)


def _with(config: DecoderConfig = PLAIN, **attention: Any) -> DecoderConfig:
    return dataclasses.replace(config, attention=dataclasses.replace(config.attention, **attention))


DECODERS = {
    "llama": PLAIN,
    "qwen3": qwen3(**SHAPE, width=36, num_heads=3, num_kv_heads=1, head_width=10),
    "gpt2": gpt2(**SHAPE, width=36, num_heads=3),
    **{
        kind: dataclasses.replace(PLAIN, positions=PositionsConfig(kind=kind))  # type: ignore[arg-type]
        for kind in ("alibi", "t5")
    },
    "windows": _with(windows=(4, 0, 7)),
    "scaled": _with(scale=0.9),
    "capped": _with(soft_cap=2.0),
    "sinks": _with(sinks=True, windows=(5, 0)),
    "gated": _with(gate=True),
    "differential": _with(differential=0.8),
    "latent": _with(
        num_kv_heads=4, latent=LatentConfig(rank=7, rope_width=4, value_width=5, query_rank=9)
    ),
    "shared": dataclasses.replace(PLAIN, distinct_layers=1),
}


@pytest.fixture(params=DECODERS)
def model(request: pytest.FixtureRequest) -> Decoder:
    return _sharpened(Decoder(DECODERS[request.param]))


def _sharpened(model: Any) -> Any:
    """Weights large enough for patterns that differ from place to place."""
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    return model.eval()


def _ids(length: int = LENGTH) -> Tensor:
    return torch.randint(0, VOCABULARY, (2, length))


def _check(pattern: Pattern, tolerance: float = 1e-5) -> None:
    """The weights, computed again, take from the values what the kernel has found."""
    value = pattern.value.repeat_interleave(pattern.query.shape[1] // pattern.value.shape[1], dim=1)
    torch.testing.assert_close(pattern.weights @ value, pattern.found, atol=tolerance, rtol=1e-4)
    assert not any(tensor.requires_grad for tensor in vars(pattern).values() if is_tensor(tensor))


def is_tensor(value: object) -> bool:
    return isinstance(value, Tensor)


class Operations(TorchDispatchMode):
    """The names of all operations run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def _operations(model: nn.Module, *inputs: Tensor) -> tuple[list[str], Tensor]:
    with Operations() as operations:
        output = model(*inputs)
    return operations.names, output


def test_a_watched_run_computes_the_same_and_an_unwatched_one_nothing_more(model):
    ids = _ids()
    before, expected = _operations(model, ids)
    with capture(model):
        during, watched = _operations(model, ids)
    after, _ = _operations(model, ids)
    assert before == after
    assert torch.equal(watched, expected)
    copies = ("aten.clone.default", "aten.detach.default")
    assert [name for name in during if name not in copies] == [
        name for name in before if name not in copies
    ]
    assert not any(module._forward_hooks for module in model.modules())


def test_every_layers_weights_are_those_of_its_kernel(model):
    with capture(model) as seen:
        model(_ids())
    calls = [pattern for patterns in seen.values() for pattern in patterns]
    assert len(calls) == 3, "one for each layer"
    factor = model.config.attention.differential
    for pattern in calls:
        _check(pattern)
        assert pattern.weights.shape == (2, model.config.attention.num_heads, LENGTH, LENGTH)
        assert not pattern.weights.triu(1).any()
        if factor is None and pattern.sinks is None:
            torch.testing.assert_close(pattern.weights.sum(-1), torch.ones(pattern.query.shape[:3]))
    if len(model.blocks) == 1:
        assert list(seen) == ["blocks.0.attention"]
    else:
        assert list(seen) == [f"blocks.{layer}.attention" for layer in range(3)]


@torch.no_grad()
def test_through_a_cache_the_same_weights_come_row_by_row(model):
    ids = _ids()
    with capture(model) as whole:
        model(ids)
    cache = model.new_cache(2, LENGTH)
    with capture(model) as pieces:
        for start, stop in ((0, 9), (9, 10), (10, LENGTH)):
            model(ids[:, start:stop], cache=cache)
    layers = len(whole)
    for name, patterns in whole.items():
        for layer, pattern in enumerate(patterns):
            for call, (start, stop) in enumerate(((0, 9), (9, 10), (10, LENGTH))):
                piece = pieces[name][call * (3 // layers) + layer]
                _check(piece)
                reach = piece.weights.shape[-1]  # a window lets go of what is behind it
                expected = pattern.weights[:, :, start:stop, stop - reach : stop]
                torch.testing.assert_close(piece.weights, expected, atol=1e-5, rtol=1e-3)


def test_weights_and_scores_are_the_naive_ones():
    config = AttentionConfig(num_heads=6, num_kv_heads=2, head_width=5, soft_cap=3.0, sinks=True)
    module, x = _sharpened(Attention(22, config, NormConfig())), torch.randn(2, 9, 22)
    rule, bias = Causal() & Window(4), torch.randn(6, 9, 9, requires_grad=True)
    mask = plan(rule, 9, 9, CPU, bias)
    with capture(module) as seen:
        module(x, mask)
    (pattern,) = seen[""]
    query = module.query(x).view(2, 9, 6, 5).transpose(1, 2)
    key, value = (part(x).view(2, 9, 2, 5).transpose(1, 2) for part in (module.key, module.value))
    visible, _ = mask.spelled_out(9, 9, CPU)
    found, weights = naive_attention(query, key, value, visible, bias, None, 3.0, module.mix.sinks)
    torch.testing.assert_close(pattern.weights, weights.detach())
    torch.testing.assert_close(pattern.found, found.detach())
    scores = query @ key.repeat_interleave(3, dim=1).transpose(-1, -2) / 5**0.5
    expected = (3 * torch.tanh(scores / 3) + bias).masked_fill(~visible, -torch.inf)
    torch.testing.assert_close(pattern.scores, expected.detach())
    module.mix.sinks.data += 1
    torch.testing.assert_close(pattern.weights, weights.detach())  # of the time it was captured


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_what_flex_attention_ran_is_spelled_out():
    config = AttentionConfig(num_heads=2, num_kv_heads=1, head_width=8)
    module, x = _sharpened(Attention(22, config, NormConfig())), torch.randn(2, 9, 22)
    with capture(module) as seen:
        module(x, flex_plan(Causal() & Window(4), 9, 9, CPU))
        module(x, plan(Causal() & Window(4), 9, 9, CPU))
    blocks, masked = seen[""]
    _check(blocks)
    torch.testing.assert_close(blocks.weights, masked.weights)


def test_an_encoder_looks_at_nothing_but_the_visible():
    model = _sharpened(Encoder(bert(**SHAPE, width=36, num_heads=3)))
    visible = torch.arange(LENGTH) < torch.tensor([[LENGTH], [6]])
    with capture(model) as seen:
        model(_ids(), visible)
    assert list(seen) == [f"blocks.{layer}.attention" for layer in range(3)]
    for (pattern,) in seen.values():
        _check(pattern)
        assert not pattern.weights[1, ..., 6:].any() and (pattern.weights[0] > 0).all()


def test_an_encoder_decoder_has_three_kinds():
    model = _sharpened(EncoderDecoder(t5(**SHAPE, width=36, num_heads=3, head_width=10)))
    visible = torch.arange(LENGTH) < torch.tensor([[LENGTH], [6]])
    with capture(model) as seen:
        model(_ids(), _ids(7), visible)
    shapes = {name: patterns[0].weights.shape[2:] for name, patterns in seen.items()}
    assert shapes["encoder.blocks.2.attention"] == (LENGTH, LENGTH)
    assert shapes["decoder.blocks.0.attention"] == (7, 7)
    assert shapes["decoder.blocks.0.cross_attention"] == (7, LENGTH)
    assert len(seen) == 3 + 2 * 3
    for (pattern,) in seen.values():
        _check(pattern, tolerance=1e-4)
    assert not seen["decoder.blocks.1.cross_attention"][0].weights[1, ..., 6:].any()


def test_differential_attention_has_no_single_map_of_scores():
    model = Decoder(DECODERS["differential"])
    with capture(model) as seen:
        model(_ids())
    with pytest.raises(UserError, match="two maps of scores in each head"):
        _ = seen["blocks.0.attention"][0].scores


def test_hooks_go_when_the_run_fails():
    model = Decoder(PLAIN)
    with pytest.raises(UserError, match="context_length"), capture(model):
        model(_ids(30))
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_what_has_no_attention_or_is_compiled_is_refused():
    with pytest.raises(UserError, match="no attention in a Linear"), capture(nn.Linear(2, 2)):
        pass
    compiled = torch.compile(Decoder(PLAIN))
    with pytest.raises(UserError, match="compiled"), capture(compiled):
        pass
