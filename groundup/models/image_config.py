"""The configs of image classifiers; importable without torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from groundup.config import UserError, did_you_mean, require
from groundup.models.classic import classic_branches
from groundup.nn.config import Activation, AttentionConfig, FeedForwardConfig, NormConfig


@dataclass(frozen=True, kw_only=True)
class MLPConfig:
    """All pixels in a row, then dense layers: nothing is known of who is whose neighbour."""

    image_size: int
    channels: int = 1
    num_classes: int
    hidden_widths: tuple[int, ...] = (512, 512)
    activation: Activation = "relu"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        _positive(self, "image_size", "channels", "num_classes")
        for width in self.hidden_widths:
            require(width >= 1, f"hidden_widths should all be at least 1, but one is {width}.")
        _probability(self.dropout)


@dataclass(frozen=True, kw_only=True)
class ViTConfig:
    """A vision transformer: an image is a sequence of patches. arXiv:2010.11929."""

    image_size: int
    patch_size: int
    channels: int = 1
    num_classes: int
    """0 for an encoder without a head, which gives the vectors of the patches."""
    width: int
    num_layers: int
    attention: AttentionConfig
    feed_forward: FeedForwardConfig
    norm: NormConfig = field(default_factory=lambda: NormConfig(kind="layernorm", eps=1e-6))
    pooling: Literal["first", "mean"] = "first"
    """What stands for the image: the vector of a token of its own, or the patches' mean."""
    any_size: bool = False
    """Read images of other sizes too, the table of positions stretched to their patches."""
    embedding_dropout: float = 0.0
    init_std: float = 0.02

    def __post_init__(self) -> None:
        self.attention.check_plain("an image model")
        _positive(self, "image_size", "patch_size", "channels", "width", "num_layers")
        require(
            self.num_classes >= 0, f"num_classes is {self.num_classes}, but should be 0 or more."
        )
        require(
            self.image_size % self.patch_size == 0,
            f"image_size {self.image_size} does not divide into patches of {self.patch_size}.",
        )
        if self.pooling not in ("first", "mean"):
            hint = did_you_mean(self.pooling, ("first", "mean"))
            raise UserError(f"pooling cannot be {self.pooling!r}.{hint}")
        _probability(self.embedding_dropout)

    @property
    def num_patches(self) -> int:
        """Patches of an image: 224 pixels in patches of 14 are 16 · 16 = 256."""
        return (self.image_size // self.patch_size) ** 2


def vit(
    *,
    image_size: int,
    patch_size: int,
    num_classes: int,
    channels: int = 1,
    width: int = 64,
    num_layers: int = 4,
    num_heads: int = 4,
    pooling: Literal["first", "mean"] = "first",
    dropout: float = 0.0,
) -> ViTConfig:
    """Pre-norm LayerNorm, GELU, biases, learned positions. Dosovitskiy et al., arXiv:2010.11929."""
    heads, network = classic_branches(width, num_heads, activation="gelu", dropout=dropout)
    return ViTConfig(
        image_size=image_size,
        patch_size=patch_size,
        channels=channels,
        num_classes=num_classes,
        width=width,
        num_layers=num_layers,
        attention=heads,
        feed_forward=network,
        pooling=pooling,
        embedding_dropout=dropout,
    )


def _positive(config: object, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        require(value >= 1, f"{name} should be at least 1, but is {value}.")


def _probability(value: float) -> None:
    require(0 <= value < 1, f"dropout should be at least 0 and below 1, but is {value}.")
