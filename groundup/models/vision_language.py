"""The vision-language model: an image becomes vectors that a decoder reads among its tokens."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.config import require
from groundup.models.base import Model
from groundup.models.decoder import Decoder
from groundup.models.flops import vision_language_flops
from groundup.models.image import VisionTransformer
from groundup.models.vision_language_config import VisionLanguageConfig
from groundup.nn.cache import KVCache
from groundup.nn.init import initialize


class VisionLanguageModel(Model):
    """ids (B, T), images (B, channels, height, width) -> logits (B, T, V).

        image ─ vision transformer ─ [queries] ─ projector ┐
        ids ─── embedding ─────────── placeholders replaced ┴─ decoder ─ logits

    Every row of ids holds `num_image_tokens` placeholders, the token `image_id`. It is a token of
    the vocabulary like any other; only what the decoder reads in its place is exchanged.
    """

    def __init__(self, config: VisionLanguageConfig) -> None:
        super().__init__()
        self.config = config
        width, inner = config.language.width, config.vision.width
        self.vision = VisionTransformer(config.vision)
        self.queries = Queries(config.num_queries, inner) if config.policy == "queries" else None
        self.projector = Projector(inner, width)
        self.decoder = Decoder(config.language)
        initialize(self.projector, config.vision.init_std, 1)

    def forward(self, ids: Tensor, images: Tensor) -> Tensor:
        """ids (B, T), images (B, channels, height, width) -> logits (B, T, V)."""
        vectors = insert(
            self.decoder.embedding(ids), ids == self.config.image_id, self.image_vectors(images)
        )
        return self.decoder.logits(self.decoder.hidden(ids, vectors=vectors))

    def image_vectors(self, images: Tensor) -> Tensor:
        """images -> (B, N, D) of the decoder's width, N as `num_image_tokens` says."""
        if self.config.policy == "class":
            return self.projector(self.vision.hidden(images)[:, :1])
        patches = self.vision(images)  # the class token, where there is one, is left out
        return self.projector(patches if self.queries is None else self.queries(patches))

    def given(self, images: Tensor) -> GivenImages:
        """The model as a decoder, for one image or one for each row it will be asked."""
        return GivenImages(self, images)

    def flops_per_token(self, length: int) -> float:
        """Training FLOPs per token of a row of `length`, one image's share included."""
        return vision_language_flops(self.config, length)

    @property
    def checkpointing(self) -> int:
        """As the decoder's, for the blocks of both parts."""
        return self.decoder.checkpointing

    @checkpointing.setter
    def checkpointing(self, every: int) -> None:
        self.vision.checkpointing = self.decoder.checkpointing = every


class GivenImages(nn.Module):
    """ids (B, T) -> logits (B, T, V): a vision-language model with settled images is a decoder.

    The first ids a cache is filled with hold all places of the image; one that is written later is
    a token like any other. Everything that generates from a `Decoder` takes it. Built without
    gradients.
    """

    @torch.no_grad()
    def __init__(self, model: VisionLanguageModel, images: Tensor) -> None:
        super().__init__()
        self.model, self.config = model, model.config.language
        self.vectors = model.image_vectors(images)
        self.new_cache, self.logits = model.decoder.new_cache, model.decoder.logits

    def forward(self, ids: Tensor, *, cache: KVCache | None = None) -> Tensor:
        """ids (B, T) -> logits (B, T, V)."""
        return self.logits(self.hidden(ids, cache=cache))

    def hidden(self, ids: Tensor, *, cache: KVCache | None = None) -> Tensor:
        """ids (B, T) -> (B, T, D). Several rows may share one image."""
        decoder, vectors = self.model.decoder, None
        if cache is None or cache.length == 0:
            places = ids == self.model.config.image_id
            places = places & (places.cumsum(-1) <= self.vectors.shape[1])
            shown = self.vectors.expand(ids.shape[0], -1, -1)
            vectors = insert(decoder.embedding(ids), places, shown)
        return decoder.hidden(ids, cache=cache, vectors=vectors)


class Projector(nn.Module):
    """(B, N, inner) -> (B, N, D): two layers with GELU between. LLaVA-1.5, arXiv:2310.03744."""

    def __init__(self, inner: int, width: int) -> None:
        super().__init__()
        self.up = nn.Linear(inner, width)
        self.down = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x)))


class Queries(nn.Module):
    """(B, N, D) -> (B, Q, D): each of Q learned vectors averages the patches by attention.

    The essence of BLIP-2's Q-Former, arXiv:2301.12597: one layer, one head.
    """

    def __init__(self, number: int, width: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(number, width))
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)

    def forward(self, patches: Tensor) -> Tensor:
        query = self.query.expand(len(patches), -1, -1)
        return F.scaled_dot_product_attention(query, self.key(patches), self.value(patches))


def insert(embedded: Tensor, places: Tensor, vectors: Tensor) -> Tensor:
    """(B, T, D), bool (B, T), (B, N, D) -> (B, T, D): the vectors at the places, in their order.

    Raises UserError where a row has another number of places than N.
    """
    counts = places.sum(-1)
    expected = vectors.shape[1]
    require(
        bool((counts == expected).all()),
        f"An image takes {expected} placeholders, but the rows hold {counts.tolist()}.",
    )
    return embedded.masked_scatter(places[..., None], vectors.to(embedded.dtype))
