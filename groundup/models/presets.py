"""Model families as configs: Qwen3 (the default), Llama, GPT-2, and one size dial for our own."""

from __future__ import annotations

from groundup.config import require
from groundup.models.config import (
    AttentionConfig,
    DecoderConfig,
    FeedForwardConfig,
    NormConfig,
    PositionsConfig,
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
) -> DecoderConfig:
    """RMSNorm, RoPE, QK-norm, SwiGLU, no biases. Yang et al. 2025, arXiv:2505.09388.

    The published models use theta 1,000,000; ours defaults to what suits a short context.
    """
    return DecoderConfig(
        vocab_size=vocab_size,
        width=width,
        num_layers=num_layers,
        context_length=context_length,
        attention=_heads(width, num_heads, num_kv_heads, head_width, qk_norm=True),
        positions=PositionsConfig(kind="rope", theta=theta),
        feed_forward=FeedForwardConfig(
            kind="gated", activation="silu", width=feed_forward_width or gated_width(width)
        ),
        norm=NormConfig(kind="rmsnorm", eps=1e-6),
        tie_embeddings=tie_embeddings,
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
) -> DecoderConfig:
    """RMSNorm, RoPE, SwiGLU, no biases. Touvron et al. 2023, arXiv:2302.13971."""
    return DecoderConfig(
        vocab_size=vocab_size,
        width=width,
        num_layers=num_layers,
        context_length=context_length,
        attention=_heads(width, num_heads, num_kv_heads, head_width, qk_norm=False),
        positions=PositionsConfig(kind="rope", theta=theta),
        feed_forward=FeedForwardConfig(
            kind="gated", activation="silu", width=feed_forward_width or gated_width(width)
        ),
        norm=NormConfig(kind="rmsnorm", eps=1e-5),
        tie_embeddings=tie_embeddings,
    )


def gpt2(
    *,
    vocab_size: int,
    width: int,
    num_layers: int,
    num_heads: int,
    context_length: int,
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
            kind="plain", activation="gelu_tanh", width=4 * width, bias=True, dropout=dropout
        ),
        norm=NormConfig(kind="layernorm", eps=1e-5),
        tie_embeddings=True,
        embedding_dropout=dropout,
    )


def _heads(
    width: int, num_heads: int, num_kv_heads: int | None, head_width: int | None, qk_norm: bool
) -> AttentionConfig:
    return AttentionConfig(
        num_heads=num_heads,
        num_kv_heads=num_kv_heads or num_heads,
        head_width=head_width or _equal_share(width, num_heads),
        qk_norm=qk_norm,
    )


def _equal_share(width: int, num_heads: int) -> int:
    require(
        num_heads >= 1 and width % num_heads == 0,
        f"width {width} does not divide into {num_heads} heads of equal width. Change one of "
        "them, or give head_width yourself.",
    )
    return width // num_heads
