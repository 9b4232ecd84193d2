"""The model of a recipe: the dial, and what the model section puts over it."""

from __future__ import annotations

from typing import get_args

import pytest
import torch

from groundup.config import UserError
from groundup.models.decoder import Decoder
from groundup.models.huggingface import family_of
from groundup.models.presets import PRESETS
from groundup.pipeline.recipe import Family, ModelSection, run_config_type
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


@pytest.mark.parametrize("family", get_args(Family))
def test_every_family_is_its_preset_at_any_size(family):
    config = run_config_type()(size=2, model=ModelSection(family=family))
    model = model_shape(config, 97)
    assert (model.width, model.num_layers, model.context_length) == (128, 2, 256)
    sizes = {"vocab_size": 97, "width": 128, "num_layers": 2, "num_heads": 2, "context_length": 256}
    options = {"window": 64} if family in ("mistral", "gemma2", "gemma3") else {}
    assert model == PRESETS[family](**sizes, **options)
    logits = Decoder(model)(torch.randint(0, 97, (1, 100)))
    assert logits.shape == (1, 100, 97) and logits.isfinite().all()
    if family == "nanochat":
        with pytest.raises(UserError, match="transformers has no architecture"):
            family_of(model)
    else:
        names = {"pythia": "gpt_neox", "gemma3": "gemma3_text"}
        assert family_of(model) == names.get(family, family)


def test_classic_families_have_equal_heads_alone():
    section = ModelSection(family="pythia", num_kv_heads=1)
    with pytest.raises(UserError, match=r"model.num_kv_heads has no effect on the pythia family"):
        model_shape(run_config_type()(size=2, model=section), 97)
