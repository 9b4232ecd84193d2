"""The table of initial weights, checked by the standard deviations it promises."""

from __future__ import annotations

import math

import pytest
import torch

from groundup.models.config import DecoderConfig
from groundup.models.decoder import Decoder
from groundup.models.presets import gpt2, llama, qwen3

SHAPE = {"vocab_size": 400, "width": 120, "num_layers": 5, "num_heads": 4, "context_length": 300}


@pytest.mark.parametrize("preset", [qwen3, llama, gpt2])
def test_standard_deviations_by_role(preset):
    config: DecoderConfig = preset(**SHAPE)
    for name, parameter in Decoder(config).named_parameters():
        if parameter.ndim == 1:
            expected_value = 1.0 if "norm.weight" in name else 0.0
            assert (parameter == expected_value).all(), name
            continue
        residual = name.endswith(("attention.out.weight", "feed_forward.down.weight"))
        expected = config.init_std / (math.sqrt(2 * 5) if residual else 1)
        assert parameter.std().item() == pytest.approx(expected, rel=0.05), name
        assert abs(parameter.mean().item()) < expected / 10, name


def test_untrained_loss_is_that_of_a_uniform_guess():
    model = Decoder(qwen3(**SHAPE)).eval()
    ids = torch.randint(0, 400, (4, 65))
    loss = torch.nn.functional.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
    assert loss.item() == pytest.approx(math.log(400), abs=0.1)


def test_the_seed_decides_the_weights():
    def draw(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return Decoder(qwen3(**SHAPE)).blocks[3].attention.out.weight  # type: ignore[union-attr]

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))
