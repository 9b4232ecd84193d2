"""The encoder-decoder: what each side may see, caches, teacher forcing, and that it learns."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from groundup.config import UserError, from_dict, to_dict
from groundup.models.encoder_decoder import EncoderDecoder
from groundup.models.encoder_decoder_config import EncoderDecoderConfig, t5, transformer
from groundup.nn.relative_bias import RelativeBias
from groundup.nn.sinusoidal import sinusoids

SHAPE: dict[str, Any] = {
    "vocab_size": 31,
    "width": 42,
    "num_layers": 2,
    "num_heads": 3,
    "context_length": 40,
}


def placed(config: EncoderDecoderConfig, placement: Any) -> EncoderDecoderConfig:
    norm = dataclasses.replace(config.norm, placement=placement)
    return dataclasses.replace(config, norm=norm)


PRESETS = {
    "transformer": transformer(**SHAPE),
    "t5": t5(**SHAPE, head_width=10),
    "t5-gated": t5(**SHAPE, head_width=10, gated=True),
    "sandwich": placed(t5(**SHAPE, head_width=10), "sandwich"),
    "deepnorm": placed(transformer(**SHAPE), "deepnorm"),
}


@pytest.fixture(params=PRESETS)
def model(request: pytest.FixtureRequest) -> EncoderDecoder:
    model = EncoderDecoder(PRESETS[request.param]).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


@torch.no_grad()
def test_rows_can_share_one_source_that_is_read_once(
    model: EncoderDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = torch.randint(0, 31, (1, 17)), torch.randint(0, 31, (3, 5))
    expected = model(source.expand(3, -1), target)
    given = model.given(source)
    monkeypatch.setattr(model, "encode", None)  # reading it again would fail
    torch.testing.assert_close(given(target), expected, atol=1e-5, rtol=1e-5)


def test_every_parameter_learns(model: EncoderDecoder) -> None:
    source, target = torch.randint(0, 31, (2, 17)), torch.randint(0, 31, (2, 9))
    model(source, target).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in bare(model))


def bare(model: EncoderDecoder) -> list[torch.nn.Parameter]:
    """All parameters but the biases of keys, which softmax does not see."""
    return [p for name, p in model.named_parameters() if not name.endswith("key.bias")]


def test_teacher_forcing_shifts_the_targets_right() -> None:
    model = EncoderDecoder(t5(**SHAPE, start_id=7))
    targets = torch.tensor([[3, 4, 5], [6, -100, -100]])
    assert model.shift_right(targets).tolist() == [[7, 3, 4], [7, 6, 7]]


def test_published_sizes_and_configs_as_data() -> None:
    with torch.device("meta"):
        assert EncoderDecoder(t5()).num_parameters() == 60_506_624
    for config in PRESETS.values():
        assert from_dict(EncoderDecoderConfig, to_dict(config)) == config


def test_mistakes_are_named() -> None:
    model = EncoderDecoder(t5(**SHAPE))
    ids = torch.zeros(1, 41, dtype=torch.int64)
    with pytest.raises(UserError, match="41 tokens long"):
        model(ids, ids[:, :3])
    with pytest.raises(UserError, match="start_id"):
        t5(**SHAPE, start_id=31)
    with pytest.raises(UserError, match="divide"):
        transformer(width=50, num_heads=4)


def test_sinusoids_are_the_papers_and_relative_bias_depends_on_distance() -> None:
    table = sinusoids(3, 5, 7)
    assert table.shape == (5, 7)
    torch.testing.assert_close(table[2, 3], torch.tensor(5 / 10_000 ** (2 / 7)).cos())
    torch.testing.assert_close(sinusoids(0, 8, 7)[3:], table)
    bias = RelativeBias(2, 8, 20, bidirectional=True)
    square = bias(9, 9)
    assert square.shape == (2, 9, 9)
    torch.testing.assert_close(square[:, 1:, 1:], square[:, :-1, :-1])
    torch.testing.assert_close(bias(2, 9), square[:, -2:])
    assert (square[:, 4, 5] != square[:, 5, 4]).all()
