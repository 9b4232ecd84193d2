"""Configuration as data: frozen dataclasses filled from TOML, checked once, saved in full.

A config is a tree of frozen, keyword-only dataclasses. `from_dict` builds one from a parsed TOML
file and answers a mistake with the dotted name of the key, what was expected and the nearest valid
spelling; `to_toml` writes the resolved tree back, so that every run can be repeated.
"""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

Config = TypeVar("Config")


class UserError(ValueError):
    """A mistake the user can mend. The command line prints its one sentence and exits with 2."""


def load_toml(path: str | Path) -> dict[str, Any]:
    """Parse a TOML file. Raises UserError when it is missing or malformed."""
    path = Path(path)
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except FileNotFoundError:
        raise UserError(f"Recipe {path} does not exist.") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder; a recipe is a .toml file.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid TOML: {error}.") from None


def from_dict(cls: type[Config], data: Mapping[str, Any], where: str = "") -> Config:
    """Build the dataclass `cls` from nested mappings; `where` names the place in error messages."""
    hints = typing.get_type_hints(cls)
    names = [field.name for field in dataclasses.fields(cls) if field.init]  # type: ignore[arg-type]
    values = {}
    for key, value in data.items():
        if key not in names:
            raise UserError(f"Unknown key '{_join(where, key)}'.{did_you_mean(key, names)}")
        values[key] = _convert(hints[key], value, _join(where, key))
    required = [
        field.name
        for field in dataclasses.fields(cls)  # type: ignore[arg-type]
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    for name in required:
        if name not in values:
            raise UserError(f"Missing key '{_join(where, name)}'.")
    return cls(**values)


def to_dict(config: Any) -> dict[str, Any]:
    """Plain nested dict of a config; tuples become lists, None stays None."""

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value):
            return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        if isinstance(value, (list, tuple)):
            return [plain(item) for item in value]
        return value

    return plain(config)


def to_toml(config: Any) -> str:
    """The whole config as TOML. TOML has no null, so a None is left out (its default is None)."""
    import tomli_w

    def drop_none(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: drop_none(item) for key, item in value.items() if item is not None}
        if isinstance(value, list):
            return [drop_none(item) for item in value]
        return value

    return tomli_w.dumps(drop_none(to_dict(config)))


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """A hint to append to an error: the closest option, or the list of all when none is close."""
    options = sorted(options)
    close = difflib.get_close_matches(word, options, n=1, cutoff=0.6)
    if close:
        return f" Did you mean '{close[0]}'?"
    return f" Valid: {', '.join(options)}." if options else ""


def require(condition: bool, message: str) -> None:
    """Raise UserError(message) unless the condition holds."""
    if not condition:
        raise UserError(message)


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        (hint,) = [argument for argument in arguments if argument is not type(None)]
        return _convert(hint, value, where)
    if origin is Literal:
        if value not in arguments:
            hint_text = did_you_mean(str(value), [str(argument) for argument in arguments])
            raise UserError(f"'{where}' cannot be {value!r}.{hint_text}")
        return value
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise UserError(f"'{where}' should be a list, but is {value!r}.")
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            items = [arguments[0]] * len(value)
        else:
            items = list(arguments)
            if len(items) != len(value):
                raise UserError(f"'{where}' should have {len(items)} entries, not {len(value)}.")
        pairs = enumerate(zip(items, value, strict=True))
        return tuple(_convert(item, entry, f"{where}[{i}]") for i, (item, entry) in pairs)
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise UserError(f"'{where}' should be a section of keys, but is {value!r}.")
        return from_dict(typing.cast(type, hint), value, where)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise UserError(
            f"'{where}' should be of type {hint.__name__}, but is {value!r} "
            f"({type(value).__name__})."
        )
    return value
