"""Gemma 1 to 3 (text): Llama's layout with scaled embeddings, GeGLU; from 2 on windows by turns.

arXiv:2403.08295, arXiv:2408.00118, arXiv:2503.19786.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from torch import Tensor

from groundup.config import require
from groundup.models.adapters.base import (
    number,
    one_window,
    only,
    read_windows,
    whole_number,
    window_fields,
)
from groundup.models.adapters.llama import LlamaAdapter
from groundup.models.config import DecoderConfig
from groundup.models.huggingface_rope import read_rope_by_layer, rope_fields_by_layer


class GemmaAdapter(LlamaAdapter):
    """Its norms multiply by 1 + w where ours multiply by w; the weights are shifted on the way."""

    model_type = "gemma"
    architecture = "GemmaForCausalLM"

    def needs(self, config: DecoderConfig) -> dict[str, tuple[Any, Any]]:
        scale = math.sqrt(config.width)
        return self.common_needs(config) | {
            "embedding_scale": (config.embedding_scale, scale),
            "attention.out_bias": (config.attention.out_bias, config.attention.qkv_bias),
            "feed_forward.bias": (config.feed_forward.bias, False),
        }

    def fields(self, config: DecoderConfig) -> dict[str, Any]:
        # Left out, pad_token_id would be 0, and that token's embedding would not be trained.
        own = {"attention_bias": config.attention.qkv_bias, "pad_token_id": None}
        return self.common_fields(config) | own

    def read(self, data: Mapping[str, Any]) -> DecoderConfig:
        bias = bool(data.get("attention_bias", False))
        named = data.get("hidden_activation") or data.get("hidden_act") or "gelu_pytorch_tanh"
        tied = data.get("tie_word_embeddings", True)
        data = {**data, "hidden_act": named, "tie_word_embeddings": tied}
        config = self.common_read(data, qkv_bias=bias, out_bias=bias)
        return replace(config, embedding_scale=math.sqrt(config.width))

    def to_state(self, config: DecoderConfig, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return _shifted(super().to_state(config, state), -1.0)

    def from_state(self, config: DecoderConfig, theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return super().from_state(config, _shifted(theirs, 1.0))


class Gemma2Adapter(GemmaAdapter):
    """Norms on both sides of a branch, caps on scores and logits, a window in some layers."""

    model_type = "gemma2"
    architecture = "Gemma2ForCausalLM"
    names: ClassVar[Mapping[str, str]] = {
        **LlamaAdapter.names,
        "attention_out_norm": "post_attention_layernorm",
        "feed_forward_norm": "pre_feedforward_layernorm",
        "feed_forward_out_norm": "post_feedforward_layernorm",
    }
    pattern: ClassVar[int] = 2
    """Unless the file says which layers see a window, every so many-th one sees all."""
    caps: ClassVar[tuple[float | None, float | None]] = (50.0, 30.0)
    """On scores and on logits, unless the file says."""

    def needs(self, config: DecoderConfig) -> dict[str, tuple[Any, Any]]:
        attention = config.attention
        return super().needs(config) | {
            "norm.placement": (config.norm.placement, "sandwich"),
            "attention.windows": (attention.windows, one_window(attention.windows)),
            "attention.soft_cap": (attention.soft_cap, attention.soft_cap),
            "attention.scale": (attention.scale, _scale(_scalar(config), attention.head_width)),
            "logit_soft_cap": (config.logit_soft_cap, config.logit_soft_cap),
            "width % attention.num_heads": (config.width % attention.num_heads, 0),
        }

    def fields(self, config: DecoderConfig) -> dict[str, Any]:
        attention = config.attention
        fields = super().fields(config)
        own = {
            "hidden_activation": fields["hidden_act"],
            "query_pre_attn_scalar": _scalar(config),
            "attn_logit_softcapping": attention.soft_cap,
            "final_logit_softcapping": config.logit_soft_cap,
            "sliding_window": max(attention.windows, default=None),
        }
        return fields | own | window_fields(attention, config.num_layers)

    def read(self, data: Mapping[str, Any]) -> DecoderConfig:
        only(data, "use_bidirectional_attention", False, None)
        config = super().read({**data, "layer_types": None})
        scores, logits = self.caps
        every = whole_number({"sliding_window_pattern": self.pattern, **data}, _PATTERN)
        types = [
            "sliding_attention" if layer % max(every, 1) else "full_attention"
            for layer in range(1, config.num_layers + 1)
        ]
        scalar = whole_number({"query_pre_attn_scalar": 256, **data}, "query_pre_attn_scalar")
        require(scalar > 0, f"config.json: query_pre_attn_scalar should be above 0, not {scalar}.")
        heads = replace(
            config.attention,
            windows=read_windows(data, config.num_layers, data.get("sliding_window"), types),
            soft_cap=number(data, "attn_logit_softcapping", scores),
            scale=_scale(scalar, config.attention.head_width),
        )
        return replace(
            config,
            attention=heads,
            norm=replace(config.norm, placement="sandwich"),
            logit_soft_cap=number(data, "final_logit_softcapping", logits),
        )


class Gemma3Adapter(Gemma2Adapter):
    """QK-norm, no caps, and another theta in layers that see a window. Its text half alone."""

    model_type = "gemma3_text"
    architecture = "Gemma3ForCausalLM"
    pattern = 6
    caps = (None, None)

    def needs(self, config: DecoderConfig) -> dict[str, tuple[Any, Any]]:
        theta = config.positions.window_theta
        return super().needs(config) | {
            "attention.qk_norm": (config.attention.qk_norm, True),
            # transformers has a field for it there too, which its attention never reads.
            "attention.soft_cap": (config.attention.soft_cap, None),
            "positions.window_theta": (theta, theta),
        }

    def fields(self, config: DecoderConfig) -> dict[str, Any]:
        heads, positions = config.attention, config.positions
        spelled_before = {"rope_local_base_freq": positions.of_windows().theta}
        both = rope_fields_by_layer(positions, heads.head_width)
        return super().fields(config) | spelled_before | both

    def read(self, data: Mapping[str, Any]) -> DecoderConfig:
        only(data, "attn_logit_softcapping", None)
        config = super().read({**data, "rope_parameters": None})
        theta, local = data.get("rope_theta", 1e6), data.get("rope_local_base_freq", 1e4)
        windows = bool(config.attention.windows)
        positions = read_rope_by_layer(data, theta, local, windows=windows)
        heads = replace(config.attention, qk_norm=True)
        return replace(config, attention=heads, positions=positions)


_PATTERN = "sliding_window_pattern"  # in files from before transformers 5


def _scalar(config: DecoderConfig) -> int:
    """Its name for what scores are divided by, squared."""
    scale = config.attention.scale
    return config.attention.head_width if scale is None else round(scale**-2)


def _scale(scalar: int, head_width: int) -> float | None:
    """The inverse; None where it is what every other family divides by."""
    return None if scalar == head_width else scalar**-0.5


def _shifted(theirs: Mapping[str, Tensor], by: float) -> dict[str, Tensor]:
    """Their state dict with all norms' weights moved. The names of these end in "norm"."""
    return {
        name: tensor + by if name.endswith("norm.weight") else tensor
        for name, tensor in theirs.items()
    }
