"""The decoder's config, composed of its blocks' configs; importable without torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from groundup.config import require
from groundup.nn.config import (
    AttentionConfig,
    FeedForwardConfig,
    NormConfig,
    PositionsConfig,
)

__all__ = [
    "AttentionConfig",
    "DecoderConfig",
    "FeedForwardConfig",
    "NormConfig",
    "PositionsConfig",
]


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """A decoder-only transformer: embedding, `num_layers` equal blocks, final norm, head."""

    vocab_size: int
    width: int
    num_layers: int
    context_length: int
    """Longest sequence the model has positions for."""
    attention: AttentionConfig
    feed_forward: FeedForwardConfig
    positions: PositionsConfig = field(default_factory=PositionsConfig)
    norm: NormConfig = field(default_factory=NormConfig)
    tie_embeddings: bool = True
    """Use the embedding matrix as the head's: one parameter, read twice."""
    head_bias: bool = False
    embedding_dropout: float = 0.0
    init_std: float = 0.02

    def __post_init__(self) -> None:
        for name in ("vocab_size", "width", "num_layers", "context_length"):
            value = getattr(self, name)
            require(value >= 1, f"{name} should be at least 1, but is {value}.")
        require(
            0 <= self.embedding_dropout < 1,
            f"embedding_dropout should be at least 0 and below 1, but is {self.embedding_dropout}.",
        )
        require(self.init_std > 0, f"init_std should be above 0, but is {self.init_std}.")
        head_width = self.attention.head_width
        require(
            self.positions.kind != "rope" or head_width % 2 == 0,
            f"attention.head_width {head_width} is odd, but rotary positions turn channels in "
            f"pairs: choose {head_width + 1}, or another positions.kind.",
        )
