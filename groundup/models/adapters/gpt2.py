"""GPT-2: LayerNorm, learned positions, biases, and matrices stored the other way round."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from groundup.models.adapters.base import (
    TO_HF_ACTIVATION,
    Adapter,
    activation,
    only,
    plain_decoder,
    rename,
    whole_number,
)
from groundup.models.classic import classic_branches
from groundup.models.config import DecoderConfig, NormConfig, PositionsConfig


class GPT2Adapter(Adapter):
    """Query, key and value are one matrix there; Conv1D keeps it as (in, out)."""

    model_type = "gpt2"
    architecture = "GPT2LMHeadModel"
    names: ClassVar[Mapping[str, str]] = {
        "embedding": "transformer.wte",
        "position_embedding": "transformer.wpe",
        "final_norm": "transformer.ln_f",
        "head": "lm_head",
        "blocks": "transformer.h",
        "attention_norm": "ln_1",
        "attention.fused": "attn.c_attn",
        "attention.out": "attn.c_proj",
        "feed_forward_norm": "ln_2",
        "feed_forward.up": "mlp.c_fc",
        "feed_forward.down": "mlp.c_proj",
    }

    def needs(self, config: DecoderConfig) -> dict[str, tuple[Any, Any]]:
        attention = config.attention
        heads_width = attention.num_heads * attention.head_width
        return {
            **plain_decoder(config),
            "norm.kind": (config.norm.kind, "layernorm"),
            "feed_forward.kind": (config.feed_forward.kind, "plain"),
            "feed_forward.bias": (config.feed_forward.bias, True),
            "attention.qkv_bias": (attention.qkv_bias, True),
            "attention.out_bias": (attention.out_bias, True),
            "attention.qk_norm": (attention.qk_norm, False),
            "attention.num_kv_heads": (attention.num_kv_heads, attention.num_heads),
            "attention.num_heads * head_width": (heads_width, config.width),
            "norm.placement": (config.norm.placement, "pre"),
        }

    def fields(self, config: DecoderConfig) -> dict[str, Any]:
        return {
            "n_embd": config.width,
            "n_inner": config.feed_forward.width,
            "n_layer": config.num_layers,
            "n_head": config.attention.num_heads,
            "n_positions": config.context_length,
            "activation_function": TO_HF_ACTIVATION[config.feed_forward.activation],
            "layer_norm_epsilon": config.norm.eps,
            "attn_pdrop": config.attention.dropout,
            "resid_pdrop": config.attention.out_dropout,
            "embd_pdrop": config.embedding_dropout,
        }

    def read(self, data: Mapping[str, Any]) -> DecoderConfig:
        only(data, "scale_attn_weights", True, None)
        only(data, "scale_attn_by_inverse_layer_idx", False, None)
        only(data, "add_cross_attention", False, None)
        width, dropout = whole_number(data, "n_embd"), float(data.get("resid_pdrop", 0.1))
        heads, network = classic_branches(
            width,
            whole_number(data, "n_head"),
            activation=activation(data, "activation_function", "gelu_new"),
            feed_forward_width=data.get("n_inner"),
            dropout=dropout,
            attention_dropout=float(data.get("attn_pdrop", 0.1)),
        )
        return DecoderConfig(
            vocab_size=whole_number(data, "vocab_size"),
            width=width,
            num_layers=whole_number(data, "n_layer"),
            context_length=whole_number(data, "n_positions"),
            attention=heads,
            positions=PositionsConfig(kind="learned"),
            feed_forward=network,
            norm=NormConfig(kind="layernorm", eps=float(data.get("layer_norm_epsilon", 1e-5))),
            tie_embeddings=bool(data.get("tie_word_embeddings", True)),
            embedding_dropout=float(data.get("embd_pdrop", 0.1)),
            init_std=float(data.get("initializer_range", 0.02)),
        )

    def to_state(self, config: DecoderConfig, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        theirs: dict[str, Tensor] = {}
        for name, tensor in state.items():
            if ".attention.query." in name:  # one Conv1D computes query, key and value there
                parts = [state[name.replace("query", part)] for part in ("query", "key", "value")]
                name, tensor = name.replace("query", "fused"), torch.cat(parts)
            elif ".attention.key." in name or ".attention.value." in name:
                continue
            theirs[rename(name, self.names)] = _transpose_conv1d(name, tensor)
        return theirs

    def from_state(self, config: DecoderConfig, theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        state: dict[str, Tensor] = {}
        for name, stored in super().from_state(config, theirs).items():
            tensor = _transpose_conv1d(name, stored)
            if ".attention.fused." in name:
                for part, piece in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                    state[name.replace("fused", part)] = piece
            else:
                state[name] = tensor
        return state

    def full_name(self, name: str) -> str:
        return name if name.startswith(("transformer.", "lm_head.")) else f"transformer.{name}"


def _transpose_conv1d(our_name: str, tensor: Tensor) -> Tensor:
    """GPT-2 in transformers stores its blocks' matrices as (in, out), the transpose of Linear."""
    is_matrix = our_name.startswith("blocks.") and tensor.ndim == 2
    return tensor.t().contiguous() if is_matrix else tensor
