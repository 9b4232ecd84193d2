"""One dial for the size of our own models: from a depth, the shape and how to train it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from groundup.config import require
from groundup.models.config import DecoderConfig, num_matmul_weights
from groundup.models.presets import qwen3


@dataclass(frozen=True, kw_only=True)
class LearningRates:
    """What each kind of parameter starts from; see `learning_rates`."""

    muon: float
    """Hidden matrices."""
    adamw: float
    """Norms and biases."""
    embedding: float
    """Token tables, and a head of its own."""


@dataclass(frozen=True, kw_only=True)
class Dial:
    """Everything that follows from the depth of a model; see `from_depth`."""

    model: DecoderConfig
    tokens: int
    """Tokens to train on."""
    rows_per_step: int
    """Rows of the context length in one optimizer step."""

    @property
    def tokens_per_step(self) -> int:
        """The batch of one optimizer step in tokens."""
        return self.rows_per_step * self.model.context_length


def from_depth(
    depth: int, vocab_size: int, context_length: int | None = None, tokens: int | None = None
) -> Dial:
    """One dial for the size: a Qwen3-shaped model and how to train it. `tokens` overrides 12·N.

    | what            | formula                           | where from                            |
    |-----------------|-----------------------------------|---------------------------------------|
    | width           | 64 · depth                        | the usual aspect ratio at these sizes |
    | heads           | depth, each 64 wide               | GPT-2                                 |
    | key/value heads | half as many from depth 12 on     | halves the cache; arXiv:2305.13245    |
    | feed-forward    | 8/3 · width, up to a multiple of 64 | equal weights; arXiv:2302.13971     |
    | context         | 128 · depth to a power of two, 256..2048 | ours                           |
    | tokens          | 12 · N, the weights that multiply | nanochat's optimum of 8 to 12         |
    | batch in tokens | 2^14 · (tokens / 5 M)^0.383        | exponent of arXiv:2505.13738          |
    """
    require(depth >= 1, f"size should be at least 1, but is {depth}.")
    width = 64 * depth
    model = qwen3(
        vocab_size=vocab_size,
        width=width,
        num_layers=depth,
        num_heads=depth,
        num_kv_heads=depth // 2 if depth >= 12 and depth % 2 == 0 else depth,
        context_length=context_length or min(max(_power_of_two(128 * depth), 256), 2048),
    )
    tokens = tokens or 12 * num_matmul_weights(model)
    tokens_per_step = _power_of_two(2**14 * (tokens / 5e6) ** 0.383)
    return Dial(
        model=model,
        tokens=tokens,
        rows_per_step=max(1, round(tokens_per_step / model.context_length)),
    )


def learning_rates(width: int, tokens_per_step: int) -> LearningRates:
    """Peak rates for a width and a batch in tokens.

    All grow with the square root of the batch (arXiv:2205.10287), AdamW's up to 2^16 tokens, Muon's
    up to the 0.02 of its author (Jordan et al. 2024). AdamW's shrink with the square root of the
    width (as in nanochat); Muon's update has one size at every width. The constants were measured
    at width 192 and 4096 tokens (LOG.md).
    """
    batch = math.sqrt(tokens_per_step / 2**12)
    adamw = 6e-3 * min(batch, 4.0) * math.sqrt(192 / width)
    return LearningRates(muon=min(0.01 * batch, 0.02), adamw=adamw, embedding=2 * adamw)


def _power_of_two(value: float) -> int:
    return 2 ** round(math.log2(value))
