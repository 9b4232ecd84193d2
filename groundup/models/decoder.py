"""The decoder-only transformer: token ids in, logits for the next token out."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.config import require
from groundup.models.base import Model
from groundup.models.config import DecoderConfig, flops_per_token
from groundup.nn.alibi import alibi_bias
from groundup.nn.block import Block
from groundup.nn.cache import KVCache
from groundup.nn.init import deepnorm_stream_scale, initialize
from groundup.nn.masks import Causal, Document, Plan, Window, plan
from groundup.nn.norms import build_norm
from groundup.nn.positions import LayerRotations, document_positions
from groundup.nn.recompute import run
from groundup.nn.relative_bias import RelativeBias
from groundup.nn.sinusoidal import sinusoids
from groundup.nn.token_values import TokenValues


class Decoder(Model):
    """ids (B, T) -> logits (B, T, V).

        ids ─ embedding [+ positions] ─ [norm] ─ block × L ─ [final_norm] ─ head ─ [cap] ─ logits

    GPT-2, Llama, Gemma and others are configs of this class (`groundup.models.presets`). With
    `checkpointing` 1, training keeps only each block's input and computes the rest again in the
    backward pass (with n, of every n-th block): less memory, a third more compute, equal gradients.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.checkpointing = 0
        width = config.width
        self.embedding = nn.Embedding(config.vocab_size, width)
        self.position_embedding = None
        self.rotary = self.relative_bias = None
        positions, heads = config.positions, config.attention
        if positions.kind == "learned":
            self.position_embedding = nn.Embedding(config.context_length, width)
        elif positions.kind == "rope":
            self.rotary = LayerRotations(heads, config.context_length, positions)
        elif positions.kind == "t5":
            self.relative_bias = RelativeBias(
                heads.num_heads, positions.num_buckets, positions.max_distance, bidirectional=False
            )
        self.embedding_norm = build_norm(config.norm, width) if config.embedding_norm else None
        deepnorm = config.norm.placement == "deepnorm"
        scale = deepnorm_stream_scale(config.num_layers) if deepnorm else 1.0
        self.blocks = nn.ModuleList(
            Block(width, config.attention, config.feed_forward, config.norm, scale)
            for _ in range(config.distinct_layers or config.num_layers)
        )
        self.token_values = None
        if (values := config.token_values) is not None:
            self.token_values = nn.ModuleDict(
                {
                    str(layer): TokenValues(config.vocab_size, heads, values)
                    for layer in range(config.num_layers)
                    if values.acts(layer, config.num_layers)
                }
            )
        self.stream_scales = self.first_scales = None
        if config.stream_scales:
            self.stream_scales = nn.Parameter(torch.empty(config.num_layers))
            self.first_scales = nn.Parameter(torch.empty(config.num_layers))
        self.final_norm = None if config.norm.ends_blocks else build_norm(config.norm, width)
        # A tied head has no module of its own: one weight, registered once, in one place.
        self.head = (
            None if config.tie_embeddings else nn.Linear(width, config.vocab_size, bias=False)
        )
        self.head_bias = nn.Parameter(torch.zeros(config.vocab_size)) if config.head_bias else None
        self.initialize()

    def forward(
        self, ids: Tensor, *, cache: KVCache | None = None, documents: Tensor | None = None
    ) -> Tensor:
        """ids (B, T) -> logits (B, T, V); arguments as for `hidden`."""
        return self.logits(self.hidden(ids, cache=cache, documents=documents))

    def hidden(
        self,
        ids: Tensor,
        *,
        cache: KVCache | None = None,
        documents: Tensor | None = None,
        vectors: Tensor | None = None,
    ) -> Tensor:
        """ids (B, T) -> (B, T, D) after the final norm, where there is one.

        With a cache the ids continue what it holds, and are appended to it. `documents` (B, T)
        numbers each position's document: attention then never crosses from one to another, and
        learned positions restart with each. `vectors` (B, T, D) take the place of the embeddings of
        the ids, for what is not text.
        """
        require(cache is None or documents is None, "A cache holds one document per row.")
        start, length = (cache.length if cache is not None else 0), ids.shape[1]
        self._check_length(start + length)
        x = first = self._embed(ids, start, documents, vectors)
        masks = self._masks(ids, cache, documents)
        for index in range(self.config.num_layers):
            if self.stream_scales is not None and self.first_scales is not None:
                x = self.stream_scales[index] * x + self.first_scales[index] * first
            layer = partial(
                self.block(index),
                mask=masks[index],
                rotation=self.rotary(index, start, length) if self.rotary is not None else None,
                cache=cache.layers[index] if cache is not None else None,
                values=self._values(index, ids),
            )
            x = run(self, index, layer, x)
        return self.final_norm(x) if self.final_norm is not None else x

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., D) -> (..., V): the head alone; generation asks it for the last position only."""
        logits, cap = F.linear(hidden, self.head_weight, self.head_bias), self.config.logit_soft_cap
        return logits if cap is None else cap * torch.tanh(logits / cap)

    def block(self, layer: int) -> Block:
        """The block a layer computes, which it may share with its neighbours."""
        block = self.blocks[layer * len(self.blocks) // self.config.num_layers]
        assert isinstance(block, Block)
        return block

    @property
    def head_weight(self) -> Tensor:
        """(V, D): the head's matrix, which is the embedding's when they are tied."""
        return self.embedding.weight if self.head is None else self.head.weight

    @property
    def has_plain_head(self) -> bool:
        """Logits are hidden · headᵀ and nothing else."""
        return self.head_bias is None and self.config.logit_soft_cap is None

    def initialize(self) -> None:
        """Draw all weights anew from torch's generator; see the table in `groundup.nn.init`."""
        config = self.config
        initialize(self, config.init_std, config.num_layers, config.norm.placement)
        if self.head_bias is not None:
            nn.init.zeros_(self.head_bias)
        if self.stream_scales is not None and self.first_scales is not None:
            nn.init.ones_(self.stream_scales)
            nn.init.constant_(self.first_scales, 0.1)

    def new_cache(self, batch: int, capacity: int) -> KVCache:
        """An empty cache of this model's shape, on its device and in its dtype."""
        layers = []
        for index in range(self.config.num_layers):
            window = self.config.attention.window(index)
            layers.append(self.block(index).attention.new_cache(batch, capacity, window))
        return KVCache.of(layers)

    def flops_per_token(self, length: int) -> float:
        """Training FLOPs per token at a context of `length`; the formula is in `config`."""
        return float(flops_per_token(self.config, length))

    def _embed(
        self, ids: Tensor, start: int, documents: Tensor | None, vectors: Tensor | None
    ) -> Tensor:
        x = self.embedding(ids) if vectors is None else vectors
        stop = start + ids.shape[1]
        if self.config.embedding_scale != 1.0:
            x = x * self.config.embedding_scale
        table = None
        if self.position_embedding is not None:
            table = self.position_embedding.weight[start:stop]
        elif self.config.positions.kind == "sinusoidal":
            table = sinusoids(start, ids.shape[1], x.shape[-1], x.device).to(x.dtype)
        if table is not None:
            x = x + (
                table if documents is None else F.embedding(document_positions(documents), table)
            )
        if self.embedding_norm is not None:
            x = self.embedding_norm(x)
        dropout = self.config.embedding_dropout
        return F.dropout(x, dropout, self.training) if dropout else x

    def _values(self, layer: int, ids: Tensor) -> Callable[[Tensor], Tensor] | None:
        """What this layer's attention adds to its values, as a function of its input."""
        if self.token_values is None or str(layer) not in self.token_values:
            return None
        return partial(self.token_values[str(layer)], ids)

    def _masks(self, ids: Tensor, cache: KVCache | None, documents: Tensor | None) -> list[Plan]:
        """What each layer sees; layers that see the same share it."""
        plans: dict[int, Plan] = {}
        for index in range(self.config.num_layers):
            window, length = self.config.attention.window(index), ids.shape[1]
            if window in plans:
                continue
            rule = Causal() if documents is None else Causal() & Document(documents)
            num_keys = length if cache is None else cache.layers[index].num_keys(length)
            bias = self._bias(length, num_keys, ids.device)
            rule = rule & Window(window) if window else rule
            plans[window] = plan(rule, length, num_keys, ids.device, bias)
        return [plans[self.config.attention.window(i)] for i in range(self.config.num_layers)]

    def _bias(self, num_queries: int, num_keys: int, device: torch.device) -> Tensor | None:
        """(H, T, S) to add to the scores, where positions are told so."""
        if self.relative_bias is not None:
            return self.relative_bias(num_queries, num_keys)
        if self.config.positions.kind == "alibi":
            return alibi_bias(self.config.attention.num_heads, num_queries, num_keys, device)
        return None

    def _check_length(self, length: int) -> None:
        limit = self.config.context_length
        require(
            length <= limit or self.config.positions.kind in ("alibi", "t5", "none"),
            f"The sequence is {length} tokens long, but the model's context_length is {limit}. "
            "Shorten it, or train with a larger context_length.",
        )
