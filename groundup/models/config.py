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
    TokenValuesConfig,
)

__all__ = [
    "AttentionConfig",
    "DecoderConfig",
    "ExpertsConfig",
    "FeedForwardConfig",
    "NormConfig",
    "PositionsConfig",
    "RopeScaling",
    "TokenValuesConfig",
    "block_weights",
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
    logit_soft_cap: float | None = None
    """Keep logits between ± this by cap · tanh(logit / cap). Gemma 2: 30, nanochat: 15."""
    embedding_scale: float = 1.0
    """What embedded tokens are multiplied by; Gemma has √width."""
    embedding_norm: bool = False
    """Normalise what the first block reads."""
    token_values: TokenValuesConfig | None = None
    stream_scales: bool = False
    """Each layer reads a·x + b·x₀, with learned numbers a and b; x₀ is what the first one read."""
    distinct_layers: int = 0
    """Blocks with weights of their own, shared by neighbouring layers; 0 is one for every layer.
    ALBERT has 1: arXiv:1909.11942."""
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
        require(
            self.logit_soft_cap is None or self.logit_soft_cap > 0,
            f"logit_soft_cap should be above 0, but is {self.logit_soft_cap}; leave it out for "
            "none.",
        )
        check_rotation(self.attention, self.positions)
        check_distinct_layers(self.distinct_layers, self.num_layers, self.feed_forward)
        if self.token_values is not None:
            self._check_token_values(self.token_values)

    def _check_token_values(self, values: TokenValuesConfig) -> None:
        kinds = self.attention.latent, self.attention.differential
        require(
            kinds == (None, None),
            "token_values is not available with attention.latent or attention.differential.",
        )
        require(
            values.gate_width <= self.width,
            f"token_values.gate_width {values.gate_width} is more than the width {self.width}.",
        )


def check_rotation(attention: AttentionConfig, positions: PositionsConfig) -> None:
    """Raise UserError where RoPE cannot turn heads so wide, or a second theta has no effect."""
    if positions.kind != "rope":
        return
    width = attention.rotary_width
    turned = positions.turned(width)
    name = "head_width" if attention.latent is None else "latent.rope_width"
    where, choice = f"attention.{name} {width} is odd", f"{width + 1}, or another positions.kind"
    if positions.fraction < 1:
        where = f"positions.fraction {positions.fraction} turns {turned} of {width} channels"
        choice = f"another, or another attention.{name}"
    require(
        turned > 0 and turned % 2 == 0,
        f"{where}, but rotary positions turn channels in pairs: choose {choice}.",
    )
    require(
        positions.window_theta is None or bool(attention.windows),
        "positions.window_theta is about layers that see a window; it has no effect without "
        "attention.windows.",
    )


def check_distinct_layers(distinct: int, num_layers: int, network: FeedForwardConfig) -> None:
    """Raise UserError where layers cannot share so many blocks."""
    require(
        0 <= distinct <= num_layers,
        f"distinct_layers should be from 0 to num_layers {num_layers}, but is {distinct}.",
    )
    require(
        distinct == 0 or network.experts is None,
        "distinct_layers is not available with feed_forward.experts: a router that several layers "
        "share could not keep its experts equally busy.",
    )


def num_matmul_weights(config: DecoderConfig) -> int:
    """N: the weights every token is multiplied with. The head counts, a table looked up does not.

    Per layer D·(H + 2·K)·E for queries, keys and values, H·E·D for the output, 3·D·F when gated
    or 2·D·F when plain; once V·D for the head, tied or not. With experts F is what one token passes
    through, and the router adds D·X. Blocks that layers share count for each of these layers.
    """
    heads, width, gates = config.attention, config.width, 0
    if (values := config.token_values) is not None:
        layers = sum(values.acts(layer, config.num_layers) for layer in range(config.num_layers))
        gates = layers * values.gate_width * heads.num_kv_heads
    layers = config.num_layers * block_weights(heads, config.feed_forward, width)
    return layers + gates + config.vocab_size * width


def block_weights(attention: AttentionConfig, network: FeedForwardConfig, width: int) -> int:
    """The share of one block in `num_matmul_weights`."""
    experts = network.experts
    passed = network.width if experts is None else experts.top_k * network.width
    router = 0
    if experts is not None:
        passed += experts.shared_width
        router = width * experts.num_experts
    matrices = 3 if network.kind == "gated" else 2
    return attention.num_weights(width) + matrices * width * passed + router


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
