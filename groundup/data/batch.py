"""What a training step eats: ids or images, what to predict, and which document each id is from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch
    from torch import Tensor

IGNORE = -100
"""Target of a position that is not scored; the `ignore_index` of torch's cross entropy."""


@dataclass(frozen=True, slots=True)
class Batch:
    """(B, T) ids, the ids to predict, and optionally a document number per position.

    `inputs` is int64; `targets` is int64, `IGNORE` where nothing is to be predicted. `documents`
    is int32: positions of a row attend to each other only where the numbers are equal. None means
    that a row is one stream and attention may cross document boundaries.

    For a language model targets are the ids that follow the inputs. Elsewhere they have a length of
    their own: the target text of an encoder-decoder, one class a row. Where an image is all there
    is to read, `inputs` holds the images, (B, channels, height, width) float32; beside ids they
    are in `images`.
    """

    inputs: Tensor
    targets: Tensor
    documents: Tensor | None = None
    images: Tensor | None = None

    @classmethod
    def from_numpy(
        cls,
        inputs: np.ndarray,
        targets: np.ndarray,
        documents: np.ndarray | None = None,
        images: np.ndarray | None = None,
    ) -> Batch:
        """A batch that shares the memory of the arrays."""
        import torch

        def tensor(array: np.ndarray | None) -> Tensor | None:
            return None if array is None else torch.from_numpy(array)

        return cls(
            torch.from_numpy(inputs), torch.from_numpy(targets), tensor(documents), tensor(images)
        )

    def rows(self, start: int, stop: int) -> Batch:
        """Rows start:stop, as views: the share of one rank, or one micro-batch."""
        return self._each(lambda tensor: tensor[start:stop])

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on `device`."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    @property
    def arguments(self) -> tuple[Tensor | None, ...]:
        """What a loss is called with: inputs, targets, documents, and images where there are."""
        three = (self.inputs, self.targets, self.documents)
        return three if self.images is None else (*three, self.images)

    @property
    def num_targets(self) -> int:
        """How many positions are scored: what the loss is divided by."""
        return int((self.targets != IGNORE).sum())

    @property
    def num_positions(self) -> int:
        """How many ids are read, padding included; how many images, where they are all there is."""
        return self.inputs.numel() if self.inputs.ndim == 2 else len(self.inputs)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        return Batch(
            change(self.inputs),
            change(self.targets),
            None if self.documents is None else change(self.documents),
            None if self.images is None else change(self.images),
        )
