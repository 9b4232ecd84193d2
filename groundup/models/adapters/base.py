"""What an adapter is, and the helpers adapters share: names of modules, fields of a config.json."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from groundup.config import UserError, did_you_mean, require
from groundup.models.config import AttentionConfig, DecoderConfig
from groundup.models.encoder_config import EncoderConfig
from groundup.models.encoder_decoder_config import EncoderDecoderConfig

TO_HF_ACTIVATION = {
    **{name: name for name in ("silu", "gelu", "relu", "relu2")},
    "gelu_tanh": "gelu_pytorch_tanh",
}
_FROM_HF_ACTIVATION = {
    **{theirs: ours for ours, theirs in TO_HF_ACTIVATION.items()},
    "gelu_new": "gelu_tanh",
    "swish": "silu",
}


class Adapter(ABC):
    """One family of transformers. Everything works on plain dictionaries, in both directions."""

    model_type: ClassVar[str]
    architecture: ClassVar[str]
    names: ClassVar[Mapping[str, str]]
    """Our modules -> theirs; those of a block are named from the block on."""

    @abstractmethod
    def needs(self, config: DecoderConfig) -> dict[str, tuple[Any, Any]]:
        """Field -> (its value, the only value this family can express)."""

    @abstractmethod
    def fields(self, config: DecoderConfig) -> dict[str, Any]:
        """The family's own fields of `config.json`."""

    @abstractmethod
    def read(self, data: Mapping[str, Any]) -> DecoderConfig:
        """Our config from a parsed `config.json`. Raises UserError naming what cannot be."""

    def to_state(self, config: DecoderConfig, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Our state dict under the family's names and in its layouts."""
        return {rename(name, self.names): tensor for name, tensor in state.items()}

    def from_state(self, config: DecoderConfig, theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The inverse of `to_state`. Raises UserError naming a key that no model of it has."""
        names = {theirs: ours for ours, theirs in self.names.items()}
        return {rename(name, names): tensor for name, tensor in theirs.items()}

    def full_name(self, name: str) -> str:
        """A tensor's name with a prefix that some published files lack."""
        return name


def plain_attention(
    config: DecoderConfig | EncoderConfig | EncoderDecoderConfig,
) -> dict[str, tuple[Any, Any]]:
    """What a family asks for that knows ordinary attention alone; see `Adapter.needs`."""
    attention = config.attention
    return {
        "attention.windows": (attention.windows, ()),
        "attention.scale": (attention.scale, None),
        "attention.soft_cap": (attention.soft_cap, None),
        "attention.sinks": (attention.sinks, False),
        "attention.gate": (attention.gate, False),
        "attention.latent": (attention.latent, None),
        "attention.differential": (attention.differential, None),
    }


def plain_decoder(config: DecoderConfig) -> dict[str, tuple[Any, Any]]:
    """What a decoder family asks for that has none of what only a few have."""
    return plain_attention(config) | {
        "norm.scale": (config.norm.scale, True),
        "norm.bias": (config.norm.bias, True),
        "positions.window_theta": (config.positions.window_theta, None),
        "positions.fraction": (config.positions.fraction, 1.0),
        "embedding_scale": (config.embedding_scale, 1.0),
        "embedding_norm": (config.embedding_norm, False),
        "logit_soft_cap": (config.logit_soft_cap, None),
        "token_values": (config.token_values, None),
        "stream_scales": (config.stream_scales, False),
        "distinct_layers": (config.distinct_layers, 0),
        "head_bias": (config.head_bias, False),
    }


def rename(name: str, names: Mapping[str, str]) -> str:
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


def window_fields(attention: AttentionConfig, num_layers: int) -> dict[str, Any]:
    """The field that says which layers see a window; its size has another name in every family."""
    names = ("full_attention", "sliding_attention")
    return {"layer_types": [names[attention.window(i) > 0] for i in range(num_layers)]}


def one_window(windows: tuple[int, ...]) -> tuple[int, ...]:
    """The same layers with windows all as large as the largest, as many families have them."""
    return tuple(max(windows) if window else 0 for window in windows)


def read_windows(
    data: Mapping[str, Any], num_layers: int, window: Any, types: Sequence[str]
) -> tuple[int, ...]:
    """What each layer sees, as the shortest pattern that says it.

    `types` stands in for `layer_types` where a file has none.
    """
    types, known = data.get("layer_types") or types, ("sliding_attention", "full_attention")
    if not isinstance(types, list) or not all(name in known for name in types):
        raise UserError(f"config.json: layer_types should be names out of {known}, not {types!r}.")
    require(
        len(types) == num_layers,
        f"config.json: layer_types holds {len(types)} names for {num_layers} layers.",
    )
    if "sliding_attention" not in types:
        return ()
    if not isinstance(window, int) or window < 1:
        raise UserError(f"config.json: a window should be a number of tokens, but is {window!r}.")
    windows = [window if name == "sliding_attention" else 0 for name in types]
    return next(
        tuple(windows[:period])
        for period in range(1, num_layers + 1)
        if all(windows[i] == windows[i % period] for i in range(num_layers))
    )


def whole_number(data: Mapping[str, Any], field: str) -> int:
    """A field that has to be an integer. Raises UserError naming it when it is not."""
    value = data.get(field)
    if not isinstance(value, int) or isinstance(value, bool):
        raise UserError(f"config.json: {field} should be a whole number, but is {value!r}.")
    return value


def number(data: Mapping[str, Any], field: str, default: float | None) -> float | None:
    """A field that has to be a number or null. Raises UserError naming it when it is neither."""
    value = data.get(field, default)
    if value is None:
        return None
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise UserError(f"config.json: {field} should be a number, but is {value!r}.")
    return float(value)


def only(data: Mapping[str, Any], field: str, *allowed: Any) -> None:
    """Refuse a field whose value is none of the allowed ones."""
    value = data.get(field)
    require(
        value in allowed,
        f"config.json: {field} = {value!r} is not supported (only {allowed[0]!r} is).",
    )


def activation(data: Mapping[str, Any], field: str, default: str) -> Any:
    """Our name of the activation a field names."""
    name = data.get(field, default)
    if name not in _FROM_HF_ACTIVATION:
        hint = did_you_mean(str(name), _FROM_HF_ACTIVATION)
        raise UserError(f"config.json: {field} = {name!r} is not supported.{hint}")
    return _FROM_HF_ACTIVATION[name]
