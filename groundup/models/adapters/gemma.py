"""Gemma (the first): Llama's layout with scaled embeddings and GeGLU. arXiv:2403.08295."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from groundup.models.adapters.llama import LlamaAdapter
from groundup.models.config import DecoderConfig


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


def _shifted(theirs: Mapping[str, Tensor], by: float) -> dict[str, Tensor]:
    """Their state dict with all norms' weights moved. In their names they all end in "norm"."""
    return {
        name: tensor + by if name.endswith("norm.weight") else tensor
        for name, tensor in theirs.items()
    }
