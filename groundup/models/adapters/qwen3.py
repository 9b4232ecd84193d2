"""Qwen3: Llama's layout with QK-norm. Yang et al. 2025, arXiv:2505.09388."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from groundup.models.adapters.llama import LlamaAdapter
from groundup.models.config import DecoderConfig


class Qwen3Adapter(LlamaAdapter):
    """Our own default shape. No biases in the feed-forward network."""

    model_type = "qwen3"
    architecture = "Qwen3ForCausalLM"

    def needs(self, config: DecoderConfig) -> dict[str, tuple[Any, Any]]:
        return self.common_needs(config) | {
            "attention.qk_norm": (config.attention.qk_norm, True),
            "attention.out_bias": (config.attention.out_bias, config.attention.qkv_bias),
            "feed_forward.bias": (config.feed_forward.bias, False),
        }

    def fields(self, config: DecoderConfig) -> dict[str, Any]:
        return self.common_fields(config) | {
            "attention_bias": config.attention.qkv_bias,
            "use_sliding_window": False,
        }

    def read(self, data: Mapping[str, Any]) -> DecoderConfig:
        bias = bool(data.get("attention_bias", False))
        return self.common_read(data, qkv_bias=bias, out_bias=bias, qk_norm=True)
