"""Rotations, biases and tables of positions beside transformers'."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import transformers
from torch import Tensor

from groundup.nn.alibi import alibi_bias
from groundup.nn.config import PositionsConfig, RopeScaling
from groundup.nn.positions import RotaryPositions, rotate
from groundup.nn.relative_bias import RelativeBias
from groundup.nn.sinusoidal import sinusoids
from parity.harness import EXACT, Case, Pair, Weights, module_function, random_weights

LENGTH, CONTEXT, WIDTH, THETA = 70, 40, 26, 500.0
SCALINGS: dict[str, tuple[RopeScaling | None, dict[str, Any]]] = {
    "plain": (None, {"rope_type": "default"}),
    "linear": (RopeScaling(kind="linear", factor=3.0), {"rope_type": "linear", "factor": 3.0}),
    # Dynamic scaling grows with the length: at 70 of 40 tokens, a factor of 4 has become 4.
    "ntk": (RopeScaling(kind="ntk", factor=4.0), {"rope_type": "dynamic", "factor": 4.0}),
    "yarn": (
        RopeScaling(kind="yarn", factor=4.0, original_context=17),
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 17},
    ),
    "llama3": (
        RopeScaling(kind="llama3", factor=8.0, original_context=23),
        {
            "rope_type": "llama3",
            "factor": 8.0,
            "original_max_position_embeddings": 23,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
        },
    ),
}
"""Ours, and the fields of transformers."""


def rope_pair(name: str) -> Pair:
    """Queries (B, T, H, E) turned by position."""
    from transformers.models.llama import modeling_llama as llama

    scaling, fields = SCALINGS[name]
    config = transformers.LlamaConfig(
        head_dim=WIDTH,
        max_position_embeddings=CONTEXT,
        rope_parameters=fields | {"rope_theta": THETA},
    )
    theirs, positions = llama.LlamaRotaryEmbedding(config), torch.arange(LENGTH)[None]

    def expected(weights: Weights, x: Tensor) -> Tensor:
        cos, sin = theirs(x, positions)
        return llama.apply_rotary_pos_emb(x, x, cos, sin, unsqueeze_dim=2)[0]

    return _turned(PositionsConfig(theta=THETA, scaling=scaling), expected)


def interleaved_pair() -> Pair:
    """Neighbouring channels turned together, there as complex numbers."""
    from transformers.models.deepseek_v2 import modeling_deepseek_v2 as deepseek

    config = deepseek.DeepseekV2Config(
        qk_rope_head_dim=WIDTH, rope_parameters={"rope_type": "default", "rope_theta": THETA}
    )
    theirs, positions = deepseek.DeepseekV2RotaryEmbedding(config), torch.arange(LENGTH)[None]

    def expected(weights: Weights, x: Tensor) -> Tensor:
        queries = x.transpose(1, 2)
        angles = theirs(queries, positions)
        return deepseek.apply_rotary_emb(queries, queries, angles)[0].transpose(1, 2)

    return _turned(PositionsConfig(theta=THETA, layout="interleaved"), expected)


def _turned(positions: PositionsConfig, expected: Any) -> Pair:
    rotation = RotaryPositions(WIDTH, LENGTH, positions)(0, LENGTH)

    def mine(weights: Weights, x: Tensor) -> Tensor:
        return rotate(x, rotation)

    return Pair(mine, expected, {}, (torch.randn(2, LENGTH, 3, WIDTH),))


def alibi_pair(num_heads: int) -> Pair:
    """BLOOM adds slope · key position: within a row the same but for a constant."""
    from transformers.models.bloom.modeling_bloom import build_alibi_tensor

    past = torch.ones(LENGTH, LENGTH).tril()

    def expected(weights: Weights) -> Tensor:
        found = build_alibi_tensor(torch.ones(1, LENGTH), num_heads, torch.float32)
        return found.view(num_heads, 1, LENGTH) * past

    def mine(weights: Weights) -> Tensor:
        bias = alibi_bias(num_heads, LENGTH, LENGTH)
        return (bias - bias[:, :, :1]) * past

    return Pair(mine, expected, {}, (), gradients=False)


def relative_pair(bidirectional: bool) -> Pair:
    """T5's learned number per distance."""
    from transformers.models.t5.modeling_t5 import T5Attention

    config = transformers.T5Config(
        d_model=22,
        d_kv=4,
        num_heads=5,
        relative_attention_num_buckets=12,
        relative_attention_max_distance=20,
        is_decoder=not bidirectional,
    )
    theirs = T5Attention(config, has_relative_attention_bias=True, layer_idx=0)
    ours = RelativeBias(5, 12, 20, bidirectional)

    def translate(weights: Weights) -> Weights:
        table = {"relative_attention_bias.weight": weights["table.weight"]}
        return dict(theirs.named_parameters()) | table

    return Pair(
        ours=module_function(ours, call=lambda module: module(LENGTH, LENGTH)),
        theirs=module_function(
            theirs, translate, lambda module: module.compute_bias(LENGTH, LENGTH)[0]
        ),
        weights=random_weights(ours),
        inputs=(),
    )


def sinusoids_pair(width: int) -> Pair:
    """Marian puts all sines before all cosines."""
    from transformers.models.marian.modeling_marian import MarianSinusoidalPositionalEmbedding

    table = MarianSinusoidalPositionalEmbedding(LENGTH, width).create_weight()

    def expected(weights: Weights) -> Tensor:
        return table

    def mine(weights: Weights) -> Tensor:
        found = sinusoids(0, LENGTH, width)
        return torch.cat((found[:, 0::2], found[:, 1::2]), dim=1)

    return Pair(mine, expected, {}, (), gradients=False)


def cases() -> dict[str, Case]:
    """Every way to tell a token where it stands; tables are fp32 whatever the model is."""
    found = {
        f"RoPE, {name}": Case("transformers apply_rotary_pos_emb", partial(rope_pair, name))
        for name in SCALINGS
    }
    found["RoPE, interleaved"] = Case("transformers apply_rotary_emb", interleaved_pair)
    for number in (5, 8, 12):
        found[f"ALiBi of {number} heads"] = Case(
            "transformers build_alibi_tensor", partial(alibi_pair, number), EXACT
        )
    for name, both in (("both sides", True), ("backwards", False)):
        found[f"T5's relative positions, {name}"] = Case(
            "transformers T5Attention", partial(relative_pair, both)
        )
    for width in (16, 23):
        found[f"sinusoids of width {width}"] = Case(
            "transformers MarianSinusoidalPositionalEmbedding",
            partial(sinusoids_pair, width),
            EXACT,
        )
    return found
