"""AdamW's decay is one of the weight itself."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from groundup.optim.adamw import AdamW


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
