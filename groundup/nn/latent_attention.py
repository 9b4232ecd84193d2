"""Multi-head latent attention: a cache of one small vector per token, for all heads together."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.nn.cache import LayerCache, RollingCache
from groundup.nn.config import AttentionConfig, NormConfig
from groundup.nn.kernels import Mix
from groundup.nn.linear import Linear
from groundup.nn.masks import Plan
from groundup.nn.norms import RMSNorm
from groundup.nn.positions import Rotation, rotate


class LatentAttention(nn.Module):
    """(B, T, D) -> (B, T, D). R is the rank, P the width that RoPE turns, Z that of a value.

        x ─ down ─┬─ [norm] ─ latent (R) ── up ─┬─ key, unturned (H, E)
                  │                             └─ value (H, Z)
                  └─ rotate ─ shared key (P)

    A head's key is its own part and the shared, turned part: RoPE on a key read off the latent
    would have to be undone for every distance. Latent and shared key are all that is cached,
    R + P numbers a token instead of 2·K·E. Liu et al. 2024 (DeepSeek-V2), arXiv:2405.04434.

    Through a cache nothing is read off the latents again: `up` is moved to the other side of the
    two products, to the query and to the output, and all heads attend to the latents themselves.
    """

    def __init__(self, width: int, config: AttentionConfig, norm: NormConfig) -> None:
        super().__init__()
        assert config.latent is not None
        self.config, self.latent = config, config.latent
        heads, latent, bias = config.num_heads, config.latent, config.qkv_bias
        self.head_width = config.head_width + latent.rope_width
        query_source, self.query_down, self.query_norm = width, None, None
        if latent.query_rank is not None:
            self.query_down = Linear(width, latent.query_rank, bias=bias)
            self.query_norm = RMSNorm(latent.query_rank, norm.eps, norm.scale)
            query_source = latent.query_rank
        self.query = Linear(query_source, heads * self.head_width, bias=False)
        self.latent_down = Linear(width, latent.rank + latent.rope_width, bias=bias)
        self.latent_norm = RMSNorm(latent.rank, norm.eps, norm.scale)
        up_width = heads * (config.head_width + latent.value_width)
        self.latent_up = Linear(latent.rank, up_width, bias=False)
        self.out = Linear(heads * latent.value_width, width, bias=config.out_bias)
        # Not 1/√ of the width of what is scored, which is another once `up` has moved.
        self.mix = Mix(config, config.scale or self.head_width**-0.5)

    def forward(
        self,
        x: Tensor,
        mask: Plan,
        rotation: Rotation | None = None,
        cache: LayerCache | None = None,
    ) -> Tensor:
        own, turned = self._query(x, rotation)
        latents, shared = self._latents(x, rotation)
        if cache is None:
            mixed = self._expanded(own, turned, latents, shared, mask)
        else:
            mixed = self._absorbed(own, turned, latents, shared, mask, cache)
        y = self.out(mixed.transpose(1, 2).flatten(2))
        return F.dropout(y, self.config.out_dropout, self.training)

    def new_cache(self, batch: int, capacity: int, window: int = 0) -> LayerCache:
        """An empty cache for `batch` rows of up to `capacity` tokens; a window keeps its own."""
        weight = self.latent_up.weight
        places = min(capacity, 2 * window) if window else capacity
        kept = self.latent.rank + self.latent.rope_width
        # The value is the latent, which is a part of the key: as a value, nothing is kept.
        both = weight.new_zeros(batch, 1, places, kept), weight.new_zeros(batch, 1, places, 0)
        return RollingCache(*both, window) if window else LayerCache(*both)

    def _query(self, x: Tensor, rotation: Rotation | None) -> tuple[Tensor, Tensor]:
        """-> (B, H, T, E) unturned and (B, H, T, P) turned."""
        if self.query_down is not None and self.query_norm is not None:
            x = self.query_norm(self.query_down(x))
        query = self.query(x).unflatten(-1, (self.config.num_heads, self.head_width))
        own, turned = query.split([self.config.head_width, self.latent.rope_width], dim=-1)
        if rotation is not None:
            turned = rotate(turned, rotation)
        return own.transpose(1, 2), turned.transpose(1, 2)

    def _latents(self, x: Tensor, rotation: Rotation | None) -> tuple[Tensor, Tensor]:
        """-> (B, 1, T, R) and the key that heads share, (B, 1, T, P)."""
        latents, shared = self.latent_down(x).split([self.latent.rank, self.latent.rope_width], -1)
        shared = shared[:, :, None]
        if rotation is not None:
            shared = rotate(shared, rotation)
        return self.latent_norm(latents)[:, None], shared.transpose(1, 2)

    def _expanded(
        self,
        own: Tensor,
        turned: Tensor,
        latents: Tensor,
        shared: Tensor,
        mask: Plan,
    ) -> Tensor:
        """-> (B, H, T, Z): keys and values are read off the latents for every head."""
        heads, widths = self.config.num_heads, [self.config.head_width, self.latent.value_width]
        both = self.latent_up(latents[:, 0]).unflatten(-1, (heads, -1)).transpose(1, 2)
        key, value = both.split(widths, dim=-1)
        key = torch.cat((key, shared.expand(-1, heads, -1, -1)), dim=-1)
        return self.mix(torch.cat((own, turned), dim=-1), key, value, mask)

    def _absorbed(
        self,
        own: Tensor,
        turned: Tensor,
        latents: Tensor,
        shared: Tensor,
        mask: Plan,
        cache: LayerCache,
    ) -> Tensor:
        """-> (B, H, T, Z): the query comes to the latents, q·(U c) = (Uᵀ q)·c, and so the value."""
        key = torch.cat((latents, shared), dim=-1)
        key, _ = cache.append(key, key[..., :0])
        up = self.latent_up.weight.unflatten(0, (self.config.num_heads, -1))  # (H, E + Z, R)
        up_key, up_value = up.split([self.config.head_width, self.latent.value_width], dim=1)
        query = torch.cat((own @ up_key, turned), dim=-1)  # (B, H, T, R + P)
        mixed = self.mix(query, key, key[..., : self.latent.rank], mask)
        return mixed @ up_value.transpose(1, 2)
