"""Image classifiers: dense layers on pixels, and the vision transformer of the decoder's blocks."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.config import require
from groundup.models.base import Model
from groundup.models.flops import mlp_flops, vit_flops
from groundup.models.image_config import MLPConfig, ViTConfig
from groundup.nn.block import Block
from groundup.nn.feed_forward import ACTIVATIONS
from groundup.nn.init import deepnorm_stream_scale, initialize
from groundup.nn.masks import Plan
from groundup.nn.norms import build_norm
from groundup.nn.recompute import run


class MLPClassifier(Model):
    """images (B, channels, size, size) -> logits (B, num_classes)."""

    def __init__(self, config: MLPConfig) -> None:
        super().__init__()
        self.config = config
        self.checkpointing = 0
        widths = [config.channels * config.image_size**2, *config.hidden_widths]
        self.layers = nn.ModuleList(
            nn.Linear(inputs, outputs) for inputs, outputs in pairwise(widths)
        )
        self.head = nn.Linear(widths[-1], config.num_classes)
        self.activation = ACTIVATIONS[config.activation]

    def forward(self, images: Tensor) -> Tensor:
        config = self.config
        _check(images, config.channels, config.image_size)
        x = images.flatten(1)
        for index, layer in enumerate(self.layers):
            x = run(self, index, self._pass, x, layer)
        return self.head(x)

    def flops_per_token(self, length: int = 1) -> float:
        """Training FLOPs per image; there are no tokens."""
        return mlp_flops(self.config)

    def _pass(self, x: Tensor, layer: nn.Module) -> Tensor:
        return F.dropout(self.activation(layer(x)), self.config.dropout, self.training)


class VisionTransformer(Model):
    """images (B, channels, size, size) -> logits (B, num_classes), or (B, N, D) without a head.

        image ─ patches ─ embedding ─ [class token +] positions ─ block × L ─ final_norm ─ head

    Each patch is projected as one token; N of them cover the image, row by row. Every token sees
    all others. Dosovitskiy et al. 2020, arXiv:2010.11929.
    """

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.config = config
        self.checkpointing = 0
        width, norm = config.width, config.norm
        self.embedding = nn.Linear(config.channels * config.patch_size**2, width)
        first = config.pooling == "first"
        self.class_token = nn.Parameter(torch.zeros(width)) if first else None
        self.position_embedding = nn.Embedding(config.num_patches + first, width)
        deepnorm = norm.placement == "deepnorm"
        scale = deepnorm_stream_scale(config.num_layers) if deepnorm else 1.0
        self.blocks = nn.ModuleList(
            Block(width, config.attention, config.feed_forward, norm, scale)
            for _ in range(config.num_layers)
        )
        self.final_norm = None if norm.ends_blocks else build_norm(norm, width)
        self.head = nn.Linear(width, config.num_classes) if config.num_classes else None
        self.initialize()

    def forward(self, images: Tensor) -> Tensor:
        """images (B, channels, size, size) -> logits (B, num_classes); (B, N, D) without a head."""
        hidden = self.hidden(images)
        if self.head is None:
            return hidden if self.class_token is None else hidden[:, 1:]
        return self.head(hidden.mean(1) if self.class_token is None else hidden[:, 0])

    def hidden(self, images: Tensor) -> Tensor:
        """images -> (B, N, D), or (B, 1 + N, D) with a class token in front."""
        _check(
            images, self.config.channels, None if self.config.any_size else self.config.image_size
        )
        x = self.embedding(patches(images, self.config.patch_size))
        if self.class_token is not None:
            x = torch.cat((self.class_token.expand(x.shape[0], 1, -1), x), dim=1)
        x = x + self._positions(images.shape[-2], images.shape[-1])
        x = F.dropout(x, self.config.embedding_dropout, self.training)
        for index, block in enumerate(self.blocks):
            x = run(self, index, block, x, Plan(False, None))
        return self.final_norm(x) if self.final_norm is not None else x

    def flops_per_token(self, length: int = 1) -> float:
        """Training FLOPs per image of the size in the config, whatever the length."""
        return vit_flops(self.config)

    def _positions(self, height: int, width: int) -> Tensor:
        """(N, D) or (1 + N, D): the table, or between its entries for images of another size."""
        config, table = self.config, self.position_embedding.weight
        size = config.image_size
        if (height, width) == (size, size):
            return table
        first = len(table) - config.num_patches
        side = size // config.patch_size
        grid = table[first:].t().reshape(1, -1, side, side)
        shape = (height // config.patch_size, width // config.patch_size)
        stretched = F.interpolate(grid, shape, mode="bilinear", align_corners=False)
        return torch.cat((table[:first], stretched[0].flatten(1).t()))

    def initialize(self) -> None:
        """Draw all weights anew from torch's generator; see the table in `groundup.nn.init`."""
        config = self.config
        initialize(self, config.init_std, config.num_layers, config.norm.placement)
        if self.class_token is not None:
            nn.init.normal_(self.class_token, std=config.init_std)


def patches(images: Tensor, size: int) -> Tensor:
    """(B, C, height, width) -> (B, N, C · size²): squares row by row, each flattened by channel.

    A convolution with stride `size` computes the same projection of them.
    """
    require(
        images.shape[-2] % size == 0 and images.shape[-1] % size == 0,
        f"Images of {images.shape[-2]} × {images.shape[-1]} pixels do not divide into patches of "
        f"{size}.",
    )
    rows = images.unflatten(-1, (-1, size)).unflatten(-3, (-1, size))  # (B, C, h, size, w, size)
    return rows.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def _check(images: Tensor, channels: int, size: int | None) -> None:
    """Raise UserError for images of other channels, or of another size where there is one."""
    found, height, width = images.shape[1:]
    require(
        found == channels,
        f"The model reads images of {channels} channels (1: grey, 3: colour), but these have "
        f"{found}.",
    )
    require(
        size is None or (height, width) == (size, size),
        f"The model reads images of {size} pixels a side, but these are {height} × {width}.",
    )
