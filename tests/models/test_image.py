"""Image classifiers: what they compute, and that they learn to tell shapes and digits apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from groundup.config import UserError
from groundup.data.images import Images, load_images, shapes
from groundup.models.image import MLPClassifier, VisionTransformer, patches
from groundup.models.image_config import MLPConfig, vit
from groundup.optim.build import build_optimizer
from groundup.optim.config import OptimizerConfig
from groundup.optim.schedules import set_learning_rates


def train(model: nn.Module, images: Images, steps: int) -> None:
    pixels, labels = torch.from_numpy(images.normalized()), torch.from_numpy(images.labels)
    optimizer = build_optimizer(model, OptimizerConfig(learning_rate=2e-3))
    order = np.random.default_rng(0)
    model.train()
    for step in range(steps):
        set_learning_rates(optimizer, 1 - step / steps)
        rows = torch.from_numpy(order.integers(0, len(images), 64))
        F.cross_entropy(model(pixels[rows]), labels[rows]).backward()
        optimizer.step()
        optimizer.zero_grad()


@torch.no_grad()
def accuracy(model: nn.Module, images: Images) -> float:
    logits = model.eval()(torch.from_numpy(images.normalized()))
    return (logits.argmax(-1) == torch.from_numpy(images.labels)).float().mean().item()


def small_vit(**changes) -> VisionTransformer:
    torch.manual_seed(0)
    settings = {"image_size": 16, "patch_size": 4, "num_classes": 8, "width": 48, "num_layers": 3}
    return VisionTransformer(vit(**(settings | changes)))


def test_patches_are_what_a_strided_convolution_sees():
    images = torch.randn(3, 2, 12, 8)
    convolution = nn.Conv2d(2, 5, 4, stride=4)
    expected = convolution(images).flatten(2).transpose(1, 2)
    found = F.linear(patches(images, 4), convolution.weight.flatten(1), convolution.bias)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("pooling", ["first", "mean"])
def test_shapes_and_positions(pooling):
    model = small_vit(pooling=pooling).eval()
    images = torch.randn(2, 1, 16, 16)
    assert model(images).shape == (2, 8)
    assert model.hidden(images).shape[1] == 16 + (pooling == "first")
    turned = images.flip(-1)
    assert not torch.allclose(model(images), model(turned), atol=1e-5)
    headless = small_vit(pooling=pooling, num_classes=0)
    assert headless(images).shape == (2, 16, 48)


def test_images_of_another_size_are_refused():
    with pytest.raises(UserError, match="16 pixels a side, but these are 20 × 20"):
        small_vit()(torch.randn(1, 1, 20, 20))
    with pytest.raises(UserError, match="do not divide into patches of 4"):
        patches(torch.randn(1, 1, 18, 16), 4)
    with pytest.raises(UserError, match="does not divide into patches of 5"):
        vit(image_size=16, patch_size=5, num_classes=2)


def test_the_dense_network_computes_what_it_says():
    model = MLPClassifier(MLPConfig(image_size=4, num_classes=3, hidden_widths=(7,)))
    x = torch.randn(5, 1, 4, 4)
    hidden = F.relu(model.layers[0](x.flatten(1)))
    torch.testing.assert_close(model(x), model.head(hidden))


def test_a_vision_transformer_learns_shapes():
    model = small_vit(pooling="mean", num_layers=2)
    train(model, shapes(3000, 1), steps=200)
    assert accuracy(model, load_images("shapes", "test")) > 0.85


def test_dense_layers_learn_handwritten_digits():
    pytest.importorskip("sklearn")
    torch.manual_seed(0)
    model = MLPClassifier(MLPConfig(image_size=8, num_classes=10, hidden_widths=(96, 96)))
    train(model, load_images("digits", "train"), steps=250)
    assert accuracy(model, load_images("digits", "test")) > 0.95


def test_a_vision_transformer_learns_handwritten_digits():
    pytest.importorskip("sklearn")
    model = small_vit(image_size=8, patch_size=2, num_classes=10, num_layers=2)
    train(model, load_images("digits", "train"), steps=250)
    assert accuracy(model, load_images("digits", "test")) > 0.93


def test_dense_layers_learn_shapes():
    torch.manual_seed(0)
    model = MLPClassifier(MLPConfig(image_size=16, num_classes=8, hidden_widths=(128, 128)))
    train(model, shapes(3000, 1), steps=250)
    assert accuracy(model, load_images("shapes", "test")) > 0.6
