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
from groundup.models.adapters.base import only, whole_number
from groundup.models.adapters.llama import LlamaAdapter
from groundup.models.config import DecoderConfig, PositionsConfig
from groundup.models.huggingface_rope import read_rope, rope_fields


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
            "attention.windows, but for 0,": (len(set(attention.windows) - {0}) <= 1, True),
            "attention.windows": (attention.windows, attention.windows),
            "attention.soft_cap": (attention.soft_cap, attention.soft_cap),
            "attention.scale": (attention.scale, _scale(_scalar(config), attention.head_width)),
            "logit_soft_cap": (config.logit_soft_cap, config.logit_soft_cap),
            "width % attention.num_heads": (config.width % attention.num_heads, 0),
        }

    def fields(self, config: DecoderConfig) -> dict[str, Any]:
        attention = config.attention
        windows = [attention.window(layer) for layer in range(config.num_layers)]
        fields = super().fields(config)
        return fields | {
            "hidden_activation": fields["hidden_act"],
            "query_pre_attn_scalar": _scalar(config),
            "attn_logit_softcapping": attention.soft_cap,
            "final_logit_softcapping": config.logit_soft_cap,
            "sliding_window": max(attention.windows, default=None),
            "layer_types": ["sliding_attention" if w else "full_attention" for w in windows],
        }

    def read(self, data: Mapping[str, Any]) -> DecoderConfig:
        only(data, "use_bidirectional_attention", False, None)
        config = super().read({**data, "layer_types": None})
        scores, logits = self.caps
        heads = replace(
            config.attention,
            windows=self._windows(data, config.num_layers),
            soft_cap=data.get("attn_logit_softcapping", scores),
            scale=_scale(data.get("query_pre_attn_scalar", 256), config.attention.head_width),
        )
        return replace(
            config,
            attention=heads,
            norm=replace(config.norm, placement="sandwich"),
            logit_soft_cap=data.get("final_logit_softcapping", logits),
        )

    def _windows(self, data: Mapping[str, Any], num_layers: int) -> tuple[int, ...]:
        """What each layer sees, as the shortest pattern that says it."""
        every = data.get("sliding_window_pattern") or self.pattern
        types = data.get("layer_types") or [
            "sliding_attention" if layer % every else "full_attention"
            for layer in range(1, num_layers + 1)
        ]
        unknown = set(types) - {"sliding_attention", "full_attention"}
        require(
            not unknown and len(types) == num_layers,
            f"config.json: layer_types holds {len(types)} names for {num_layers} layers"
            + (f", among them {sorted(unknown)}." if unknown else "."),
        )
        if "sliding_attention" not in types:
            return ()
        window = whole_number(data, "sliding_window")
        windows = [window if name == "sliding_attention" else 0 for name in types]
        return next(
            tuple(windows[:period])
            for period in range(1, num_layers + 1)
            if all(windows[i] == windows[i % period] for i in range(num_layers))
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
        full = rope_fields(positions, heads.head_width)
        windowed = rope_fields(positions.of_windows(), heads.head_width)
        both = {
            "full_attention": full["rope_parameters"],
            "sliding_attention": windowed["rope_parameters"],
        }
        return (
            super().fields(config)
            | full
            | {
                "rope_local_base_freq": windowed["rope_theta"],
                "rope_parameters": both,
            }
        )

    def read(self, data: Mapping[str, Any]) -> DecoderConfig:
        only(data, "attn_logit_softcapping", None)
        both = data.get("rope_parameters") or {}
        full, windowed = both.get("full_attention"), both.get("sliding_attention")
        data = {"rope_theta": 1_000_000.0, "rope_local_base_freq": 10_000.0, **data}
        config = super().read({**data, "rope_parameters": full})
        config = replace(config, attention=replace(config.attention, qk_norm=True))
        if not config.attention.windows:
            return config
        windowed = windowed or {"rope_theta": data["rope_local_base_freq"]}
        positions = read_rope({"rope_parameters": windowed})
        return replace(config, positions=_joined(config.positions, positions))


def _joined(full: PositionsConfig, windowed: PositionsConfig) -> PositionsConfig:
    """One config of the positions of both kinds of layers."""
    if windowed == full:
        return full
    require(
        windowed.scaling is None,
        "config.json: rope_parameters.sliding_attention.rope_type should be 'default'.",
    )
    return replace(full, window_theta=windowed.theta)


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
