"""The choices a building block offers, as frozen dataclasses; importable without torch.

A model config is composed of these (see `groundup.models.config`), so that a model family is a
particular choice and never a copy of the code.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

from groundup.config import require
from groundup.nn.attention_config import AttentionConfig, LatentConfig, TokenValuesConfig
from groundup.nn.checks import at_least_one, choice, probability

__all__ = [
    "Activation",
    "AttentionConfig",
    "ExpertsConfig",
    "FeedForwardConfig",
    "LatentConfig",
    "NormConfig",
    "NormPlacement",
    "PositionKind",
    "PositionsConfig",
    "RopeScaling",
    "TokenValuesConfig",
    "gated_width",
]

Activation = Literal["silu", "gelu", "gelu_tanh", "relu", "relu2"]
NormPlacement = Literal["pre", "post", "sandwich", "deepnorm", "parallel", "parallel_shared"]
_ACTIVATIONS = ("silu", "gelu", "gelu_tanh", "relu", "relu2")


@dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """How RoPE's frequencies are slowed down, for a context `factor` times as long as trained for.

    | kind   | a pair of channels turns                                                      |
    |--------|-------------------------------------------------------------------------------|
    | linear | `factor` times slower: position interpolation, arXiv:2306.15595               |
    | ntk    | by a larger theta: the fastest as before, the slowest `factor` times slower   |
    | yarn   | slow pairs as linear, fast ones as before; sharper scores: arXiv:2309.00071   |
    | llama3 | the same, blended otherwise: arXiv:2407.21783, section 3.2                    |

    yarn and llama3 call a pair slow that turns fewer than `slow_turns` times within
    `original_context`, and fast above `fast_turns`; pairs between are blended.
    """

    kind: Literal["linear", "ntk", "yarn", "llama3"]
    factor: float
    original_context: int | None = None
    """The context length of the first training. yarn and llama3."""
    slow_turns: float | None = None
    """1 when left out. yarn and llama3."""
    fast_turns: float | None = None
    """32 for yarn and 4 for llama3 when left out."""
    attention_factor: float | None = None
    """What queries and keys are multiplied by; 0.1·ln(factor) + 1 when left out. yarn only."""

    def __post_init__(self) -> None:
        choice("positions.scaling.kind", self.kind, ("linear", "ntk", "yarn", "llama3"))
        at_least_one("positions.scaling", self, "factor")
        defaults = self._defaults()
        for name in ("original_context", "slow_turns", "fast_turns", "attention_factor"):
            given = getattr(self, name) is not None
            require(
                name in defaults or not given,
                f"positions.scaling.{name} has no effect on kind {self.kind!r}; leave it out.",
            )
            if name in defaults and not given:
                # A saved config states what was used, whatever a later version's defaults are.
                object.__setattr__(self, name, defaults[name])
        require(
            "original_context" not in defaults or (self.original_context or 0) >= 1,
            f"positions.scaling.kind {self.kind!r} needs original_context, the context length of "
            f"the first training, but it is {self.original_context}.",
        )
        require(
            0 < (self.slow_turns or 1) < (self.fast_turns or math.inf),
            f"positions.scaling.slow_turns should be above 0 and below fast_turns, but they are "
            f"{self.slow_turns} and {self.fast_turns}.",
        )

    def _defaults(self) -> dict[str, float | None]:
        """The fields that act on this kind, with what stands in for one left out."""
        blend = {"original_context": None, "slow_turns": 1.0}
        if self.kind == "yarn":
            sharper = 0.1 * math.log(self.factor) + 1.0
            return blend | {"fast_turns": 32.0, "attention_factor": sharper}
        return blend | {"fast_turns": 4.0} if self.kind == "llama3" else {}


PositionKind = Literal["rope", "learned", "sinusoidal", "alibi", "t5", "none"]


@dataclass(frozen=True, kw_only=True)
class PositionsConfig:
    """How a token knows where it stands.

    | kind       | acts by                                                   | source           |
    |------------|-----------------------------------------------------------|------------------|
    | rope       | turning queries and keys, in every layer                  | arXiv:2104.09864 |
    | learned    | a table added to the embeddings                           | arXiv:1705.03122 |
    | sinusoidal | sines and cosines added to the embeddings                 | arXiv:1706.03762 |
    | alibi      | scores that fall with distance, in every layer            | arXiv:2108.12409 |
    | t5         | scores plus a learned number per distance, in every layer | arXiv:1910.10683 |
    | none       | nothing: a causal mask alone tells first from last        | arXiv:2305.19466 |
    """

    kind: PositionKind = "rope"
    theta: float = 10_000.0
    """RoPE's base: the slowest pair of channels turns once in about 2π·theta positions."""
    window_theta: float | None = None
    """The base in layers that see a window, never scaled; the same when left out. Gemma 3: 10,000
    there, 1,000,000 in the others."""
    fraction: float = 1.0
    """The share of a head's channels that RoPE turns, its first ones. GPT-NeoX: 0.25."""
    layout: Literal["half", "interleaved"] = "half"
    """Which channels of a head RoPE turns together: i and i + E/2, or the neighbours 2i, 2i + 1."""
    scaling: RopeScaling | None = None
    num_buckets: int = 32
    """How many distances t5 tells apart."""
    max_distance: int = 128
    """From where on all distances are one to t5."""

    def __post_init__(self) -> None:
        choice("positions.kind", self.kind, get_args(PositionKind))
        choice("positions.layout", self.layout, ("half", "interleaved"))
        for name in ("theta", "window_theta"):
            value = getattr(self, name)
            require(
                value is None or value > 1, f"positions.{name} should be above 1, but is {value}."
            )
        require(
            0 < self.fraction <= 1,
            f"positions.fraction should be above 0 and at most 1, but is {self.fraction}.",
        )
        self._check_rope()
        require(
            self.kind == "t5" or (self.num_buckets, self.max_distance) == (32, 128),
            f"positions.num_buckets and positions.max_distance are about t5 and have no effect on "
            f"kind {self.kind!r}; leave them out.",
        )
        require(
            2 <= self.num_buckets < 2 * self.max_distance,
            f"positions.num_buckets should be at least 2 and below twice max_distance, but they "
            f"are {self.num_buckets} and {self.max_distance}.",
        )

    def of_windows(self) -> PositionsConfig:
        """The positions of layers that see a window."""
        if self.window_theta is None:
            return self
        return replace(self, theta=self.window_theta, window_theta=None, scaling=None)

    def turned(self, head_width: int) -> int:
        """How many channels of a head so wide RoPE turns."""
        return int(head_width * self.fraction)

    def _check_rope(self) -> None:
        """RoPE's own fields have no effect on other kinds."""
        for name, default in (
            ("scaling", None),
            ("layout", "half"),
            ("window_theta", None),
            ("fraction", 1.0),
        ):
            require(
                self.kind == "rope" or getattr(self, name) == default,
                f"positions.{name} is about rope and has no effect on kind {self.kind!r}; leave "
                "it out.",
            )


@dataclass(frozen=True, kw_only=True)
class ExpertsConfig:
    """Each token passes through those `top_k` of `num_experts` networks that a router scores most.

    | balance | keeps the experts equally busy by                               | source           |
    |---------|-----------------------------------------------------------------|------------------|
    | loss    | a loss term, `loss_weight` · X · Σ share of tokens · mean score | arXiv:2101.03961 |
    | bias    | a bias on the choice alone, `bias_rate` up or down each step    | arXiv:2408.15664 |
    | none    | nothing                                                         |                  |
    """

    num_experts: int
    top_k: int
    score: Literal["softmax", "sigmoid"] = "softmax"
    """Over all experts, or each expert by itself (as DeepSeek-V3 does)."""
    normalize: bool = True
    """Divide the chosen experts' scores by their sum, so that they weigh 1 together."""
    scale: float = 1.0
    """What the routed output is multiplied by."""
    balance: Literal["loss", "bias", "none"] = "loss"
    loss_weight: float = 0.01
    bias_rate: float = 0.001
    capacity_factor: float | None = None
    """In training, an expert takes at most this many times its equal share; None drops nothing."""
    shared_width: int = 0
    """Width of a network that every token passes through beside its experts; 0 for none."""

    def __post_init__(self) -> None:
        where = "feed_forward.experts"
        at_least_one(where, self, "num_experts", "top_k")
        choice(f"{where}.score", self.score, ("softmax", "sigmoid"))
        choice(f"{where}.balance", self.balance, ("loss", "bias", "none"))
        require(
            self.top_k <= self.num_experts,
            f"{where}.top_k {self.top_k} is more than {where}.num_experts {self.num_experts}.",
        )
        capacity = self.capacity_factor
        require(
            capacity is None or capacity > 0,
            f"{where}.capacity_factor should be above 0, but is {capacity}; leave it out to let "
            "every expert take what is routed to it.",
        )
        for name in ("shared_width", "loss_weight", "bias_rate"):
            value = getattr(self, name)
            require(value >= 0, f"{where}.{name} should be at least 0, but is {value}.")
        require(self.scale > 0, f"{where}.scale should be above 0, but is {self.scale}.")


@dataclass(frozen=True, kw_only=True)
class FeedForwardConfig:
    """The position-wise network: `gated` (SwiGLU and friends) or `plain` (two layers).

    With `experts` there are several of it, each of `width`, and a token passes through a few.
    """

    kind: Literal["gated", "plain"] = "gated"
    activation: Activation = "silu"
    width: int
    bias: bool = False
    dropout: float = 0.0
    """Probability of dropping an output value before it joins the residual stream."""
    experts: ExpertsConfig | None = None

    def __post_init__(self) -> None:
        choice("feed_forward.kind", self.kind, ("gated", "plain"))
        choice("feed_forward.activation", self.activation, _ACTIVATIONS)
        at_least_one("feed_forward", self, "width")
        probability("feed_forward", self, "dropout")
        require(
            self.experts is None or not self.bias,
            "feed_forward.bias is not available with feed_forward.experts; set it to false.",
        )


@dataclass(frozen=True, kw_only=True)
class NormConfig:
    """RMSNorm (scale only) or LayerNorm (centre, scale and shift), and where in a block it stands.

    | placement | a branch f joins the stream x as | norm after the last block  | source          |
    |-----------|----------------------------------|----------------------------|-----------------|
    | pre       | x + f(norm(x))                   | yes: the stream has grown  | GPT-2           |
    | post      | norm(x + f(x))                   | no: a block ends with one  | arXiv:1706.03762 |
    | sandwich  | x + norm(f(norm(x)))             | yes                        | arXiv:2105.13290 |
    | deepnorm  | norm(α·x + f(x)), α = (2L)^¼     | no                         | arXiv:2203.00555 |
    | parallel  | x + f(norm(x)) + g(norm′(x))     | yes                        | arXiv:2204.06745 |

    In a parallel block attention f and feed-forward network g read the same stream, rather than one
    what the other wrote: GPT-NeoX. `parallel_shared` has one norm for both, as GPT-J and PaLM
    (arXiv:2204.02311) have.
    """

    kind: Literal["rmsnorm", "layernorm"] = "rmsnorm"
    eps: float = 1e-6
    placement: NormPlacement = "pre"
    scale: bool = True
    """Multiply by a learned scale; nanochat's norms learn nothing."""
    bias: bool = True
    """LayerNorm's learned shift, which ModernBERT's lack."""

    @property
    def ends_blocks(self) -> bool:
        """The stream itself is normalised in every block, so that no norm is due after the last."""
        return self.placement in ("post", "deepnorm")

    @property
    def is_parallel(self) -> bool:
        """The branches of a block read the same stream."""
        return self.placement in ("parallel", "parallel_shared")

    def __post_init__(self) -> None:
        choice("norm.kind", self.kind, ("rmsnorm", "layernorm"))
        choice("norm.placement", self.placement, get_args(NormPlacement))
        require(
            self.kind == "layernorm" or self.bias,
            "norm.bias is about layernorm, an rmsnorm never has one; leave it out.",
        )
        require(self.eps > 0, f"norm.eps should be above 0, but is {self.eps}.")


def gated_width(width: int, multiple_of: int = 64) -> int:
    """Feed-forward width whose three gated matrices weigh as much as two plain ones of 4·D.

    That is 8/3·D, rounded up to a multiple the hardware likes. Touvron et al. 2023,
    arXiv:2302.13971, section 2.2.
    """
    return -(-8 * width // (3 * multiple_of)) * multiple_of
