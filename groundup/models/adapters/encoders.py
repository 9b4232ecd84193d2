"""What the adapters of encoders share: names of modules, fields of heads, and what they refuse."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from groundup.config import UserError, require
from groundup.models.adapters.base import TO_HF_ACTIVATION, plain_attention
from groundup.models.encoder_config import EncoderConfig, HeadConfig

HEADS = {
    "": "Model",
    "masked": "ForMaskedLM",
    "sequence": "ForSequenceClassification",
    "token": "ForTokenClassification",
}
"""Kinds of heads, "" for none -> how transformers' classes end."""


def plain_encoder(config: EncoderConfig) -> dict[str, tuple[Any, Any]]:
    """What an encoder family asks for that has none of what only a few have."""
    attention = config.attention
    head = config.head or HeadConfig(kind="masked")
    return plain_attention(config) | {
        "norm.scale": (config.norm.scale, True),
        "norm.bias": (config.norm.bias, True),
        "positions.window_theta": (config.positions.window_theta, None),
        "positions.fraction": (config.positions.fraction, 1.0),
        "embedding_norm": (config.embedding_norm, True),
        "embedding_width": (config.embedding_width, None),
        "first_norm": (config.first_norm, True),
        "distinct_layers": (config.distinct_layers, 0),
        "head.transform": (head.transform, False),
        "head.transform_bias": (head.transform_bias, True),
        "attention.qk_norm": (attention.qk_norm, False),
        "attention.num_kv_heads": (attention.num_kv_heads, attention.num_heads),
        "width": (config.width, attention.num_heads * attention.head_width),
    }


def classic_encoder(config: EncoderConfig) -> dict[str, tuple[Any, Any]]:
    """What BERT and its kin ask for."""
    attention, network = config.attention, config.feed_forward
    needed = plain_encoder(config) | {
        "positions.kind": (config.positions.kind, "learned"),
        "norm.kind": (config.norm.kind, "layernorm"),
        "norm.placement": (config.norm.placement, "post"),
        "feed_forward.kind": (network.kind, "plain"),
        "feed_forward.bias": (network.bias, True),
        "attention.qkv_bias": (attention.qkv_bias, True),
        "attention.out_bias": (attention.out_bias, True),
        "num_types of at least 1": (config.num_types >= 1, True),
    }
    if config.head is not None and config.head.kind == "sequence":
        needed |= {"pooler": (config.pooler, True), "pooling": (config.pooling, "first")}
    return needed


def refuse(family: str, needed: Mapping[str, tuple[Any, Any]]) -> None:
    """Raise UserError naming the first field whose value the family cannot express."""
    for field, (value, expected) in needed.items():
        require(
            value == expected,
            f"transformers has no architecture for this model: {family} needs {field} = "
            f"{expected!r}, but it is {value!r}.",
        )


def architecture(prefix: str, config: EncoderConfig) -> str:
    """The class of a family that has the config's head."""
    return prefix + HEADS[config.head.kind if config.head else ""]


def class_fields(config: EncoderConfig) -> dict[str, Any]:
    """The fields that name the classes of a head."""
    head = config.head
    if head is None or head.kind == "masked":
        return {}
    labels = {str(index): f"LABEL_{index}" for index in range(head.num_classes)}
    return {"id2label": labels, "label2id": {name: int(i) for i, name in labels.items()}}


def classic_fields(family: str, config: EncoderConfig) -> dict[str, Any]:
    """The fields of `config.json` that BERT and its kin have in common."""
    return class_fields(config) | {
        "architectures": [architecture(family.capitalize(), config)],
        "model_type": family,
        "vocab_size": config.vocab_size,
        "hidden_size": config.width,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.attention.num_heads,
        "intermediate_size": config.feed_forward.width,
        "hidden_act": TO_HF_ACTIVATION[config.feed_forward.activation],
        "hidden_dropout_prob": config.feed_forward.dropout,
        "attention_probs_dropout_prob": config.attention.dropout,
        "max_position_embeddings": config.context_length,
        "type_vocab_size": config.num_types,
        "initializer_range": config.init_std,
        "layer_norm_eps": config.norm.eps,
    }


def read_head(data: Mapping[str, Any], prefix: str, dropout: float) -> HeadConfig | None:
    """The head of the class that `architectures` names. Raises UserError for one we have not."""
    named = (data.get("architectures") or [f"{prefix}Model"])[0]
    kinds = {prefix + ending: kind for kind, ending in HEADS.items()}
    kinds[f"{prefix}ForPreTraining"] = "masked"
    if named not in kinds:
        known = ", ".join(kinds)
        raise UserError(f"config.json: the architecture {named!r} is not one of {known}.")
    kind = kinds[named]
    if kind in ("", "masked"):
        return HeadConfig(kind="masked") if kind else None
    labels = data.get("id2label") or {"0": "", "1": ""}
    return HeadConfig(
        kind=kind,  # type: ignore[arg-type]
        num_classes=len(labels),
        dropout=dropout,
    )


def rename_all(state: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """A state dict with every module's name looked up. Raises UserError naming an unknown one."""
    renamed = {}
    for name, tensor in state.items():
        module, _, leaf = name.rpartition(".")
        require(module in names, f"The weights hold an unexpected tensor '{name}'.")
        renamed[f"{names[module]}.{leaf}"] = tensor
    return renamed


def inverse(names: Mapping[str, str]) -> dict[str, str]:
    """Theirs -> ours."""
    return {theirs: ours for ours, theirs in names.items()}
