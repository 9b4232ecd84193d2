"""Sort a model's parameters by kind: each lands in exactly one group, tied weights once.

| kind      | what                                            | decays | updated by          |
|-----------|-------------------------------------------------|--------|---------------------|
| matrix    | weights with two or more dimensions, inside     | yes    | Muon, or AdamW      |
| embedding | tables looked up by id, and a head tied to them | no     | AdamW, its own rate |
| head      | the output head where it has its own weight     | yes    | AdamW, its own rate |
| vector    | norms and biases                                | no     | AdamW               |

Decay keeps products of matrices from growing. A norm's scale or a bias has no such drift, and an
embedding's rare rows would shrink on every step that does not see them.
"""

from __future__ import annotations

from typing import Any, Literal

from torch import nn

from groundup.optim.config import OptimizerConfig

Kind = Literal["matrix", "embedding", "head", "vector"]


def parameter_kinds(model: nn.Module) -> dict[str, Kind]:
    """The kind of every trainable parameter by name; a tied weight appears under its first name.

    The head is what the model's `head_weight` returns, unless it is also an embedding's table.
    """
    tables = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.Embedding)
        for parameter in module.parameters(recurse=False)
    }
    head = id(getattr(model, "head_weight", None))

    def kind(parameter: nn.Parameter) -> Kind:
        if id(parameter) in tables:
            return "embedding"
        if id(parameter) == head:
            return "head"
        return "matrix" if parameter.ndim >= 2 else "vector"

    return {name: kind(p) for name, p in model.named_parameters() if p.requires_grad}


def parameter_groups(
    model: nn.Module, config: OptimizerConfig, iteration_dtype: str = "float32"
) -> list[dict[str, Any]]:
    """Groups for `build.GroupedOptimizer`: the update "rule", its settings, "lr" and "initial_lr".

    `iteration_dtype` is the format of Muon's orthogonalisation (see muon.py). Kinds of which the
    model has no parameter give no group.
    """
    kinds = parameter_kinds(model)
    parameters = dict(model.named_parameters())
    groups = []
    for kind in ("matrix", "embedding", "head", "vector"):
        names = [name for name in kinds if kinds[name] == kind]
        if not names:
            continue
        group: dict[str, Any] = {
            "kind": kind,
            "params": [(name, parameters[name]) for name in names],
        }
        if kind == "matrix" and config.kind == "muon":
            splits = row_splits(model)
            group |= _muon_settings(config, iteration_dtype)
            group["row_splits"] = {i: splits[n] for i, n in enumerate(names) if n in splits}
        else:
            group |= _adamw_settings(config, kind)
        group["initial_lr"] = group["lr"]
        groups.append(group)
    return groups


def row_splits(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Row counts of the matrices fused in one weight, by parameter name.

    A module that fuses several matrices in its `weight` (queries, keys and values; gate and up)
    says so by an attribute `row_splits`, so that Muon orthogonalises each apart.
    """
    return {
        f"{name}.weight": tuple(module.row_splits)  # type: ignore[arg-type]
        for name, module in model.named_modules()
        if hasattr(module, "row_splits")
    }


def _muon_settings(config: OptimizerConfig, iteration_dtype: str) -> dict[str, Any]:
    return {
        "rule": "muon",
        "lr": config.muon_learning_rate,
        "momentum": config.momentum,
        "weight_decay": config.weight_decay,
        "method": config.orthogonalization,
        "steps": config.orthogonalization_steps,
        "iteration_dtype": iteration_dtype,
        "cautious_decay": config.cautious_decay,
    }


def _adamw_settings(config: OptimizerConfig, kind: Kind) -> dict[str, Any]:
    own_rate = {
        "embedding": config.embedding_learning_rate,
        "head": config.head_learning_rate,
    }.get(kind)
    return {
        "rule": "adamw",
        "lr": config.learning_rate if own_rate is None else own_rate,
        "betas": config.betas,
        "eps": config.eps,
        "weight_decay": config.weight_decay if kind in ("matrix", "head") else 0.0,
        "fused": True,
    }
