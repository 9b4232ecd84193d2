"""Tiled attention equals the naive formula and torch's kernel, and needs no (T, S) matrix."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from groundup.scratch.flash_attention import flash_attention, forward


def naive(query: Tensor, key: Tensor, value: Tensor, causal: bool) -> Tensor:
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
    if causal:
        later = torch.ones(scores.shape[-2:]).triu(1 + key.shape[-2] - query.shape[-2]).bool()
        scores = scores.masked_fill(later, -math.inf)
    return torch.softmax(scores, -1) @ value


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("queries", "keys"), [(37, 37), (1, 23), (5, 41), (64, 64), (30, 97)])
@pytest.mark.parametrize("tile", [1, 16, 64, 200])
def test_outputs_and_gradients_equal_the_naive_ones(causal, queries, keys, tile):
    inputs = (torch.randn(2, 3, queries, 10), *torch.randn(2, 2, 3, keys, 10))
    mine, plain = (tuple(x.clone().requires_grad_() for x in inputs) for _ in range(2))
    out, expected = flash_attention(*mine, causal, tile), naive(*plain, causal)
    torch.testing.assert_close(out, expected, atol=1e-6, rtol=1e-6)
    cotangent = torch.randn(out.shape)
    out.backward(cotangent)
    expected.backward(cotangent)
    for ours, theirs in zip(mine, plain, strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=5e-6, rtol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
def test_the_gradient_is_that_of_finite_differences(causal):
    inputs = torch.randn(3, 2, 7, 3, dtype=torch.float64, requires_grad=True).unbind()
    assert torch.autograd.gradcheck(lambda *x: flash_attention(*x, causal, 3), inputs)


def test_torchs_kernel_computes_the_same():
    query, key, value = torch.randn(3, 2, 3, 50, 8)
    expected = F.scaled_dot_product_attention(query, key, value, is_causal=True)
    actual = flash_attention(query, key, value, causal=True, tile=16)
    torch.testing.assert_close(actual, expected, atol=1e-6, rtol=1e-6)


def test_huge_scores_do_not_overflow():
    query, key, value = torch.randn(3, 1, 20, 4)
    out, row_log_sums = forward(1e4 * query, key, value, True, 8)
    assert out.isfinite().all() and row_log_sums.isfinite().all()


MEASURE = """
import math, re, torch
from groundup.scratch.flash_attention import flash_attention

def peak():  # MiB
    # Not getrusage: a child's ru_maxrss starts at its parent's.
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024

def naive(query, key, value):
    return torch.softmax(query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1]), -1) @ value

torch.set_num_threads(1)
query, key, value = torch.randn(3, 1, 4096, 16)
flash_attention(*torch.randn(3, 1, 256, 16)), naive(*torch.randn(3, 1, 256, 16))
start = peak()
flash_attention(query, key, value, tile=256)
tiled = peak()
naive(query, key, value)
print(tiled - start, peak() - start)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
def test_peak_memory_is_linear_where_the_naive_one_is_quadratic():
    result = subprocess.run(
        [sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True
    )
    tiled, naive = map(float, result.stdout.split())
    scores = 4096 * 4096 * 4 / 2**20  # 64 MiB
    assert tiled < scores / 4
    assert naive > scores
