"""Packed weights times a few rows, against fp64."""

from __future__ import annotations

import math

import pytest
import torch

from groundup.native.quantize import FORMATS, Format, pack, unpack
from groundup.native.rows import multiply

SHAPES = [(1, 1, 1), (1, 33, 70), (3, 48, 64), (16, 17, 129), (33, 70, 96), (50, 131, 320)]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(("rows", "outputs", "depth"), SHAPES)
def test_products(kernels: str, rows: int, outputs: int, depth: int, format: Format) -> None:
    torch.manual_seed(rows * depth)
    x, weight = torch.randn(rows, depth), torch.randn(outputs, depth)
    packed = pack(weight, format)
    exact = x.double() @ unpack(packed).double().T
    found = multiply(x, packed)
    # What rounding x costs: half a unit of 8 bits of the number, or of the largest of 64.
    limit = 0.004 if format == "bf16" else 0.01
    assert (found.double() - exact).norm() <= limit * x.norm() * unpack(packed).norm(dim=1).norm()
    if format == "bf16":
        rounded = x.bfloat16().double() @ unpack(packed).double().T
        assert torch.allclose(found.double(), rounded, rtol=1e-4, atol=1e-4 * math.sqrt(depth))


@pytest.mark.parametrize("format", FORMATS)
def test_one_channel_far_larger_leaves_the_others_their_bits(kernels: str, format: Format) -> None:
    torch.manual_seed(5)
    x, weight = torch.randn(2, 256), torch.randn(20, 256)
    x[:, 3] = 1000.0
    packed = pack(weight, format)
    without = unpack(packed).double()
    exact = x.double() @ without.T
    error = (multiply(x, packed).double() - exact).abs().amax()
    # 1000 spoils its own 64 (steps of 8), not the other 192.
    assert error <= (4.0 if format == "bf16" else 8.0 * 8 * 3)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_row_that_is_not_finite_shows(kernels: str, format: Format, value: float) -> None:
    x = torch.randn(3, 128)
    x[1, 70] = value
    found = multiply(x, pack(torch.randn(5, 128) + 3, format))
    assert not found[1].isfinite().any() and found[[0, 2]].isfinite().all()


@pytest.mark.parametrize("format", FORMATS)
def test_zeros_and_tiny_numbers(kernels: str, format: Format) -> None:
    packed = pack(torch.randn(9, 100), format)
    assert not multiply(torch.zeros(2, 100), packed).any()
    assert multiply(torch.full((2, 100), 1e-42), packed).abs().max() < 1e-38


def test_the_same_however_many_threads(kernels: str) -> None:
    torch.manual_seed(6)
    x, threads = torch.randn(5, 96), torch.get_num_threads()
    for format in FORMATS:
        packed, found = pack(torch.randn(70, 96), format), []
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            found.append(multiply(x, packed))
        torch.set_num_threads(threads)
        assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
