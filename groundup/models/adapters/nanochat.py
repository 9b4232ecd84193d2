"""nanochat as transformers has it: norms that learn nothing, ReLU², logits within a cap.

github.com/karpathy/nanochat, October 2025. What came later (values by token, scaled streams,
windows) transformers does not know.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from torch import Tensor

from groundup.models.adapters.base import number, plain_decoder
from groundup.models.adapters.llama import LlamaAdapter
from groundup.models.config import DecoderConfig


class NanoChatAdapter(LlamaAdapter):
    """It turns channels the other way round: scores are equal when the halves of heads change
    places."""

    model_type = "nanochat"
    architecture = "NanoChatForCausalLM"
    names: ClassVar[Mapping[str, str]] = {
        **LlamaAdapter.names,
        "feed_forward.up": "mlp.fc1",
        "feed_forward.down": "mlp.fc2",
    }

    def needs(self, config: DecoderConfig) -> dict[str, tuple[Any, Any]]:
        attention = config.attention
        return plain_decoder(config) | {
            "positions.kind": (config.positions.kind, "rope"),
            "norm.kind": (config.norm.kind, "rmsnorm"),
            "norm.placement": (config.norm.placement, "pre"),
            "norm.scale": (config.norm.scale, False),
            "embedding_norm": (config.embedding_norm, True),
            "logit_soft_cap": (config.logit_soft_cap, config.logit_soft_cap),
            "attention.qk_norm": (attention.qk_norm, True),
            "attention.out_bias": (attention.out_bias, attention.qkv_bias),
            "feed_forward.kind": (config.feed_forward.kind, "plain"),
            "feed_forward.bias": (config.feed_forward.bias, False),
            "feed_forward.experts": (config.feed_forward.experts, None),
        }

    def fields(self, config: DecoderConfig) -> dict[str, Any]:
        return self.common_fields(config) | {
            "attention_bias": config.attention.qkv_bias,
            "final_logit_softcapping": config.logit_soft_cap,
            "pad_token_id": None,  # left out, it would be 1, and that token would not be trained
        }

    def read(self, data: Mapping[str, Any]) -> DecoderConfig:
        bias = bool(data.get("attention_bias", False))
        data = {"hidden_act": "relu2", **data}
        config = self.common_read(data, qkv_bias=bias, out_bias=bias, qk_norm=True)
        return replace(
            config,
            feed_forward=replace(config.feed_forward, kind="plain"),
            norm=replace(config.norm, scale=False),
            embedding_norm=True,
            logit_soft_cap=number(data, "final_logit_softcapping", 15.0),
        )

    def to_state(self, config: DecoderConfig, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return _turned_round(config, super().to_state(config, state))

    def from_state(self, config: DecoderConfig, theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return super().from_state(config, _turned_round(config, theirs))


def _turned_round(config: DecoderConfig, theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Their state dict with the halves of all heads of queries and keys exchanged."""
    half = config.attention.head_width // 2
    return {
        name: tensor.unflatten(0, (-1, 2, half)).flip(1).flatten(0, 2)
        if ".q_proj." in name or ".k_proj." in name
        else tensor
        for name, tensor in theirs.items()
    }
