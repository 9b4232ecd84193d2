"""Model families as configs: Qwen3 (the default), Llama, GPT-2, and one size dial for our own."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from groundup.config import require
from groundup.models.config import (
    AttentionConfig,
    DecoderConfig,
    FeedForwardConfig,
    NormConfig,
    PositionsConfig,
    RopeScaling,
    num_matmul_weights,
)
from groundup.nn.config import gated_width


def qwen3(
    *,
    vocab_size: int,
    width: int,
    num_layers: int,
    num_heads: int,
    context_length: int,
    num_kv_heads: int | None = None,
    head_width: int | None = None,
    feed_forward_width: int | None = None,
    theta: float = 10_000.0,
    tie_embeddings: bool = True,
    dropout: float = 0.0,
) -> DecoderConfig:
    """RMSNorm, RoPE, QK-norm, SwiGLU, no biases. Yang et al. 2025, arXiv:2505.09388.

    The published models use theta 1,000,000; ours defaults to what suits a short context.
    """
    return DecoderConfig(
        vocab_size=vocab_size,
        width=width,
        num_layers=num_layers,
        context_length=context_length,
        attention=AttentionConfig(
            num_heads=num_heads,
            num_kv_heads=num_kv_heads or num_heads,
            head_width=head_width or _equal_share(width, num_heads),
            qk_norm=True,
            dropout=dropout,
            out_dropout=dropout,
        ),
        positions=PositionsConfig(kind="rope", theta=theta),
        feed_forward=FeedForwardConfig(
            kind="gated",
            activation="silu",
            width=feed_forward_width or gated_width(width),
            dropout=dropout,
        ),
        norm=NormConfig(kind="rmsnorm", eps=1e-6),
        tie_embeddings=tie_embeddings,
        embedding_dropout=dropout,
    )


def llama(
    *,
    vocab_size: int,
    width: int,
    num_layers: int,
    num_heads: int,
    context_length: int,
    num_kv_heads: int | None = None,
    head_width: int | None = None,
    feed_forward_width: int | None = None,
    theta: float = 10_000.0,
    tie_embeddings: bool = False,
    dropout: float = 0.0,
) -> DecoderConfig:
    """Qwen3's shape without QK-norm. Touvron et al. 2023, arXiv:2302.13971."""
    config = qwen3(
        vocab_size=vocab_size,
        width=width,
        num_layers=num_layers,
        num_heads=num_heads,
        context_length=context_length,
        num_kv_heads=num_kv_heads,
        head_width=head_width,
        feed_forward_width=feed_forward_width,
        theta=theta,
        tie_embeddings=tie_embeddings,
        dropout=dropout,
    )
    return replace(
        config,
        attention=replace(config.attention, qk_norm=False),
        norm=NormConfig(kind="rmsnorm", eps=1e-5),
    )


def gpt2(
    *,
    vocab_size: int,
    width: int,
    num_layers: int,
    num_heads: int,
    context_length: int,
    feed_forward_width: int | None = None,
    tie_embeddings: bool = True,
    dropout: float = 0.0,
) -> DecoderConfig:
    """LayerNorm, learned positions, tanh-GELU, biases, tied head. Radford et al. 2019.

    The original trained with dropout 0.1; one pass over a large text needs none.
    """
    heads = AttentionConfig(
        num_heads=num_heads,
        num_kv_heads=num_heads,
        head_width=_equal_share(width, num_heads),
        qkv_bias=True,
        out_bias=True,
        dropout=dropout,
        out_dropout=dropout,
    )
    return DecoderConfig(
        vocab_size=vocab_size,
        width=width,
        num_layers=num_layers,
        context_length=context_length,
        attention=heads,
        positions=PositionsConfig(kind="learned"),
        feed_forward=FeedForwardConfig(
            kind="plain",
            activation="gelu_tanh",
            width=feed_forward_width or 4 * width,
            bias=True,
            dropout=dropout,
        ),
        norm=NormConfig(kind="layernorm", eps=1e-5),
        tie_embeddings=tie_embeddings,
        embedding_dropout=dropout,
    )


def smollm2(vocab_size: int = 49_152) -> DecoderConfig:
    """SmolLM2-135M: a deep, narrow Llama. Allal et al. 2025, arXiv:2502.02737."""
    return llama(
        vocab_size=vocab_size,
        width=576,
        num_layers=30,
        num_heads=9,
        num_kv_heads=3,
        context_length=8192,
        feed_forward_width=1536,
        theta=100_000.0,
        tie_embeddings=True,
    )


def qwen2(config: DecoderConfig) -> DecoderConfig:
    """A config of `llama` with biases on queries, keys and values. arXiv:2407.10671."""
    return replace(
        config,
        attention=replace(config.attention, qkv_bias=True),
        norm=NormConfig(kind="rmsnorm", eps=1e-6),
    )


def mistral(config: DecoderConfig, window: int = 4096) -> DecoderConfig:
    """A config of `llama` whose layers see the last `window` keys. arXiv:2310.06825."""
    return replace(config, attention=replace(config.attention, windows=(window,)))


def llama3(config: DecoderConfig, original_context: int = 8192) -> DecoderConfig:
    """A config of `llama` as in Llama 3.1: theta 500,000, RoPE scaled by 8. arXiv:2407.21783."""
    scaling = RopeScaling(kind="llama3", factor=8.0, original_context=original_context)
    return replace(config, positions=PositionsConfig(theta=500_000.0, scaling=scaling))


def gemma(config: DecoderConfig) -> DecoderConfig:
    """A config of `llama` with GeGLU, embeddings scaled by √width and tied. arXiv:2403.08295."""
    return replace(
        config,
        feed_forward=replace(config.feed_forward, activation="gelu_tanh"),
        norm=NormConfig(kind="rmsnorm", eps=1e-6),
        embedding_scale=math.sqrt(config.width),
        tie_embeddings=True,
    )


@dataclass(frozen=True, kw_only=True)
class LearningRates:
    """What each kind of parameter starts from; see `learning_rates`."""

    muon: float
    """Hidden matrices."""
    adamw: float
    """Norms and biases."""
    embedding: float
    """Token tables, and a head of its own."""


@dataclass(frozen=True, kw_only=True)
class Dial:
    """Everything that follows from the depth of a model; see `from_depth`."""

    model: DecoderConfig
    tokens: int
    """Tokens to train on."""
    rows_per_step: int
    """Rows of the context length in one optimizer step."""

    @property
    def tokens_per_step(self) -> int:
        """The batch of one optimizer step in tokens."""
        return self.rows_per_step * self.model.context_length


def from_depth(
    depth: int, vocab_size: int, context_length: int | None = None, tokens: int | None = None
) -> Dial:
    """One dial for the size: a Qwen3-shaped model and how to train it. `tokens` overrides 12·N.

    | what            | formula                           | where from                            |
    |-----------------|-----------------------------------|---------------------------------------|
    | width           | 64 · depth                        | the usual aspect ratio at these sizes |
    | heads           | depth, each 64 wide               | GPT-2                                 |
    | key/value heads | half as many from depth 12 on     | halves the cache; arXiv:2305.13245    |
    | feed-forward    | 8/3 · width, up to a multiple of 64 | equal weights; arXiv:2302.13971     |
    | context         | 128 · depth to a power of two, 256..2048 | ours                           |
    | tokens          | 12 · N, the weights that multiply | nanochat's optimum of 8 to 12         |
    | batch in tokens | 2^14 · (tokens / 5 M)^0.383        | exponent of arXiv:2505.13738          |
    """
    require(depth >= 1, f"size should be at least 1, but is {depth}.")
    width = 64 * depth
    model = qwen3(
        vocab_size=vocab_size,
        width=width,
        num_layers=depth,
        num_heads=depth,
        num_kv_heads=depth // 2 if depth >= 12 and depth % 2 == 0 else depth,
        context_length=context_length or min(max(_power_of_two(128 * depth), 256), 2048),
    )
    tokens = tokens or 12 * num_matmul_weights(model)
    tokens_per_step = _power_of_two(2**14 * (tokens / 5e6) ** 0.383)
    return Dial(
        model=model,
        tokens=tokens,
        rows_per_step=max(1, round(tokens_per_step / model.context_length)),
    )


def learning_rates(width: int, tokens_per_step: int) -> LearningRates:
    """Peak rates for a width and a batch in tokens.

    All grow with the square root of the batch (arXiv:2205.10287), AdamW's up to 2^16 tokens, Muon's
    up to the 0.02 of its author (Jordan et al. 2024). AdamW's shrink with the square root of the
    width (as in nanochat); Muon's update has one size at every width. The constants were measured
    at width 192 and 4096 tokens (LOG.md).
    """
    batch = math.sqrt(tokens_per_step / 2**12)
    adamw = 6e-3 * min(batch, 4.0) * math.sqrt(192 / width)
    return LearningRates(muon=min(0.01 * batch, 0.02), adamw=adamw, embedding=2 * adamw)


def _power_of_two(value: float) -> int:
    return 2 ** round(math.log2(value))


def _equal_share(width: int, num_heads: int) -> int:
    require(
        num_heads >= 1 and width % num_heads == 0,
        f"width {width} does not divide into {num_heads} heads of equal width. Change one of "
        "them, or give head_width yourself.",
    )
    return width // num_heads
