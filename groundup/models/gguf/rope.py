"""RoPE's scaling in a GGUF file: metadata for "linear" and "yarn", a tensor for Llama 3's.

That tensor, `rope_freqs.weight`, says by how much each pair of channels turns slower, and not by
which rule. The rule is written beside it under a key of ours; a file made elsewhere is taken for
one with Llama 3's published constants, and refused when the numbers are not those.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from groundup.config import UserError, from_dict, require, to_dict
from groundup.models.config import DecoderConfig, RopeScaling
from groundup.models.gguf.container import GGUFFile, Metadata
from groundup.nn.rope_scaling import frequencies, ntk_theta

FACTORS = "rope_freqs.weight"
OURS = "groundup.rope_scaling"
_LLAMA3_CONTEXT = 8192


def scaling_metadata(config: DecoderConfig) -> Metadata:
    """The keys below the architecture's name. Raises UserError where llama.cpp has no such rule."""
    scaling, width = config.positions.scaling, config.attention.head_width
    if scaling is None or scaling.kind == "llama3":
        return {}
    if scaling.kind == "ntk":  # nothing but a larger theta
        return {"rope.freq_base": ntk_theta(config.positions.theta, scaling.factor, width)}
    keys: Metadata = {"rope.scaling.type": scaling.kind, "rope.scaling.factor": scaling.factor}
    if scaling.kind == "yarn":
        usual = RopeScaling(
            kind="yarn", factor=scaling.factor, original_context=scaling.original_context
        )
        require(
            scaling == usual,
            "llama.cpp knows YaRN with its authors' constants alone, but positions.scaling has "
            f"others: {scaling}.",
        )
        keys["rope.scaling.original_context_length"] = scaling.original_context or 0
    return keys


def read_scaling(file: GGUFFile, name: str, plain: DecoderConfig) -> RopeScaling | None:
    """The scaling a file describes for a config without. Raises UserError for an unknown one."""
    prefix = f"{name}.rope.scaling"
    kind = file.metadata.get(f"{prefix}.type", "none")
    if FACTORS in file.tensors:
        require(kind == "none", f"The file scales RoPE by {prefix}.type and by {FACTORS!r} too.")
        return _by_factors(file, plain)
    if kind == "none":
        return None
    require(
        kind in ("linear", "yarn"),
        f"{prefix}.type = {kind!r} is not supported (only 'linear' and 'yarn' are).",
    )
    known = [
        f"{prefix}.{key}" for key in ("type", "factor", "original_context_length", "finetuned")
    ]
    others = [key for key in file.metadata if key.startswith(f"{prefix}.") and key not in known]
    require(not others, f"{', '.join(others)} is not supported.")
    values: dict[str, Any] = {"kind": kind, "factor": file.metadata.get(known[1])}
    if kind == "yarn":
        values["original_context"] = file.metadata.get(known[2])
    return from_dict(RopeScaling, values, prefix)


def frequency_factors(config: DecoderConfig) -> Tensor | None:
    """(E/2,) fp32: how many times slower each pair of channels turns; None but for Llama 3's."""
    scaling = config.positions.scaling
    if scaling is None or scaling.kind != "llama3":
        return None
    width, theta, device = config.attention.head_width, config.positions.theta, torch.device("cpu")
    return frequencies(width, theta, None, device) / frequencies(width, theta, scaling, device)


def rule_metadata(config: DecoderConfig) -> Metadata:
    """The rule behind the tensor, for ourselves."""
    scaling = config.positions.scaling
    if scaling is None or scaling.kind != "llama3":
        return {}
    return {OURS: json.dumps(to_dict(scaling))}


def _by_factors(file: GGUFFile, plain: DecoderConfig) -> RopeScaling:
    width = plain.attention.head_width
    require(
        file.tensors[FACTORS].shape == (width // 2,),
        f"'{FACTORS}' has shape {file.tensors[FACTORS].shape}, but a head has {width} channels.",
    )
    factors = torch.from_numpy(file.read(FACTORS))
    rule: Any = {
        "kind": "llama3",
        "factor": round(float(factors.max()), 4),
        "original_context": _LLAMA3_CONTEXT,
    }
    if OURS in file.metadata:
        try:
            rule = json.loads(str(file.metadata[OURS]))
        except (ValueError, RecursionError):
            raise UserError(f"{OURS} is not valid JSON.") from None
    require(isinstance(rule, dict), f"{OURS} should be a JSON object.")
    scaling = from_dict(RopeScaling, rule, OURS)
    scaled = replace(plain, positions=replace(plain.positions, scaling=scaling))
    expected = frequency_factors(scaled)
    require(
        expected is not None and torch.allclose(factors, expected, rtol=1e-3, atol=0),
        f"'{FACTORS}' scales RoPE by another rule than Llama 3's, which is not supported.",
    )
    return scaling
