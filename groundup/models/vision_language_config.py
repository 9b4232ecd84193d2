"""The config of vision-language models; importable without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from groundup.config import UserError, did_you_mean, require
from groundup.models.config import DecoderConfig
from groundup.models.image_config import ViTConfig

Policy = Literal["class", "grid", "dynamic", "queries"]


@dataclass(frozen=True, kw_only=True)
class VisionLanguageConfig:
    """A vision transformer whose vectors stand in a decoder's text, at a placeholder each.

    | policy  | tokens of an image                                  | as in                        |
    |---------|-----------------------------------------------------|------------------------------|
    | class   | 1, the class token's                                | CLIP's vector of an image    |
    | grid    | one per patch, of an image of one size              | LLaVA-1.5: arXiv:2310.03744  |
    | dynamic | one per patch, of an image of any size              | Qwen2-VL: arXiv:2409.12191   |
    | queries | `num_queries`, which look at the patches themselves | BLIP-2: arXiv:2301.12597     |
    """

    vision: ViTConfig
    language: DecoderConfig
    image_id: int
    """The token that holds an image's places in the text; its own embedding is never used."""
    policy: Policy = "grid"
    num_queries: int = 32

    def __post_init__(self) -> None:
        policies = ("class", "grid", "dynamic", "queries")
        if self.policy not in policies:
            hint = did_you_mean(self.policy, policies)
            raise UserError(f"policy cannot be {self.policy!r}.{hint}")
        require(
            0 <= self.image_id < self.language.vocab_size,
            f"image_id {self.image_id} is not an id below vocab_size {self.language.vocab_size}.",
        )
        require(
            self.vision.num_classes == 0,
            "vision.num_classes should be 0: the decoder reads vectors, not classes.",
        )
        require(self.num_queries >= 1, f"num_queries should be at least 1: {self.num_queries}.")
        require(
            self.policy != "class" or self.vision.pooling == "first",
            "policy 'class' needs vision.pooling 'first', which has a class token.",
        )
        require(
            self.vision.any_size == (self.policy == "dynamic"),
            "vision.any_size goes with policy 'dynamic', and with no other.",
        )


def num_image_tokens(config: VisionLanguageConfig, height: int, width: int) -> int:
    """How many placeholders an image of so many pixels takes: 336 / 14 squared is 576."""
    if config.policy in ("class", "queries"):
        return 1 if config.policy == "class" else config.num_queries
    size = config.vision.patch_size
    return (height // size) * (width // size)
