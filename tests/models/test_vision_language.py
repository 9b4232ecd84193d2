"""The vision-language model: places and counts, and that it learns to say what it sees."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from groundup.config import UserError
from groundup.data.images import SHAPES, load_images, shapes
from groundup.models.image_config import vit
from groundup.models.presets import qwen3
from groundup.models.vision_language import VisionLanguageModel, insert
from groundup.models.vision_language_config import VisionLanguageConfig, num_image_tokens
from groundup.optim.build import build_optimizer
from groundup.optim.config import OptimizerConfig
from groundup.optim.schedules import set_learning_rates

IMAGE, START, FIRST = 0, 1, 2
POLICIES = ("class", "grid", "dynamic", "queries")


def config(policy: str, image_size: int = 16, patch_size: int = 4) -> VisionLanguageConfig:
    vision = vit(
        image_size=image_size, patch_size=patch_size, num_classes=0, width=48, num_layers=2
    )
    return VisionLanguageConfig(
        vision=dataclasses.replace(vision, any_size=policy == "dynamic"),
        language=qwen3(
            vocab_size=FIRST + len(SHAPES), width=40, num_layers=1, num_heads=2, context_length=64
        ),
        image_id=IMAGE,
        policy=policy,  # type: ignore[arg-type]
        num_queries=5,
    )


def rows(config: VisionLanguageConfig, labels: torch.Tensor, size: int = 16) -> torch.Tensor:
    """START, the image's places, START, the shape's name."""
    count = num_image_tokens(config, size, size)
    frame = torch.tensor([START, *[IMAGE] * count, START]).expand(len(labels), -1)
    return torch.cat([frame, FIRST + labels[:, None]], 1)


def test_the_places_an_image_takes():
    assert num_image_tokens(config("grid", 336, 14), 336, 336) == 576
    assert num_image_tokens(config("dynamic", 224, 14), 224, 224) == 256
    assert num_image_tokens(config("dynamic", 224, 14), 448, 448) == 1024
    assert num_image_tokens(config("class", 224, 14), 224, 224) == 1
    queries = dataclasses.replace(config("queries", 224, 14), num_queries=32)
    assert num_image_tokens(queries, 224, 224) == 32


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_gives_as_many_vectors_as_places(policy):
    made = config(policy)
    model = VisionLanguageModel(made).eval()
    images = torch.randn(3, 1, 16, 16)
    assert model.image_vectors(images).shape == (3, num_image_tokens(made, 16, 16), 40)
    ids = rows(made, torch.tensor([0, 3, 7]))
    logits = model(ids, images)
    assert logits.shape == (*ids.shape, FIRST + len(SHAPES))
    other = model(ids, images + 1)
    assert torch.equal(other[:, 0], logits[:, 0])  # what stands before the image cannot see it
    assert not torch.allclose(other[:, -2], logits[:, -2])


def test_images_of_another_size_take_other_places():
    made = config("dynamic")
    model = VisionLanguageModel(made).eval()
    assert model.image_vectors(torch.randn(2, 1, 24, 16)).shape == (2, 24, 40)
    with pytest.raises(UserError, match="takes 24 placeholders, but the rows hold"):
        model(rows(made, torch.tensor([1, 2])), torch.randn(2, 1, 24, 16))
    with pytest.raises(UserError, match="16 pixels a side"):
        VisionLanguageModel(config("grid")).image_vectors(torch.randn(2, 1, 24, 16))


def test_vectors_stand_at_their_places_in_order():
    embedded, vectors = torch.zeros(2, 5, 3), torch.arange(12.0).view(2, 2, 3)
    places = torch.tensor([[0, 1, 0, 1, 0], [1, 1, 0, 0, 0]], dtype=torch.bool)
    mixed = insert(embedded, places, vectors)
    assert torch.equal(mixed[0, [1, 3]], vectors[0]) and torch.equal(mixed[1, :2], vectors[1])
    assert mixed[~places].abs().sum() == 0


def test_it_learns_to_name_what_it_sees():
    torch.manual_seed(0)
    made = config("grid")
    model = VisionLanguageModel(made)
    images = shapes(3000, 1)
    pixels, labels = torch.from_numpy(images.normalized()), torch.from_numpy(images.labels)
    optimizer = build_optimizer(model, OptimizerConfig(learning_rate=2e-3))
    order = np.random.default_rng(0)
    for step in range(180):
        set_learning_rates(optimizer, 1 - step / 180)
        chosen = torch.from_numpy(order.integers(0, len(images), 64))
        ids = rows(made, labels[chosen])
        logits = model(ids[:, :-1], pixels[chosen])[:, -1]
        F.cross_entropy(logits, ids[:, -1]).backward()
        optimizer.step()
        optimizer.zero_grad()
    test = load_images("shapes", "test").rows(np.arange(400))
    with torch.no_grad():
        ids = rows(made, torch.from_numpy(test.labels))
        said = model.eval()(ids[:, :-1], torch.from_numpy(test.normalized()))[:, -1].argmax(-1)
    assert (said == ids[:, -1]).float().mean() > 0.75


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [({"policy": "gird"}, "policy cannot be"), ({"image_id": 99}, "image_id 99")],
)
def test_impossible_configs_are_refused(changes, complaint):
    with pytest.raises(UserError, match=complaint):
        dataclasses.replace(config("grid"), **changes)
