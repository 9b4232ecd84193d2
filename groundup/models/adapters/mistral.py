"""Mistral: Llama's layout, every layer seeing a sliding window. arXiv:2310.06825."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from groundup.config import require
from groundup.models.adapters.llama import LlamaAdapter
from groundup.models.config import DecoderConfig


class MistralAdapter(LlamaAdapter):
    """One window for all layers; without one, `sliding_window` is null and the model is a Llama."""

    model_type = "mistral"
    architecture = "MistralForCausalLM"

    def needs(self, config: DecoderConfig) -> dict[str, tuple[Any, Any]]:
        windows = config.attention.windows
        return self.common_needs(config) | {
            "attention.windows": (windows, windows[:1]),
            "attention.qkv_bias": (config.attention.qkv_bias, False),
            "attention.out_bias": (config.attention.out_bias, False),
            "feed_forward.bias": (config.feed_forward.bias, False),
        }

    def fields(self, config: DecoderConfig) -> dict[str, Any]:
        return self.common_fields(config) | {"sliding_window": config.attention.windows[0]}

    def read(self, data: Mapping[str, Any]) -> DecoderConfig:
        config = self.common_read(data)
        window = data.get("sliding_window", 4096)
        if window is None:
            return config
        require(
            isinstance(window, int) and window > 0,
            f"config.json: sliding_window should be a number of keys, but is {window!r}.",
        )
        return replace(config, attention=replace(config.attention, windows=(window,)))
