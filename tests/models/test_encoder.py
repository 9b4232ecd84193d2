"""The encoder: both directions are seen, padding is not; heads have the shapes they promise."""

from __future__ import annotations

import pytest
import torch

from groundup.config import UserError, from_dict, to_dict
from groundup.models.encoder import Encoder
from groundup.models.encoder_config import EncoderConfig, HeadConfig, bert, minilm, modernbert

SHAPE = {"vocab_size": 131, "width": 42, "num_layers": 2, "num_heads": 3, "context_length": 40}
PRESETS = {"bert": bert, "modernbert": modernbert}


def build(preset: str, head: HeadConfig | None = None) -> Encoder:
    return Encoder(PRESETS[preset](**SHAPE, feed_forward_width=50, head=head)).eval()


@pytest.mark.parametrize("preset", PRESETS)
def test_heads_have_the_shapes_they_promise_and_learn(preset: str) -> None:
    ids = torch.randint(0, 131, (4, 13))
    shapes = {"masked": (4, 13, 131), "sequence": (4, 7), "token": (4, 13, 7)}
    for kind, shape in shapes.items():
        head = HeadConfig(kind=kind, num_classes=0 if kind == "masked" else 7)  # type: ignore[arg-type]
        model = build(preset, head)
        output = model(ids, torch.ones(4, 13, dtype=torch.bool))
        assert output.shape == shape
        output.square().sum().backward()
        assert all(p.grad is not None for p in model.parameters())


def test_types_are_told_apart_and_default_to_the_first() -> None:
    model = build("bert")
    ids = torch.randint(0, 131, (2, 9))
    torch.testing.assert_close(model(ids), model(ids, types=torch.zeros_like(ids)))
    assert (model(ids) != model(ids, types=torch.ones_like(ids))).any()
    with pytest.raises(UserError, match="num_types"):
        build("modernbert")(ids, types=torch.zeros_like(ids))


def test_mistakes_are_named() -> None:
    with pytest.raises(UserError, match="41 tokens long"):
        build("bert")(torch.zeros(1, 41, dtype=torch.int64))
    with pytest.raises(UserError, match="num_classes"):
        HeadConfig(kind="token")
    with pytest.raises(UserError, match="num_classes"):
        HeadConfig(kind="masked", num_classes=3)
    with pytest.raises(UserError, match="divide"):
        bert(width=50, num_heads=4)
    with pytest.raises(UserError, match="odd"):
        modernbert(width=45, num_heads=5)


def test_the_published_sizes() -> None:
    with torch.device("meta"):
        assert Encoder(bert()).num_parameters() == 109_482_240
        assert Encoder(minilm()).num_parameters() == 22_713_216
    config = bert(head=HeadConfig(kind="sequence", num_classes=4))
    assert from_dict(EncoderConfig, to_dict(config)) == config
