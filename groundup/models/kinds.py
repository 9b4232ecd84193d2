"""Every kind of model there is: its config, its class, what it is good for.

Files that transformers can read are in the layout of one of its architectures; `Layout` says how.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

from torch import Tensor, nn

from groundup.config import UserError
from groundup.models import huggingface
from groundup.models.adapters import albert, bert, modernbert, t5
from groundup.models.config import DecoderConfig
from groundup.models.decoder import Decoder
from groundup.models.encoder import Encoder
from groundup.models.encoder_config import EncoderConfig
from groundup.models.encoder_decoder import EncoderDecoder
from groundup.models.encoder_decoder_config import EncoderDecoderConfig
from groundup.models.image import MLPClassifier, VisionTransformer
from groundup.models.image_config import MLPConfig, ViTConfig
from groundup.models.recurrent import RecurrentModel
from groundup.models.recurrent_config import RecurrentConfig
from groundup.models.vision_language import VisionLanguageModel
from groundup.models.vision_language_config import VisionLanguageConfig


class Layout(Protocol):
    """How a family of transformers names things: a module of `groundup.models.adapters`."""

    def to_hf_config(self, config: Any, /) -> dict[str, Any]: ...
    def from_hf_config(self, data: Mapping[str, Any], /) -> Any: ...
    def to_hf_state(self, config: Any, state: Mapping[str, Tensor], /) -> dict[str, Tensor]: ...
    def from_hf_state(self, config: Any, state: Mapping[str, Tensor], /) -> dict[str, Tensor]: ...
    def drop_redundant(self, config: Any, theirs: Mapping[str, Any], /) -> dict[str, Any]: ...


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of model."""

    name: str
    what: str
    config: type
    model: type[nn.Module]
    verbs: tuple[str, ...]
    """What the command line can do with it."""
    layouts: Mapping[str, Layout] = field(default_factory=lambda: MappingProxyType({}))
    """By the model_type of config.json."""

    @property
    def advice(self) -> str:
        """A sentence on what to do with it."""
        return f"Use {' or '.join(f'`groundup {verb}`' for verb in self.verbs)} with it."


KINDS = {
    kind.name: kind
    for kind in (
        Kind(
            name="decoder",
            what="a decoder, which writes",
            config=DecoderConfig,
            model=Decoder,
            verbs=("chat", "generate", "score"),
            layouts=dict.fromkeys(huggingface.ADAPTERS, huggingface),
        ),
        Kind(
            name="encoder",
            what="an encoder, which reads texts and writes none",
            config=EncoderConfig,
            model=Encoder,
            verbs=("embed", "classify"),
            layouts={"bert": bert, "albert": albert, "modernbert": modernbert},
        ),
        Kind(
            name="encoder_decoder",
            what="an encoder-decoder, which answers a text with another",
            config=EncoderDecoderConfig,
            model=EncoderDecoder,
            verbs=("generate",),
            layouts={"t5": t5},
        ),
        Kind(
            name="recurrent",
            what="a recurrent model, which continues texts",
            config=RecurrentConfig,
            model=RecurrentModel,
            verbs=("generate",),
        ),
        Kind(
            name="mlp",
            what="an image classifier",
            config=MLPConfig,
            model=MLPClassifier,
            verbs=("classify",),
        ),
        Kind(
            name="vit",
            what="an image classifier",
            config=ViTConfig,
            model=VisionTransformer,
            verbs=("classify",),
        ),
        Kind(
            name="vision_language",
            what="a vision-language model, which writes about an image",
            config=VisionLanguageConfig,
            model=VisionLanguageModel,
            verbs=("generate",),
        ),
    )
}
KIND_BY_MODEL_TYPE = {name: kind for kind in KINDS.values() for name in kind.layouts}
"""The architectures of transformers we have."""


def build(config: Any) -> Any:
    """The model of any of our configs, with random weights."""
    return kind_of(config).model(config)


def kind_of(config: Any) -> Kind:
    """Which kind of model a config describes."""
    (kind,) = [kind for kind in KINDS.values() if kind.config is type(config)]
    return kind


def vocab_size(config: Any) -> int:
    """How many token ids a model has; 0 for one that reads none."""
    return getattr(getattr(config, "language", config), "vocab_size", 0)


def layout_for(config: Any) -> tuple[Layout | None, dict[str, Any]]:
    """The first layout that expresses the config, and its config.json; None and {} for none."""
    for layout in dict.fromkeys(kind_of(config).layouts.values()):
        try:
            return layout, layout.to_hf_config(config)
        except UserError:
            continue
    return None, {}
