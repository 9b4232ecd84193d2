"""The encoder's config and its presets BERT, MiniLM, ALBERT and ModernBERT.

Importable without torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

from groundup.config import require
from groundup.models.classic import classic_branches, equal_share
from groundup.models.config import check_distinct_layers, check_rotation
from groundup.nn.config import AttentionConfig, FeedForwardConfig, NormConfig, PositionsConfig

Pooling = Literal["first", "mean"]


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """What an encoder says about the tokens it has read.

    | kind     | output                 | loss over                                         |
    |----------|------------------------|---------------------------------------------------|
    | masked   | (B, T, V) logits       | the positions that were hidden from it            |
    | sequence | (B, num_classes)       | whole texts: spam or not, a topic                 |
    | token    | (B, T, num_classes)    | every token: names, parts of speech               |
    """

    kind: Literal["masked", "sequence", "token"]
    num_classes: int = 0
    """Of a text or a token; 0 for "masked", whose classes are the vocabulary."""
    transform: bool = False
    """Put a dense layer, an activation and a norm before the classes, as "masked" always does."""
    transform_bias: bool = True
    """Whether that dense layer has a bias."""
    dropout: float = 0.0

    def __post_init__(self) -> None:
        require(
            (self.num_classes == 0) == (self.kind == "masked") and self.num_classes >= 0,
            f"head.num_classes is {self.num_classes}: a {self.kind!r} head needs "
            + ("0, its classes are the vocabulary." if self.kind == "masked" else "1 or more."),
        )
        require(
            not self.transform or self.kind != "masked",
            "head.transform has no effect on a 'masked' head, which always has one; leave it out.",
        )
        require(
            self.transform_bias or self.transforms,
            "head.transform_bias is about head.transform, which is not there; leave it out.",
        )
        require(
            0 <= self.dropout < 1,
            f"head.dropout should be at least 0 and below 1, but is {self.dropout}.",
        )

    @property
    def transforms(self) -> bool:
        """Whether a dense layer, an activation and a norm come first."""
        return self.transform or self.kind == "masked"


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """An encoder-only transformer: embedding, `num_layers` blocks that see both ways, head."""

    vocab_size: int
    width: int
    num_layers: int
    context_length: int
    """Longest sequence the model has positions for."""
    attention: AttentionConfig
    feed_forward: FeedForwardConfig
    positions: PositionsConfig = field(default_factory=lambda: PositionsConfig(kind="learned"))
    norm: NormConfig = field(
        default_factory=lambda: NormConfig(kind="layernorm", eps=1e-12, placement="post")
    )
    num_types: int = 0
    """Kinds of text a token can be from, such as question and answer; 0 for no such embedding."""
    embedding_width: int | None = None
    """Width of the tables, from where a matrix leads to the model's; the same when left out. ALBERT
    has 128: most of a small model is its vocabulary."""
    embedding_norm: bool = True
    """Normalise the sum of the embeddings before the first block."""
    first_norm: bool = True
    """Whether the first block normalises what its attention reads, as all others do. ModernBERT's
    does not: its embeddings are normalised already."""
    distinct_layers: int = 0
    """Blocks with weights of their own, shared by neighbouring layers; 0 is one for every layer.
    ALBERT has 1."""
    pooler: bool = False
    """A dense layer with tanh on the vector that stands for a text."""
    pooling: Pooling = "first"
    """The vector that stands for a text: its first token's, or the mean over all of them."""
    head: HeadConfig | None = None
    embedding_dropout: float = 0.0
    init_std: float = 0.02

    def __post_init__(self) -> None:
        self.attention.check_plain("an encoder", windows=True)
        for name in ("vocab_size", "width", "num_layers", "context_length"):
            value = getattr(self, name)
            require(value >= 1, f"{name} should be at least 1, but is {value}.")
        require(
            self.positions.kind in ("learned", "rope", "none"),
            "positions.kind of an encoder should be 'learned', 'rope' or 'none', but is "
            f"{self.positions.kind!r}.",
        )
        require(
            self.embedding_width is None or self.embedding_width >= 1,
            f"embedding_width should be at least 1, but is {self.embedding_width}; leave it out "
            "for the model's own.",
        )
        require(
            self.first_norm or self.norm.placement == "pre",
            f"first_norm has no effect on norm.placement {self.norm.placement!r}; leave it out.",
        )
        check_distinct_layers(self.distinct_layers, self.num_layers, self.feed_forward)
        require(self.num_types >= 0, f"num_types should be at least 0, but is {self.num_types}.")
        require(
            self.pooling in ("first", "mean"),
            f"pooling should be 'first' or 'mean', but is {self.pooling!r}.",
        )
        require(
            0 <= self.embedding_dropout < 1,
            f"embedding_dropout should be at least 0 and below 1, but is {self.embedding_dropout}.",
        )
        require(self.init_std > 0, f"init_std should be above 0, but is {self.init_std}.")
        check_rotation(self.attention, self.positions)


def bert(
    *,
    vocab_size: int = 30522,
    width: int = 768,
    num_layers: int = 12,
    num_heads: int = 12,
    context_length: int = 512,
    feed_forward_width: int | None = None,
    num_types: int = 2,
    head: HeadConfig | None = None,
    dropout: float = 0.0,
) -> EncoderConfig:
    """Post-norm LayerNorm, learned positions, GELU, biases. Devlin et al. 2018, arXiv:1810.04805.

    The default shape is BERT-base's. The original trained with dropout 0.1.
    """
    heads, network = classic_branches(
        width,
        num_heads,
        activation="gelu",
        feed_forward_width=feed_forward_width,
        dropout=dropout,
    )
    return EncoderConfig(
        vocab_size=vocab_size,
        width=width,
        num_layers=num_layers,
        context_length=context_length,
        attention=heads,
        feed_forward=network,
        num_types=num_types,
        # A masked or token head reads every position and never the one vector of the text.
        pooler=head is None or head.kind == "sequence",
        head=head,
        embedding_dropout=dropout,
    )


def minilm(*, vocab_size: int = 30522, head: HeadConfig | None = None) -> EncoderConfig:
    """BERT's shape, 6 layers of width 384. Wang et al. 2020, arXiv:2002.10957."""
    return bert(vocab_size=vocab_size, width=384, num_layers=6, num_heads=12, head=head)


def albert(
    *,
    vocab_size: int = 30_000,
    width: int = 768,
    num_layers: int = 12,
    num_heads: int = 12,
    context_length: int = 512,
    embedding_width: int = 128,
    feed_forward_width: int | None = None,
    num_types: int = 2,
    head: HeadConfig | None = None,
    dropout: float = 0.0,
) -> EncoderConfig:
    """BERT with one block for all layers and narrow tables. Lan et al. 2019, arXiv:1909.11942.

    The default shape is ALBERT-base's: 12 million parameters, where BERT-base has 109.
    """
    config = bert(
        vocab_size=vocab_size,
        width=width,
        num_layers=num_layers,
        num_heads=num_heads,
        context_length=context_length,
        feed_forward_width=feed_forward_width,
        num_types=num_types,
        head=head,
        dropout=dropout,
    )
    network = replace(config.feed_forward, activation="gelu_tanh")
    return replace(config, feed_forward=network, embedding_width=embedding_width, distinct_layers=1)


def modernbert(
    *,
    vocab_size: int = 50368,
    width: int = 768,
    num_layers: int = 22,
    num_heads: int = 12,
    context_length: int = 8192,
    feed_forward_width: int | None = None,
    theta: float = 160_000.0,
    window: int = 65,
    window_theta: float = 10_000.0,
    head: HeadConfig | None = None,
) -> EncoderConfig:
    """Pre-norm, RoPE, GeGLU, no biases, windows. Warner et al. 2024, arXiv:2412.13663.

    Every third layer, from the first on, sees the whole text; the others see the tokens nearer than
    `window`: 64 on either side, which the paper calls 128. The first block's attention reads the
    normalised embeddings as they are.
    """
    if head is not None:
        head = replace(head, transform=head.kind != "masked", transform_bias=False)
    return EncoderConfig(
        vocab_size=vocab_size,
        width=width,
        num_layers=num_layers,
        context_length=context_length,
        attention=AttentionConfig(
            num_heads=num_heads,
            num_kv_heads=num_heads,
            head_width=equal_share(width, num_heads),
            windows=(0, window, window),
        ),
        feed_forward=FeedForwardConfig(
            kind="gated", activation="gelu", width=feed_forward_width or 3 * width // 2
        ),
        positions=PositionsConfig(kind="rope", theta=theta, window_theta=window_theta),
        norm=NormConfig(kind="layernorm", eps=1e-5, placement="pre", bias=False),
        first_norm=False,
        pooling="mean",
        head=head,
    )


ENCODER_PRESETS: dict[str, Callable[..., EncoderConfig]] = {
    preset.__name__: preset for preset in (bert, albert, modernbert)
}
"""Families by name; each is called with sizes, all of which have defaults, and a head."""
