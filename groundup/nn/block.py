"""The pre-norm transformer block: two branches that read the residual stream and add to it."""

from __future__ import annotations

from torch import Tensor, nn

from groundup.nn.attention import Attention
from groundup.nn.cache import LayerCache
from groundup.nn.config import AttentionConfig, FeedForwardConfig, NormConfig
from groundup.nn.feed_forward import build_feed_forward
from groundup.nn.masks import Plan
from groundup.nn.norms import build_norm
from groundup.nn.positions import Rotation


class Block(nn.Module):
    """(B, T, D) -> (B, T, D).

        x ─┬───────────────────────────────┬──────────────────────────────────┬─ y
           └─ attention_norm ─ attention ─ + └─ feed_forward_norm ─ feed_forward ─ +

    The stream itself is never normalised inside the stack, so gradients reach every layer
    undiminished. Xiong et al. 2020, arXiv:2002.04745.
    """

    def __init__(
        self,
        width: int,
        attention: AttentionConfig,
        feed_forward: FeedForwardConfig,
        norm: NormConfig,
    ) -> None:
        super().__init__()
        self.attention_norm = build_norm(norm, width)
        self.attention = Attention(width, attention, norm)
        self.feed_forward_norm = build_norm(norm, width)
        self.feed_forward = build_feed_forward(feed_forward, width)

    def forward(
        self,
        x: Tensor,
        mask: Plan,
        rotation: Rotation | None = None,
        cache: LayerCache | None = None,
    ) -> Tensor:
        x = x + self.attention(self.attention_norm(x), mask, rotation, cache)
        return x + self.feed_forward(self.feed_forward_norm(x))
