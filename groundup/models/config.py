"""The decoder's config, composed of its blocks' configs; importable without torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from groundup.config import require
from groundup.nn.config import (
    AttentionConfig,
    ExpertsConfig,
    FeedForwardConfig,
    NormConfig,
    PositionsConfig,
    RopeScaling,
)

__all__ = [
    "AttentionConfig",
    "DecoderConfig",
    "ExpertsConfig",
    "FeedForwardConfig",
    "NormConfig",
    "PositionsConfig",
    "RopeScaling",
    "flops_per_token",
    "num_matmul_weights",
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
    embedding_scale: float = 1.0
    """What embedded tokens are multiplied by; Gemma has √width."""
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
        turned = self.attention.rotary_width
        name = "head_width" if self.attention.latent is None else "latent.rope_width"
        require(
            self.positions.kind != "rope" or turned % 2 == 0,
            f"attention.{name} {turned} is odd, but rotary positions turn channels in pairs: "
            f"choose {turned + 1}, or another positions.kind.",
        )


def num_matmul_weights(config: DecoderConfig) -> int:
    """N: the weights every token is multiplied with. The head counts, a table looked up does not.

    Per layer D·(H + 2·K)·E for queries, keys and values, H·E·D for the output, 3·D·F when gated
    or 2·D·F when plain; once V·D for the head, tied or not. With experts F is what one token passes
    through, and the router adds D·X.
    """
    heads, network, width = config.attention, config.feed_forward, config.width
    projections = heads.num_weights(width)
    experts = network.experts
    passed = network.width if experts is None else experts.top_k * network.width
    router = 0
    if experts is not None:
        passed += experts.shared_width
        router = width * experts.num_experts
    feed_forward = (3 if network.kind == "gated" else 2) * width * passed + router
    return config.num_layers * (projections + feed_forward) + config.vocab_size * width


def flops_per_token(config: DecoderConfig, length: int) -> int:
    """Matrix-multiplication FLOPs of training on one token, forward and backward, at a length.

    6·N + 6·L·T·H·E; where a layer has a window w below T, w·(2 - w/T) stands for T. Each weight
    costs a multiply and an add, once forward and twice backward. Attention's two products cost
    4·T·H·E forward if every pair were computed; half of it is masked, and backward costs twice the
    forward. Chowdhery et al. 2022, arXiv:2204.02311, appendix B, count the masked half too.
    """
    heads = config.attention
    seen = 0
    for layer in range(config.num_layers):
        window = min(heads.window(layer) or length, length)
        seen += window * (2 * length - window) // length
    return 6 * num_matmul_weights(config) + 6 * seen * heads.mixing_width
