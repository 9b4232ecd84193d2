"""What all kinds of models have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import nn


class Model(nn.Module, ABC):
    """A module that is made of a config, and knows what it costs.

    All have an attribute `checkpointing`: at n, training keeps of every n-th layer its input alone
    and computes the rest again in the backward pass; see `groundup.nn.recompute`.
    """

    config: Any

    @abstractmethod
    def flops_per_token(self, length: int) -> float:
        """Training FLOPs per token of a text of `length`; of a model of images, per image."""

    def num_parameters(self) -> int:
        """Numbers the model learns; a tied matrix counts once."""
        return sum(parameter.numel() for parameter in self.parameters())
