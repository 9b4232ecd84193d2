"""Rotary positions: distance is all that counts, in both layouts and however slowed down."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.config import UserError
from groundup.nn.attention import Attention
from groundup.nn.config import AttentionConfig, NormConfig, PositionsConfig, RopeScaling
from groundup.nn.masks import Plan
from groundup.nn.positions import (
    LayerRotations,
    RotaryPositions,
    change_layout,
    document_positions,
    rotate,
)

PLAIN = PositionsConfig()
SCALINGS = [
    None,
    RopeScaling(kind="linear", factor=3.0),
    RopeScaling(kind="ntk", factor=3.0),
    RopeScaling(kind="yarn", factor=3.0, original_context=60),
    RopeScaling(kind="llama3", factor=3.0, original_context=60),
]


def _at(rotary: RotaryPositions, x: torch.Tensor, position: int) -> torch.Tensor:
    return rotate(x, rotary(position, 1))


@settings(deadline=None, max_examples=25, derandomize=True)
@given(
    first=st.integers(0, 150), second=st.integers(0, 150), shift=st.integers(0, 349),
    half=st.integers(1, 17), seed=st.integers(0, 99),
    layout=st.sampled_from(["half", "interleaved"]), scaling=st.sampled_from(SCALINGS),
)  # fmt: skip
def test_the_product_depends_on_the_distance_alone(
    first, second, shift, half, seed, layout, scaling
):
    generator = torch.Generator().manual_seed(seed)
    query, key = torch.randn(2, 1, 1, 1, 2 * half, generator=generator)
    rotary = RotaryPositions(2 * half, 500, PositionsConfig(layout=layout, scaling=scaling))
    here = (_at(rotary, query, first) * _at(rotary, key, second)).sum()
    there = (_at(rotary, query, first + shift) * _at(rotary, key, second + shift)).sum()
    torch.testing.assert_close(here, there, atol=2e-4, rtol=1e-4)


def test_rotation_keeps_lengths_and_position_zero():
    x = torch.randn(2, 7, 3, 10)
    y = rotate(x, RotaryPositions(10, 7, PLAIN)(0, 7))
    torch.testing.assert_close(y.norm(dim=-1), x.norm(dim=-1))
    assert torch.equal(y[:, 0], x[:, 0])


def test_an_offset_continues_where_the_cache_ends():
    rotary, x = RotaryPositions(6, 31, PLAIN), torch.randn(1, 31, 2, 6)
    whole = rotate(x, rotary(0, 31))
    tail = rotate(x[:, 19:], rotary(19, 12))
    assert torch.equal(whole[:, 19:], tail)


def test_tables_stay_fp32_and_survive_the_meta_device():
    reference = RotaryPositions(6, 31, PLAIN)
    cast = RotaryPositions(6, 31, PLAIN).to(torch.bfloat16)
    assert cast.cos.dtype == torch.float32
    with torch.device("meta"):
        late = RotaryPositions(6, 31, PLAIN)
    late.to_empty(device="cpu")
    for module in (cast, late):
        assert torch.equal(module.cos, reference.cos)
        assert torch.equal(module.sin, reference.sin)
    assert not reference.state_dict()


def test_output_keeps_the_input_dtype():
    x = torch.randn(1, 4, 2, 6).bfloat16()
    assert rotate(x, RotaryPositions(6, 4, PLAIN)(0, 4)).dtype == torch.bfloat16


def test_pairs_turn_as_complex_numbers():
    x, rotary = torch.randn(1, 5, 3, 10), RotaryPositions(10, 5, PLAIN)
    turned = torch.complex(*x.chunk(2, dim=-1)) * torch.complex(*rotary(0, 5)[:2])
    expected = torch.cat((turned.real, turned.imag), dim=-1)
    torch.testing.assert_close(rotate(x, rotary(0, 5)), expected)


def test_interleaved_pairs_are_neighbours():
    x = torch.randn(1, 5, 3, 10)
    rotation = RotaryPositions(10, 5, PositionsConfig(layout="interleaved"))(0, 5)
    turned = torch.view_as_complex(x.unflatten(-1, (5, 2))) * torch.complex(*rotation[:2])
    expected = torch.view_as_real(turned).flatten(-2)
    torch.testing.assert_close(rotate(x, rotation), expected)


def test_layouts_compute_the_same_once_rows_are_reordered():
    heads = AttentionConfig(num_heads=6, num_kv_heads=2, head_width=10, qkv_bias=True, qk_norm=True)
    half, other = Attention(23, heads, NormConfig()), Attention(23, heads, NormConfig())
    for parameter in half.parameters():
        torch.nn.init.normal_(parameter)
    state = {
        name: change_layout(tensor, 10, interleaved=True)
        if name.startswith(("query", "key"))
        else tensor
        for name, tensor in half.state_dict().items()
    }
    other.load_state_dict(state)
    x, mask = torch.randn(2, 7, 23), Plan(True, None)
    expected = half(x, mask, RotaryPositions(10, 7, PLAIN)(0, 7))
    interleaved = RotaryPositions(10, 7, PositionsConfig(layout="interleaved"))(0, 7)
    torch.testing.assert_close(other(x, mask, interleaved), expected, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(half(x, mask, interleaved), expected, atol=1e-2)


def test_reordering_there_and_back():
    weight = torch.randn(4 * 6, 5)
    there = change_layout(weight, 6, interleaved=True)
    assert torch.equal(there[:6], weight[[0, 3, 1, 4, 2, 5]])
    assert torch.equal(change_layout(there, 6, interleaved=False), weight)


def test_yarn_multiplies_queries_and_keys():
    scaling = RopeScaling(kind="yarn", factor=8.0, original_context=16, attention_factor=1.3)
    x = torch.randn(2, 7, 3, 10)
    y = rotate(x, RotaryPositions(10, 7, PositionsConfig(scaling=scaling))(0, 7))
    torch.testing.assert_close(y.norm(dim=-1), 1.3 * x.norm(dim=-1))


def test_document_positions_restart():
    documents = torch.tensor([[4, 4, 4, 9, 9, 2], [0, 1, 1, 1, 1, 1]])
    expected = torch.tensor([[0, 1, 2, 0, 1, 0], [0, 0, 1, 2, 3, 4]])
    assert torch.equal(document_positions(documents), expected)


def test_part_of_a_head_is_turned_as_a_head_so_wide_and_the_rest_is_kept():
    config = PositionsConfig(fraction=0.5)
    assert config.turned(12) == 6
    x, rotation = torch.randn(2, 7, 3, 12), RotaryPositions(6, 7, config)(0, 7)
    turned = rotate(x, rotation)
    assert torch.equal(turned[..., :6], rotate(x[..., :6], rotation))
    assert torch.equal(turned[..., 6:], x[..., 6:])


def test_layers_with_a_window_have_a_theta_of_their_own():
    scaling = RopeScaling(kind="linear", factor=4.0)
    config = PositionsConfig(theta=900.0, window_theta=50.0, scaling=scaling)
    attention = AttentionConfig(num_heads=1, num_kv_heads=1, head_width=10, windows=(3, 0))
    rotations = LayerRotations(attention, 7, config)
    for layer, expected in (
        (0, PositionsConfig(theta=50.0)),  # never scaled
        (1, PositionsConfig(theta=900.0, scaling=scaling)),
        (2, PositionsConfig(theta=50.0)),
    ):
        assert torch.equal(rotations(layer, 2, 5).cos, RotaryPositions(10, 7, expected)(2, 5).cos)
    alike = LayerRotations(attention, 7, PositionsConfig(theta=900.0, scaling=scaling))
    assert torch.equal(alike(0, 0, 7).sin, alike(1, 0, 7).sin)


@pytest.mark.parametrize("field", ["window_theta", "fraction"])
def test_what_has_no_effect_without_rope_is_refused(field):
    with pytest.raises(UserError, match=f"positions.{field} is about rope"):
        PositionsConfig(kind="alibi", **{field: 0.5 if field == "fraction" else 9.0})
