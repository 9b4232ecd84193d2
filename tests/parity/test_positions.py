"""What position biases and tables are like, beside the numbers in docs/parity.md."""

from __future__ import annotations

import pytest
import torch

from groundup.nn.alibi import alibi_bias, alibi_slopes
from groundup.nn.masks import Causal, plan
from groundup.nn.relative_bias import relative_buckets
from groundup.nn.sinusoidal import sinusoids


def test_alibi_falls_with_distance_on_both_sides():
    bias = alibi_bias(8, 7, 7)
    assert alibi_slopes(8) == [2.0**-power for power in range(1, 9)]
    assert not bias.diagonal(dim1=1, dim2=2).any()
    assert (bias[:, 3].diff()[:, :3] > 0).all() and (bias[:, 3].diff()[:, 3:] < 0).all()
    mask = plan(Causal(), 7, 7, torch.device("cpu"), bias).dense
    weights = torch.softmax(mask, -1)  # of equal scores
    assert (weights[0, :, 6].diff() > 0).all()


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(("num_buckets", "max_distance"), [(32, 128), (12, 20)])
def test_distances_share_buckets_as_in_t5(bidirectional, num_buckets, max_distance):
    from transformers.models.t5.modeling_t5 import T5Attention

    offsets = torch.arange(-300, 301)[None]
    torch.testing.assert_close(
        relative_buckets(offsets, num_buckets, max_distance, bidirectional),
        T5Attention._relative_position_bucket(offsets, bidirectional, num_buckets, max_distance),
    )


def test_sinusoids_turn_by_a_fixed_matrix():
    table = sinusoids(0, 50, 16)
    assert torch.equal(sinusoids(30, 5, 16), table[30:35])
    torch.testing.assert_close(table[0], torch.tensor([0.0, 1.0] * 8))
    angles = 7 * 10_000.0 ** (-torch.arange(0, 16, 2) / 16)
    sine, cosine = angles.sin(), angles.cos()
    turns = [torch.tensor([[c, -s], [s, c]]) for s, c in zip(sine, cosine, strict=True)]
    shift = torch.block_diag(*turns)
    torch.testing.assert_close(table[:43] @ shift, table[7:50], atol=1e-5, rtol=1e-5)
