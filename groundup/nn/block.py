"""The transformer block: two branches that read the residual stream and add to it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from groundup.nn.attention import Attention, Memory
from groundup.nn.cache import LayerCache
from groundup.nn.config import AttentionConfig, FeedForwardConfig, NormConfig
from groundup.nn.differential_attention import DifferentialAttention
from groundup.nn.feed_forward import build_feed_forward
from groundup.nn.latent_attention import LatentAttention
from groundup.nn.masks import Plan
from groundup.nn.norms import build_norm
from groundup.nn.positions import Rotation


class Block(nn.Module):
    """(B, T, D) -> (B, T, D); drawn with the norms where most models have them, before each branch.

        x ─┬───────────────────────────────┬──────────────────────────────────┬─ y
           └─ attention_norm ─ attention ─ + └─ feed_forward_norm ─ feed_forward ─ +

    There the stream itself is never normalised inside the stack, so gradients reach every layer
    undiminished: Xiong et al. 2020, arXiv:2002.04745. The other placements are in `NormConfig`;
    `stream_scale` is DeepNorm's α, which follows from the number of layers. With a `memory_width`
    a third branch stands between the two, attention to another sequence.
    """

    def __init__(
        self,
        width: int,
        attention: AttentionConfig,
        feed_forward: FeedForwardConfig,
        norm: NormConfig,
        stream_scale: float = 1.0,
        memory_width: int | None = None,
    ) -> None:
        super().__init__()
        assert memory_width is None or not norm.is_parallel, "three branches have no such form"
        self.placement, self.stream_scale = norm.placement, stream_scale
        self.attention_norm = build_norm(norm, width)
        self.attention = build_attention(width, attention, norm)
        self.cross_norm = self.cross_attention = None
        if memory_width is not None:
            self.cross_norm = build_norm(norm, width)
            self.cross_attention = Attention(width, attention, norm, memory_width)
        shared = norm.placement == "parallel_shared"
        self.feed_forward_norm = None if shared else build_norm(norm, width)
        self.feed_forward = build_feed_forward(feed_forward, width)
        sandwich = norm.placement == "sandwich"
        self.attention_out_norm = build_norm(norm, width) if sandwich else None
        crossing = sandwich and memory_width is not None
        self.cross_out_norm = build_norm(norm, width) if crossing else None
        self.feed_forward_out_norm = build_norm(norm, width) if sandwich else None

    def forward(
        self,
        x: Tensor,
        mask: Plan,
        rotation: Rotation | None = None,
        cache: LayerCache | None = None,
        memory: Memory | None = None,
        memory_mask: Plan | None = None,
        values: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """`memory` is what `cross_attention.remember` made of the other sequence; `values` what is
        added to the values of the attention, see there."""
        attend = partial(self.attention, mask=mask, rotation=rotation, cache=cache)
        if values is not None:
            attend = partial(attend, values=values)
        if self.placement in ("parallel", "parallel_shared"):
            return self._side_by_side(x, attend)
        x = self._join(x, attend, self.attention_norm, self.attention_out_norm)
        if self.cross_attention is not None and self.cross_norm is not None:
            assert memory is not None and memory_mask is not None, "there is nothing to attend to"
            look_up = partial(self.cross_attention, mask=memory_mask, memory=memory)
            x = self._join(x, look_up, self.cross_norm, self.cross_out_norm)
        assert self.feed_forward_norm is not None
        return self._join(x, self.feed_forward, self.feed_forward_norm, self.feed_forward_out_norm)

    def _side_by_side(self, x: Tensor, attend: Callable[[Tensor], Tensor]) -> Tensor:
        """(B, T, D) -> (B, T, D): the stream after both branches, neither of which saw the other's
        output."""
        normed = self.attention_norm(x)
        other = normed if self.feed_forward_norm is None else self.feed_forward_norm(x)
        return x + attend(normed) + self.feed_forward(other)

    def _join(
        self,
        x: Tensor,
        branch: Callable[[Tensor], Tensor],
        norm: nn.Module,
        out_norm: nn.Module | None,
    ) -> Tensor:
        """(B, T, D) -> (B, T, D): the stream after a branch, by the placement of its norms."""
        if self.placement == "pre":
            return x + branch(norm(x))
        if out_norm is not None:
            return x + out_norm(branch(norm(x)))
        return norm(self.stream_scale * x + branch(x))


def build_attention(
    width: int, config: AttentionConfig, norm: NormConfig
) -> Attention | LatentAttention | DifferentialAttention:
    """The self-attention a config names."""
    if config.latent is not None:
        return LatentAttention(width, config, norm)
    if config.differential is not None:
        return DifferentialAttention(width, config, norm)
    return Attention(width, config, norm)
