"""llama.cpp's architectures and the metadata that describes a model of one ↔ our config.

A model is written only where llama.cpp computes what we do, and read only where we compute what it
does; everything else is refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from groundup.config import UserError, did_you_mean, require
from groundup.models.config import (
    AttentionConfig,
    DecoderConfig,
    FeedForwardConfig,
    NormConfig,
    PositionsConfig,
)
from groundup.models.folder import LONGEST_CONTEXT
from groundup.models.gguf.container import GGUFFile, Metadata
from groundup.models.gguf.rope import read_scaling, scaling_metadata
from groundup.models.huggingface import family_of


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """One of llama.cpp's, and what in it is always as it is."""

    name: str
    families: tuple[str, ...]
    """Of transformers, which it computes."""
    activation: str = "silu"
    interleaved: bool = False
    """RoPE turns neighbouring channels, not those half a head apart."""


ARCHITECTURES = {
    one.name: one
    for one in (
        Architecture(name="llama", families=("llama", "mistral"), interleaved=True),
        Architecture(name="qwen2", families=("qwen2",)),
        Architecture(name="qwen3", families=("qwen3",)),
        Architecture(name="gemma", families=("gemma",), activation="gelu_tanh"),
        Architecture(name="gpt2", families=("gpt2",), activation="gelu_tanh"),
    )
}


def architecture_of(config: DecoderConfig) -> Architecture:
    """llama.cpp's architecture for a config. Raises UserError when there is none here."""
    family = family_of(config)
    found = [one for one in ARCHITECTURES.values() if family in one.families]
    if not found:
        known = ", ".join(family for one in ARCHITECTURES.values() for family in one.families)
        raise UserError(f"A {family} model cannot be written as GGUF here; {known} can.")
    architecture, heads = found[0], config.attention
    biased = heads.out_bias or config.feed_forward.bias
    require(
        family == "gpt2" or not (biased or (heads.qkv_bias and family != "qwen2")),
        "llama.cpp has no such model with biases in all projections.",
    )
    require(
        architecture.name != "qwen2" or heads.num_heads * heads.head_width == config.width,
        "llama.cpp has no qwen2 whose heads together are wider or narrower than the model: "
        f"{heads.num_heads} of {heads.head_width} are not {config.width}.",
    )
    activation = config.feed_forward.activation
    require(
        activation == architecture.activation,
        f"llama.cpp computes {architecture.name} with {architecture.activation}, but this model "
        f"has {activation}.",
    )
    window = heads.window(0)
    require(
        not 0 < window < config.context_length,
        f"llama.cpp has no sliding window in such a model, but this one's layers see {window} of "
        f"{config.context_length} tokens.",
    )
    require(
        family != "gemma" or config.tie_embeddings,
        "llama.cpp has no gemma with a head of its own.",
    )
    return architecture


def to_metadata(config: DecoderConfig) -> Metadata:
    """The keys that describe a config. Raises UserError where llama.cpp has no such model."""
    architecture, heads = architecture_of(config), config.attention
    keys: Metadata = {
        "block_count": config.num_layers,
        "context_length": config.context_length,
        "embedding_length": config.width,
        "feed_forward_length": config.feed_forward.width,
        "attention.head_count": heads.num_heads,
        "attention.head_count_kv": heads.num_kv_heads,
        "vocab_size": config.vocab_size,
    }
    if architecture.name == "gpt2":
        keys["attention.layer_norm_epsilon"] = config.norm.eps
    else:
        keys |= {
            "attention.key_length": heads.head_width,
            "attention.value_length": heads.head_width,
            "attention.layer_norm_rms_epsilon": config.norm.eps,
            "rope.dimension_count": heads.head_width,
            "rope.freq_base": config.positions.theta,
            **scaling_metadata(config),
        }
    return {f"{architecture.name}.{key}": value for key, value in keys.items()}


def read_config(file: GGUFFile) -> DecoderConfig:
    """The config a file describes. Raises UserError naming the key or tensor at fault."""
    shapes = {name: tensor.shape for name, tensor in file.tensors.items()}
    name = file.metadata.get("general.architecture")
    if name not in ARCHITECTURES:
        hint = did_you_mean(str(name), ARCHITECTURES)
        raise UserError(f"Unknown architecture: general.architecture = {name!r}.{hint}")
    require("token_embd.weight" in shapes, "The file lacks the tensor 'token_embd.weight'.")
    number = _reader(file.metadata, name)
    layers, context = number("block_count"), number("context_length")
    require(layers <= len(shapes), f"{name}.block_count {layers:,} is more than the tensors.")
    require(context <= LONGEST_CONTEXT, f"{name}.context_length {context:,} is absurd.")
    width, heads = number("embedding_length"), number("attention.head_count")
    config = DecoderConfig(
        vocab_size=shapes["token_embd.weight"][0],
        width=width,
        num_layers=layers,
        context_length=context,
        attention=AttentionConfig(
            num_heads=heads,
            num_kv_heads=number("attention.head_count_kv", heads),
            head_width=number("attention.key_length", width // heads),
        ),
        feed_forward=FeedForwardConfig(width=number("feed_forward_length")),
        tie_embeddings="output.weight" not in shapes,
    )
    return _as_gpt2(config, number) if name == "gpt2" else _as_llama(config, name, file, number)


def _as_llama(
    config: DecoderConfig, name: str, file: GGUFFile, number: Callable[..., Any]
) -> DecoderConfig:
    """Llama's layout and what the families that share it differ in."""
    head_width, query = config.attention.head_width, "blk.0.attn_q"
    turned = number("rope.dimension_count", head_width)
    require(
        turned == head_width,
        f"{name}.rope.dimension_count {turned} is not the head width {head_width}, which is not "
        "supported.",
    )
    theta = float(number("rope.freq_base", 10_000.0))
    plain = replace(config, positions=PositionsConfig(theta=theta))
    attention = replace(
        config.attention,
        qkv_bias=f"{query}.bias" in file.tensors,
        qk_norm=f"{query}_norm.weight" in file.tensors,
    )
    activation: Any = ARCHITECTURES[name].activation
    return replace(
        config,
        attention=attention,
        positions=replace(plain.positions, scaling=read_scaling(file, name, plain)),
        feed_forward=replace(config.feed_forward, activation=activation),
        norm=NormConfig(eps=_short(number("attention.layer_norm_rms_epsilon", None, least=1e-20))),
        embedding_scale=math.sqrt(config.width) if name == "gemma" else 1.0,
    )


def _as_gpt2(config: DecoderConfig, number: Callable[..., Any]) -> DecoderConfig:
    heads, eps = config.attention, number("attention.layer_norm_epsilon", None, least=1e-20)
    require(
        heads.num_kv_heads == heads.num_heads
        and heads.num_heads * heads.head_width == config.width,
        f"gpt2.attention.head_count {heads.num_heads} does not go with the other sizes.",
    )
    return replace(
        config,
        attention=replace(heads, qkv_bias=True, out_bias=True),
        positions=PositionsConfig(kind="learned"),
        feed_forward=replace(config.feed_forward, kind="plain", activation="gelu_tanh", bias=True),
        norm=NormConfig(kind="layernorm", eps=_short(eps)),
    )


def _reader(metadata: Mapping[str, Any], name: str) -> Callable[..., Any]:
    def number(key: str, default: Any = None, least: float = 1) -> Any:
        value = metadata.get(f"{name}.{key}", default)
        good = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not good or not value >= least:
            raise UserError(f"{name}.{key} should be a number above 0, but is {value!r}.")
        return value

    return number


def _short(value: float) -> float:
    """A float as it was written in decimals, before the file rounded it to 32 bits."""
    return float(f"{value:.6g}")
