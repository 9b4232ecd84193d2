"""The config of recurrent language models; importable without torch."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Literal

from groundup.config import UserError, did_you_mean, require


@dataclass(frozen=True, kw_only=True)
class RecurrentConfig:
    """Embedding, `num_layers` recurrent layers, head. With characters as tokens, a CharLSTM."""

    vocab_size: int
    width: int
    """Of the embedding."""
    state_width: int
    num_layers: int = 1
    kind: Literal["rnn", "gru", "lstm"] = "lstm"
    dropout: float = 0.0
    """Between the layers and before the head."""

    def __post_init__(self) -> None:
        for name in ("vocab_size", "width", "state_width", "num_layers"):
            value = getattr(self, name)
            require(value >= 1, f"{name} should be at least 1, but is {value}.")
        kinds = ("rnn", "gru", "lstm")
        if self.kind not in kinds:
            raise UserError(f"kind cannot be {self.kind!r}.{did_you_mean(self.kind, kinds)}")
        require(
            0 <= self.dropout < 1,
            f"dropout should be at least 0 and below 1, but is {self.dropout}.",
        )

    @property
    def context_length(self) -> int:
        """No text is too long for a state, though it forgets."""
        return sys.maxsize
