"""What llama.cpp calls our configs' fields and our tensors, for the architectures both know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from groundup.config import UserError, did_you_mean, require
from groundup.models.adapters.base import rename
from groundup.models.config import (
    AttentionConfig,
    DecoderConfig,
    FeedForwardConfig,
    NormConfig,
    PositionsConfig,
    RopeScaling,
)
from groundup.models.folder import LONGEST_CONTEXT
from groundup.models.huggingface import family_of
from groundup.nn.positions import change_layout

ARCHITECTURES = ("llama", "qwen2", "qwen3")
NAMES = {
    "embedding": "token_embd",
    "final_norm": "output_norm",
    "head": "output",
    "blocks": "blk",
    "attention_norm": "attn_norm",
    "attention.query": "attn_q",
    "attention.key": "attn_k",
    "attention.value": "attn_v",
    "attention.out": "attn_output",
    "attention.query_norm": "attn_q_norm",
    "attention.key_norm": "attn_k_norm",
    "feed_forward_norm": "ffn_norm",
    "feed_forward.gate": "ffn_gate",
    "feed_forward.up": "ffn_up",
    "feed_forward.down": "ffn_down",
}


def architecture_of(config: DecoderConfig) -> str:
    """llama.cpp's architecture for a config. Raises UserError when there is none here."""
    family = family_of(config)
    require(
        family in ARCHITECTURES,
        f"A {family} model cannot be written as GGUF here; {', '.join(ARCHITECTURES)} can.",
    )
    biased = config.attention.out_bias or config.feed_forward.bias
    require(
        not biased and (family == "qwen2" or not config.attention.qkv_bias),
        "llama.cpp has no such model with biases in all projections.",
    )
    scaling = config.positions.scaling
    require(
        scaling is None or scaling.kind == "linear",
        "Only RoPE scaling of kind 'linear' can be written as GGUF here, not "
        f"{scaling.kind if scaling else None!r}.",
    )
    return family


def read_config(metadata: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> Any:
    """Metadata and tensor shapes -> DecoderConfig. Raises UserError naming the key at fault."""
    arch = metadata.get("general.architecture")
    if arch not in ARCHITECTURES:
        hint = did_you_mean(str(arch), ARCHITECTURES)
        raise UserError(f"Unknown architecture: general.architecture = {arch!r}.{hint}")
    require(
        "rope_freqs.weight" not in shapes,
        "This file scales RoPE by a tensor 'rope_freqs.weight', which is not supported.",
    )
    require("token_embd.weight" in shapes, "The file lacks the tensor 'token_embd.weight'.")

    def number(key: str, default: Any = None, least: float = 1) -> Any:
        value = metadata.get(f"{arch}.{key}", default)
        good = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not good or not value >= least:
            raise UserError(f"{arch}.{key} should be a number above 0, but is {value!r}.")
        return value

    layers, context = number("block_count"), number("context_length")
    require(layers <= len(shapes), f"{arch}.block_count {layers:,} is more than the tensors.")
    require(context <= LONGEST_CONTEXT, f"{arch}.context_length {context:,} is absurd.")
    width, heads = number("embedding_length"), number("attention.head_count")
    head_width = number("attention.key_length", width // heads)
    turned = number("rope.dimension_count", head_width)
    require(
        turned == head_width,
        f"{arch}.rope.dimension_count {turned} is not the head width {head_width}, which is not "
        "supported.",
    )
    query = "blk.0.attn_q"
    return DecoderConfig(
        vocab_size=shapes["token_embd.weight"][0],
        width=width,
        num_layers=layers,
        context_length=context,
        attention=AttentionConfig(
            num_heads=heads,
            num_kv_heads=number("attention.head_count_kv", heads),
            head_width=head_width,
            qkv_bias=f"{query}.bias" in shapes,
            qk_norm=f"{query}_norm.weight" in shapes,
        ),
        positions=PositionsConfig(
            theta=float(number("rope.freq_base", 10_000.0)),
            scaling=_scaling(metadata, arch, number),
        ),
        feed_forward=FeedForwardConfig(width=number("feed_forward_length")),
        norm=NormConfig(eps=_short(number("attention.layer_norm_rms_epsilon", None, least=1e-20))),
        tie_embeddings="output.weight" not in shapes,
    )


def to_file(config: DecoderConfig, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict under llama.cpp's names and in its layouts."""
    laid = _laid(config, state, architecture_of(config), to_theirs=True)
    return {rename(name, NAMES): tensor for name, tensor in laid.items()}


def from_file(
    config: DecoderConfig, theirs: Mapping[str, Tensor], architecture: str
) -> dict[str, Tensor]:
    """The inverse of `to_file`. Raises UserError naming a tensor the model does not have."""
    names = {theirs: ours for ours, theirs in NAMES.items()}
    state = {rename(name, names): tensor for name, tensor in theirs.items()}
    return _laid(config, state, architecture, to_theirs=False)


def _laid(
    config: DecoderConfig, state: Mapping[str, Tensor], architecture: str, *, to_theirs: bool
) -> dict[str, Tensor]:
    """Queries and keys with RoPE's channels as llama.cpp wants them, or as the config says.

    It turns neighbouring channels for "llama" and those half a head apart for all others.
    """
    theirs = "interleaved" if architecture == "llama" else "half"
    ours = config.positions.layout
    if theirs == ours:
        return dict(state)
    wanted, width = theirs if to_theirs else ours, config.attention.head_width
    turned = (".query.", ".key.", ".query_norm.", ".key_norm.")
    return {
        name: change_layout(tensor, width, interleaved=wanted == "interleaved")
        if any(part in name for part in turned)
        else tensor
        for name, tensor in state.items()
    }


def _scaling(metadata: Mapping[str, Any], arch: str, number: Any) -> RopeScaling | None:
    kind = metadata.get(f"{arch}.rope.scaling.type", "none")
    if kind == "none":
        return None
    require(
        kind == "linear", f"{arch}.rope.scaling.type = {kind!r} is not supported (only 'linear')."
    )
    return RopeScaling(kind="linear", factor=float(number("rope.scaling.factor")))


def _short(value: float) -> float:
    """A float as it was written in decimals, before the file rounded it to 32 bits."""
    return float(f"{value:.6g}")
