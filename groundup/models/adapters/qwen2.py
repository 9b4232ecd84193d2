"""Qwen2: Llama's layout with biases on queries, keys and values alone. arXiv:2407.10671."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from groundup.models.adapters.llama import LlamaAdapter
from groundup.models.config import DecoderConfig


class Qwen2Adapter(LlamaAdapter):
    """The biases are always there, so no field speaks of them; nor of a head width of its own."""

    model_type = "qwen2"
    architecture = "Qwen2ForCausalLM"

    def needs(self, config: DecoderConfig) -> dict[str, tuple[Any, Any]]:
        return self.common_needs(config) | {
            "attention.qkv_bias": (config.attention.qkv_bias, True),
            "attention.out_bias": (config.attention.out_bias, False),
            "feed_forward.bias": (config.feed_forward.bias, False),
        }

    def fields(self, config: DecoderConfig) -> dict[str, Any]:
        return self.common_fields(config) | {"use_sliding_window": False}

    def read(self, data: Mapping[str, Any]) -> DecoderConfig:
        return self.common_read(data, qkv_bias=True)
