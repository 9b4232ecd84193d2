"""Dropout where each block has it: how much it drops, that the mean stays, and only in training."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from groundup.models.image_config import MLPConfig
from groundup.nn.attention import Attention
from groundup.nn.config import AttentionConfig, FeedForwardConfig, NormConfig
from groundup.nn.feed_forward import build_feed_forward
from groundup.nn.kernels import attend
from groundup.nn.masks import Plan

SHARE = 0.3


def attention_out() -> tuple[nn.Module, Callable[[nn.Module], Tensor]]:
    config = AttentionConfig(num_heads=3, num_kv_heads=1, head_width=10, out_dropout=SHARE)
    x = torch.randn(2, 40, 26)
    return Attention(26, config, NormConfig()), lambda module: module(x, Plan(True, None))


def feed_forward(kind: str) -> tuple[nn.Module, Callable[[nn.Module], Tensor]]:
    config = FeedForwardConfig(kind=kind, width=41, dropout=SHARE)  # type: ignore[arg-type]
    x = torch.randn(2, 40, 26)
    return build_feed_forward(config, 26), lambda module: module(x)


@pytest.mark.parametrize(
    "build",
    [attention_out, lambda: feed_forward("plain"), lambda: feed_forward("gated")],
    ids=["attention", "plain", "gated"],
)
def test_outputs_are_dropped_and_the_rest_made_up_for_it(build) -> None:
    module, run = build()
    with torch.no_grad():
        expected = run(module.eval())
        assert torch.equal(run(module), expected)
        module.train()
        found = torch.stack([run(module) for _ in range(20)])
    dropped = found == 0
    share, spread = dropped.double().mean().item(), (SHARE * (1 - SHARE) / found.numel()) ** 0.5
    assert abs(share - SHARE) < 5 * spread
    kept = expected.expand_as(found) / (1 - SHARE)
    torch.testing.assert_close(found[~dropped], kept[~dropped])
    # Independent in every position: where two drop at once is no more often than by chance.
    both = (dropped[:, :, 1:] & dropped[:, :, :-1]).double().mean().item()
    assert abs(both - SHARE**2) < 10 * spread


def test_attention_weights_are_dropped_one_by_one() -> None:
    """With the identity for values, the output is the weights themselves."""
    query, key = torch.randn(2, 50, 3, 16, 8)
    value = torch.eye(16).expand(50, 3, 16, 16)
    mask = Plan(False, None)
    weights = attend(query, key, value, mask)
    found = attend(query, key, value, mask, dropout=SHARE)
    dropped = found == 0
    share, spread = dropped.double().mean().item(), (SHARE * (1 - SHARE) / found.numel()) ** 0.5
    assert abs(share - SHARE) < 5 * spread
    torch.testing.assert_close(found[~dropped], (weights / (1 - SHARE))[~dropped])


def test_a_classifier_of_dense_layers_drops_hidden_values() -> None:
    from groundup.models.image import MLPClassifier

    model = MLPClassifier(MLPConfig(image_size=5, num_classes=3, hidden_widths=(7,), dropout=SHARE))
    images = torch.randn(4, 1, 5, 5)
    with torch.no_grad():
        expected = model.eval()(images)
        assert torch.equal(model(images), expected)
        mean = torch.stack([model.train()(images) for _ in range(4000)]).mean(0)
    torch.testing.assert_close(mean, expected, atol=0.05, rtol=0)
