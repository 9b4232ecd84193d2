"""Mixtral and Qwen3-MoE: Llama's layout with a mixture of experts in every block.

Their files hold each expert's matrices apart; ours hold those of all experts in one tensor.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from groundup.config import UserError
from groundup.models.adapters.base import only, whole_number
from groundup.models.adapters.llama import LlamaAdapter
from groundup.models.config import DecoderConfig, ExpertsConfig
from groundup.models.huggingface_rope import rope_fields

_STACKED = re.compile(r"(blocks\.\d+\.feed_forward)\.(gate|up|down)\.weight")


class _ExpertsAdapter(LlamaAdapter):
    """What the two families share: a router with softmax scores, and gated experts."""

    module: ClassVar[str]
    """The name of the mixture within a block."""
    matrices: ClassVar[Mapping[str, str]]
    """gate, up and down, as they are called there."""

    def needs(self, config: DecoderConfig) -> dict[str, tuple[Any, Any]]:
        experts = config.feed_forward.experts
        assert experts is not None
        return self.common_needs(config) | {
            "attention.out_bias": (config.attention.out_bias, config.attention.qkv_bias),
            "feed_forward.experts.score": (experts.score, "softmax"),
            "feed_forward.experts.scale": (experts.scale, 1.0),
            "feed_forward.experts.shared_width": (experts.shared_width, 0),
            "feed_forward.experts.balance == 'bias'": (experts.balance == "bias", False),
        }

    def fields(self, config: DecoderConfig) -> dict[str, Any]:
        experts = config.feed_forward.experts
        assert experts is not None
        fields = self.common_fields(config) | {
            "num_experts_per_tok": experts.top_k,
            "output_router_logits": False,
            "router_aux_loss_coef": experts.loss_weight if experts.balance == "loss" else 0.0,
        }
        return fields | rope_fields(config.positions, config.attention.head_width)

    def with_experts(
        self, config: DecoderConfig, data: Mapping[str, Any], number_field: str, **changes: Any
    ) -> DecoderConfig:
        """The config with the experts that the fields of `data` describe."""
        weight = float(data.get("router_aux_loss_coef") or 0.0)
        experts = ExpertsConfig(
            num_experts=whole_number(data, number_field),
            top_k=whole_number(data, "num_experts_per_tok"),
            normalize=bool(data.get("norm_topk_prob", True)),
            balance="loss" if weight else "none",
            loss_weight=weight or ExpertsConfig.loss_weight,
        )
        network = replace(config.feed_forward, experts=experts, **changes)
        return replace(config, feed_forward=network)

    def to_state(self, config: DecoderConfig, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        stacked = {name: tensor for name, tensor in state.items() if _STACKED.fullmatch(name)}
        rest = {name: tensor for name, tensor in state.items() if name not in stacked}
        theirs = super().to_state(config, rest)
        for name, tensor in stacked.items():
            for number, matrix in enumerate(tensor.unbind()):
                theirs[self._name_of_expert(name, number)] = matrix
        return theirs

    def from_state(self, config: DecoderConfig, theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        experts = config.feed_forward.experts
        assert experts is not None
        rest = dict(theirs)
        stacked = {}
        for layer in range(config.num_layers):
            for role in self.matrices:
                name = f"blocks.{layer}.feed_forward.{role}.weight"
                parts = [self._name_of_expert(name, x) for x in range(experts.num_experts)]
                missing = [part for part in parts if part not in rest]
                if missing:
                    raise UserError(f"The weights lack the tensor '{missing[0]}'.")
                stacked[name] = torch.stack([rest.pop(part) for part in parts])
        return super().from_state(config, rest) | stacked

    def _name_of_expert(self, name: str, number: int) -> str:
        _, layer, _, role, _ = name.split(".")
        mixture = f"{self.names['blocks']}.{layer}.{self.module}"
        return f"{mixture}.experts.{number}.{self.matrices[role]}.weight"


class MixtralAdapter(_ExpertsAdapter):
    """No biases, no QK-norm. Jiang et al. 2024, arXiv:2401.04088."""

    model_type = "mixtral"
    architecture = "MixtralForCausalLM"
    module = "block_sparse_moe"
    matrices: ClassVar[Mapping[str, str]] = {"gate": "w1", "up": "w3", "down": "w2"}
    names: ClassVar[Mapping[str, str]] = {
        **LlamaAdapter.names,
        "feed_forward.router.scorer": "block_sparse_moe.gate",
    }

    def needs(self, config: DecoderConfig) -> dict[str, tuple[Any, Any]]:
        experts = config.feed_forward.experts
        assert experts is not None
        return super().needs(config) | {
            "attention.qkv_bias": (config.attention.qkv_bias, False),
            "feed_forward.experts.normalize": (experts.normalize, True),
        }

    def fields(self, config: DecoderConfig) -> dict[str, Any]:
        experts = config.feed_forward.experts
        assert experts is not None
        return super().fields(config) | {
            "num_local_experts": experts.num_experts,
            "sliding_window": None,
        }

    def read(self, data: Mapping[str, Any]) -> DecoderConfig:
        only(data, "sliding_window", None)
        return self.with_experts(self.common_read(data), data, "num_local_experts")


class Qwen3MoeAdapter(_ExpertsAdapter):
    """Qwen3 with experts in every block. Yang et al. 2025, arXiv:2505.09388."""

    model_type = "qwen3_moe"
    architecture = "Qwen3MoeForCausalLM"
    module = "mlp"
    matrices: ClassVar[Mapping[str, str]] = {
        "gate": "gate_proj",
        "up": "up_proj",
        "down": "down_proj",
    }
    names: ClassVar[Mapping[str, str]] = {
        **LlamaAdapter.names,
        "feed_forward.router.scorer": "mlp.gate",
    }

    def needs(self, config: DecoderConfig) -> dict[str, tuple[Any, Any]]:
        return super().needs(config) | {
            "attention.qk_norm": (config.attention.qk_norm, True),
        }

    def fields(self, config: DecoderConfig) -> dict[str, Any]:
        experts = config.feed_forward.experts
        assert experts is not None
        return super().fields(config) | {
            "num_experts": experts.num_experts,
            "moe_intermediate_size": config.feed_forward.width,
            "norm_topk_prob": experts.normalize,
            "decoder_sparse_step": 1,
            "mlp_only_layers": [],
            "attention_bias": config.attention.qkv_bias,
            "use_sliding_window": False,
        }

    def read(self, data: Mapping[str, Any]) -> DecoderConfig:
        only(data, "decoder_sparse_step", 1, None)
        only(data, "mlp_only_layers", [], None)
        bias = bool(data.get("attention_bias", False))
        config = self.common_read(data, qkv_bias=bias, out_bias=bias, qk_norm=True)
        # Left out of a file, the field means its default in transformers, which is off; and
        # transformers 5 writes the number of experts under Mixtral's name.
        data = {"norm_topk_prob": False, "num_experts": data.get("num_local_experts"), **data}
        width = whole_number(data, "moe_intermediate_size")
        return self.with_experts(config, data, "num_experts", width=width)
