"""The model of a recipe: the dial, and what the model section puts over it."""

from __future__ import annotations

import pytest

from groundup.pipeline.recipe import ModelSection, run_config_type
from groundup.pipeline.shape import model_shape


@pytest.mark.parametrize("family", ["qwen3", "llama", "gpt2"])
def test_the_norms_stand_where_the_recipe_says(family):
    for placement in ("pre", "post", "sandwich", "deepnorm"):
        section = ModelSection(family=family, norm_placement=placement)
        config = run_config_type()(size=3, model=section)
        assert model_shape(config, 97).norm.placement == placement


def test_the_section_goes_over_the_dial():
    plain = model_shape(run_config_type()(size=3), 97)
    wide = model_shape(run_config_type()(size=3, model=ModelSection(width=320, num_heads=5)), 97)
    assert (plain.width, plain.num_layers) == (192, 3)
    assert (wide.width, wide.num_layers, wide.attention.num_heads) == (320, 3, 5)
    assert wide.norm == plain.norm
