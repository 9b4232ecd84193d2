"""Rotary positions: distance is all that counts, fp32 tables survive every move."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.nn.positions import (
    RotaryPositions,
    document_positions,
    rotate,
)


def _at(rotary: RotaryPositions, x: torch.Tensor, position: int) -> torch.Tensor:
    return rotate(x, rotary(position, 1))


@settings(deadline=None, max_examples=25, derandomize=True)
@given(
    first=st.integers(0, 150), second=st.integers(0, 150), shift=st.integers(0, 349),
    half=st.integers(1, 17), seed=st.integers(0, 99),
)  # fmt: skip
def test_the_product_depends_on_the_distance_alone(first, second, shift, half, seed):
    generator = torch.Generator().manual_seed(seed)
    query, key = torch.randn(2, 1, 1, 1, 2 * half, generator=generator)
    rotary = RotaryPositions(2 * half, 500)
    here = (_at(rotary, query, first) * _at(rotary, key, second)).sum()
    there = (_at(rotary, query, first + shift) * _at(rotary, key, second + shift)).sum()
    torch.testing.assert_close(here, there, atol=2e-4, rtol=1e-4)


def test_rotation_keeps_lengths_and_position_zero():
    x = torch.randn(2, 7, 3, 10)
    y = rotate(x, RotaryPositions(10, 7)(0, 7))
    torch.testing.assert_close(y.norm(dim=-1), x.norm(dim=-1))
    assert torch.equal(y[:, 0], x[:, 0])


def test_an_offset_continues_where_the_cache_ends():
    rotary, x = RotaryPositions(6, 31), torch.randn(1, 31, 2, 6)
    whole = rotate(x, rotary(0, 31))
    tail = rotate(x[:, 19:], rotary(19, 12))
    assert torch.equal(whole[:, 19:], tail)


def test_tables_stay_fp32_and_survive_the_meta_device():
    reference = RotaryPositions(6, 31)
    cast = RotaryPositions(6, 31).to(torch.bfloat16)
    assert cast.cos.dtype == torch.float32
    with torch.device("meta"):
        late = RotaryPositions(6, 31)
    late.to_empty(device="cpu")
    for module in (cast, late):
        assert torch.equal(module.cos, reference.cos)
        assert torch.equal(module.sin, reference.sin)
    assert not reference.state_dict()


def test_output_keeps_the_input_dtype():
    x = torch.randn(1, 4, 2, 6).bfloat16()
    assert rotate(x, RotaryPositions(6, 4)(0, 4)).dtype == torch.bfloat16


def test_pairs_turn_as_complex_numbers():
    x, rotary = torch.randn(1, 5, 3, 10), RotaryPositions(10, 5)
    turned = torch.complex(*x.chunk(2, dim=-1)) * torch.complex(*rotary(0, 5))
    expected = torch.cat((turned.real, turned.imag), dim=-1)
    torch.testing.assert_close(rotate(x, rotary(0, 5)), expected)


def test_document_positions_restart():
    documents = torch.tensor([[4, 4, 4, 9, 9, 2], [0, 1, 1, 1, 1, 1]])
    expected = torch.tensor([[0, 1, 2, 0, 1, 0], [0, 0, 1, 2, 3, 4]])
    assert torch.equal(document_positions(documents), expected)
