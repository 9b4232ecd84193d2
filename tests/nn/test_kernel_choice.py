"""Every kernel computes the same, in every model; what a kernel cannot do it refuses."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from groundup.config import UserError
from groundup.device import DeviceConfig, detect
from groundup.models.config import DecoderConfig, PositionsConfig
from groundup.models.decoder import Decoder
from groundup.models.encoder import Encoder
from groundup.models.encoder_config import bert
from groundup.models.encoder_decoder import EncoderDecoder
from groundup.models.encoder_decoder_config import t5
from groundup.models.presets import llama
from groundup.nn import kernels
from groundup.nn.config import LatentConfig
from groundup.nn.kernel_choice import chosen_kernel, use_kernel
from groundup.nn.kernels import attend
from groundup.nn.masks import Plan

VOCABULARY, LENGTH = 31, 17
SHAPE: dict[str, Any] = {"vocab_size": VOCABULARY, "num_layers": 2, "context_length": 20}
PLAIN = llama(**SHAPE, width=40, num_heads=4, num_kv_heads=2)


def _with(**attention: Any) -> DecoderConfig:
    return dataclasses.replace(PLAIN, attention=dataclasses.replace(PLAIN.attention, **attention))


DECODERS = {
    "llama": PLAIN,
    **{
        kind: dataclasses.replace(PLAIN, positions=PositionsConfig(kind=kind))  # type: ignore[arg-type]
        for kind in ("alibi", "t5")
    },
    "windows": _with(windows=(4, 0)),
    "capped": _with(soft_cap=2.0, windows=(5, 0)),
    "sinks": _with(sinks=True),
    "differential": _with(differential=0.8),
    "latent": _with(num_kv_heads=4, latent=LatentConfig(rank=7, rope_width=4, value_width=10)),
}
pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")


def _sharpened(model: Any) -> Any:
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    return model.eval()


def _ids(length: int = LENGTH) -> Tensor:
    return torch.randint(0, VOCABULARY, (2, length))


def _documents() -> Tensor:
    return (torch.arange(LENGTH) * torch.tensor([[3], [2]]) // LENGTH).int()


@torch.no_grad()
@pytest.mark.parametrize("kernel", ["eager", "flex"])
@pytest.mark.parametrize("name", DECODERS)
def test_a_decoder_computes_the_same(name, kernel):
    model, ids = _sharpened(Decoder(DECODERS[name])), _ids()
    plain, apart = model(ids), model(ids, documents=_documents())
    with use_kernel(kernel):
        torch.testing.assert_close(model(ids), plain, atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(model(ids, documents=_documents()), apart, atol=2e-5, rtol=1e-4)
        cache = model.new_cache(2, LENGTH)
        steps = [model(part, cache=cache) for part in ids.split([8, 1, 1, 7], dim=1)]
        torch.testing.assert_close(torch.cat(steps, 1), plain, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("name", DECODERS)
def test_gradients_are_the_same_written_out(name):
    model, ids = _sharpened(Decoder(DECODERS[name])), _ids()
    expected = torch.autograd.grad(model(ids).square().mean(), list(model.parameters()))
    with use_kernel("eager"):
        actual = torch.autograd.grad(model(ids).square().mean(), list(model.parameters()))
    for ours, theirs in zip(actual, expected, strict=True):
        scale = theirs.abs().max().clamp(min=1e-3)
        torch.testing.assert_close(ours / scale, theirs / scale, atol=1e-4, rtol=1e-3)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
@pytest.mark.parametrize("name", ["llama", "capped", "sinks"])
def test_the_choice_leaves_a_model_in_one_graph(name):
    model, ids = _sharpened(Decoder(DECODERS[name])), _ids()
    torch.compiler.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(ids), model(ids))
    with use_kernel("eager"):  # it is traced anew, and not what it was traced as before
        assert torch.equal(compiled(ids), model(ids))


@torch.no_grad()
@pytest.mark.parametrize("kernel", ["eager", "flex"])
def test_encoders_with_padding_and_both_sides_of_an_encoder_decoder_compute_the_same(kernel):
    encoder = _sharpened(Encoder(bert(**SHAPE, width=36, num_heads=3)))
    pair = _sharpened(EncoderDecoder(t5(**SHAPE, width=36, num_heads=3, head_width=10)))
    visible = torch.arange(LENGTH) < torch.tensor([[LENGTH], [6]])
    source, target = _ids(), _ids(7)
    read, written = encoder(source, visible), pair(source, target, visible)
    with use_kernel(kernel):
        torch.testing.assert_close(encoder(source, visible), read, atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(pair(source, target, visible), written, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kernel", ["eager", "flex", "sdpa"])
def test_a_query_that_sees_nothing_gets_zeros(kernel):
    query, key, value = torch.randn(3, 2, 3, 5, 8).unbind()
    visible = torch.ones(2, 1, 5, 5, dtype=torch.bool)
    visible[0, :, 2] = False
    with use_kernel(kernel):
        found = attend(query, key, value, Plan(False, visible))
    assert not found[0, :, 2].any() and found[1].abs().min() > 0
    torch.testing.assert_close(found, attend(query, key, value, Plan(False, visible)))


def test_the_choice_holds_for_its_context_and_goes_to_its_kernel(monkeypatch):
    calls: list[str] = []
    for name, attribute in (("flex", "_flex_attention"), ("eager", "attention_scores")):
        real = getattr(kernels, attribute)
        monkeypatch.setattr(
            kernels, attribute, lambda *x, n=name, f=real: (calls.append(n), f(*x))[1]
        )
    model = Decoder(PLAIN)
    for kernel in ("auto", "sdpa", "eager", "flex"):
        calls.clear()
        with torch.no_grad(), use_kernel(kernel):
            assert chosen_kernel() == kernel
            model(_ids())
        assert set(calls) == {kernel} - {"auto", "sdpa"}
        assert chosen_kernel() == "auto"


def test_what_a_kernel_cannot_do_is_refused():
    ids = _ids()
    for fields in ({"soft_cap": 3.0}, {"sinks": True}):
        model = Decoder(_with(**fields))
        with use_kernel("sdpa"), pytest.raises(UserError, match="neither attention.soft_cap nor"):
            model(ids)
    with use_kernel("flex"), pytest.raises(UserError, match="set attention.dropout to 0"):
        Decoder(_with(dropout=0.1)).train()(ids)
    with (
        pytest.raises(UserError, match="cannot be 'spda'. Did you mean 'sdpa'"),
        use_kernel("spda"),  # type: ignore[arg-type]
    ):
        pass
    with pytest.raises(UserError, match="device.attention = 'flex' needs a GPU"):
        detect(DeviceConfig(device="cpu", dtype="float32", compile="off", attention="flex"))
