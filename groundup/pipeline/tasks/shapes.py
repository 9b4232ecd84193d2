"""The config of each family's model, at the size that is asked for."""

from __future__ import annotations

import bisect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

from groundup.models.encoder_config import HeadConfig, modernbert
from groundup.models.encoder_decoder_config import EncoderDecoderConfig, t5
from groundup.models.image_config import MLPConfig, ViTConfig, vit
from groundup.models.kinds import build
from groundup.models.presets import qwen3
from groundup.models.recurrent_config import RecurrentConfig
from groundup.models.vision_language_config import VisionLanguageConfig
from groundup.pipeline.tasks.settings import TaskSettings

HEAD = 32
"""Width of an attention head, of which every model's width is a multiple."""
MOST_PATCHES = 64


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What the data asks of a model."""

    vocab_size: int = 0
    context_length: int = 0
    start_id: int = 0
    head: HeadConfig | None = None
    channels: int = 0
    image_size: int = 0
    num_classes: int = 0
    image_id: int = 0


def model_config(family: str, needs: Needs, settings: TaskSettings) -> Any:
    """The family's config: of the settings' width, else with about as many parameters as asked."""
    make = _SHAPES[family]
    dropout = settings.dropout or 0.0

    def shape(width: int) -> Any:
        return with_dropout(make(family, needs, width, settings.layers), dropout)

    if settings.width:
        return shape(settings.width)
    widths = range(HEAD, 2048, HEAD)
    above = bisect.bisect_left(widths, settings.parameters, key=lambda w: num_parameters(shape(w)))
    near = [widths[i] for i in (above - 1, above) if 0 <= i < len(widths)]
    return shape(min(near, key=lambda w: abs(num_parameters(shape(w)) - settings.parameters)))


def num_parameters(config: Any) -> int:
    """How many numbers a config's model learns, without making room for them."""
    import torch

    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build(config).parameters())


def patch_size(image_size: int) -> int:
    """The smallest side above one pixel that cuts an image into at most MOST_PATCHES."""
    sides = (s for s in range(2, image_size + 1) if image_size % s == 0)
    return next(s for s in sides if (image_size // s) ** 2 <= MOST_PATCHES)


def with_dropout(config: Any, rate: float) -> Any:
    """A config with all its dropouts at `rate`, those of the configs in it too."""
    changes: dict[str, Any] = {}
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            changes[field.name] = with_dropout(value, rate)
        elif field.name in ("dropout", "out_dropout", "embedding_dropout"):
            changes[field.name] = rate
    return replace(config, **changes)


def _encoder(family: str, needs: Needs, width: int, layers: int) -> Any:
    return modernbert(
        vocab_size=needs.vocab_size,
        width=width,
        num_layers=layers,
        num_heads=width // HEAD,
        context_length=needs.context_length,
        theta=10_000.0,  # for a short context
        head=needs.head,
    )


def _decoder(family: str, needs: Needs, width: int, layers: int) -> Any:
    return qwen3(
        vocab_size=needs.vocab_size,
        width=width,
        num_layers=layers,
        num_heads=width // HEAD,
        context_length=needs.context_length,
    )


def _encoder_decoder(family: str, needs: Needs, width: int, layers: int) -> EncoderDecoderConfig:
    """Half of the layers read, half of them write."""
    shape = t5(
        vocab_size=needs.vocab_size,
        width=width,
        num_layers=max(1, layers // 2),
        num_heads=width // HEAD,
        head_width=HEAD,
        context_length=needs.context_length,
        start_id=needs.start_id,
    )
    # T5's own scales are those of a long training with another optimizer.
    attention = replace(shape.attention, scale=None)
    return replace(shape, attention=attention, embedding_std=None, head_scale=1.0)


def _recurrent(family: str, needs: Needs, width: int, layers: int) -> RecurrentConfig:
    return RecurrentConfig(
        vocab_size=needs.vocab_size,
        width=min(width, 128),
        state_width=width,
        num_layers=layers,
        kind=family,  # type: ignore[arg-type]
    )


def _mlp(family: str, needs: Needs, width: int, layers: int) -> MLPConfig:
    return MLPConfig(
        image_size=needs.image_size,
        channels=needs.channels,
        num_classes=needs.num_classes,
        hidden_widths=(width,) * max(1, layers // 2),
    )


def _vit(family: str, needs: Needs, width: int, layers: int) -> ViTConfig:
    shape = vit(
        image_size=needs.image_size,
        patch_size=patch_size(needs.image_size),
        channels=needs.channels,
        num_classes=needs.num_classes,
        width=width,
        num_layers=layers,
        num_heads=width // HEAD,
        pooling="mean",
    )
    return replace(shape, init_std=width**-0.5)  # the usual 0.02 is for widths of hundreds


def _vlm(family: str, needs: Needs, width: int, layers: int) -> VisionLanguageConfig:
    """Half of the layers see, half of them write."""
    half = max(1, layers // 2)
    return VisionLanguageConfig(
        vision=_vit(family, replace(needs, num_classes=0), width, half),
        language=_decoder(family, needs, width, half),
        image_id=needs.image_id,
    )


_SHAPES: dict[str, Callable[[str, Needs, int, int], Any]] = {
    "encoder": _encoder,
    "decoder": _decoder,
    "encoder-decoder": _encoder_decoder,
    "lstm": _recurrent,
    "gru": _recurrent,
    "rnn": _recurrent,
    "mlp": _mlp,
    "vit": _vit,
    "vlm": _vlm,
}
