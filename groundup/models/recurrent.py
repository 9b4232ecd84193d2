"""Recurrent language models: what came before transformers, trained and sampled the same way."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from groundup.config import require
from groundup.models.base import Model
from groundup.models.flops import recurrent_flops
from groundup.models.recurrent_config import RecurrentConfig
from groundup.nn.recompute import run
from groundup.nn.recurrent import Recurrent, State, StateCache


class RecurrentModel(Model):
    """ids (B, T) -> logits (B, T, V).

        ids ─ embedding ─ RNN, GRU or LSTM × L ─ head ─ logits

    Its state has one size however long the text is: a token costs the same at any position, and
    what no longer fits is forgotten. With `checkpointing`, training keeps nothing of what the
    layers compute and runs them again in the backward pass.
    """

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__()
        self.config = config
        self.checkpointing = 0
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        # One layer has no layer after it to drop for; torch warns about that.
        between = config.dropout if config.num_layers > 1 else 0.0
        self.layers = Recurrent(
            config.kind, config.width, config.state_width, config.num_layers, between
        )
        self.head = nn.Linear(config.state_width, config.vocab_size)

    def forward(self, ids: Tensor, *, documents: Tensor | None = None) -> Tensor:
        """ids (B, T) -> logits (B, T, V), every row read from its beginning."""
        require(
            documents is None,
            "A recurrent model cannot skip what stands before a document in its row; train it "
            "with one document per row.",
        )
        return self.read(ids)[0]

    def read(self, ids: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """ids (B, T) -> logits (B, T, V) and the state, from which the next call continues."""
        y, last = run(self, 0, self.layers, self.embedding(ids), state)
        return self.logits(y), last

    def hidden(self, ids: Tensor, *, cache: StateCache | None = None) -> Tensor:
        """ids (B, T) -> (B, T, C); with a cache they continue what it has read.

        With `logits` and `new_cache` it is all that generation asks of a decoder.
        """
        state = cache.state if cache is not None else None
        y, last = run(self, 0, self.layers, self.embedding(ids), state)
        if cache is not None:
            cache.state, cache.length = last, cache.length + ids.shape[1]
        return y

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., C) -> (..., V)."""
        return self.head(F.dropout(hidden, self.config.dropout, self.training))

    def new_cache(self, batch: int, capacity: int = 0) -> StateCache:
        """Nothing read yet; a state has room for any number of tokens."""
        return StateCache(self.init_hidden(batch))

    def init_hidden(self, batch: int) -> State:
        """The state before the first token."""
        return self.layers.new_state(batch)

    @property
    def head_weight(self) -> Tensor:
        """(V, C): the head's matrix."""
        return self.head.weight

    def flops_per_token(self, length: int) -> float:
        """Training FLOPs per token, the same at every length."""
        return recurrent_flops(self.config)
