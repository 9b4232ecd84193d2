"""Weights by name: undoing the prefixes of wrappers, and saying what does not fit.

`docs/state-dict.md` explains what a state_dict is.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from torch import Tensor, nn

from groundup.config import UserError

Value = TypeVar("Value")
WRAPPERS = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
"""Levels that DistributedDataParallel, torch.compile, FSDP1 and torch's checkpoint_wrapper put into
a name, at its beginning or, where a part of a model was wrapped, within it."""
SHOWN = 5  # names of a kind that a message lists


def load_weights(
    model: nn.Module, weights: Mapping[str, Tensor], what: str, advice: str = ""
) -> None:
    """Copy `weights` into the model: every tensor, in its shape, and no other.

    The names may come from a wrapped or compiled model, and so may the model's. Raises UserError,
    with `what` as its subject ("The checkpoint") and `advice` as a last sentence, that lists all
    that does not fit; the model is then as it was.
    """
    state = model.state_dict()
    own = strip_wrappers({name: name for name in state})
    found = strip_wrappers(weights)
    expected = {name: tuple(state[full].shape) for name, full in own.items()}
    problem = mismatch(expected, {name: tuple(tensor.shape) for name, tensor in found.items()})
    if problem:
        raise UserError(f"{what} does not fit the model: it {problem}. {advice}".rstrip())
    model.load_state_dict({full: found[name] for name, full in own.items()})


def strip_wrappers(named: Mapping[str, Value]) -> dict[str, Value]:
    """The same values under the names they have without wrappers, in the same order.

    "module._orig_mod.blocks.0._orig_mod.norm.weight" becomes "blocks.0.norm.weight". Raises
    UserError when two names become one.
    """
    bare: dict[str, Value] = {}
    for name, value in named.items():
        short = ".".join(part for part in name.split(".") if part not in WRAPPERS)
        if short in bare:
            raise UserError(
                f"The weights hold '{short}' twice, once as '{name}': with and without the prefix "
                "of a wrapper. Keep one of them."
            )
        bare[short] = value
    return bare


def mismatch(expected: Mapping[str, Sequence[int]], found: Mapping[str, Sequence[int]]) -> str:
    """What differs between two sets of names and shapes, in one line; "" when nothing does.

    A missing name is shown with the most similar name among those that nothing asks for, as
    renamed weights are the most common case of both.
    """
    missing = [name for name in expected if name not in found]
    surplus = [name for name in found if name not in expected]
    reshaped = [
        f"'{name}' of shape {_shape(found[name])} instead of {_shape(shape)}"
        for name, shape in expected.items()
        if name in found and tuple(found[name]) != tuple(shape)
    ]
    lacking = []
    for name in missing[:SHOWN]:
        close = difflib.get_close_matches(name, surplus, n=1, cutoff=0.6)
        lacking.append(f"'{name}'" + (f" (is it '{close[0]}'?)" if close else ""))
    parts = [
        _listed("lacks", lacking, len(missing)),
        _listed("has no use for", [f"'{name}'" for name in surplus[:SHOWN]], len(surplus)),
        _listed("holds", reshaped[:SHOWN], len(reshaped)),
    ]
    return "; ".join(part for part in parts if part)


def _listed(verb: str, items: Iterable[str], count: int) -> str:
    text = ", ".join(items)
    more = f" and {count - SHOWN} more" if count > SHOWN else ""
    return f"{verb} {text}{more}" if text else ""


def _shape(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape)) or "a single number"
