"""The encoder-decoder transformer: a source is read both ways, a target written left to right."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.config import require
from groundup.models.base import Model
from groundup.models.encoder import seeing
from groundup.models.encoder_decoder_config import EncoderDecoderConfig
from groundup.models.flops import encoder_decoder_flops
from groundup.nn.attention import Attention, Memory
from groundup.nn.block import Block
from groundup.nn.cache import KVCache
from groundup.nn.init import deepnorm_stream_scale, initialize
from groundup.nn.masks import Causal, Plan, plan
from groundup.nn.norms import build_norm
from groundup.nn.recompute import run
from groundup.nn.relative_bias import RelativeBias
from groundup.nn.sinusoidal import sinusoids


class Source(NamedTuple):
    """A source that has been read: what each layer of the decoder looks up, computed once."""

    memories: tuple[Memory, ...]
    """(B, K, S, E) keys and values for every decoder layer."""
    mask: Plan


class EncoderDecoder(Model):
    """source (B, S), target (B, T) -> logits (B, T, V): what follows each token of the target.

        source ─ embedding ─ encoder ──────────┐ keys and values, once
        target ─ embedding ─ decoder (looks up ┴) ─ head ─ logits

    In training the target is known and all its positions are computed at once, each from the true
    tokens before it (teacher forcing); `shift_right` makes the decoder's input of it. The blocks
    are the decoder's, with a branch for the source. The original Transformer and T5 are configs of
    this class (`groundup.models.encoder_decoder_config`).
    """

    def __init__(self, config: EncoderDecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.encoder = Stack(config, config.num_encoder_layers, writes=False)
        self.decoder = Stack(config, config.num_decoder_layers, writes=True)
        self.head = None
        if not config.tie_embeddings:
            self.head = nn.Linear(config.width, config.vocab_size, bias=False)
        self.initialize()

    def forward(self, source: Tensor, target: Tensor, visible: Tensor | None = None) -> Tensor:
        """(B, S), (B, T) -> (B, T, V); `visible` (B, S) is False where the source is padding."""
        return self.logits(self.hidden(target, self.read(source, visible)))

    def encode(self, source: Tensor, visible: Tensor | None = None) -> Tensor:
        """source (B, S) -> (B, S, D)."""
        x = self._embed(source, 0)
        bias = self.encoder.bias(source.shape[1], source.shape[1]) if self.encoder.bias else None
        return self.encoder(x, seeing(visible, bias))

    def read(self, source: Tensor, visible: Tensor | None = None) -> Source:
        """source (B, S) -> all that the decoder will ever need of it."""
        encoded = self.encode(source, visible)
        attentions = (block.get_submodule("cross_attention") for block in self.decoder.blocks)
        memories = []
        for attention in attentions:
            assert isinstance(attention, Attention)
            memories.append(attention.remember(encoded))
        return Source(tuple(memories), seeing(visible))

    def hidden(self, target: Tensor, source: Source, cache: KVCache | None = None) -> Tensor:
        """target (B, T) -> (B, T, D); with a cache the ids continue what it holds."""
        start, length = (cache.length if cache is not None else 0), target.shape[1]
        x = self._embed(target, start)
        bias = self.decoder.bias(length, start + length) if self.decoder.bias else None
        mask = plan(Causal(), length, start + length, target.device, bias)
        return self.decoder(x, mask, cache, source)

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., D) -> (..., V)."""
        weight = self.embedding.weight if self.head is None else self.head.weight
        return F.linear(hidden * self.config.head_scale, weight)

    def shift_right(self, targets: Tensor) -> Tensor:
        """Targets (B, T) -> the decoder's input: start_id, then all but the last.

        Ignored targets, below 0, become start_id: what follows one is as a rule ignored too.
        """
        start = targets.new_full((targets.shape[0], 1), self.config.start_id)
        ids = torch.cat((start, targets[:, :-1]), dim=1)
        return ids.masked_fill(ids < 0, self.config.start_id)

    def given(self, source: Tensor, visible: Tensor | None = None) -> GivenSource:
        """The model as a decoder, for one source (1, S) or one for each row it will be asked."""
        return GivenSource(self, source, visible)

    def initialize(self) -> None:
        """Draw all weights anew from torch's generator; see the table in `groundup.nn.init`."""
        config = self.config
        layers = max(config.num_encoder_layers, config.num_decoder_layers)
        initialize(self, config.init_std, layers, config.norm.placement)
        if config.embedding_std is not None:
            nn.init.normal_(self.embedding.weight, std=config.embedding_std)
        heads = config.attention
        if heads.scale is not None:  # let scores start as narrow as if divided by √E, as T5 does
            for module in self.modules():
                if isinstance(module, Attention):
                    module.query.weight.data.mul_(heads.head_width**-0.5 / heads.scale)

    def new_cache(self, batch: int, capacity: int) -> KVCache:
        """An empty cache of the decoder's shape, on its device and in its dtype."""
        attention, weight = self.config.attention, self.embedding.weight
        return KVCache(
            self.config.num_decoder_layers,
            batch,
            attention.num_kv_heads,
            attention.head_width,
            capacity,
            weight.device,
            weight.dtype,
        )

    def flops_per_token(self, length: int) -> float:
        """Training FLOPs per token of a target of `length`, with a source as long."""
        return encoder_decoder_flops(self.config, length)

    @property
    def checkpointing(self) -> int:
        """As the decoder's, for the blocks of both sides."""
        return self.encoder.checkpointing

    @checkpointing.setter
    def checkpointing(self, every: int) -> None:
        self.encoder.checkpointing = self.decoder.checkpointing = every

    def _embed(self, ids: Tensor, start: int) -> Tensor:
        config, stop = self.config, start + ids.shape[1]
        require(
            stop <= config.context_length,
            f"The sequence is {stop} tokens long, but the model's context_length is "
            f"{config.context_length}. Shorten it.",
        )
        x = self.embedding(ids) * config.embedding_scale
        if config.positions.kind == "sinusoidal":
            x = x + sinusoids(start, ids.shape[1], config.width, ids.device).to(x.dtype)
        dropout = config.embedding_dropout
        return F.dropout(x, dropout, self.training) if dropout else x


class Stack(nn.Module):
    """(B, T, D) -> (B, T, D): the blocks of the encoder or, where it `writes`, the decoder."""

    def __init__(self, config: EncoderDecoderConfig, num_layers: int, writes: bool) -> None:
        super().__init__()
        self.checkpointing = 0
        width, norm, positions = config.width, config.norm, config.positions
        self.bias = None
        if positions.kind == "t5":  # one table for all layers
            self.bias = RelativeBias(
                config.attention.num_heads,
                positions.num_buckets,
                positions.max_distance,
                bidirectional=not writes,
            )
        scale = deepnorm_stream_scale(num_layers) if norm.placement == "deepnorm" else 1.0
        memory_width = width if writes else None
        self.blocks = nn.ModuleList(
            Block(width, config.attention, config.feed_forward, norm, scale, memory_width)
            for _ in range(num_layers)
        )
        self.final_norm = None if norm.ends_blocks else build_norm(norm, width)

    def forward(
        self, x: Tensor, mask: Plan, cache: KVCache | None = None, source: Source | None = None
    ) -> Tensor:
        for index, block in enumerate(self.blocks):
            layer = cache.layers[index] if cache is not None else None
            memory = source.memories[index] if source is not None else None
            seen = source.mask if source is not None else None
            x = run(self, index, block, x, mask, None, layer, memory, seen)
        return self.final_norm(x) if self.final_norm is not None else x


class GivenSource(nn.Module):
    """ids (B, T) -> logits (B, T, V): an encoder-decoder whose source is settled is a decoder.

    Everything that generates from a `Decoder` takes it. Built without gradients.
    """

    @torch.no_grad()
    def __init__(
        self, model: EncoderDecoder, source: Tensor, visible: Tensor | None = None
    ) -> None:
        super().__init__()
        self.model, self.config = model, model.config
        self.source = model.read(source, visible)
        self.new_cache, self.logits = model.new_cache, model.logits

    def forward(self, ids: Tensor, *, cache: KVCache | None = None) -> Tensor:
        """ids (B, T) -> logits (B, T, V)."""
        return self.logits(self.hidden(ids, cache=cache))

    def hidden(self, ids: Tensor, *, cache: KVCache | None = None) -> Tensor:
        """ids (B, T) -> (B, T, D). Several rows may share one source."""
        rows = self.source.memories[0].keys.shape[0]
        assert rows in (1, ids.shape[0]), f"{ids.shape[0]} rows, but {rows} sources"
        return self.model.hidden(ids, self._for_rows(ids.shape[0]), cache)

    def _for_rows(self, rows: int) -> Source:
        if rows == self.source.memories[0].keys.shape[0]:
            return self.source
        memories = tuple(
            Memory(*(part.expand(rows, -1, -1, -1) for part in memory))
            for memory in self.source.memories
        )
        return Source(memories, self.source.mask)  # its mask has one row, which broadcasts
