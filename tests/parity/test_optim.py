"""Step by step against torch.optim: AdamW to fp32 rounding, Muon to that of its bf16 iteration."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from groundup.optim.adamw import AdamW
from groundup.optim.muon import Muon

SHAPES = [(5, 9), (9, 5), (6, 6), (13,), (1,)]


def twins(shapes):
    torch.manual_seed(0)
    ours = [nn.Parameter(torch.randn(shape)) for shape in shapes]
    return ours, [nn.Parameter(parameter.detach().clone()) for parameter in ours]


def set_gradients(ours, theirs, step):
    generator = torch.Generator().manual_seed(step)
    for a, b in zip(ours, theirs, strict=True):
        a.grad = torch.randn(a.shape, generator=generator) * 10.0 ** (step % 4 - 2)
        b.grad = a.grad.clone()


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("fused", [True, False])
def test_adamw(fused, weight_decay):
    ours, theirs = twins(SHAPES)
    settings = dict(lr=0.03, betas=(0.8, 0.97), eps=1e-6, weight_decay=weight_decay)
    mine, reference = AdamW(ours, fused=fused, **settings), torch.optim.AdamW(theirs, **settings)
    for step in range(20):
        set_gradients(ours, theirs, step)
        if step in (7, 8):  # a parameter that sees no gradient keeps its own step count
            ours[0].grad = theirs[0].grad = None
        for optimizer in (mine, reference):
            optimizer.param_groups[0]["lr"] = 0.03 / (step + 1)
            optimizer.step()
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
            for key in ("exp_avg", "exp_avg_sq", "step"):
                torch.testing.assert_close(mine.state[a][key], reference.state[b][key])


def test_decay_is_decoupled_not_l2():
    # One step from weight 1 with gradient 1, lr 0.1, decay 0.1: AdamW shrinks the weight itself
    # to 0.99 and then moves by lr; L2 in the gradient would be normalised away, and give 0.9.
    weight = nn.Parameter(torch.ones(1))
    weight.grad = torch.ones(1)
    AdamW([weight], lr=0.1, weight_decay=0.1).step()
    assert weight.item() == pytest.approx(0.89, abs=1e-6)

    with_l2 = nn.Parameter(torch.ones(1))
    with_l2.grad = torch.ones(1) + 0.1 * with_l2.detach()
    AdamW([with_l2], lr=0.1, weight_decay=0.0).step()
    assert with_l2.item() == pytest.approx(0.90, abs=1e-6)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_muon(weight_decay):
    ours, theirs = twins([(5, 9), (9, 5), (5, 9), (6, 6)])
    settings = dict(lr=0.02, momentum=0.9, weight_decay=weight_decay)
    mine = Muon(ours, method="newton_schulz", iteration_dtype="bfloat16", **settings)
    reference = torch.optim.Muon(theirs, **settings)
    for step in range(20):
        set_gradients(ours, theirs, step)
        mine.step()
        reference.step()
        for a, b in zip(ours, theirs, strict=True):
            # Momentum is fp32 in both; the two bf16 iterations may round differently.
            torch.testing.assert_close(
                mine.state[a]["momentum_buffer"], reference.state[b]["momentum_buffer"]
            )
            torch.testing.assert_close(a, b, rtol=0, atol=0.02 * 0.02 * (step + 1))
