"""The choices attention offers; importable without torch."""

from __future__ import annotations

from dataclasses import dataclass

from groundup.config import require
from groundup.nn.checks import at_least_one, divisors, probability


@dataclass(frozen=True, kw_only=True)
class LatentConfig:
    """Multi-head latent attention (MLA): keys and values are read off one small vector per token.

    `head_width` is then the width of the part of queries and keys that positions do not touch.
    DeepSeek-V2: 128 heads of 128, rank 512, query_rank 1536, rope_width 64, value_width 128.
    """

    rank: int
    """Width of the vector kept per token."""
    rope_width: int
    """Width of the key that all heads share and RoPE turns, kept beside it."""
    value_width: int
    query_rank: int | None = None
    """Width queries are squeezed through too, to save memory in training; None for none."""

    def __post_init__(self) -> None:
        at_least_one("attention.latent", self, "rank", "rope_width", "value_width")
        require(
            self.query_rank is None or self.query_rank >= 1,
            f"attention.latent.query_rank should be at least 1, but is {self.query_rank}.",
        )

    def num_weights(self, width: int, num_heads: int, head_width: int) -> int:
        """How many weights the projections from and to a model of this width have."""
        query_width = num_heads * (head_width + self.rope_width)
        query = width * query_width
        if self.query_rank is not None:
            query = self.query_rank * (width + query_width)
        down, up = width * (self.rank + self.rope_width), head_width + self.value_width
        return query + down + num_heads * (self.rank * up + self.value_width * width)


@dataclass(frozen=True, kw_only=True)
class TokenValuesConfig:
    """Every second layer, the last among them, adds to its values what the token alone gives.

    A table per layer and a gate, limit · sigmoid(W · x): see `groundup.nn.token_values`.
    """

    gate_width: int = 12
    """How many channels of the input the gate reads, the first ones."""
    limit: float = 3.0
    """What the gate opens to."""

    def __post_init__(self) -> None:
        at_least_one("token_values", self, "gate_width")
        require(self.limit > 0, f"token_values.limit should be above 0, but is {self.limit}.")

    def acts(self, layer: int, num_layers: int) -> bool:
        """Whether this layer has a table."""
        return (num_layers - 1 - layer) % 2 == 0


@dataclass(frozen=True, kw_only=True)
class AttentionConfig:
    """Multi-head, grouped-query or multi-query attention, by the number of key/value heads.

    num_heads = num_kv_heads is multi-head (MHA), num_kv_heads = 1 is multi-query (MQA), anything
    between is grouped-query (GQA, Ainslie et al. 2023, arXiv:2305.13245). The projections map
    width D to H·E and K·E, so the head width E need not be D/H.

    `latent` and `differential` name other kinds, each with a module of its own.
    """

    num_heads: int
    num_kv_heads: int
    head_width: int
    qkv_bias: bool = False
    out_bias: bool = False
    qk_norm: bool = False
    """RMSNorm over each query's and key's head width, before RoPE (as Qwen3 does)."""
    scale: float | None = None
    """What scores are multiplied by; 1/√head_width when left out. T5 has 1."""
    soft_cap: float | None = None
    """Bend scores s to soft_cap · tanh(s / soft_cap), which stay below it. Gemma 2: 50."""
    sinks: bool = False
    """A learned score per head that joins the softmax without a value, so that a head may find
    little; as gpt-oss has, arXiv:2508.10925. Starts at 0."""
    windows: tuple[int, ...] = ()
    """Layer i sees the last windows[i % len] keys, itself included; 0 is all. Mistral: (4096,). In
    an encoder it sees as many on either side, itself included in both."""
    gate: bool = False
    """Multiply what heads found by a sigmoid of the input, before `out`. arXiv:2505.06708."""
    latent: LatentConfig | None = None
    """Keep a small latent vector per token in place of keys and values."""
    differential: float | None = None
    """Subtract a second attention map, this many times at first (0.8): arXiv:2410.05258."""
    dropout: float = 0.0
    """Probability of dropping an attention weight."""
    out_dropout: float = 0.0
    """Probability of dropping an output value before it joins the residual stream."""

    def __post_init__(self) -> None:
        at_least_one("attention", self, "num_heads", "num_kv_heads", "head_width")
        probability("attention", self, "dropout", "out_dropout")
        require(
            self.scale is None or self.scale > 0,
            f"attention.scale should be above 0, but is {self.scale}; leave it out for "
            "1/√head_width.",
        )
        require(
            self.soft_cap is None or self.soft_cap > 0,
            f"attention.soft_cap should be above 0, but is {self.soft_cap}; leave it out to let "
            "scores grow.",
        )
        require(
            not self.windows or (min(self.windows) >= 0 and max(self.windows) > 0),
            f"attention.windows should be numbers of keys, 0 for all, but is {self.windows}; leave "
            "it out to let every layer see all.",
        )
        require(
            self.num_heads % self.num_kv_heads == 0,
            f"attention.num_kv_heads {self.num_kv_heads} does not divide attention.num_heads "
            f"{self.num_heads}: each key/value head must serve the same number of query heads. "
            f"Choose one of {divisors(self.num_heads)}.",
        )
        self._check_kind()

    def window(self, layer: int) -> int:
        """How many keys this layer sees, itself included; 0 for all."""
        return self.windows[layer % len(self.windows)] if self.windows else 0

    @property
    def rotary_width(self) -> int:
        """How many channels of a head RoPE turns."""
        return self.head_width if self.latent is None else self.latent.rope_width

    @property
    def mixing_width(self) -> int:
        """Channels of all heads that a pair of tokens is scored and mixed over; H·E, but for kinds
        whose scores and values differ in width, or with two maps: their mean, per map."""
        if self.latent is not None:
            per_head = self.head_width + self.latent.rope_width + self.latent.value_width
            return self.num_heads * per_head // 2
        maps = 1 if self.differential is None else 3
        return maps * self.num_heads * self.head_width

    def num_weights(self, width: int) -> int:
        """How many weights the projections from and to a model of this width have."""
        if self.latent is not None:
            return self.latent.num_weights(width, self.num_heads, self.head_width)
        heads = 2 * (self.num_heads + self.num_kv_heads) + (self.num_heads if self.gate else 0)
        return heads * self.head_width * width * (1 if self.differential is None else 2)

    def check_plain(self, model: str, *, windows: bool = False) -> None:
        """Raise UserError naming what acts in decoders alone; `windows` says that they act too."""
        for name in ("windows", "latent", "differential"):
            none = not getattr(self, name) or (windows and name == "windows")
            require(none, f"attention.{name} is for decoders; leave it out of {model}.")

    def _check_kind(self) -> None:
        if self.latent is None and self.differential is None:
            return
        kind = "latent" if self.latent is not None else "differential"
        given = {
            "differential": self.latent is not None and self.differential is not None,
            "gate": self.gate,
            "qk_norm": self.qk_norm,
            "soft_cap": self.soft_cap is not None,
            "sinks": self.sinks,
            "num_kv_heads below num_heads": kind == "latent" and self.num_kv_heads < self.num_heads,
        }
        for name, present in given.items():
            require(not present, f"attention.{name} is not available with attention.{kind}.")
        require(
            self.differential is None or 0 < self.differential < 1,
            f"attention.differential should be between 0 and 1, but is {self.differential}.",
        )
