"""Our configs and weights ↔ those of Hugging Face's Llama, Qwen3 and GPT-2, tensor for tensor.

Both directions work on plain dictionaries: `config.json` and a state dict. transformers itself is
not needed. A field we cannot express is refused by name, never ignored, unless it acts in
training only (dropout) or on memory only (`use_cache`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from groundup.config import UserError, did_you_mean, require
from groundup.models.config import (
    AttentionConfig,
    DecoderConfig,
    FeedForwardConfig,
    NormConfig,
    PositionsConfig,
)
from groundup.models.huggingface_rope import read_rope, rope_fields
from groundup.nn.positions import change_layout

Family = Literal["qwen3", "llama", "gpt2"]
ARCHITECTURES: dict[Family, str] = {
    "qwen3": "Qwen3ForCausalLM",
    "llama": "LlamaForCausalLM",
    "gpt2": "GPT2LMHeadModel",
}
_TO_HF_ACTIVATION = {
    **{name: name for name in ("silu", "gelu", "relu", "relu2")},
    "gelu_tanh": "gelu_pytorch_tanh",
}
_FROM_HF_ACTIVATION = {
    **{theirs: ours for ours, theirs in _TO_HF_ACTIVATION.items()},
    "gelu_new": "gelu_tanh",
    "swish": "silu",
}


def family_of(config: DecoderConfig) -> Family:
    """The transformers architecture that computes what this config does.

    Raises UserError, naming the field, when there is none.
    """
    attention = config.attention
    heads_width = attention.num_heads * attention.head_width
    if config.positions.kind == "learned":
        family: Family = "gpt2"
        needed: dict[str, tuple[Any, Any]] = {
            "norm.kind": (config.norm.kind, "layernorm"),
            "feed_forward.kind": (config.feed_forward.kind, "plain"),
            "feed_forward.bias": (config.feed_forward.bias, True),
            "attention.qkv_bias": (attention.qkv_bias, True),
            "attention.out_bias": (attention.out_bias, True),
            "attention.qk_norm": (attention.qk_norm, False),
            "attention.num_kv_heads": (attention.num_kv_heads, attention.num_heads),
            "attention.num_heads * head_width": (heads_width, config.width),
        }
    else:
        family = "qwen3" if attention.qk_norm else "llama"
        needed = {
            "positions.kind": (config.positions.kind, "rope"),
            "norm.kind": (config.norm.kind, "rmsnorm"),
            "feed_forward.kind": (config.feed_forward.kind, "gated"),
            "attention.out_bias": (attention.out_bias, attention.qkv_bias),
        }
        if family == "qwen3":
            needed["feed_forward.bias"] = (config.feed_forward.bias, False)
        else:
            needed["width % attention.num_heads"] = (config.width % attention.num_heads, 0)
    needed["norm.placement"] = (config.norm.placement, "pre")
    needed["head_bias"] = (config.head_bias, False)
    for field, (value, expected) in needed.items():
        require(
            value == expected,
            f"transformers has no architecture for this model: {family} needs {field} = "
            f"{expected!r}, but it is {value!r}.",
        )
    return family


def to_hf_config(config: DecoderConfig) -> dict[str, Any]:
    """The `config.json` of the equal transformers model. Raises UserError when there is none."""
    family = family_of(config)
    common = {
        "architectures": [ARCHITECTURES[family]],
        "model_type": family,
        "vocab_size": config.vocab_size,
        "tie_word_embeddings": config.tie_embeddings,
        "initializer_range": config.init_std,
    }
    return common | (_gpt2_fields(config) if family == "gpt2" else _llama_fields(config, family))


def from_hf_config(data: Mapping[str, Any]) -> DecoderConfig:
    """Our config from a parsed `config.json`. Raises UserError naming what we cannot express."""
    family = data.get("model_type")
    if family not in ARCHITECTURES:
        hint = did_you_mean(str(family), ARCHITECTURES)
        raise UserError(f"Unknown architecture: config.json says model_type = {family!r}.{hint}")
    _only(data, "quantization_config", None)
    return _from_gpt2(data) if family == "gpt2" else _from_llama(data, family)


def to_hf_state(config: DecoderConfig, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict under transformers' names and in its layouts; a tied head is left out."""
    family = family_of(config)
    if family != "gpt2":
        state = _relaid(config, state, interleaved=False)
        return {_rename(name, _LLAMA_NAMES): tensor for name, tensor in state.items()}
    theirs: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if ".attention.query." in name:  # one Conv1D computes query, key and value there
            parts = [state[name.replace("query", part)] for part in ("query", "key", "value")]
            name, tensor = name.replace("query", "fused"), torch.cat(parts)
        elif ".attention.key." in name or ".attention.value." in name:
            continue
        theirs[_rename(name, _GPT2_NAMES)] = _transpose_conv1d(name, tensor)
    return theirs


def from_hf_state(config: DecoderConfig, theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """transformers' state dict under our names and layouts; the inverse of `to_hf_state`.

    Raises UserError naming a key this config's model does not have.
    """
    family = family_of(config)
    names = {v: k for k, v in (_GPT2_NAMES if family == "gpt2" else _LLAMA_NAMES).items()}
    state: dict[str, Tensor] = {}
    for their_name, tensor in drop_redundant(config, theirs).items():
        name = _rename(their_name, names)
        if family == "gpt2":
            tensor = _transpose_conv1d(name, tensor)
        if ".attention.fused." in name:
            for part, piece in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                state[name.replace("fused", part)] = piece
        else:
            state[name] = tensor
    return _relaid(config, state, interleaved=True)


def drop_redundant(config: DecoderConfig, theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what older files store beside the weights, and add the prefix GPT-2's lack."""
    kept = {}
    buffers = (".attn.bias", ".attn.masked_bias", "rotary_emb.inv_freq")
    for name, value in theirs.items():
        if name.endswith(buffers) or (name == "lm_head.weight" and config.tie_embeddings):
            continue
        if config.positions.kind == "learned" and not name.startswith(("transformer.", "lm_head.")):
            name = f"transformer.{name}"
        kept[name] = value
    return kept


_LLAMA_NAMES = {
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
_GPT2_NAMES = {
    "embedding": "transformer.wte",
    "position_embedding": "transformer.wpe",
    "final_norm": "transformer.ln_f",
    "head": "lm_head",
    "blocks": "transformer.h",
    "attention_norm": "ln_1",
    "attention.fused": "attn.c_attn",
    "attention.out": "attn.c_proj",
    "feed_forward_norm": "ln_2",
    "feed_forward.up": "mlp.c_fc",
    "feed_forward.down": "mlp.c_proj",
}


def _rename(name: str, names: Mapping[str, str]) -> str:
    """Translate `stack.index.module.leaf` or `module.leaf`, module by module."""
    module, _, leaf = name.rpartition(".")
    parts = module.split(".")
    index = next((i for i, part in enumerate(parts) if part.isdecimal()), None)
    stems = [module] if index is None else [".".join(parts[:index]), ".".join(parts[index + 1 :])]
    for stem in stems:
        require(stem in names, f"The weights hold an unexpected tensor '{name}'.")
    if index is None:
        return f"{names[module]}.{leaf}"
    return f"{names[stems[0]]}.{parts[index]}.{names[stems[1]]}.{leaf}"


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


def _transpose_conv1d(our_name: str, tensor: Tensor) -> Tensor:
    """GPT-2 in transformers stores its blocks' matrices as (in, out), the transpose of Linear."""
    is_matrix = our_name.startswith("blocks.") and tensor.ndim == 2
    return tensor.t().contiguous() if is_matrix else tensor


def _llama_fields(config: DecoderConfig, family: Family) -> dict[str, Any]:
    attention = config.attention
    fields = {
        "hidden_size": config.width,
        "intermediate_size": config.feed_forward.width,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": attention.num_heads,
        "num_key_value_heads": attention.num_kv_heads,
        "head_dim": attention.head_width,
        "hidden_act": _TO_HF_ACTIVATION[config.feed_forward.activation],
        "max_position_embeddings": config.context_length,
        "rms_norm_eps": config.norm.eps,
        "attention_bias": attention.qkv_bias,
        "attention_dropout": attention.dropout,
    } | rope_fields(config.positions, attention.head_width)
    if family == "llama":
        return fields | {"mlp_bias": config.feed_forward.bias}
    return fields | {"use_sliding_window": False}


def _gpt2_fields(config: DecoderConfig) -> dict[str, Any]:
    return {
        "n_embd": config.width,
        "n_inner": config.feed_forward.width,
        "n_layer": config.num_layers,
        "n_head": config.attention.num_heads,
        "n_positions": config.context_length,
        "activation_function": _TO_HF_ACTIVATION[config.feed_forward.activation],
        "layer_norm_epsilon": config.norm.eps,
        "attn_pdrop": config.attention.dropout,
        "resid_pdrop": config.attention.out_dropout,
        "embd_pdrop": config.embedding_dropout,
    }


def _from_llama(data: Mapping[str, Any], family: str) -> DecoderConfig:
    _only(data, "use_sliding_window", False, None)
    kinds = set(data.get("layer_types") or ()) - {"full_attention"}
    require(not kinds, f"config.json: layer_types holds {sorted(kinds)}, which is not supported.")
    width, num_heads = _get(data, "hidden_size"), _get(data, "num_attention_heads")
    bias = bool(data.get("attention_bias", False))
    return DecoderConfig(
        vocab_size=_get(data, "vocab_size"),
        width=width,
        num_layers=_get(data, "num_hidden_layers"),
        context_length=_get(data, "max_position_embeddings"),
        attention=AttentionConfig(
            num_heads=num_heads,
            num_kv_heads=data.get("num_key_value_heads") or num_heads,
            head_width=data.get("head_dim") or width // num_heads,
            qkv_bias=bias,
            out_bias=bias,
            qk_norm=family == "qwen3",
            dropout=float(data.get("attention_dropout") or 0.0),
        ),
        positions=read_rope(data),
        feed_forward=FeedForwardConfig(
            kind="gated",
            activation=_activation(data, "hidden_act", "silu"),
            width=_get(data, "intermediate_size"),
            bias=bool(data.get("mlp_bias", False)),
        ),
        norm=NormConfig(kind="rmsnorm", eps=float(data.get("rms_norm_eps", 1e-6))),
        tie_embeddings=bool(data.get("tie_word_embeddings", False)),
        init_std=float(data.get("initializer_range", 0.02)),
    )


def _from_gpt2(data: Mapping[str, Any]) -> DecoderConfig:
    _only(data, "scale_attn_weights", True, None)
    _only(data, "scale_attn_by_inverse_layer_idx", False, None)
    _only(data, "add_cross_attention", False, None)
    width, num_heads = _get(data, "n_embd"), _get(data, "n_head")
    dropout = float(data.get("resid_pdrop", 0.1))
    return DecoderConfig(
        vocab_size=_get(data, "vocab_size"),
        width=width,
        num_layers=_get(data, "n_layer"),
        context_length=_get(data, "n_positions"),
        attention=AttentionConfig(
            num_heads=num_heads,
            num_kv_heads=num_heads,
            head_width=width // num_heads,
            qkv_bias=True,
            out_bias=True,
            dropout=float(data.get("attn_pdrop", 0.1)),
            out_dropout=dropout,
        ),
        positions=PositionsConfig(kind="learned"),
        feed_forward=FeedForwardConfig(
            kind="plain",
            activation=_activation(data, "activation_function", "gelu_new"),
            width=data.get("n_inner") or 4 * width,
            bias=True,
            dropout=dropout,
        ),
        norm=NormConfig(kind="layernorm", eps=float(data.get("layer_norm_epsilon", 1e-5))),
        tie_embeddings=bool(data.get("tie_word_embeddings", True)),
        embedding_dropout=float(data.get("embd_pdrop", 0.1)),
        init_std=float(data.get("initializer_range", 0.02)),
    )


def _get(data: Mapping[str, Any], field: str) -> int:
    value = data.get(field)
    if not isinstance(value, int) or isinstance(value, bool):
        raise UserError(f"config.json: {field} should be a whole number, but is {value!r}.")
    return value


def _only(data: Mapping[str, Any], field: str, *allowed: Any) -> None:
    value = data.get(field)
    require(
        value in allowed,
        f"config.json: {field} = {value!r} is not supported (only {allowed[0]!r} is).",
    )


def _activation(data: Mapping[str, Any], field: str, default: str) -> Any:
    name = data.get(field, default)
    if name not in _FROM_HF_ACTIVATION:
        hint = did_you_mean(str(name), _FROM_HF_ACTIVATION)
        raise UserError(f"config.json: {field} = {name!r} is not supported.{hint}")
    return _FROM_HF_ACTIVATION[name]
