"""Weights under the names that wrappers give them, and one readable line for what does not fit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from groundup.config import UserError
from groundup.models.folder import load_model, save_model
from groundup.models.state_dict import load_weights, mismatch, strip_wrappers


class Wrapper(nn.Module):
    """Names its content as DistributedDataParallel does."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 5), nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7)))


def compiled(module: Any) -> Any:
    return torch.compile(module, backend="eager")


def wrapped_in_part() -> nn.Module:
    model = network()
    model[1][0] = compiled(Wrapper(model[1][0]))  # type: ignore[index]
    return model


WRAPPED = {
    "plain": network,
    "compiled": lambda: compiled(network()),
    "parallel": lambda: Wrapper(network()),
    "compiled and parallel": lambda: Wrapper(compiled(network())),
    "parallel and compiled": lambda: compiled(Wrapper(network())),
    "in part": wrapped_in_part,
    "whole and in part": lambda: Wrapper(compiled(wrapped_in_part())),
}


@pytest.mark.parametrize("source", WRAPPED)
@pytest.mark.parametrize("target", ["plain", "parallel and compiled", "in part"])
def test_weights_fit_however_a_model_was_wrapped(source: str, target: str) -> None:
    first, second = WRAPPED[source](), WRAPPED[target]()
    load_weights(second, first.state_dict(), "The file")
    one, other = strip_wrappers(first.state_dict()), strip_wrappers(second.state_dict())
    assert list(one) == list(other) == list(network().state_dict())
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_what_does_not_fit_is_said_and_nothing_is_changed() -> None:
    model = network()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    weights = {name: tensor + 1 for name, tensor in before.items()}
    weights["1.0.weight"] = torch.zeros(7, 4)
    weights["0.biases"] = weights.pop("0.bias")
    weights["1.1.num_batches_tracked"] = torch.zeros(2)
    with pytest.raises(UserError) as error:
        load_weights(model, weights, "The checkpoint", "Take another.")
    assert str(error.value) == (
        "The checkpoint does not fit the model: it lacks '0.bias' (is it '0.biases'?); has no use "
        "for '0.biases'; holds '1.0.weight' of shape 7 × 4 instead of 7 × 5, "
        "'1.1.num_batches_tracked' of shape 2 instead of a single number. Take another."
    )
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_a_long_list_is_cut_short() -> None:
    names = {f"blocks.{i}.weight": (2,) for i in range(8)}
    text = mismatch(names, {})
    assert text.count("blocks.") == 5 and text.endswith("and 3 more")
    assert mismatch(names, names) == mismatch({}, {}) == ""
    assert mismatch({"a": (3,)}, {"a": [3]}) == ""


def test_a_name_with_and_without_a_prefix() -> None:
    with pytest.raises(UserError, match=r"hold 'a.b' twice, once as 'module.a.b'"):
        strip_wrappers({"a.b": 1, "module.a.b": 2})
    assert strip_wrappers({"modules.a": 1, "a.module_": 2}) == {"modules.a": 1, "a.module_": 2}


def test_a_model_folder_may_hold_the_names_of_a_compiled_model(
    tmp_path: Any, tiny_model: Any, tiny_tokenizer: Any
) -> None:
    save_model(tmp_path / "m", tiny_model, tiny_tokenizer, {})
    path = tmp_path / "m" / "model.safetensors"
    tensors = load_file(path)
    save_file({f"module._orig_mod.{name}": tensor for name, tensor in tensors.items()}, path)
    loaded = load_model(tmp_path / "m")[0].state_dict()
    for name, tensor in tiny_model.state_dict().items():
        assert torch.equal(loaded[name], tensor)
