"""The encoder-only transformer: token ids in, one vector for each, and a head on it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.config import require
from groundup.models.base import Model
from groundup.models.encoder_config import EncoderConfig, HeadConfig, Pooling
from groundup.models.flops import encoder_flops
from groundup.nn.block import Block
from groundup.nn.feed_forward import ACTIVATIONS
from groundup.nn.init import deepnorm_stream_scale, initialize
from groundup.nn.masks import Plan, Window, dense
from groundup.nn.norms import build_norm
from groundup.nn.positions import LayerRotations
from groundup.nn.recompute import run


class Encoder(Model):
    """ids (B, T) -> what its head says of them; without a head, (B, T, D) hidden states.

        ids ─ embedding + positions + types ─ [norm] ─ block × L ─ [final_norm] ─ [head]

    Its blocks are the decoder's; every token sees the others left and right, all of them or those
    in a window. BERT, ALBERT and ModernBERT are configs of this class
    (`groundup.models.encoder_config`).
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.checkpointing = 0
        width, norm = config.width, config.norm
        tables = config.embedding_width or width
        self.embedding = nn.Embedding(config.vocab_size, tables)
        self.position_embedding = None
        self.rotary = None
        if config.positions.kind == "learned":
            self.position_embedding = nn.Embedding(config.context_length, tables)
        elif config.positions.kind == "rope":
            self.rotary = LayerRotations(config.attention, config.context_length, config.positions)
        self.type_embedding = nn.Embedding(config.num_types, tables) if config.num_types else None
        self.embedding_norm = build_norm(norm, tables) if config.embedding_norm else None
        self.widening = nn.Linear(tables, width) if config.embedding_width else None
        deepnorm = norm.placement == "deepnorm"
        scale = deepnorm_stream_scale(config.num_layers) if deepnorm else 1.0
        self.blocks = nn.ModuleList(
            Block(width, config.attention, config.feed_forward, norm, scale)
            for _ in range(config.distinct_layers or config.num_layers)
        )
        if not config.first_norm:
            self.blocks[0].attention_norm = nn.Identity()
        self.final_norm = None if norm.ends_blocks else build_norm(norm, width)
        self.pooler = nn.Linear(width, width) if config.pooler else None
        self.head = build_head(config) if config.head is not None else None
        self.initialize()

    def forward(
        self, ids: Tensor, visible: Tensor | None = None, types: Tensor | None = None
    ) -> Tensor:
        """ids (B, T) -> the head's output, see `HeadConfig`; arguments as for `hidden`."""
        hidden = self.hidden(ids, visible, types)
        if isinstance(self.head, MaskedHead):
            return self.head(hidden, self.embedding.weight)
        if self.config.head is not None and self.config.head.kind == "sequence":
            hidden = self.summary(hidden, visible)
        return self.head(hidden) if self.head is not None else hidden

    def hidden(
        self, ids: Tensor, visible: Tensor | None = None, types: Tensor | None = None
    ) -> Tensor:
        """ids (B, T) -> (B, T, D) after the last block.

        `visible` (B, T) is False at padding, which then changes nothing at any other position.
        `types` (B, T) says which kind of text each token is from; 0 everywhere when left out.
        """
        self._check_length(ids.shape[1])
        x = self._embed(ids, types)
        length = ids.shape[1]
        masks = self._masks(visible, length, ids.device)
        for index in range(self.config.num_layers):
            block = self.blocks[index * len(self.blocks) // self.config.num_layers]
            rotation = self.rotary(index, 0, length) if self.rotary is not None else None
            x = run(self, index, block, x, masks[index], rotation)
        return self.final_norm(x) if self.final_norm is not None else x

    def summary(self, hidden: Tensor, visible: Tensor | None = None) -> Tensor:
        """(B, T, D) -> (B, D): the vector that stands for each text, through the pooler if any."""
        pooled = pool(hidden, visible, self.config.pooling)
        return torch.tanh(self.pooler(pooled)) if self.pooler is not None else pooled

    def initialize(self) -> None:
        """Draw all weights anew from torch's generator; see the table in `groundup.nn.init`."""
        config = self.config
        initialize(self, config.init_std, config.num_layers, config.norm.placement)
        if isinstance(self.head, MaskedHead):
            nn.init.zeros_(self.head.bias)

    def flops_per_token(self, length: int) -> float:
        """Training FLOPs per token of a text of `length`."""
        return encoder_flops(self.config, length)

    def _masks(self, visible: Tensor | None, length: int, device: torch.device) -> list[Plan]:
        """Which tokens each layer sees; layers that see the same share it."""
        attention, plans = self.config.attention, {}
        for window in {attention.window(layer) for layer in range(self.config.num_layers)}:
            plans[window] = seeing(visible)
            if window and window < length:
                near = dense(Window(window), length, length, device)[:, None]
                keys = plans[window].dense
                plans[window] = Plan(False, near if keys is None else near & keys)
        return [plans[attention.window(layer)] for layer in range(self.config.num_layers)]

    def _embed(self, ids: Tensor, types: Tensor | None) -> Tensor:
        require(
            types is None or self.type_embedding is not None,
            "The model tells no types of text apart (num_types is 0); leave `types` out.",
        )
        x = self.embedding(ids)
        if self.position_embedding is not None:
            x = x + self.position_embedding.weight[: ids.shape[1]]
        if self.type_embedding is not None:
            x = x + (self.type_embedding.weight[0] if types is None else self.type_embedding(types))
        if self.embedding_norm is not None:
            x = self.embedding_norm(x)
        dropout = self.config.embedding_dropout
        x = F.dropout(x, dropout, self.training) if dropout else x
        return self.widening(x) if self.widening is not None else x

    def _check_length(self, length: int) -> None:
        limit = self.config.context_length
        require(
            length <= limit or self.config.positions.kind == "none",
            f"The sequence is {length} tokens long, but the model's context_length is {limit}. "
            "Shorten it.",
        )


def seeing(visible: Tensor | None, bias: Tensor | None = None) -> Plan:
    """(B, S) or None, (H, T, S) or None -> how every query sees the keys that are visible."""
    keys = None if visible is None else visible[:, None, None, :]
    if bias is None:
        return Plan(False, keys)
    return Plan(False, bias[None] if keys is None else torch.where(keys, bias, -torch.inf))


def pool(hidden: Tensor, visible: Tensor | None, pooling: Pooling) -> Tensor:
    """(B, T, D), (B, T) or None -> (B, D): the first token's vector, or the visible ones' mean."""
    if pooling == "first":
        return hidden[:, 0]
    if visible is None:
        return hidden.mean(dim=1)
    weights = visible[:, :, None].to(hidden.dtype)
    return (hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)


def build_head(config: EncoderConfig) -> MaskedHead | ClassHead:
    """The head a config names."""
    assert config.head is not None
    return MaskedHead(config) if config.head.kind == "masked" else ClassHead(config, config.head)


class MaskedHead(nn.Module):
    """(B, T, D) -> (B, T, V): which token stands at each position, by the embedding's own matrix.

    logits = norm(activation(dense(x))) · embeddingᵀ + bias. Devlin et al. 2018, arXiv:1810.04805.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.transform = Transform(config, config.embedding_width or config.width)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, hidden: Tensor, embedding: Tensor) -> Tensor:
        return F.linear(self.transform(hidden), embedding, self.bias)


class ClassHead(nn.Module):
    """(..., D) -> (..., num_classes): a linear layer, for texts or for tokens."""

    def __init__(self, config: EncoderConfig, head: HeadConfig) -> None:
        super().__init__()
        self.transform = Transform(config, config.width) if head.transform else nn.Identity()
        self.classifier = nn.Linear(config.width, head.num_classes)
        self.dropout = head.dropout

    def forward(self, hidden: Tensor) -> Tensor:
        return self.classifier(F.dropout(self.transform(hidden), self.dropout, self.training))


class Transform(nn.Module):
    """(..., D) -> (..., output width): norm(activation(dense(x))), what a head may do first."""

    def __init__(self, config: EncoderConfig, width: int) -> None:
        super().__init__()
        assert config.head is not None
        self.dense = nn.Linear(config.width, width, bias=config.head.transform_bias)
        self.activation = ACTIVATIONS[config.feed_forward.activation]
        self.norm = build_norm(config.norm, width)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.norm(self.activation(self.dense(hidden)))
