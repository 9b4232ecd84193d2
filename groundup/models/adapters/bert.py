"""BERT: the encoder, bare or with one of its heads, tensor for tensor.

One name table serves the bare model and its three heads, which transformers has a class for each.
A field we cannot express is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from groundup.config import require
from groundup.models.adapters.base import activation, whole_number
from groundup.models.adapters.encoders import (
    classic_encoder,
    classic_fields,
    inverse,
    read_head,
    refuse,
    rename_all,
)
from groundup.models.classic import classic_branches
from groundup.models.encoder_config import EncoderConfig
from groundup.nn.config import NormConfig, PositionsConfig


def to_hf_config(config: EncoderConfig) -> dict[str, Any]:
    """The `config.json` of the equal BERT. Raises UserError when there is none."""
    refuse("bert", classic_encoder(config))
    fields = classic_fields("bert", config)
    if config.head is not None and config.head.kind != "masked":
        fields["classifier_dropout"] = config.head.dropout
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
    width, dropout = whole_number(data, "hidden_size"), float(data.get("hidden_dropout_prob", 0.1))
    own = data.get("classifier_dropout")
    head = read_head(data, "Bert", dropout if own is None else float(own))
    heads, network = classic_branches(
        width,
        whole_number(data, "num_attention_heads"),
        activation=activation(data, "hidden_act", "gelu"),
        feed_forward_width=whole_number(data, "intermediate_size"),
        dropout=dropout,
        attention_dropout=float(data.get("attention_probs_dropout_prob", 0.1)),
    )
    return EncoderConfig(
        vocab_size=whole_number(data, "vocab_size"),
        width=width,
        num_layers=whole_number(data, "num_hidden_layers"),
        context_length=whole_number(data, "max_position_embeddings"),
        attention=heads,
        feed_forward=network,
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
    refuse("bert", classic_encoder(config))
    return rename_all(state, _names(config))


def from_hf_state(config: EncoderConfig, theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """transformers' state dict under our names; the inverse of `to_hf_state`.

    Raises UserError naming a key this config's model does not have.
    """
    return rename_all(drop_redundant(config, theirs), inverse(_names(config)))


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
    "head.transform.dense": "cls.predictions.transform.dense",
    "head.transform.norm": "cls.predictions.transform.LayerNorm",
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
