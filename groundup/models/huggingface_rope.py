"""RoPE's settings ↔ the fields of a Hugging Face `config.json`, old and new spelling alike.

transformers 5 keeps them together in `rope_parameters`; before, `rope_theta` stood apart from
`rope_scaling`. Both are written, so that no reader overlooks a scaling, and both are read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from groundup.config import UserError, require
from groundup.models.config import PositionsConfig, RopeScaling
from groundup.nn.rope_scaling import ntk_theta


def rope_fields(positions: PositionsConfig, head_width: int) -> dict[str, Any]:
    """The fields of `config.json`. NTK scaling is written as the larger theta that it means.

    `window_theta` is not among them: only a few families have two, each in its own spelling.
    """
    theta, scaling = positions.theta, positions.scaling
    if scaling is not None and scaling.kind == "ntk":
        theta, scaling = ntk_theta(theta, scaling.factor, head_width), None
    fields: dict[str, Any] = {"rope_type": "default"}
    if scaling is not None:
        fields = {"rope_type": scaling.kind, "factor": scaling.factor}
        for theirs, ours in _NAMES.get(scaling.kind, {}).items():
            fields[theirs] = getattr(scaling, ours)
    if positions.fraction != 1.0:
        fields["partial_rotary_factor"] = positions.fraction
    written = {"rope_theta": theta, "rope_parameters": fields | {"rope_theta": theta}}
    return written if scaling is None else written | {"rope_scaling": fields}


def read_rope(data: Mapping[str, Any], *, partial: bool = False) -> PositionsConfig:
    """Our positions from a parsed `config.json`. Raises UserError naming what we cannot express.

    `partial` is for families of which transformers turns only a part of each head.
    """
    # Where both stand, transformers 5 too goes by the older one.
    where = "rope_scaling" if data.get("rope_scaling") else "rope_parameters"
    section: Mapping[str, Any] = data.get(where) or {}
    fraction = section.get("partial_rotary_factor", data.get("partial_rotary_factor", 1.0))
    require(
        partial or fraction in (1.0, None),
        f"config.json: partial_rotary_factor = {fraction!r} is not supported (only 1.0 is).",
    )
    theta = section.get("rope_theta")
    if theta is None:
        parameters = data.get("rope_parameters") or {}
        theta = data.get("rope_theta", parameters.get("rope_theta", 10_000.0))
    return PositionsConfig(
        theta=float(theta),
        fraction=1.0 if fraction is None else float(fraction),
        scaling=_read_scaling(data, section, where),
    )


def rope_fields_by_layer(positions: PositionsConfig, head_width: int) -> dict[str, Any]:
    """The fields of families whose layers with a window have a theta of their own, newest spelling:
    `rope_parameters` for either kind of layer."""
    full = rope_fields(positions, head_width)
    windowed = rope_fields(positions.of_windows(), head_width)
    both = {"full_attention": full, "sliding_attention": windowed}
    return {"rope_parameters": {kind: part["rope_parameters"] for kind, part in both.items()}}


def read_rope_by_layer(
    data: Mapping[str, Any], theta: float, window_theta: float, *, windows: bool
) -> PositionsConfig:
    """Positions in those fields; the thetas are what older files say elsewhere, or not at all.

    Without `windows` the second theta has no effect and is left out.
    """
    both = data.get("rope_parameters") or {}
    full = {"rope_theta": theta} | (both.get("full_attention") or {})
    positions = read_rope({**data, "rope_parameters": full, "rope_theta": theta})
    windowed = {"rope_theta": window_theta} | (both.get("sliding_attention") or {})
    local = read_rope({"rope_parameters": windowed})
    if not windows or local == positions:
        return positions
    require(
        local.scaling is None,
        "config.json: rope_parameters.sliding_attention.rope_type should be 'default'.",
    )
    return replace(positions, window_theta=local.theta)


_BLEND = {"original_max_position_embeddings": "original_context"}
_NAMES: dict[str, dict[str, str]] = {
    "yarn": _BLEND
    | {
        "beta_slow": "slow_turns",
        "beta_fast": "fast_turns",
        "attention_factor": "attention_factor",
    },
    "llama3": _BLEND | {"low_freq_factor": "slow_turns", "high_freq_factor": "fast_turns"},
}


def _read_scaling(
    data: Mapping[str, Any], section: Mapping[str, Any], where: str
) -> RopeScaling | None:
    kind = section.get("rope_type", section.get("type", "default"))
    if kind == "default":
        return None
    require(
        kind in ("linear", "yarn", "llama3"),
        f"config.json: {where}.rope_type = {kind!r} is not supported (only 'default', 'linear', "
        "'yarn' and 'llama3' are).",
    )
    require(
        section.get("truncate", True) is True,
        f"config.json: {where}.truncate = {section.get('truncate')!r} is not supported (only "
        "True is).",
    )
    values: dict[str, Any] = {"factor": _number(section, "factor", where)}
    for theirs, ours in _NAMES.get(kind, {}).items():
        if section.get(theirs) is not None:
            values[ours] = _number(section, theirs, where)
    if kind in _NAMES:
        values["original_context"] = _original_context(data, section, where)
    if kind == "yarn" and "attention_factor" not in values:
        values |= _attention_factor(section, values["factor"], where)
    return RopeScaling(kind=kind, **values)


def _original_context(data: Mapping[str, Any], section: Mapping[str, Any], where: str) -> int:
    """As transformers looks for it: beside the section, in it, else the whole context."""
    name = "original_max_position_embeddings"
    if data.get(name) is not None:
        return int(_number(data, name, "config"))
    if section.get(name) is not None:
        return int(_number(section, name, where))
    return int(_number(data, "max_position_embeddings", "config"))


def _attention_factor(section: Mapping[str, Any], factor: float, where: str) -> dict[str, float]:
    """DeepSeek gives the temperature as the quotient of two; without them ours is the paper's."""
    if not (section.get("mscale") and section.get("mscale_all_dim")):
        return {}
    above, below = (_number(section, name, where) for name in ("mscale", "mscale_all_dim"))
    growth = 0.1 * math.log(factor)
    return {"attention_factor": (above * growth + 1) / (below * growth + 1)}


def _number(section: Mapping[str, Any], field: str, where: str) -> float:
    value = section.get(field)
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise UserError(f"config.json: {where}.{field} should be a number, but is {value!r}.")
    return float(value)
