"""Packed weights stand for nearly what was packed."""

from __future__ import annotations

import pytest
import torch

from groundup.native.quantize import FORMATS, Format, pack, unpack


@pytest.mark.parametrize(("format", "limit"), [("bf16", 0.003), ("int8", 0.01), ("int4", 0.12)])
@pytest.mark.parametrize(("rows", "depth"), [(1, 1), (7, 65), (33, 128), (5, 200)])
def test_unpacked_is_near(format: Format, limit: float, rows: int, depth: int) -> None:
    torch.manual_seed(rows * depth)
    weight = torch.randn(rows, depth)
    packed = pack(weight, format)
    assert packed.depth == depth and unpack(packed).shape == weight.shape
    assert (unpack(packed) - weight).norm() <= limit * weight.norm()


def test_int8_is_within_half_a_step() -> None:
    weight = torch.randn(9, 70)
    step = weight.abs().amax(1, keepdim=True) / 127
    assert ((unpack(pack(weight, "int8")) - weight).abs() <= step / 2 + 1e-7).all()


def test_int4_is_within_half_a_step() -> None:
    weight = torch.randn(6, 192)
    groups, found = weight.view(6, 6, 32), unpack(pack(weight, "int4")).view(6, 6, 32)
    step = (groups.amax(2, keepdim=True) - groups.amin(2, keepdim=True)) / 15
    assert ((found - groups).abs() <= 0.51 * step + 2e-3).all()  # ends rounded to fp16


@pytest.mark.parametrize("format", FORMATS)
def test_zeros_stay_zeros(format: Format) -> None:
    assert not unpack(pack(torch.zeros(3, 80), format)).any()


def test_fewer_bits_are_fewer_bytes() -> None:
    sizes = [pack(torch.randn(64, 512), format).num_bytes for format in FORMATS]
    assert sizes == [64 * 1024, 64 * 512 + 64 * 4, 64 * 256 + 64 * 16 * 2 * 2]
