"""Norms: what the formulas promise, and that the dtype of the input is kept."""

from __future__ import annotations

import pytest
import torch

from groundup.config import UserError
from groundup.nn.block import Block
from groundup.nn.config import AttentionConfig, FeedForwardConfig, LatentConfig, NormConfig
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


@pytest.mark.parametrize("kind", ["rmsnorm", "layernorm"])
def test_what_is_not_learned_is_not_there(kind):
    x = torch.randn(2, 5, 33)
    learned = build_norm(NormConfig(kind=kind), 33)
    bare = build_norm(NormConfig(kind=kind, scale=False, bias=kind == "rmsnorm"), 33)
    assert not list(bare.parameters())
    assert torch.equal(bare(x), learned(x))  # whose scale starts as 1 and whose shift as 0
    if kind == "layernorm":
        names = dict(build_norm(NormConfig(kind=kind, bias=False), 33).named_parameters())
        assert list(names) == ["weight"]
    with pytest.raises(UserError, match="norm.bias is about layernorm"):
        NormConfig(kind="rmsnorm", bias=False)


@pytest.mark.parametrize("placement", ["pre", "sandwich", "parallel"])
def test_a_model_whose_norms_learn_nothing_has_no_parameter_of_them(placement):
    norm = NormConfig(scale=False, placement=placement)
    sizes = {"num_heads": 4, "num_kv_heads": 4, "head_width": 6}
    latent = LatentConfig(rank=7, rope_width=4, value_width=5, query_rank=9)
    for changes in ({"qk_norm": True}, {"latent": latent}, {"differential": 0.8}):
        block = Block(24, AttentionConfig(**sizes, **changes), FeedForwardConfig(width=9), norm)
        assert not any("norm" in name for name, _ in block.named_parameters())
