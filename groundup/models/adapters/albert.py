"""ALBERT: BERT with narrow tables, and blocks that layers share. arXiv:1909.11942."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from groundup.config import require
from groundup.models.adapters.base import activation, only, whole_number
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


def to_hf_config(config: EncoderConfig) -> dict[str, Any]:
    """The `config.json` of the equal ALBERT. Raises UserError when there is none."""
    _check(config)
    return classic_fields("albert", config) | {
        "embedding_size": config.embedding_width,
        "num_hidden_groups": config.distinct_layers or config.num_layers,
        "inner_group_num": 1,
        "classifier_dropout_prob": config.head.dropout if config.head else 0.0,
        "pad_token_id": None,  # left out, it would be 0, and that token would not be trained
    }


def from_hf_config(data: Mapping[str, Any]) -> EncoderConfig:
    """Our config from a parsed `config.json`. Raises UserError naming what we cannot express."""
    only(data, "model_type", "albert")
    only(data, "inner_group_num", 1, None)
    only(data, "tie_word_embeddings", True, None)
    only(data, "quantization_config", None)
    only(data, "position_embedding_type", "absolute", None)
    width, dropout = whole_number(data, "hidden_size"), float(data.get("hidden_dropout_prob", 0.0))
    num_layers = whole_number(data, "num_hidden_layers")
    groups = whole_number({"num_hidden_groups": 1} | dict(data), "num_hidden_groups")
    heads, network = classic_branches(
        width,
        whole_number(data, "num_attention_heads"),
        activation=activation(data, "hidden_act", "gelu_new"),
        feed_forward_width=whole_number(data, "intermediate_size"),
        dropout=dropout,
        attention_dropout=float(data.get("attention_probs_dropout_prob", 0.0)),
    )
    head = read_head(data, "Albert", float(data.get("classifier_dropout_prob", 0.1)))
    return EncoderConfig(
        vocab_size=whole_number(data, "vocab_size"),
        width=width,
        num_layers=num_layers,
        distinct_layers=0 if groups == num_layers else groups,
        context_length=whole_number(data, "max_position_embeddings"),
        embedding_width=whole_number(data, "embedding_size"),
        attention=heads,
        feed_forward=network,
        num_types=int(data.get("type_vocab_size", 2)),
        pooler=head is None or head.kind == "sequence",
        head=head,
        embedding_dropout=dropout,
        init_std=float(data.get("initializer_range", 0.02)),
    )


def to_hf_state(config: EncoderConfig, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict under transformers' names; what is tied there is written once."""
    _check(config)
    return rename_all(state, _names(config))


def from_hf_state(config: EncoderConfig, theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """transformers' state dict under our names; the inverse of `to_hf_state`.

    Raises UserError naming a key this config's model does not have.
    """
    return rename_all(drop_redundant(config, theirs), inverse(_names(config)))


def drop_redundant(config: EncoderConfig, theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what files repeat or the config's head never reads, in the names of its class."""
    prefix = "albert." if config.head is not None else ""
    kept = {}
    for name, value in theirs.items():
        in_head = name.startswith(("predictions.", "classifier.", "sop_classifier."))
        if not in_head:
            name = prefix + name.removeprefix("albert.")
        repeated = name.startswith("predictions.decoder.") or name.endswith("position_ids")
        unread = in_head and (config.head is None or name.startswith("sop_classifier."))
        if not (repeated or unread or (".pooler." in f".{name}" and not config.pooler)):
            kept[name] = value
    return kept


_BODY = {
    "embedding": "embeddings.word_embeddings",
    "position_embedding": "embeddings.position_embeddings",
    "type_embedding": "embeddings.token_type_embeddings",
    "embedding_norm": "embeddings.LayerNorm",
    "widening": "encoder.embedding_hidden_mapping_in",
    "pooler": "pooler",
}
_BLOCK = {
    "attention.query": "attention.query",
    "attention.key": "attention.key",
    "attention.value": "attention.value",
    "attention.out": "attention.dense",
    "attention_norm": "attention.LayerNorm",
    "feed_forward.up": "ffn",
    "feed_forward.down": "ffn_output",
    "feed_forward_norm": "full_layer_layer_norm",
}
_HEADS = {
    "head": "predictions",  # its bias is the one parameter without a module of its own
    "head.transform.dense": "predictions.dense",
    "head.transform.norm": "predictions.LayerNorm",
    "head.classifier": "classifier",
}


def _names(config: EncoderConfig) -> dict[str, str]:
    """Our module names -> theirs."""
    prefix = "albert." if config.head is not None else ""
    names = {ours: prefix + theirs for ours, theirs in _BODY.items()}
    for block in range(config.distinct_layers or config.num_layers):
        group = f"{prefix}encoder.albert_layer_groups.{block}.albert_layers.0"
        names |= {f"blocks.{block}.{ours}": f"{group}.{theirs}" for ours, theirs in _BLOCK.items()}
    return names | _HEADS


def _check(config: EncoderConfig) -> None:
    needed = classic_encoder(config)
    needed["distinct_layers"] = (config.distinct_layers, config.distinct_layers)
    needed["embedding_width"] = (config.embedding_width, config.embedding_width)
    refuse("albert", needed)
    require(
        config.embedding_width is not None,
        "transformers has no architecture for this model: albert needs an embedding_width, but "
        "there is none.",
    )
