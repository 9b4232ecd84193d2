"""Values that depend on the token alone: a table of them per layer, let in by a gate."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from groundup.nn.config import AttentionConfig, TokenValuesConfig


class TokenValues(nn.Module):
    """ids (B, T), x (B, T, D) -> (B, T, K, E): what to add to the values of an attention.

    A row of the table for each token, times limit · sigmoid(W · x[:gate_width]) for each key/value
    head: deep layers get at what a token is without the stream having to carry it. As nanochat
    does; the idea is of Zhou et al. 2024, arXiv:2410.17897.
    """

    def __init__(
        self, vocab_size: int, attention: AttentionConfig, config: TokenValuesConfig
    ) -> None:
        super().__init__()
        self.config, self.num_kv_heads = config, attention.num_kv_heads
        self.table = nn.Embedding(vocab_size, attention.num_kv_heads * attention.head_width)
        self.gate = nn.Linear(config.gate_width, attention.num_kv_heads, bias=False)

    def forward(self, ids: Tensor, x: Tensor) -> Tensor:
        values = self.table(ids).unflatten(-1, (self.num_kv_heads, -1))
        gate = self.config.limit * torch.sigmoid(self.gate(x[..., : self.config.gate_width]))
        return values * gate.unsqueeze(-1)
