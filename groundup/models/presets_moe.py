"""Model families with a mixture of experts as configs: Mixtral and Qwen3-MoE."""

from __future__ import annotations

from dataclasses import replace

from groundup.models.config import DecoderConfig, ExpertsConfig
from groundup.models.presets import llama, qwen3


def mixtral(
    *,
    vocab_size: int,
    width: int,
    num_layers: int,
    num_heads: int,
    context_length: int,
    num_experts: int = 8,
    top_k: int = 2,
    num_kv_heads: int | None = None,
    head_width: int | None = None,
    expert_width: int | None = None,
    theta: float = 1_000_000.0,
    tie_embeddings: bool = False,
) -> DecoderConfig:
    """Llama with `num_experts` SwiGLU networks of `expert_width`. Jiang et al. 2024.

    The chosen experts' scores are divided by their sum. arXiv:2401.04088.
    """
    config = llama(
        vocab_size=vocab_size,
        width=width,
        num_layers=num_layers,
        num_heads=num_heads,
        context_length=context_length,
        num_kv_heads=num_kv_heads,
        head_width=head_width,
        feed_forward_width=expert_width,
        theta=theta,
        tie_embeddings=tie_embeddings,
    )
    return with_experts(config, ExpertsConfig(num_experts=num_experts, top_k=top_k))


def qwen3_moe(
    *,
    vocab_size: int,
    width: int,
    num_layers: int,
    num_heads: int,
    context_length: int,
    expert_width: int,
    num_experts: int = 128,
    top_k: int = 8,
    num_kv_heads: int | None = None,
    head_width: int | None = None,
    theta: float = 1_000_000.0,
    tie_embeddings: bool = False,
) -> DecoderConfig:
    """Qwen3 with many small experts, none of them shared. Yang et al. 2025, arXiv:2505.09388."""
    config = qwen3(
        vocab_size=vocab_size,
        width=width,
        num_layers=num_layers,
        num_heads=num_heads,
        context_length=context_length,
        num_kv_heads=num_kv_heads,
        head_width=head_width,
        feed_forward_width=expert_width,
        theta=theta,
        tie_embeddings=tie_embeddings,
    )
    experts = ExpertsConfig(num_experts=num_experts, top_k=top_k, loss_weight=0.001)
    return with_experts(config, experts)


def with_experts(config: DecoderConfig, experts: ExpertsConfig) -> DecoderConfig:
    """Any decoder with a mixture of experts instead of its feed-forward network."""
    return replace(config, feed_forward=replace(config.feed_forward, experts=experts))
