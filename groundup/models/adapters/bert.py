"""BERT: the encoder, bare or with one of its heads, tensor for tensor.

One name table serves the bare model and its three heads, which transformers has a class for each.
A field we cannot express is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from groundup.config import UserError, require
from groundup.models.adapters.base import (
    TO_HF_ACTIVATION,
    activation,
    plain_attention,
    whole_number,
)
from groundup.models.encoder_config import EncoderConfig, HeadConfig
from groundup.nn.config import AttentionConfig, FeedForwardConfig, NormConfig, PositionsConfig

ARCHITECTURES = {
    "": "BertModel",
    "masked": "BertForMaskedLM",
    "sequence": "BertForSequenceClassification",
    "token": "BertForTokenClassification",
}


def to_hf_config(config: EncoderConfig) -> dict[str, Any]:
    """The `config.json` of the equal BERT. Raises UserError when there is none."""
    _check(config)
    head = config.head
    fields = {
        "architectures": [ARCHITECTURES[head.kind if head else ""]],
        "model_type": "bert",
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
    if head is not None and head.kind != "masked":
        labels = {str(index): f"LABEL_{index}" for index in range(head.num_classes)}
        fields["id2label"] = labels
        fields["label2id"] = {label: int(index) for index, label in labels.items()}
        fields["classifier_dropout"] = head.dropout
    return fields


def from_hf_config(data: Mapping[str, Any], *, pooler: bool | None = None) -> EncoderConfig:
    """Our config from a parsed `config.json`. Raises UserError naming what we cannot express.

    `pooler` says whether the weights have one; unless given, it is what the architecture implies.
    """
    require(
        data.get("model_type") == "bert",
        f"Not a BERT: config.json says model_type = {data.get('model_type')!r}.",
    )
    for field, expected in (
        ("is_decoder", False),
        ("add_cross_attention", False),
        ("position_embedding_type", "absolute"),
        ("tie_word_embeddings", True),
        ("quantization_config", None),
    ):
        value = data.get(field, expected)
        require(
            value == expected,
            f"config.json: {field} = {value!r} is not supported (only {expected!r} is).",
        )
    width, num_heads = whole_number(data, "hidden_size"), whole_number(data, "num_attention_heads")
    require(width % num_heads == 0, f"config.json: {num_heads} heads do not divide {width}.")
    dropout = float(data.get("hidden_dropout_prob", 0.1))
    head = _head(data, dropout)
    return EncoderConfig(
        vocab_size=whole_number(data, "vocab_size"),
        width=width,
        num_layers=whole_number(data, "num_hidden_layers"),
        context_length=whole_number(data, "max_position_embeddings"),
        attention=AttentionConfig(
            num_heads=num_heads,
            num_kv_heads=num_heads,
            head_width=width // num_heads,
            qkv_bias=True,
            out_bias=True,
            dropout=float(data.get("attention_probs_dropout_prob", 0.1)),
            out_dropout=dropout,
        ),
        feed_forward=FeedForwardConfig(
            kind="plain",
            activation=activation(data, "hidden_act", "gelu"),
            width=whole_number(data, "intermediate_size"),
            bias=True,
            dropout=dropout,
        ),
        positions=PositionsConfig(kind="learned"),
        norm=NormConfig(
            kind="layernorm", eps=float(data.get("layer_norm_eps", 1e-12)), placement="post"
        ),
        num_types=int(data.get("type_vocab_size", 2)),
        pooler=(head is None or head.kind == "sequence") if pooler is None else pooler,
        head=head,
        embedding_dropout=dropout,
        init_std=float(data.get("initializer_range", 0.02)),
    )


def to_hf_state(config: EncoderConfig, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict under transformers' names; what is tied there is written once."""
    _check(config)
    names = _names(config)
    return {_rename(name, names): tensor for name, tensor in state.items()}


def from_hf_state(config: EncoderConfig, theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """transformers' state dict under our names; the inverse of `to_hf_state`.

    Raises UserError naming a key this config's model does not have.
    """
    names = {theirs: ours for ours, theirs in _names(config).items()}
    return {_rename(name, names): value for name, value in drop_redundant(config, theirs).items()}


def drop_redundant(config: EncoderConfig, theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what files repeat or the config's head never reads, in the names of its class."""
    prefix = "bert." if config.head is not None else ""
    repeated = ("cls.predictions.decoder.weight", "cls.predictions.decoder.bias")
    unread = ("cls.predictions.", "cls.seq_relationship.", "classifier.")
    kept = {}
    for name, value in theirs.items():
        name = name.replace("LayerNorm.gamma", "LayerNorm.weight")  # files from before 2019
        name = name.replace("LayerNorm.beta", "LayerNorm.bias")
        in_head = name.startswith(unread)
        if not in_head:
            name = prefix + name.removeprefix("bert.")
        if name.endswith("embeddings.position_ids") or name in repeated:
            continue
        if in_head and (config.head is None or name.startswith("cls.seq_relationship.")):
            continue
        if ".pooler." in f".{name}" and not config.pooler:
            continue
        kept[name] = value
    return kept


_BODY = {
    "embedding": "embeddings.word_embeddings",
    "position_embedding": "embeddings.position_embeddings",
    "type_embedding": "embeddings.token_type_embeddings",
    "embedding_norm": "embeddings.LayerNorm",
    "pooler": "pooler.dense",
    "attention.query": "attention.self.query",
    "attention.key": "attention.self.key",
    "attention.value": "attention.self.value",
    "attention.out": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "feed_forward.up": "intermediate.dense",
    "feed_forward.down": "output.dense",
    "feed_forward_norm": "output.LayerNorm",
}
_HEADS = {
    "head": "cls.predictions",  # its bias is the one parameter without a module of its own
    "head.dense": "cls.predictions.transform.dense",
    "head.norm": "cls.predictions.transform.LayerNorm",
    "head.classifier": "classifier",
}
_BLOCK_MODULES = ("attention", "feed_forward")


def _names(config: EncoderConfig) -> dict[str, str]:
    """Our module names -> theirs; of a block's modules with `blocks.N.` and `encoder.layer.N.`."""
    prefix = "bert." if config.head is not None else ""
    names = dict(_HEADS)
    for ours, theirs in _BODY.items():
        if not ours.startswith(_BLOCK_MODULES):
            names[ours] = prefix + theirs
            continue
        for layer in range(config.num_layers):
            names[f"blocks.{layer}.{ours}"] = f"{prefix}encoder.layer.{layer}.{theirs}"
    return names


def _rename(name: str, names: Mapping[str, str]) -> str:
    module, _, leaf = name.rpartition(".")
    require(module in names, f"The weights hold an unexpected tensor '{name}'.")
    return f"{names[module]}.{leaf}"


def _head(data: Mapping[str, Any], dropout: float) -> HeadConfig | None:
    architecture = (data.get("architectures") or ["BertModel"])[0]
    kinds = {theirs: ours for ours, theirs in ARCHITECTURES.items()} | {
        "BertForPreTraining": "masked"
    }
    if architecture not in kinds:
        known = ", ".join(kinds)
        raise UserError(f"config.json: the architecture {architecture!r} is not one of {known}.")
    kind = kinds[architecture]
    if kind in ("", "masked"):
        return HeadConfig(kind="masked") if kind else None
    labels = data.get("id2label") or {"0": "", "1": ""}
    own = data.get("classifier_dropout")
    return HeadConfig(
        kind=kind,  # type: ignore[arg-type]
        num_classes=len(labels),
        dropout=dropout if own is None else float(own),
    )


def _check(config: EncoderConfig) -> None:
    attention, network = config.attention, config.feed_forward
    needed: dict[str, tuple[Any, Any]] = {
        **plain_attention(config),
        "positions.kind": (config.positions.kind, "learned"),
        "norm.kind": (config.norm.kind, "layernorm"),
        "norm.placement": (config.norm.placement, "post"),
        "norm.scale": (config.norm.scale, True),
        "norm.bias": (config.norm.bias, True),
        "embedding_norm": (config.embedding_norm, True),
        "feed_forward.kind": (network.kind, "plain"),
        "feed_forward.bias": (network.bias, True),
        "attention.qkv_bias": (attention.qkv_bias, True),
        "attention.out_bias": (attention.out_bias, True),
        "attention.qk_norm": (attention.qk_norm, False),
        "attention.num_kv_heads": (attention.num_kv_heads, attention.num_heads),
        "width": (config.width, attention.num_heads * attention.head_width),
    }
    if config.head is not None and config.head.kind == "sequence":
        needed |= {"pooler": (config.pooler, True), "pooling": (config.pooling, "first")}
    require(config.num_types >= 1, "BERT needs num_types of at least 1, but it is 0.")
    for field, (value, expected) in needed.items():
        require(
            value == expected,
            f"transformers has no architecture for this model: bert needs {field} = "
            f"{expected!r}, but it is {value!r}.",
        )
