"""Decoder families as configs, all asked for in the same words; `PRESETS` names them.

| preset    | what sets it apart                                                | source           |
|-----------|-------------------------------------------------------------------|------------------|
| gpt2      | LayerNorm, learned positions, tanh-GELU, biases                   | Radford 2019     |
| pythia    | both branches read the same stream; a quarter of a head is turned | arXiv:2304.01373 |
| phi       | one norm for both branches; half of a head is turned              | arXiv:2309.05463 |
| llama     | RMSNorm, RoPE, SwiGLU, no biases                                  | arXiv:2302.13971 |
| llama3    | RoPE slowed down for eight times the context                      | arXiv:2407.21783 |
| mistral   | every layer sees a window                                         | arXiv:2310.06825 |
| mixtral   | eight experts, two at work                                        | arXiv:2401.04088 |
| qwen2     | biases on queries, keys and values                                | arXiv:2407.10671 |
| qwen3     | RMSNorm on queries and keys                                       | arXiv:2505.09388 |
| qwen3_moe | many small experts                                                | arXiv:2505.09388 |
| gemma     | GeGLU, embeddings scaled by √width                                | arXiv:2403.08295 |
| gemma2    | norms on both sides, scores and logits capped, windows by turns   | arXiv:2408.00118 |
| gemma3    | QK-norm for the caps, five windows to one, two thetas             | arXiv:2503.19786 |
| nanochat  | norms that learn nothing, ReLU², values by token, scaled streams  | Karpathy 2025    |
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Required, TypedDict, Unpack

from groundup.models.classic import classic_branches, equal_share
from groundup.models.config import (
    AttentionConfig,
    DecoderConfig,
    ExpertsConfig,
    FeedForwardConfig,
    NormConfig,
    PositionsConfig,
    RopeScaling,
    TokenValuesConfig,
)
from groundup.nn.config import Activation, gated_width


class Shape(TypedDict, total=False):
    """What a preset is asked for. Left out, the number of key/value heads is that of the heads."""

    vocab_size: Required[int]
    width: Required[int]
    num_layers: Required[int]
    num_heads: Required[int]
    context_length: Required[int]
    num_kv_heads: int | None
    head_width: int | None
    """An equal share of the width when left out."""
    feed_forward_width: int | None
    """Of one expert, where there are experts. 8/3 of the width when left out, or 4 if not gated."""
    theta: float
    tie_embeddings: bool
    dropout: float


class ClassicShape(TypedDict, total=False):
    """The same for families whose heads have an equal share of the width, keys and values each."""

    vocab_size: Required[int]
    width: Required[int]
    num_layers: Required[int]
    num_heads: Required[int]
    context_length: Required[int]
    feed_forward_width: int | None
    tie_embeddings: bool
    dropout: float


def qwen3(**shape: Unpack[Shape]) -> DecoderConfig:
    """RMSNorm, RoPE, QK-norm, SwiGLU, no biases. Yang et al. 2025, arXiv:2505.09388.

    The published models use theta 1,000,000; ours defaults to what suits a short context.
    """
    config = _rotary(shape, NormConfig(eps=1e-6), tied=True)
    return replace(config, attention=replace(config.attention, qk_norm=True))


def llama(**shape: Unpack[Shape]) -> DecoderConfig:
    """Qwen3's shape without QK-norm. Touvron et al. 2023, arXiv:2302.13971."""
    return _rotary(shape, NormConfig(eps=1e-5), tied=False)


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


def llama3(*, original_context: int = 8192, **shape: Unpack[Shape]) -> DecoderConfig:
    """Llama 3.1: theta 500,000, and RoPE scaled by 8. Grattafiori et al. 2024, arXiv:2407.21783."""
    config = llama(**{"theta": 500_000.0, **shape})
    scaling = RopeScaling(kind="llama3", factor=8.0, original_context=original_context)
    return replace(config, positions=replace(config.positions, scaling=scaling))


def mistral(*, window: int = 4096, **shape: Unpack[Shape]) -> DecoderConfig:
    """Llama whose layers see the last `window` keys. Jiang et al. 2023, arXiv:2310.06825."""
    config = llama(**shape)
    return replace(config, attention=replace(config.attention, windows=(window,)))


def qwen2(**shape: Unpack[Shape]) -> DecoderConfig:
    """Llama with biases on queries, keys and values. Yang et al. 2024, arXiv:2407.10671."""
    config = _rotary(shape, NormConfig(eps=1e-6), tied=False)
    return replace(config, attention=replace(config.attention, qkv_bias=True))


def mixtral(*, num_experts: int = 8, top_k: int = 2, **shape: Unpack[Shape]) -> DecoderConfig:
    """Llama with `num_experts` SwiGLU networks. Jiang et al. 2024, arXiv:2401.04088.

    The chosen experts' scores are divided by their sum.
    """
    config = llama(**{"theta": 1_000_000.0, **shape})
    return with_experts(config, ExpertsConfig(num_experts=num_experts, top_k=top_k))


def qwen3_moe(*, num_experts: int = 128, top_k: int = 8, **shape: Unpack[Shape]) -> DecoderConfig:
    """Qwen3 with many small experts, none of them shared. Yang et al. 2025, arXiv:2505.09388."""
    config = qwen3(**{"theta": 1_000_000.0, "tie_embeddings": False, **shape})
    experts = ExpertsConfig(num_experts=num_experts, top_k=top_k, loss_weight=0.001)
    return with_experts(config, experts)


def gemma(**shape: Unpack[Shape]) -> DecoderConfig:
    """Llama with GeGLU, embeddings scaled by √width and tied. Mesnard et al., arXiv:2403.08295."""
    config = _rotary(shape, NormConfig(eps=1e-6), tied=True)
    network = replace(config.feed_forward, activation="gelu_tanh")
    return replace(config, feed_forward=network, embedding_scale=math.sqrt(config.width))


def gemma2(*, window: int = 4096, **shape: Unpack[Shape]) -> DecoderConfig:
    """Norms on both sides, every other layer sees a window. Rivière et al. 2024, arXiv:2408.00118.

    Scores stay below 50 and logits below 30.
    """
    config = gemma(**shape)
    return replace(
        config,
        attention=replace(config.attention, windows=(window, 0), soft_cap=50.0),
        norm=replace(config.norm, placement="sandwich"),
        logit_soft_cap=30.0,
    )


def gemma3(*, window: int = 1024, **shape: Unpack[Shape]) -> DecoderConfig:
    """Gemma 2 with QK-norm in place of its caps. Kamath et al. 2025, arXiv:2503.19786.

    Five layers that see a window, turned with theta 10,000, then one that sees all, with `theta`,
    1,000,000 when left out.
    """
    config = gemma2(window=window, **{"theta": 1_000_000.0, **shape})
    heads = replace(config.attention, windows=(window,) * 5 + (0,), soft_cap=None, qk_norm=True)
    positions = replace(config.positions, window_theta=10_000.0)
    return replace(config, attention=heads, positions=positions, logit_soft_cap=None)


def nanochat(*, pattern: str = "SSSL", **shape: Unpack[Shape]) -> DecoderConfig:
    """The GPT of github.com/karpathy/nanochat as of spring 2026.

    In a layer `pattern` calls S, attention sees a quarter of the context, in others and in the last
    one all of it. Scores are as sharp as there (queries and keys times 1.2). Left out are what it
    mixes in of the previous token ("smear") and takes away again of the middle layer ("backout"),
    and the ranges it draws initial weights from.
    """
    config = nanochat_2025(**{"theta": 100_000.0, **shape})
    heads, quarter = config.attention, -(-config.context_length // 4)
    windows = [
        quarter if pattern[layer % len(pattern)] == "S" else 0 for layer in range(config.num_layers)
    ]
    windows[-1] = 0
    return replace(
        config,
        attention=replace(
            heads,
            windows=tuple(windows) if any(windows) else (),
            scale=1.44 / math.sqrt(heads.head_width),
        ),
        token_values=TokenValuesConfig(gate_width=min(12, config.width)),
        stream_scales=True,
    )


def nanochat_2025(**shape: Unpack[Shape]) -> DecoderConfig:
    """nanochat as first published, and as transformers knows it: October 2025.

    RMSNorm that learns nothing, after the embedding too; QK-norm, which without a scale is the same
    before RoPE and after, as turning keeps lengths; ReLU²; logits within ± 15; no biases.
    """
    shape = {**shape, "feed_forward_width": shape.get("feed_forward_width") or 4 * shape["width"]}
    config = _rotary(shape, NormConfig(eps=1e-6, scale=False), tied=False)
    return replace(
        config,
        attention=replace(config.attention, qk_norm=True),
        feed_forward=replace(config.feed_forward, kind="plain", activation="relu2"),
        embedding_norm=True,
        logit_soft_cap=15.0,
    )


def gpt2(**shape: Unpack[ClassicShape]) -> DecoderConfig:
    """LayerNorm, learned positions, tanh-GELU, biases, tied head. Radford et al. 2019.

    The original trained with dropout 0.1; one pass over a large text needs none.
    """
    return _classic(shape, PositionsConfig(kind="learned"), "gelu_tanh", tied=True)


def pythia(*, theta: float = 10_000.0, **shape: Unpack[ClassicShape]) -> DecoderConfig:
    """GPT-NeoX's blocks: attention and network side by side. Biderman et al., arXiv:2304.01373.

    RoPE turns the first quarter of every head. Black et al. 2022, arXiv:2204.06745.
    """
    config = _classic(shape, PositionsConfig(theta=theta, fraction=0.25), "gelu", tied=False)
    return replace(config, norm=replace(config.norm, placement="parallel"))


def phi(*, theta: float = 10_000.0, **shape: Unpack[ClassicShape]) -> DecoderConfig:
    """Pythia with one norm for both branches, and half of a head turned. Phi-1.5, arXiv:2309.05463.

    Its head has a bias too.
    """
    config = _classic(shape, PositionsConfig(theta=theta, fraction=0.5), "gelu_tanh", tied=False)
    norm = replace(config.norm, placement="parallel_shared")
    return replace(config, norm=norm, head_bias=True)


def with_experts(config: DecoderConfig, experts: ExpertsConfig) -> DecoderConfig:
    """Any decoder with a mixture of experts instead of its feed-forward network."""
    return replace(config, feed_forward=replace(config.feed_forward, experts=experts))


PRESETS: dict[str, Callable[..., DecoderConfig]] = {
    preset.__name__: preset
    for preset in (
        gpt2,
        pythia,
        phi,
        llama,
        llama3,
        mistral,
        mixtral,
        qwen2,
        qwen3,
        qwen3_moe,
        gemma,
        gemma2,
        gemma3,
        nanochat,
        nanochat_2025,
    )
}
"""Families by name, each called with a `Shape`; gpt2, pythia and phi with a `ClassicShape`."""


def _rotary(shape: Shape, norm: NormConfig, *, tied: bool) -> DecoderConfig:
    """RoPE and SwiGLU without biases: the frame of most families since Llama."""
    width, num_heads, dropout = shape["width"], shape["num_heads"], shape.get("dropout", 0.0)
    return DecoderConfig(
        vocab_size=shape["vocab_size"],
        width=width,
        num_layers=shape["num_layers"],
        context_length=shape["context_length"],
        attention=AttentionConfig(
            num_heads=num_heads,
            num_kv_heads=shape.get("num_kv_heads") or num_heads,
            head_width=shape.get("head_width") or equal_share(width, num_heads),
            dropout=dropout,
            out_dropout=dropout,
        ),
        positions=PositionsConfig(theta=shape.get("theta", 10_000.0)),
        feed_forward=FeedForwardConfig(
            width=shape.get("feed_forward_width") or gated_width(width), dropout=dropout
        ),
        norm=norm,
        tie_embeddings=shape.get("tie_embeddings", tied),
        embedding_dropout=dropout,
    )


def _classic(
    shape: ClassicShape, positions: PositionsConfig, activation: Activation, *, tied: bool
) -> DecoderConfig:
    """LayerNorm and biases everywhere: the frame of the families before."""
    dropout = shape.get("dropout", 0.0)
    heads, network = classic_branches(
        shape["width"],
        shape["num_heads"],
        activation=activation,
        feed_forward_width=shape.get("feed_forward_width"),
        dropout=dropout,
    )
    return DecoderConfig(
        vocab_size=shape["vocab_size"],
        width=shape["width"],
        num_layers=shape["num_layers"],
        context_length=shape["context_length"],
        attention=heads,
        positions=positions,
        feed_forward=network,
        norm=NormConfig(kind="layernorm", eps=1e-5),
        tie_embeddings=shape.get("tie_embeddings", tied),
        embedding_dropout=dropout,
    )
