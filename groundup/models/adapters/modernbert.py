"""ModernBERT: pre-norm, RoPE with two thetas, GeGLU, windows in two of three layers.

Warner et al. 2024, arXiv:2412.13663.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from groundup.models.adapters.base import (
    TO_HF_ACTIVATION,
    activation,
    one_window,
    only,
    read_windows,
    whole_number,
    window_fields,
)
from groundup.models.adapters.encoders import (
    architecture,
    class_fields,
    inverse,
    plain_encoder,
    read_head,
    refuse,
    rename_all,
)
from groundup.models.classic import equal_share
from groundup.models.encoder_config import EncoderConfig
from groundup.models.huggingface_rope import read_rope_by_layer, rope_fields_by_layer
from groundup.nn.config import AttentionConfig, FeedForwardConfig, NormConfig


def to_hf_config(config: EncoderConfig) -> dict[str, Any]:
    """The `config.json` of the equal ModernBERT. Raises UserError when there is none."""
    _check(config)
    heads, network, head = config.attention, config.feed_forward, config.head
    positions, window = config.positions, max(config.attention.windows, default=65)
    fields = {
        "architectures": [architecture("ModernBert", config)],
        "model_type": "modernbert",
        "vocab_size": config.vocab_size,
        "hidden_size": config.width,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": heads.num_heads,
        "intermediate_size": network.width,
        "hidden_activation": TO_HF_ACTIVATION[network.activation],
        "classifier_activation": TO_HF_ACTIVATION[network.activation],
        "max_position_embeddings": config.context_length,
        "initializer_range": config.init_std,
        "norm_eps": config.norm.eps,
        "norm_bias": config.norm.bias,
        "attention_bias": heads.qkv_bias,
        "mlp_bias": network.bias,
        "decoder_bias": True,
        "classifier_bias": head.transform_bias if head is not None else False,
        "classifier_pooling": "cls" if config.pooling == "first" else "mean",
        "classifier_dropout": head.dropout if head is not None else 0.0,
        "attention_dropout": heads.dropout,
        "mlp_dropout": network.dropout,
        "embedding_dropout": config.embedding_dropout,
        "local_attention": 2 * (window - 1),
        "global_rope_theta": positions.theta,
        "local_rope_theta": positions.of_windows().theta,
    }
    # Left out, these would be ids of a vocabulary of 50,000.
    fields |= {f"{name}_token_id": None for name in ("pad", "bos", "eos", "cls", "sep")}
    fields |= window_fields(heads, config.num_layers) | class_fields(config)
    return fields | rope_fields_by_layer(positions, heads.head_width)


def from_hf_config(data: Mapping[str, Any]) -> EncoderConfig:
    """Our config from a parsed `config.json`. Raises UserError naming what we cannot express."""
    only(data, "model_type", "modernbert")
    for field in ("decoder_bias", "tie_word_embeddings"):
        only(data, field, True, None)
    only(data, "quantization_config", None)
    only(data, "position_embedding_type", "absolute", None)
    only(data, "classifier_pooling", "cls", "mean", None)
    shape = activation(data, "hidden_activation", "gelu")
    only(data, "classifier_activation", data.get("hidden_activation", "gelu"), None)
    width, num_heads = (whole_number(data, f) for f in ("hidden_size", "num_attention_heads"))
    num_layers, bias = whole_number(data, "num_hidden_layers"), bool(data.get("attention_bias"))
    windows = _windows(data, num_layers)
    dropout = float(data.get("attention_dropout") or 0.0)
    head = read_head(data, "ModernBert", float(data.get("classifier_dropout") or 0.0))
    if head is not None:
        dense_bias = bool(data.get("classifier_bias", False))
        transform = head.kind != "masked"
        head = replace(head, transform=transform, transform_bias=dense_bias)
    theta, local = data.get("global_rope_theta", 160_000.0), data.get("local_rope_theta")
    return EncoderConfig(
        vocab_size=whole_number(data, "vocab_size"),
        width=width,
        num_layers=num_layers,
        context_length=whole_number(data, "max_position_embeddings"),
        attention=AttentionConfig(
            num_heads=num_heads,
            num_kv_heads=num_heads,
            head_width=equal_share(width, num_heads),
            qkv_bias=bias,
            out_bias=bias,
            windows=windows,
            dropout=dropout,
            out_dropout=dropout,
        ),
        feed_forward=FeedForwardConfig(
            kind="gated",
            activation=shape,
            width=whole_number(data, "intermediate_size"),
            bias=bool(data.get("mlp_bias", False)),
            dropout=float(data.get("mlp_dropout") or 0.0),
        ),
        positions=read_rope_by_layer(data, theta, local or 10_000.0, windows=bool(windows)),
        norm=NormConfig(
            kind="layernorm",
            eps=float(data.get("norm_eps", 1e-5)),
            bias=bool(data.get("norm_bias", False)),
        ),
        first_norm=False,
        pooling="mean" if data.get("classifier_pooling") == "mean" else "first",
        head=head,
        embedding_dropout=float(data.get("embedding_dropout") or 0.0),
        init_std=float(data.get("initializer_range", 0.02)),
    )


def to_hf_state(config: EncoderConfig, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict under transformers' names; what is tied there is written once.

    Query, key and value are one matrix there, and so are gate and up.
    """
    _check(config)
    fused: dict[str, Tensor] = {}
    for name, tensor in state.items():
        role = name.split(".")[-2]
        if role in _FUSED:
            parts = [state[name.replace(f".{role}.", f".{part}.")] for part in _FUSED[role]]
            fused[name] = torch.cat(parts)
        elif role not in _INSIDE:
            fused[name] = tensor
    return rename_all(fused, _names(config))


def from_hf_state(config: EncoderConfig, theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """transformers' state dict under our names; the inverse of `to_hf_state`.

    Raises UserError naming a key this config's model does not have.
    """
    state: dict[str, Tensor] = {}
    fused = rename_all(drop_redundant(config, theirs), inverse(_names(config)))
    for name, tensor in fused.items():
        role = name.split(".")[-2]
        parts = _FUSED.get(role, (role,))
        for part, piece in zip(parts, tensor.chunk(len(parts)), strict=True):
            state[name.replace(f".{role}.", f".{part}.")] = piece
    return state


def drop_redundant(config: EncoderConfig, theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what files repeat or the config's head never reads, in the names of its class."""
    prefix = "model." if config.head is not None else ""
    kept = {}
    for name, value in theirs.items():
        in_head = name.startswith(("head.", "decoder.", "classifier."))
        if not in_head:
            name = prefix + name.removeprefix("model.")
        if name != "decoder.weight" and not (in_head and config.head is None):
            kept[name] = value
    return kept


_FUSED = {"query": ("query", "key", "value"), "gate": ("gate", "up")}
_INSIDE = ("key", "value", "up")  # these go into the ones above
_BODY = {"embedding": "embeddings.tok_embeddings", "embedding_norm": "embeddings.norm"}
_BLOCK = {
    "attention_norm": "attn_norm",
    "attention.query": "attn.Wqkv",
    "attention.out": "attn.Wo",
    "feed_forward_norm": "mlp_norm",
    "feed_forward.gate": "mlp.Wi",
    "feed_forward.down": "mlp.Wo",
}
_HEADS = {
    "head": "decoder",  # of which ours has the bias alone
    "head.transform.dense": "head.dense",
    "head.transform.norm": "head.norm",
    "head.classifier": "classifier",
}


def _names(config: EncoderConfig) -> dict[str, str]:
    """Our module names -> theirs."""
    prefix = "model." if config.head is not None else ""
    names = {ours: prefix + theirs for ours, theirs in _BODY.items()}
    names["final_norm"] = f"{prefix}final_norm"
    for layer in range(config.num_layers):
        for ours, theirs in _BLOCK.items():
            names[f"blocks.{layer}.{ours}"] = f"{prefix}layers.{layer}.{theirs}"
    return names | _HEADS


def _windows(data: Mapping[str, Any], num_layers: int) -> tuple[int, ...]:
    """Older files say that every so many-th layer sees all; a window has its two sides added."""
    data = {"global_attn_every_n_layers": 3, "local_attention": 128, **data}
    every = max(whole_number(data, "global_attn_every_n_layers"), 1)
    types = ["sliding_attention" if i % every else "full_attention" for i in range(num_layers)]
    both_sides = whole_number(data, "local_attention")
    return read_windows(data, num_layers, both_sides // 2 + 1, types)


def _check(config: EncoderConfig) -> None:
    heads, network, positions = config.attention, config.feed_forward, config.positions
    needed = plain_encoder(config) | {
        "positions.kind": (positions.kind, "rope"),
        "positions.layout": (positions.layout, "half"),
        "positions.window_theta": (positions.window_theta, positions.window_theta),
        "norm.kind": (config.norm.kind, "layernorm"),
        "norm.placement": (config.norm.placement, "pre"),
        "norm.bias": (config.norm.bias, config.norm.bias),
        "first_norm": (config.first_norm, False),
        "feed_forward.kind": (network.kind, "gated"),
        "attention.windows": (heads.windows, one_window(heads.windows)),
        "attention.out_bias": (heads.out_bias, heads.qkv_bias),
        "num_types": (config.num_types, 0),
        "pooler": (config.pooler, False),
    }
    if (head := config.head) is not None:
        needed["head.transform"] = (head.transform, head.kind != "masked")
        needed["head.transform_bias"] = (head.transform_bias, head.transform_bias)
    refuse("modernbert", needed)
