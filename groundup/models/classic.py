"""The two branches of the classic transformer's blocks, as GPT-2, BERT and others have them.

Importable without torch.
"""

from __future__ import annotations

from groundup.config import require
from groundup.nn.config import Activation, AttentionConfig, FeedForwardConfig


def classic_branches(
    width: int,
    num_heads: int,
    *,
    activation: Activation,
    feed_forward_width: int | None = None,
    dropout: float = 0.0,
    attention_dropout: float | None = None,
) -> tuple[AttentionConfig, FeedForwardConfig]:
    """Multi-head attention and two plain layers, biases everywhere.

    A head has an equal share of the width; the network is 4 · width wide when left out, and
    attention weights are dropped like outputs. Vaswani et al. 2017, arXiv:1706.03762.
    """
    heads = AttentionConfig(
        num_heads=num_heads,
        num_kv_heads=num_heads,
        head_width=equal_share(width, num_heads),
        qkv_bias=True,
        out_bias=True,
        dropout=dropout if attention_dropout is None else attention_dropout,
        out_dropout=dropout,
    )
    network = FeedForwardConfig(
        kind="plain",
        activation=activation,
        width=feed_forward_width or 4 * width,
        bias=True,
        dropout=dropout,
    )
    return heads, network


def equal_share(width: int, num_heads: int) -> int:
    """The width of each of `num_heads` heads that divide `width` among them."""
    require(
        num_heads >= 1 and width % num_heads == 0,
        f"width {width} does not divide into {num_heads} heads of equal width. Change one of "
        "them, or give head_width yourself.",
    )
    return width // num_heads
