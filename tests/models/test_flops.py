"""What every kind says of its cost against a count by torch; recomputing changes no gradient."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from groundup.config import UserError
from groundup.models.encoder_config import HeadConfig, albert, bert, modernbert
from groundup.models.encoder_decoder_config import EncoderDecoderConfig, t5, transformer
from groundup.models.image_config import MLPConfig, vit
from groundup.models.kinds import build
from groundup.models.presets import qwen3
from groundup.models.recurrent_config import RecurrentConfig
from groundup.models.vision_language_config import VisionLanguageConfig

LENGTH, ROWS = 37, 3
SHAPE: dict[str, Any] = {
    "vocab_size": 131,
    "width": 42,
    "num_layers": 2,
    "num_heads": 3,
    "context_length": 40,
}
VISION = vit(image_size=12, patch_size=3, channels=3, num_classes=0, width=36, num_layers=3)


def vlm(policy: Any) -> VisionLanguageConfig:
    vision = dataclasses.replace(VISION, any_size=policy == "dynamic")
    language = qwen3(**SHAPE)
    return VisionLanguageConfig(
        vision=vision, language=language, image_id=130, policy=policy, num_queries=5
    )


CONFIGS: dict[str, Any] = {
    "masked": bert(**SHAPE, head=HeadConfig(kind="masked"), dropout=0.2),
    "sequence": bert(**SHAPE, head=HeadConfig(kind="sequence", num_classes=9)),
    "tags": modernbert(**SHAPE, head=HeadConfig(kind="token", num_classes=9)),
    "albert": albert(**SHAPE, embedding_width=17, head=HeadConfig(kind="token", num_classes=9)),
    "transformer": transformer(**SHAPE, dropout=0.2),
    "t5": t5(**SHAPE, head_width=10, num_decoder_layers=3),
    "t5-gated": t5(**SHAPE, head_width=10, gated=True),
    **{
        kind: RecurrentConfig(
            vocab_size=131, width=20, state_width=33, num_layers=2, kind=kind, dropout=0.2
        )
        for kind in ("rnn", "gru", "lstm")
    },
    "mlp": MLPConfig(image_size=12, channels=3, num_classes=7, hidden_widths=(31, 29), dropout=0.2),
    "vit": dataclasses.replace(VISION, num_classes=7, embedding_dropout=0.2),
    "vit-mean": dataclasses.replace(VISION, num_classes=7, pooling="mean"),
    **{policy: vlm(policy) for policy in ("class", "grid", "dynamic", "queries")},
}
PLACES = {"class": 1, "grid": 16, "dynamic": 16, "queries": 5}


@pytest.fixture(params=CONFIGS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def inputs(name: str) -> tuple[Tensor, ...]:
    ids = torch.randint(0, 130, (ROWS, LENGTH))
    if name in ("mlp", "vit", "vit-mean"):
        return (torch.randn(ROWS, 3, 12, 12),)
    if name in PLACES:
        ids[:, 2 : 2 + PLACES[name]] = 130
        return ids, torch.randn(ROWS, 3, 12, 12)
    return (ids, ids.flip(0)) if isinstance(CONFIGS[name], EncoderDecoderConfig) else (ids,)


def counted(forward: Callable[[], Tensor]) -> float:
    """FLOPs of a forward and a backward pass, each pair of a query and a key computed."""
    counter = FlopCounterMode(display=False)
    with counter, sdpa_kernel(SDPBackend.MATH):
        forward().sum().backward()
    return float(counter.get_total_flops())


def masked_half(name: str) -> float:
    """What the count holds of scores that a causal mask throws away, per token."""
    config = getattr(CONFIGS[name], "language", CONFIGS[name])
    layers = getattr(config, "num_decoder_layers", config.num_layers if name in PLACES else 0)
    return 6.0 * LENGTH * layers * config.attention.mixing_width if layers else 0.0


def test_the_formula_agrees_with_a_count(name: str) -> None:
    model, given = build(CONFIGS[name]), inputs(name)
    units = ROWS * (1 if name in ("mlp", "vit", "vit-mean") else LENGTH)
    forward = lambda: model(*given)  # noqa: E731
    if isinstance(CONFIGS[name], RecurrentConfig):  # what the fused kernels do is not counted
        forward = lambda: model.head(model.layers.loop(model.embedding(given[0]))[0])  # noqa: E731
    expected = model.flops_per_token(LENGTH) + masked_half(name)
    assert counted(forward) / units == pytest.approx(expected, rel=0.02)


def gradients(model: nn.Module, given: tuple[Tensor, ...]) -> list[Tensor]:
    torch.manual_seed(5)  # the same dropout
    model.zero_grad()
    model(*given).square().sum().backward()
    return [p.grad for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("every", [1, 2])
def test_recomputing_gives_equal_gradients(name: str, every: int) -> None:
    model, given = build(CONFIGS[name]).train(), inputs(name)
    plain = gradients(model, given)
    calls: list[int] = []
    parts(model)[0].register_forward_pre_hook(lambda *_: calls.append(1))
    model.checkpointing = every
    assert model.checkpointing == every
    again = gradients(model, given)
    # Once forward and once more in the backward pass; one block may be both layers.
    expected = (4 if every == 1 else 3) if name == "albert" else 2
    assert len(calls) == expected
    assert len(plain) == len(again)
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))
    model.eval()(*given)
    assert len(calls) == expected + (2 if name == "albert" else 1)


def parts(model: Any) -> list[nn.Module]:
    """The layers of a model that are computed again."""
    for stack in (getattr(model, "decoder", None), model):
        if hasattr(stack, "blocks"):
            return list(stack.blocks)
    return [model.layers] if hasattr(model, "read") else list(model.layers)


def test_windows_count_the_pairs_they_show() -> None:
    config = modernbert(**SHAPE, window=5)
    whole, near = (build(c).flops_per_token(LENGTH) for c in (modernbert(**SHAPE), config))
    distance = (torch.arange(LENGTH)[:, None] - torch.arange(LENGTH)).abs()
    hidden = int((distance >= 5).sum())  # in the second of the two layers
    assert whole - near == pytest.approx(12 * hidden / LENGTH * config.attention.mixing_width)


def test_parameters_are_counted(name: str) -> None:
    model = build(CONFIGS[name])
    assert model.num_parameters() == sum(p.numel() for p in model.parameters()) > 0


def test_images_of_other_channels_are_named() -> None:
    for name in ("mlp", "vit"):
        with pytest.raises(UserError, match="images of 3 channels .* but these have 1"):
            build(CONFIGS[name])(torch.randn(2, 1, 12, 12))
    with pytest.raises(UserError, match="12 pixels a side, but these are 12 × 9"):
        build(CONFIGS["mlp"])(torch.randn(2, 3, 12, 9))
