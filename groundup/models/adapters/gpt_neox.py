"""GPT-NeoX and Pythia: both branches side by side, RoPE on part of a head. arXiv:2204.06745."""

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
from groundup.models.config import DecoderConfig, NormConfig
from groundup.models.huggingface_rope import read_rope, rope_fields


class GPTNeoXAdapter(Adapter):
    """Query, key and value are one matrix there, in which each head has its three together."""

    model_type = "gpt_neox"
    architecture = "GPTNeoXForCausalLM"
    names: ClassVar[Mapping[str, str]] = {
        "embedding": "gpt_neox.embed_in",
        "final_norm": "gpt_neox.final_layer_norm",
        "head": "lm_head",
        "blocks": "gpt_neox.layers",
        "attention_norm": "input_layernorm",
        "attention.fused": "attention.query_key_value",
        "attention.out": "attention.dense",
        "feed_forward_norm": "post_attention_layernorm",
        "feed_forward.up": "mlp.dense_h_to_4h",
        "feed_forward.down": "mlp.dense_4h_to_h",
    }

    def needs(self, config: DecoderConfig) -> dict[str, tuple[Any, Any]]:
        attention, placement = config.attention, config.norm.placement
        heads_width = attention.num_heads * attention.head_width
        return classic_rotary_needs(config) | {
            "norm.placement": (placement, placement if placement == "pre" else "parallel"),
            "attention.num_kv_heads": (attention.num_kv_heads, attention.num_heads),
            "attention.num_heads * head_width": (heads_width, config.width),
        }

    def fields(self, config: DecoderConfig) -> dict[str, Any]:
        heads, positions = config.attention, config.positions
        return rope_fields(positions, heads.head_width) | {
            "rotary_emb_base": positions.theta,
            "rotary_pct": positions.fraction,
            "hidden_size": config.width,
            "intermediate_size": config.feed_forward.width,
            "num_hidden_layers": config.num_layers,
            "num_attention_heads": heads.num_heads,
            "max_position_embeddings": config.context_length,
            "hidden_act": TO_HF_ACTIVATION[config.feed_forward.activation],
            "layer_norm_eps": config.norm.eps,
            "attention_bias": True,
            "use_parallel_residual": config.norm.placement == "parallel",
            "attention_dropout": heads.dropout,
            "hidden_dropout": heads.out_dropout,
        }

    def read(self, data: Mapping[str, Any]) -> DecoderConfig:
        only(data, "attention_bias", True, None)
        width, dropout = whole_number(data, "hidden_size"), float(data.get("hidden_dropout") or 0.0)
        heads, network = classic_branches(
            width,
            whole_number(data, "num_attention_heads"),
            activation=activation(data, "hidden_act", "gelu"),
            feed_forward_width=whole_number(data, "intermediate_size"),
            dropout=dropout,
            attention_dropout=float(data.get("attention_dropout") or 0.0),
        )
        parallel = data.get("use_parallel_residual", True)
        spelled = {
            "rope_theta": data.get("rotary_emb_base", 10_000.0),
            "partial_rotary_factor": data.get("rotary_pct", 0.25),
        }
        return DecoderConfig(
            vocab_size=whole_number(data, "vocab_size"),
            width=width,
            num_layers=whole_number(data, "num_hidden_layers"),
            context_length=whole_number(data, "max_position_embeddings"),
            attention=heads,
            positions=read_rope(spelled | dict(data), partial=True),
            feed_forward=network,
            norm=NormConfig(
                kind="layernorm",
                eps=float(data.get("layer_norm_eps", 1e-5)),
                placement="parallel" if parallel else "pre",
            ),
            tie_embeddings=bool(data.get("tie_word_embeddings", False)),
            embedding_dropout=dropout,
            init_std=float(data.get("initializer_range", 0.02)),
        )

    def to_state(self, config: DecoderConfig, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        theirs: dict[str, Tensor] = {}
        heads = (config.attention.num_heads, config.attention.head_width)
        for name, tensor in state.items():
            if ".attention.query." in name:
                parts = [state[name.replace("query", part)] for part in _PARTS]
                stacked = torch.stack([part.unflatten(0, heads) for part in parts], dim=1)
                name, tensor = name.replace("query", "fused"), stacked.flatten(0, 2)
            elif ".attention.key." in name or ".attention.value." in name:
                continue
            theirs[rename(name, self.names)] = tensor
        return theirs

    def from_state(self, config: DecoderConfig, theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        state: dict[str, Tensor] = {}
        shape = (config.attention.num_heads, 3, config.attention.head_width)
        for name, tensor in super().from_state(config, theirs).items():
            if ".attention.fused." in name:
                pieces = tensor.unflatten(0, shape).unbind(1)
                for part, piece in zip(_PARTS, pieces, strict=True):
                    state[name.replace("fused", part)] = piece.flatten(0, 1).contiguous()
            else:
                state[name] = tensor
        return state

    def full_name(self, name: str) -> str:
        return "lm_head.weight" if name == "embed_out.weight" else name  # files before 2026


def classic_rotary_needs(config: DecoderConfig) -> dict[str, tuple[Any, Any]]:
    """What families ask for that are GPT-2's blocks with RoPE."""
    attention, network, positions = config.attention, config.feed_forward, config.positions
    return plain_decoder(config) | {
        "positions.kind": (positions.kind, "rope"),
        "positions.layout": (positions.layout, "half"),
        "positions.fraction": (positions.fraction, positions.fraction),
        "norm.kind": (config.norm.kind, "layernorm"),
        "feed_forward.kind": (network.kind, "plain"),
        "feed_forward.bias": (network.bias, True),
        "feed_forward.experts": (network.experts, None),
        "attention.qkv_bias": (attention.qkv_bias, True),
        "attention.out_bias": (attention.out_bias, True),
        "attention.qk_norm": (attention.qk_norm, False),
    }


_PARTS = ("query", "key", "value")
