"""Our tensors under llama.cpp's names and in its layouts, and back."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from groundup.models.adapters.base import rename
from groundup.models.config import DecoderConfig
from groundup.models.gguf.architectures import Architecture, architecture_of
from groundup.models.gguf.rope import FACTORS, frequency_factors
from groundup.nn.positions import change_layout

NAMES = {
    "embedding": "token_embd",
    "position_embedding": "position_embd",
    "final_norm": "output_norm",
    "head": "output",
    "blocks": "blk",
    "attention_norm": "attn_norm",
    "attention.query": "attn_q",
    "attention.key": "attn_k",
    "attention.value": "attn_v",
    "attention.fused": "attn_qkv",
    "attention.out": "attn_output",
    "attention.query_norm": "attn_q_norm",
    "attention.key_norm": "attn_k_norm",
    "feed_forward_norm": "ffn_norm",
    "feed_forward.gate": "ffn_gate",
    "feed_forward.up": "ffn_up",
    "feed_forward.down": "ffn_down",
}
_PARTS = ("query", "key", "value")


def to_file(config: DecoderConfig, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict under llama.cpp's names and in its layouts.

    Gemma's norms need no shift: the files hold what is multiplied by, as we do.
    """
    architecture = architecture_of(config)
    laid = _laid(config, state, architecture, to_theirs=True)
    if architecture.name == "gpt2":  # one matrix computes query, key and value there
        laid = _fused(laid)
    tensors = {rename(name, NAMES): tensor for name, tensor in laid.items()}
    factors = frequency_factors(config)
    return tensors if factors is None else {FACTORS: factors, **tensors}


def from_file(
    config: DecoderConfig, theirs: Mapping[str, Tensor], architecture: Architecture
) -> dict[str, Tensor]:
    """The inverse of `to_file`. Raises UserError naming a tensor the model does not have."""
    names = {theirs: ours for ours, theirs in NAMES.items()}
    state: dict[str, Tensor] = {}
    for name, tensor in theirs.items():
        if name == FACTORS:
            continue
        ours = rename(name, names)
        if ".attention.fused." in ours:
            for part, piece in zip(_PARTS, tensor.chunk(3), strict=True):
                state[ours.replace("fused", part)] = piece
        else:
            state[ours] = tensor
    return _laid(config, state, architecture, to_theirs=False)


def _fused(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    fused: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if ".attention.query." in name:
            parts = [state[name.replace("query", part)] for part in _PARTS]
            fused[name.replace("query", "fused")] = torch.cat(parts)
        elif ".attention.key." not in name and ".attention.value." not in name:
            fused[name] = tensor
    return fused


def _laid(
    config: DecoderConfig,
    state: Mapping[str, Tensor],
    architecture: Architecture,
    *,
    to_theirs: bool,
) -> dict[str, Tensor]:
    """Queries and keys with RoPE's channels as llama.cpp wants them, or as the config says."""
    theirs = "interleaved" if architecture.interleaved else "half"
    ours = config.positions.layout
    if config.positions.kind != "rope" or theirs == ours:
        return dict(state)
    wanted, width = theirs if to_theirs else ours, config.attention.head_width
    turned = (".query.", ".key.", ".query_norm.", ".key_norm.")
    return {
        name: change_layout(tensor, width, interleaved=wanted == "interleaved")
        if any(part in name for part in turned)
        else tensor
        for name, tensor in state.items()
    }
