"""Every recipe that ships can be read and describes a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from groundup.pipeline.recipe import load_recipe
from groundup.pipeline.shape import model_shape

RECIPES = sorted((Path(__file__).parents[1] / "recipes").rglob("*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_gives_a_run_and_a_model(path: Path) -> None:
    config: Any = load_recipe(path)
    assert config.name and config.data.sources
    if config.model.start:  # a model that has to be pulled first
        return
    shape = model_shape(config, config.tokenizer.vocab_size)
    assert shape.vocab_size == config.tokenizer.vocab_size
    assert shape.num_layers >= 1 and shape.context_length >= 64


def test_recipes_ship() -> None:
    assert RECIPES
