"""Phi (1 to 2): both branches side by side behind one norm, RoPE on part of a head, a head's bias.

Li et al. 2023, arXiv:2309.05463.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from torch import Tensor

from groundup.models.adapters.base import (
    TO_HF_ACTIVATION,
    Adapter,
    activation,
    only,
    whole_number,
)
from groundup.models.adapters.gpt_neox import classic_rotary_needs
from groundup.models.classic import classic_branches
from groundup.models.config import DecoderConfig, NormConfig
from groundup.models.huggingface_rope import read_rope, rope_fields


class PhiAdapter(Adapter):
    """Beside its weight, the head has a bias, which is a parameter of the model's own here."""

    model_type = "phi"
    architecture = "PhiForCausalLM"
    names: ClassVar[Mapping[str, str]] = {
        "embedding": "model.embed_tokens",
        "final_norm": "model.final_layernorm",
        "head": "lm_head",
        "blocks": "model.layers",
        "attention_norm": "input_layernorm",
        "attention.query": "self_attn.q_proj",
        "attention.key": "self_attn.k_proj",
        "attention.value": "self_attn.v_proj",
        "attention.out": "self_attn.dense",
        "feed_forward.up": "mlp.fc1",
        "feed_forward.down": "mlp.fc2",
    }

    def needs(self, config: DecoderConfig) -> dict[str, tuple[Any, Any]]:
        return classic_rotary_needs(config) | {
            "norm.placement": (config.norm.placement, "parallel_shared"),
            "head_bias": (config.head_bias, True),
        }

    def fields(self, config: DecoderConfig) -> dict[str, Any]:
        heads, positions = config.attention, config.positions
        return rope_fields(positions, heads.head_width) | {
            "partial_rotary_factor": positions.fraction,
            "hidden_size": config.width,
            "intermediate_size": config.feed_forward.width,
            "num_hidden_layers": config.num_layers,
            "num_attention_heads": heads.num_heads,
            "num_key_value_heads": heads.num_kv_heads,
            "head_dim": heads.head_width,
            "max_position_embeddings": config.context_length,
            "hidden_act": TO_HF_ACTIVATION[config.feed_forward.activation],
            "layer_norm_eps": config.norm.eps,
            "qk_layernorm": False,
            "attention_dropout": heads.dropout,
            "resid_pdrop": heads.out_dropout,
            "embd_pdrop": config.embedding_dropout,
        }

    def read(self, data: Mapping[str, Any]) -> DecoderConfig:
        only(data, "qk_layernorm", False, None)
        width, num_heads = (whole_number(data, f) for f in ("hidden_size", "num_attention_heads"))
        heads, network = classic_branches(
            width,
            num_heads,
            activation=activation(data, "hidden_act", "gelu_new"),
            feed_forward_width=whole_number(data, "intermediate_size"),
            dropout=float(data.get("resid_pdrop") or 0.0),
            attention_dropout=float(data.get("attention_dropout") or 0.0),
        )
        heads = replace(
            heads,
            num_kv_heads=data.get("num_key_value_heads") or num_heads,
            head_width=data.get("head_dim") or heads.head_width,
        )
        return DecoderConfig(
            vocab_size=whole_number(data, "vocab_size"),
            width=width,
            num_layers=whole_number(data, "num_hidden_layers"),
            context_length=whole_number(data, "max_position_embeddings"),
            attention=heads,
            positions=read_rope({"partial_rotary_factor": 0.5} | dict(data), partial=True),
            feed_forward=network,
            norm=NormConfig(
                kind="layernorm",
                eps=float(data.get("layer_norm_eps", 1e-5)),
                placement="parallel_shared",
            ),
            tie_embeddings=bool(data.get("tie_word_embeddings", False)),
            head_bias=True,
            embedding_dropout=float(data.get("embd_pdrop") or 0.0),
            init_std=float(data.get("initializer_range", 0.02)),
        )

    def to_state(self, config: DecoderConfig, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return super().to_state(config, _renamed(state, "head_bias", "head.bias"))

    def from_state(self, config: DecoderConfig, theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return _renamed(super().from_state(config, theirs), "head.bias", "head_bias")


def _renamed(state: Mapping[str, Tensor], old: str, new: str) -> dict[str, Tensor]:
    return {new if name == old else name: tensor for name, tensor in state.items()}
