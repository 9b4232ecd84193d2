"""Llama (1 to 3, SmolLM2 and many others), and the frame of all families with its layout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from groundup.config import require
from groundup.models.adapters.base import (
    TO_HF_ACTIVATION,
    Adapter,
    activation,
    only,
    plain_decoder,
    whole_number,
)
from groundup.models.config import (
    AttentionConfig,
    DecoderConfig,
    FeedForwardConfig,
    NormConfig,
)
from groundup.models.huggingface_rope import read_rope, rope_fields
from groundup.nn.positions import change_layout


class LlamaAdapter(Adapter):
    """RMSNorm, RoPE, a gated feed-forward network; biases where `attention_bias` says so."""

    model_type = "llama"
    architecture = "LlamaForCausalLM"
    names: ClassVar[Mapping[str, str]] = {
        "embedding": "model.embed_tokens",
        "final_norm": "model.norm",
        "head": "lm_head",
        "blocks": "model.layers",
        "attention_norm": "input_layernorm",
        "attention.query": "self_attn.q_proj",
        "attention.key": "self_attn.k_proj",
        "attention.value": "self_attn.v_proj",
        "attention.out": "self_attn.o_proj",
        "attention.query_norm": "self_attn.q_norm",
        "attention.key_norm": "self_attn.k_norm",
        "feed_forward_norm": "post_attention_layernorm",
        "feed_forward.gate": "mlp.gate_proj",
        "feed_forward.up": "mlp.up_proj",
        "feed_forward.down": "mlp.down_proj",
    }

    def needs(self, config: DecoderConfig) -> dict[str, tuple[Any, Any]]:
        attention = config.attention
        return self.common_needs(config) | {
            "attention.out_bias": (attention.out_bias, attention.qkv_bias),
            "width % attention.num_heads": (config.width % attention.num_heads, 0),
        }

    def fields(self, config: DecoderConfig) -> dict[str, Any]:
        return self.common_fields(config) | {
            "attention_bias": config.attention.qkv_bias,
            "mlp_bias": config.feed_forward.bias,
        }

    def read(self, data: Mapping[str, Any]) -> DecoderConfig:
        bias = bool(data.get("attention_bias", False))
        return self.common_read(
            data, qkv_bias=bias, out_bias=bias, mlp_bias=bool(data.get("mlp_bias", False))
        )

    def common_needs(self, config: DecoderConfig) -> dict[str, tuple[Any, Any]]:
        """What every family of this layout asks for."""
        return {
            **plain_decoder(config),
            "positions.kind": (config.positions.kind, "rope"),
            "norm.kind": (config.norm.kind, "rmsnorm"),
            "feed_forward.kind": (config.feed_forward.kind, "gated"),
            "norm.placement": (config.norm.placement, "pre"),
        }

    def common_fields(self, config: DecoderConfig) -> dict[str, Any]:
        """The fields of `config.json` that every family of this layout has."""
        attention = config.attention
        return {
            "hidden_size": config.width,
            "intermediate_size": config.feed_forward.width,
            "num_hidden_layers": config.num_layers,
            "num_attention_heads": attention.num_heads,
            "num_key_value_heads": attention.num_kv_heads,
            "head_dim": attention.head_width,
            "hidden_act": TO_HF_ACTIVATION[config.feed_forward.activation],
            "max_position_embeddings": config.context_length,
            "rms_norm_eps": config.norm.eps,
            "attention_dropout": attention.dropout,
        } | rope_fields(config.positions, attention.head_width)

    def common_read(
        self,
        data: Mapping[str, Any],
        *,
        qkv_bias: bool = False,
        out_bias: bool = False,
        mlp_bias: bool = False,
        qk_norm: bool = False,
    ) -> DecoderConfig:
        """The config in those fields."""
        only(data, "use_sliding_window", False, None)
        kinds = set(data.get("layer_types") or ()) - {"full_attention"}
        require(
            not kinds, f"config.json: layer_types holds {sorted(kinds)}, which is not supported."
        )
        width, num_heads = (whole_number(data, f) for f in ("hidden_size", "num_attention_heads"))
        return DecoderConfig(
            vocab_size=whole_number(data, "vocab_size"),
            width=width,
            num_layers=whole_number(data, "num_hidden_layers"),
            context_length=whole_number(data, "max_position_embeddings"),
            attention=AttentionConfig(
                num_heads=num_heads,
                num_kv_heads=data.get("num_key_value_heads") or num_heads,
                head_width=data.get("head_dim") or width // num_heads,
                qkv_bias=qkv_bias,
                out_bias=out_bias,
                qk_norm=qk_norm,
                dropout=float(data.get("attention_dropout") or 0.0),
            ),
            positions=read_rope(data),
            feed_forward=FeedForwardConfig(
                kind="gated",
                activation=activation(data, "hidden_act", "silu"),
                width=whole_number(data, "intermediate_size"),
                bias=mlp_bias,
            ),
            norm=NormConfig(kind="rmsnorm", eps=float(data.get("rms_norm_eps", 1e-6))),
            tie_embeddings=bool(data.get("tie_word_embeddings", False)),
            init_std=float(data.get("initializer_range", 0.02)),
        )

    def to_state(self, config: DecoderConfig, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return super().to_state(config, _relaid(config, state, interleaved=False))

    def from_state(self, config: DecoderConfig, theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return _relaid(config, super().from_state(config, theirs), interleaved=True)


def _relaid(
    config: DecoderConfig, state: Mapping[str, Tensor], *, interleaved: bool
) -> dict[str, Tensor]:
    """Our state dict with RoPE's channels as asked for; transformers knows the half-split alone."""
    if config.positions.layout == "half":
        return dict(state)
    width = config.attention.head_width
    turned = (".query.", ".key.", ".query_norm.", ".key_norm.")
    return {
        name: change_layout(tensor, width, interleaved=interleaved)
        if any(part in name for part in turned)
        else tensor
        for name, tensor in state.items()
    }
