"""What a training step eats: token ids, the ids to predict, and which document each one is from."""

from __future__ import annotations

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
    """(B, T) ids, the ids that follow them, and optionally a document number per position.

    `inputs` is int64; `targets` is int64, `IGNORE` where nothing is to be predicted. `documents`
    is int32: positions of a row attend to each other only where the numbers are equal. None means
    that a row is one stream and attention may cross document boundaries.
    """

    inputs: Tensor
    targets: Tensor
    documents: Tensor | None = None

    @classmethod
    def from_numpy(
        cls, inputs: np.ndarray, targets: np.ndarray, documents: np.ndarray | None = None
    ) -> Batch:
        """A batch that shares the memory of int64, int64 and int32 arrays."""
        import torch

        numbers = None if documents is None else torch.from_numpy(documents)
        return cls(torch.from_numpy(inputs), torch.from_numpy(targets), numbers)

    def rows(self, start: int, stop: int) -> Batch:
        """Rows start:stop, as views: the share of one rank, or one micro-batch."""
        documents = None if self.documents is None else self.documents[start:stop]
        return Batch(self.inputs[start:stop], self.targets[start:stop], documents)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on `device`."""
        documents = None if self.documents is None else self.documents.to(device, non_blocking=True)
        return Batch(
            self.inputs.to(device, non_blocking=True),
            self.targets.to(device, non_blocking=True),
            documents,
        )

    @property
    def num_targets(self) -> int:
        """How many positions are scored: what the loss is divided by."""
        return int((self.targets != IGNORE).sum())
