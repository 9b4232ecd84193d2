"""Every model family as one tiny config of odd sizes: what is true of each is tested over these.

A preset's entry here gives it rows in docs/parity.md (`models`), and the invariants that hold for
all (tests/models/test_invariants.py): caches, no look into the future, padding, documents.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

from groundup.models.config import DecoderConfig, ExpertsConfig, NormConfig, PositionsConfig
from groundup.models.encoder_config import EncoderConfig, HeadConfig, albert, bert, modernbert
from groundup.models.encoder_decoder_config import EncoderDecoderConfig, t5, transformer
from groundup.models.presets import (
    gemma,
    gemma2,
    gemma3,
    gpt2,
    llama,
    llama3,
    mistral,
    mixtral,
    nanochat,
    nanochat_2025,
    phi,
    pythia,
    qwen2,
    qwen3,
    qwen3_moe,
    with_experts,
)
from groundup.nn.config import LatentConfig

VOCABULARY, CONTEXT = 131, 53


def shape(**changes: Any) -> dict[str, Any]:
    """The heads together (3 · 20) are wider than the model, and no size divides another."""
    sizes = {
        "vocab_size": VOCABULARY,
        "width": 42,
        "num_layers": 3,
        "num_heads": 3,
        "head_width": 20,
        "context_length": CONTEXT,
        "feed_forward_width": 70,
    }
    return sizes | changes


CLASSIC = {
    "vocab_size": VOCABULARY,
    "width": 48,
    "num_layers": 3,
    "num_heads": 3,
    "context_length": CONTEXT,
    "feed_forward_width": 70,
}
GROUPED = {"num_heads": 6, "num_kv_heads": 2, "head_width": 10}


def _biased(config: DecoderConfig, attention: bool, feed_forward: bool) -> DecoderConfig:
    heads = replace(config.attention, qkv_bias=attention, out_bias=attention)
    return replace(
        config, attention=heads, feed_forward=replace(config.feed_forward, bias=feed_forward)
    )


Config = TypeVar("Config", DecoderConfig, EncoderConfig)


def attending(config: Config, **changes: Any) -> Config:
    """The config with other attention."""
    return replace(config, attention=replace(config.attention, **changes))


PUBLISHED: dict[str, DecoderConfig] = {
    "gpt2": gpt2(
        vocab_size=VOCABULARY, width=45, num_layers=3, num_heads=5, context_length=CONTEXT
    ),
    "gpt2-untied": gpt2(
        vocab_size=VOCABULARY, width=42, num_layers=2, num_heads=3, context_length=41,
        feed_forward_width=70, tie_embeddings=False,
    ),
    "llama": llama(**shape()),
    "llama-mqa-tied": llama(**shape(num_kv_heads=1, tie_embeddings=True)),
    "llama-gqa": llama(**shape(**GROUPED, theta=500.0)),
    "llama-biases": _biased(llama(**shape(num_kv_heads=1)), True, True),
    "llama-mlp-bias": _biased(llama(**shape()), False, True),
    "llama3": llama3(**shape(), original_context=16),
    "smollm2": llama(**shape(**GROUPED, theta=100_000.0, tie_embeddings=True)),
    "qwen2": qwen2(**shape(**GROUPED)),
    "qwen3": qwen3(**shape()),
    "qwen3-gqa": qwen3(**shape(num_heads=4, num_kv_heads=2, theta=1e6)),
    "qwen3-mqa-untied": qwen3(**shape(num_kv_heads=1, tie_embeddings=False)),
    "qwen3-bias": _biased(qwen3(**shape(num_kv_heads=1)), True, False),
    "mistral": mistral(**shape(num_kv_heads=1), window=7),
    "gemma": gemma(**shape()),
    "gemma2": gemma2(**shape(num_kv_heads=1), window=7),
    "gemma2-tight": replace(
        attending(gemma2(**shape(**GROUPED)), windows=(9,), soft_cap=1.5, scale=24**-0.5),
        logit_soft_cap=2.0,
        tie_embeddings=False,
    ),
    "gemma3": gemma3(**shape(num_layers=7, num_kv_heads=1), window=7),
    "gemma3-capped": replace(
        attending(gemma3(**shape(**GROUPED)), windows=(0, 5), scale=24**-0.5), logit_soft_cap=2.0
    ),
    "nanochat": nanochat_2025(**shape(num_kv_heads=1)),
    "nanochat-bias-tied": _biased(
        nanochat_2025(**shape(**GROUPED, theta=300.0, tie_embeddings=True)), True, False
    ),
    "pythia": pythia(**CLASSIC),
    "phi": phi(**CLASSIC),
    "phi-gqa-tied": attending(
        phi(**CLASSIC | {"num_heads": 6, "tie_embeddings": True}), num_kv_heads=2, head_width=12
    ),
    "gpt-neox-sequential": replace(
        pythia(**CLASSIC, tie_embeddings=True),
        norm=NormConfig(kind="layernorm", eps=1e-5),
        positions=PositionsConfig(theta=500.0),
    ),
    "mixtral": mixtral(**shape(**GROUPED, feed_forward_width=38), num_experts=5),
    "mixtral-one-of-three": mixtral(**shape(feed_forward_width=38), num_experts=3, top_k=1),
    "qwen3-moe": qwen3_moe(**shape(num_kv_heads=1, feed_forward_width=38), num_experts=7, top_k=3),
}  # fmt: skip
"""Decoders that transformers has too."""

_EXPERTS = ExpertsConfig(num_experts=5, top_k=2)
_PLAIN = llama(**shape(num_kv_heads=1))
OURS: dict[str, DecoderConfig] = {
    **{
        kind: replace(_PLAIN, positions=PositionsConfig(kind=kind))  # type: ignore[arg-type]
        for kind in ("sinusoidal", "alibi", "t5", "none")
    },
    "windows": attending(_PLAIN, windows=(4, 0, 7)),
    "gated": attending(_PLAIN, gate=True),
    "differential": attending(
        llama(**shape(num_heads=4, num_kv_heads=2, head_width=6)), differential=0.8, windows=(9, 0)
    ),
    "latent": attending(
        llama(**shape()),
        latent=LatentConfig(rank=7, rope_width=4, value_width=5, query_rank=9),
        windows=(0, 9),
    ),
    "shared-expert": with_experts(
        qwen3(**shape(feed_forward_width=29)),
        replace(_EXPERTS, shared_width=17, score="sigmoid", balance="bias"),
    ),
    "head-bias": replace(_PLAIN, head_bias=True),
    "nanochat-values": nanochat(**shape(num_kv_heads=1)),
    "shared-layers": replace(_PLAIN, num_layers=5, distinct_layers=2),
    "two-thetas": replace(
        attending(_PLAIN, windows=(5, 0)),
        positions=PositionsConfig(theta=900.0, window_theta=50.0, fraction=0.5),
    ),
}
"""Decoders of blocks that no architecture of transformers composes like this."""

DECODERS = PUBLISHED | OURS

_ENCODER = {
    "vocab_size": VOCABULARY,
    "width": 45,
    "num_layers": 3,
    "num_heads": 5,
    "context_length": CONTEXT,
    "feed_forward_width": 70,
}
HEADS = {
    "": None,
    "-masked": HeadConfig(kind="masked"),
    "-sequence": HeadConfig(kind="sequence", num_classes=5),
    "-token": HeadConfig(kind="token", num_classes=3),
}
_ROTARY = _ENCODER | {"num_heads": 3, "width": 42, "num_layers": 4}
_SCORER = modernbert(**_ROTARY, head=HEADS["-sequence"], window=3)
ENCODERS: dict[str, EncoderConfig] = {
    **{f"bert{name}": bert(**_ENCODER, head=head) for name, head in HEADS.items()},
    **{
        f"albert{name}": albert(**_ENCODER, embedding_width=19, head=head)
        for name, head in HEADS.items()
    },
    "albert-two-groups": replace(albert(**_ENCODER, embedding_width=45), distinct_layers=2),
    **{
        f"modernbert{name}": modernbert(**_ROTARY, head=head, window=5)
        for name, head in HEADS.items()
    },
    "modernbert-biases": replace(
        attending(_SCORER, qkv_bias=True, out_bias=True, windows=(3, 0)),
        feed_forward=replace(_SCORER.feed_forward, bias=True, activation="silu"),
        norm=replace(_SCORER.norm, bias=True),
        head=HeadConfig(kind="sequence", num_classes=5, transform=True),
        pooling="first",
    ),
    "modernbert-without-windows": attending(
        replace(modernbert(**_ROTARY), positions=PositionsConfig(theta=700.0)), windows=()
    ),
}

_PAIR = {
    "vocab_size": VOCABULARY,
    "width": 46,
    "num_layers": 2,
    "context_length": CONTEXT,
    "feed_forward_width": 70,
}
_T5 = {**_PAIR, "num_heads": 3, "head_width": 20, "num_decoder_layers": 3}
_BUCKETS = PositionsConfig(kind="t5", num_buckets=12, max_distance=30)
_ORIGINAL = transformer(**_PAIR, num_heads=2)


def _placed(config: EncoderDecoderConfig, placement: Any) -> EncoderDecoderConfig:
    return replace(config, norm=replace(config.norm, placement=placement))


ENCODER_DECODERS: dict[str, EncoderDecoderConfig] = {
    "transformer": _ORIGINAL,
    "t5": replace(t5(**_T5), positions=_BUCKETS),
    "t5-1.1": replace(t5(**_T5, gated=True), positions=_BUCKETS),
    "sandwich": _placed(t5(**_T5), "sandwich"),
    "deepnorm": _placed(_ORIGINAL, "deepnorm"),
}
