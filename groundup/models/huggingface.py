"""Our configs and weights ↔ those of Hugging Face's families, tensor for tensor.

Both directions work on plain dictionaries: `config.json` and a state dict. transformers itself is
not needed. A field we cannot express is refused by name, never ignored, unless it acts in
training only (dropout) or on memory only (`use_cache`). What a family is like stands in its
adapter, `groundup.models.adapters`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from groundup.config import UserError, did_you_mean, require
from groundup.models.adapters.base import Adapter, only
from groundup.models.adapters.gemma import Gemma2Adapter, Gemma3Adapter, GemmaAdapter
from groundup.models.adapters.gpt2 import GPT2Adapter
from groundup.models.adapters.gpt_neox import GPTNeoXAdapter
from groundup.models.adapters.llama import LlamaAdapter
from groundup.models.adapters.mistral import MistralAdapter
from groundup.models.adapters.moe import MixtralAdapter, Qwen3MoeAdapter
from groundup.models.adapters.nanochat import NanoChatAdapter
from groundup.models.adapters.phi import PhiAdapter
from groundup.models.adapters.qwen2 import Qwen2Adapter
from groundup.models.adapters.qwen3 import Qwen3Adapter
from groundup.models.config import DecoderConfig

ADAPTERS: dict[str, Adapter] = {
    adapter.model_type: adapter
    for adapter in (
        LlamaAdapter(),
        Qwen3Adapter(),
        GPT2Adapter(),
        Qwen2Adapter(),
        MistralAdapter(),
        GemmaAdapter(),
        Gemma2Adapter(),
        Gemma3Adapter(),
        MixtralAdapter(),
        Qwen3MoeAdapter(),
        GPTNeoXAdapter(),
        PhiAdapter(),
        NanoChatAdapter(),
    )
}


def family_of(config: DecoderConfig) -> str:
    """The transformers architecture, a `model_type`, that computes what this config does.

    Raises UserError, naming the field, when there is none.
    """
    family = _closest(config)
    for field, (value, expected) in ADAPTERS[family].needs(config).items():
        require(
            value == expected,
            f"transformers has no architecture for this model: {family} needs {field} = "
            f"{expected!r}, but it is {value!r}.",
        )
    return family


def to_hf_config(config: DecoderConfig) -> dict[str, Any]:
    """The `config.json` of the equal transformers model. Raises UserError when there is none."""
    adapter = ADAPTERS[family_of(config)]
    common = {
        "architectures": [adapter.architecture],
        "model_type": adapter.model_type,
        "vocab_size": config.vocab_size,
        "tie_word_embeddings": config.tie_embeddings,
        "initializer_range": config.init_std,
    }
    return common | adapter.fields(config)


def from_hf_config(data: Mapping[str, Any]) -> DecoderConfig:
    """Our config from a parsed `config.json`. Raises UserError naming what we cannot express."""
    family = data.get("model_type")
    if family not in ADAPTERS:
        hint = did_you_mean(str(family), ADAPTERS)
        raise UserError(f"Unknown architecture: config.json says model_type = {family!r}.{hint}")
    only(data, "quantization_config", None)
    return ADAPTERS[family].read(data)


def to_hf_state(config: DecoderConfig, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict under transformers' names and in its layouts; a tied head is left out."""
    return ADAPTERS[family_of(config)].to_state(config, state)


def from_hf_state(config: DecoderConfig, theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """transformers' state dict under our names and layouts; the inverse of `to_hf_state`.

    Raises UserError naming a key this config's model does not have.
    """
    return ADAPTERS[family_of(config)].from_state(config, drop_redundant(config, theirs))


def drop_redundant(config: DecoderConfig, theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what older files store beside the weights, and add the prefix GPT-2's lack."""
    adapter, kept = ADAPTERS[family_of(config)], {}
    buffers = (".attn.bias", ".attn.masked_bias", "rotary_emb.inv_freq")
    for name, value in theirs.items():
        if name.endswith(buffers) or (name == "lm_head.weight" and config.tie_embeddings):
            continue
        kept[adapter.full_name(name)] = value
    return kept


def _closest(config: DecoderConfig) -> str:
    """The family to compare with: the one whose distinguishing mark the config has."""
    if config.feed_forward.experts is not None:
        return "qwen3_moe" if config.attention.qk_norm else "mixtral"
    if config.positions.kind == "learned":
        return "gpt2"
    if config.norm.kind == "layernorm" and config.feed_forward.kind == "plain":
        return "phi" if config.norm.placement == "parallel_shared" else "gpt_neox"
    if not config.norm.scale:
        return "nanochat"
    attention = config.attention
    if config.embedding_scale != 1.0:
        if config.norm.placement != "sandwich":
            return "gemma"
        return "gemma3_text" if attention.qk_norm else "gemma2"
    if attention.qk_norm:
        return "qwen3"
    if attention.windows:
        return "mistral"
    return "qwen2" if attention.qkv_bias and not attention.out_bias else "llama"
