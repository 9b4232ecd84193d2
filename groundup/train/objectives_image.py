"""What models that see images minimise: sums over targets, as in `objectives`."""

from __future__ import annotations

from torch import Tensor, nn

from groundup.config import require
from groundup.models.vision_language import VisionLanguageModel
from groundup.train.objectives import cross_entropy_sum


class ImageLoss(nn.Module):
    """Summed cross-entropy of an image classifier, in nats.

    `(B, channels, height, width) images, (B,) or (B, 1) targets -> ()`.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor, targets: Tensor, documents: Tensor | None = None) -> Tensor:
        require(documents is None, "An image has no documents; leave them out.")
        return cross_entropy_sum(self.model(inputs), targets)


class CaptionLoss(nn.Module):
    """Summed cross-entropy of the next token of a text with an image in it, in nats.

    `(B, T) ids, (B, T) targets, None, (B, channels, height, width) images -> ()`: the ids hold a
    placeholder wherever a vector of the image goes, and what is no caption is marked IGNORE.
    """

    def __init__(self, model: VisionLanguageModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        inputs: Tensor,
        targets: Tensor,
        documents: Tensor | None = None,
        images: Tensor | None = None,
    ) -> Tensor:
        require(documents is None, "A row is one text with its image; leave `documents` out.")
        assert images is not None, "the batch has no images"
        return cross_entropy_sum(self.model(inputs, images), targets)
