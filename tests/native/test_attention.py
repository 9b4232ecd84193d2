"""The attention kernel against the formula in fp64, next to torch's own in bf16."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from groundup.native import ops

pytestmark = pytest.mark.usefixtures("tiles")


def random_inputs(rows: int, length: int, heads: int, kv_heads: int, width: int) -> list[Tensor]:
    """Query, key and value as parts of one projection, (B, heads, T, E) each."""
    whole = torch.randn(rows, length, heads + 2 * kv_heads, width).bfloat16()
    parts = whole.split([heads, kv_heads, kv_heads], dim=2)
    return [part.transpose(1, 2).requires_grad_() for part in parts]


def visible(first: Tensor | None, rows: int, length: int) -> Tensor:
    """(B, 1, T, T): who sees whom."""
    first = torch.zeros(rows, length, dtype=torch.int32) if first is None else first
    place = torch.arange(length)
    return ((place <= place[:, None]) & (place >= first[:, :, None]))[:, None]


def run_torch(inputs: list[Tensor], gradient: Tensor, mask: Tensor, dtype: torch.dtype):
    copies = [t.detach().to(dtype).requires_grad_() for t in inputs]
    out = F.scaled_dot_product_attention(*copies, attn_mask=mask, enable_gqa=True)
    return out, *torch.autograd.grad(out, copies, gradient.to(dtype))


def distance(found: Tensor, truth: Tensor) -> float:
    return ((found.double() - truth).norm() / truth.norm().clamp(min=1e-12)).item()


def starts(length: int, kind: str) -> Tensor | None:
    """The first key of each query: all, a window, or documents of random lengths."""
    if kind == "all":
        return None
    place = torch.arange(length)
    if kind == "window":
        return (place - length // 3).clamp(min=0).int()
    cuts = torch.rand(length) < 0.1
    cuts[0] = True
    return torch.where(cuts, place, 0).cummax(0).values.int()


@pytest.mark.parametrize("kind", ["all", "window", "documents"])
@pytest.mark.parametrize(
    ("rows", "length", "heads", "kv_heads", "width"),
    [(2, 37, 3, 3, 16), (1, 70, 6, 2, 48), (3, 1, 2, 1, 24), (1, 301, 2, 1, 20), (2, 96, 4, 4, 64)],
)
def test_out_and_gradients(
    rows: int, length: int, heads: int, kv_heads: int, width: int, kind: str
) -> None:
    torch.manual_seed(rows * length + width)
    inputs = random_inputs(rows, length, heads, kv_heads, width)
    first = starts(length, kind)
    first = first if first is None else first.expand(rows, -1)
    out, _ = ops.causal_attention(*inputs, first, 1 / math.sqrt(width))
    gradient = torch.randn_like(out)
    found = out, *torch.autograd.grad(out, inputs, gradient)
    mask = visible(first, rows, length)
    truth = run_torch(inputs, gradient, mask, torch.float64)
    theirs = run_torch(inputs, gradient, mask, torch.bfloat16)
    for name, ours, exact, torchs in zip("oqkv", found, truth, theirs, strict=True):
        # Both round what they write to 8 bits; what is between differs by rounding alone.
        assert distance(ours, exact) <= 1.25 * distance(torchs, exact) + 1e-3, name


def test_log_sums_are_those_of_the_scores() -> None:
    torch.manual_seed(3)
    query, key, value = random_inputs(1, 45, 2, 2, 32)
    _, log_sums = ops.causal_attention(query, key, value, None, 0.3)
    scores = query.double() @ key.double().transpose(-2, -1) * 0.3
    scores = scores.masked_fill(~visible(None, 1, 45), -math.inf)
    assert torch.allclose(log_sums.double() * math.log(2), scores.logsumexp(-1), atol=1e-5)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_what_is_not_finite_shows_and_spreads_to_no_other_channel(value: float) -> None:
    torch.manual_seed(4)
    inputs = random_inputs(1, 70, 1, 1, 16)
    with torch.no_grad():
        inputs[2][0, 0, 40, 3] = value
    out, _ = ops.causal_attention(*inputs, None, 0.25)
    assert out[0, 0, :32].isfinite().all()  # 32 queries are done together: theirs weigh it with 0
    assert not out[0, 0, 40:, 3].isfinite().any()
    assert out[0, 0, :, [channel for channel in range(16) if channel != 3]].isfinite().all()


def test_large_and_tiny_scores() -> None:
    torch.manual_seed(5)
    for factor in (1e-20, 1e4):
        inputs = [(t.detach() * factor).requires_grad_() for t in random_inputs(1, 50, 2, 1, 32)]
        inputs[2] = random_inputs(1, 50, 2, 1, 32)[2]
        out, _ = ops.causal_attention(*inputs, None, 1.0)
        gradient = torch.randn_like(out)
        found = torch.autograd.grad(out, inputs, gradient)
        assert out.isfinite().all() and all(one.isfinite().all() for one in found)
        exact = run_torch(inputs, gradient, visible(None, 1, 50), torch.float64)[0]
        assert distance(out, exact) < 0.01


def test_the_same_however_many_threads() -> None:
    torch.manual_seed(6)
    inputs, threads = random_inputs(3, 50, 4, 2, 32), torch.get_num_threads()
    results = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        out, _ = ops.causal_attention(*inputs, None, 0.2)
        results.append((out, *torch.autograd.grad(out.sum(), inputs)))
    torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_torchs_own_checks_of_an_operation() -> None:
    torch.manual_seed(7)
    inputs = random_inputs(2, 21, 4, 2, 24)
    first = starts(21, "window")
    assert first is not None
    for start in (None, first.expand(2, -1).contiguous()):
        torch.library.opcheck(ops.causal_attention, (*inputs, start, 0.2))
    gradient, x = torch.randn(50, 20).bfloat16(), torch.randn(50, 30).bfloat16()
    torch.library.opcheck(ops.weight_gradient, (gradient, x))
