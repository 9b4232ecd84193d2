"""The encoder-decoder's config and its presets: the original Transformer and T5. Without torch."""

from __future__ import annotations

from dataclasses import dataclass

from groundup.config import require
from groundup.models.classic import classic_branches
from groundup.nn.config import AttentionConfig, FeedForwardConfig, NormConfig, PositionsConfig


@dataclass(frozen=True, kw_only=True)
class EncoderDecoderConfig:
    """An encoder that reads the source, a decoder that writes the target and looks it up there."""

    vocab_size: int
    width: int
    num_encoder_layers: int
    num_decoder_layers: int
    context_length: int
    """Longest source, and longest target."""
    attention: AttentionConfig
    feed_forward: FeedForwardConfig
    norm: NormConfig
    positions: PositionsConfig
    """"sinusoidal" or "t5"."""
    start_id: int = 0
    """What the decoder reads before its first token."""
    tie_embeddings: bool = True
    """Use the embedding matrix, which source and target share, as the head's too."""
    embedding_scale: float = 1.0
    """What embeddings are multiplied by."""
    head_scale: float = 1.0
    """What the decoder's output is multiplied by before the head."""
    embedding_dropout: float = 0.0
    embedding_std: float | None = None
    """How widely the token table starts; init_std when left out."""
    init_std: float = 0.02

    def __post_init__(self) -> None:
        self.attention.check_plain("an encoder-decoder")
        require(
            not self.norm.is_parallel,
            f"norm.placement {self.norm.placement!r} is for blocks of two branches, and the "
            "decoder's have three; choose another.",
        )
        for name in (
            "vocab_size",
            "width",
            "num_encoder_layers",
            "num_decoder_layers",
            "context_length",
        ):
            value = getattr(self, name)
            require(value >= 1, f"{name} should be at least 1, but is {value}.")
        require(
            self.positions.kind in ("sinusoidal", "t5"),
            f"positions.kind should be 'sinusoidal' or 't5', but is {self.positions.kind!r}.",
        )
        require(
            0 <= self.start_id < self.vocab_size,
            f"start_id should be an id below vocab_size {self.vocab_size}, but is {self.start_id}.",
        )
        require(
            0 <= self.embedding_dropout < 1,
            f"embedding_dropout should be at least 0 and below 1, but is {self.embedding_dropout}.",
        )
        for name in ("init_std", "embedding_scale", "head_scale"):
            value = getattr(self, name)
            require(value > 0, f"{name} should be above 0, but is {value}.")


def transformer(
    *,
    vocab_size: int = 37_000,
    width: int = 512,
    num_layers: int = 6,
    num_heads: int = 8,
    context_length: int = 512,
    feed_forward_width: int | None = None,
    start_id: int = 0,
    dropout: float = 0.0,
) -> EncoderDecoderConfig:
    """The original: post-norm, sinusoidal positions, ReLU, one embedding shared by three.

    Vaswani et al. 2017, arXiv:1706.03762; the default shape is its base model, trained there with
    dropout 0.1 and a vocabulary of about 37,000.
    """
    heads, network = classic_branches(
        width,
        num_heads,
        activation="relu",
        feed_forward_width=feed_forward_width,
        dropout=dropout,
    )
    return EncoderDecoderConfig(
        vocab_size=vocab_size,
        width=width,
        num_encoder_layers=num_layers,
        num_decoder_layers=num_layers,
        context_length=context_length,
        attention=heads,
        feed_forward=network,
        norm=NormConfig(kind="layernorm", eps=1e-5, placement="post"),
        positions=PositionsConfig(kind="sinusoidal"),
        start_id=start_id,
        embedding_scale=width**0.5,
        embedding_dropout=dropout,
        embedding_std=width**-0.5,
        init_std=width**-0.5,
    )


def t5(
    *,
    vocab_size: int = 32_128,
    width: int = 512,
    num_layers: int = 6,
    num_decoder_layers: int | None = None,
    num_heads: int = 8,
    head_width: int = 64,
    context_length: int = 512,
    feed_forward_width: int | None = None,
    gated: bool = False,
    start_id: int = 0,
    dropout: float = 0.0,
) -> EncoderDecoderConfig:
    """Pre-norm RMSNorm, relative positions, no biases. Raffel et al. 2019, arXiv:1910.10683.

    The default shape is T5-small's, trained with dropout 0.1. `gated` is version 1.1: GeGLU
    (arXiv:2002.05202) and a head of its own.
    """
    return EncoderDecoderConfig(
        vocab_size=vocab_size,
        width=width,
        num_encoder_layers=num_layers,
        num_decoder_layers=num_decoder_layers or num_layers,
        context_length=context_length,
        attention=AttentionConfig(
            num_heads=num_heads,
            num_kv_heads=num_heads,
            head_width=head_width,
            scale=1.0,
            dropout=dropout,
            out_dropout=dropout,
        ),
        feed_forward=FeedForwardConfig(
            kind="gated" if gated else "plain",
            activation="gelu_tanh" if gated else "relu",
            width=feed_forward_width or 4 * width,
            dropout=dropout,
        ),
        norm=NormConfig(kind="rmsnorm", eps=1e-6),
        positions=PositionsConfig(kind="t5"),
        start_id=start_id,
        tie_embeddings=not gated,
        head_scale=1.0 if gated else width**-0.5,
        embedding_dropout=dropout,
        embedding_std=1.0,
        init_std=width**-0.5,
    )
