"""Norms: what the formulas promise, and that the dtype of the input is kept."""

from __future__ import annotations

import pytest
import torch

from groundup.nn.config import NormConfig
from groundup.nn.norms import LayerNorm, RMSNorm, build_norm


def test_rms_norm_makes_the_root_mean_square_one_whatever_the_scale():
    x = torch.randn(2, 5, 33) * torch.tensor([1e-2, 1.0, 1e2, 1e4, 3.0])[:, None]
    y = RMSNorm(33, eps=1e-12)(x)
    torch.testing.assert_close(y.square().mean(-1), torch.ones(2, 5), atol=1e-5, rtol=0)


def test_layer_norm_uses_the_biased_variance():
    x = torch.tensor([[1.0, 2.0, 6.0]])
    expected = (x - 3) / torch.tensor(14 / 3).sqrt()  # ÷ 3, not ÷ 2
    torch.testing.assert_close(LayerNorm(3, eps=1e-12)(x), expected)


@pytest.mark.parametrize("kind", ["rmsnorm", "layernorm"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_and_is_computed_in_fp32(kind, dtype):
    norm = build_norm(NormConfig(kind=kind), 257)
    # Squares of 1000 overflow fp16, and their sum loses most digits in bf16.
    x = (torch.randn(3, 257) * 1000).to(dtype)
    y = norm(x)
    assert y.dtype == dtype
    assert torch.equal(y, norm(x.float()).to(dtype))
