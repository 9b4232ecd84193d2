"""From a model and a config to one optimizer that applies each group's own update rule.

State and settings are saved by parameter name, not by position, so that a checkpoint survives a
reordering of the groups and torch.distributed.checkpoint can match tensors across layouts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from groundup.config import UserError
from groundup.optim.adamw import adamw_state, adamw_step
from groundup.optim.config import OptimizerConfig
from groundup.optim.groups import parameter_groups
from groundup.optim.muon import muon_state, muon_step

_STEP = {"adamw": adamw_step, "muon": muon_step}
_STATE = {"adamw": adamw_state, "muon": muon_state}


def build_optimizer(
    model: nn.Module, config: OptimizerConfig, compute_dtype: str = "float32"
) -> GroupedOptimizer:
    """The optimizer of `config` over the trainable parameters of `model`.

    Pass the bare model (not the compiled or data-parallel wrapper, whose names differ) on its
    final device. `compute_dtype` is the policy's: Muon orthogonalises in bf16 where the model
    multiplies in bf16, and in fp32 otherwise (the range of fp16 is too short for it).
    """
    iteration_dtype = "bfloat16" if compute_dtype == "bfloat16" else "float32"
    return GroupedOptimizer(parameter_groups(model, config, iteration_dtype))


class GroupedOptimizer(torch.optim.Optimizer):
    """A torch optimizer whose groups each name their update rule, "adamw" or "muon".

    Groups hold (name, parameter) pairs and all settings of their rule (see groups.py). The state
    exists from the start, so a checkpoint can be read straight into it before any step.
    """

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        super().__init__(groups, defaults={})
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter] = _STATE[group["rule"]](parameter)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            _STEP[group["rule"]](group, self.state)
        return loss

    def state_dict(self) -> dict[str, Any]:  # type: ignore[override]
        """{"state": {parameter name: {tensor name: Tensor}}, "param_groups": [settings]}.

        As torch's layout, but "params" and "state" hold names instead of numbers. The tensors are
        the optimizer's own, not copies.
        """
        return {
            "state": {name: dict(self.state[parameter]) for name, parameter in self._named()},
            "param_groups": [
                {**_settings(group), "params": list(group["param_names"])}
                for group in self.param_groups
            ],
        }

    @torch.no_grad()
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:  # type: ignore[override]
        """Copy state and settings in. Raises UserError when it is of another model or config."""
        saved, own = state_dict["state"], dict(self._named())
        if saved.keys() != own.keys():
            names = sorted(saved.keys() ^ own.keys())
            raise UserError(
                f"The saved optimizer state is of another model: {len(names)} parameters are in "
                f"only one of the two, such as '{names[0]}'. Resume with the model it was saved "
                "from."
            )
        for name, parameter in own.items():
            tensors = self.state[parameter]
            if saved[name].keys() != tensors.keys():
                raise UserError(
                    f"The saved optimizer updates '{name}' by another rule: it holds "
                    f"{sorted(saved[name])}, but this config needs {sorted(tensors)}."
                )
            for key, tensor in tensors.items():
                if tensor is not saved[name][key]:
                    tensor.copy_(saved[name][key])
        by_kind = {group["kind"]: group for group in state_dict["param_groups"]}
        for group in self.param_groups:
            group.update(_settings(by_kind[group["kind"]]))

    def _named(self) -> list[tuple[str, nn.Parameter]]:
        return [
            pair
            for group in self.param_groups
            for pair in zip(group["param_names"], group["params"], strict=True)
        ]


def _settings(group: Mapping[str, Any]) -> dict[str, Any]:
    """A group without what belongs to the model: its parameters, their names and splits."""
    model_keys = ("params", "param_names", "row_splits")
    return {key: value for key, value in group.items() if key not in model_keys}
