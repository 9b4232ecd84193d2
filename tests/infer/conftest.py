"""Small models and a reader that says what it is told."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from groundup.models.config import DecoderConfig
from groundup.models.decoder import Decoder
from groundup.models.presets import gpt2, llama, qwen3
from groundup.text.config import TokenizerConfig
from groundup.text.tokenizer import Tokenizer
from groundup.text.train import train_tokenizer

PRESETS = {
    "gpt2": lambda: gpt2(vocab_size=263, width=20, num_layers=2, num_heads=4, context_length=26),
    "llama": lambda: llama(
        vocab_size=263, width=24, num_layers=1, num_heads=6, num_kv_heads=1, context_length=31
    ),
    "qwen3": lambda: qwen3(
        vocab_size=271,  # padded beyond the tokenizer's 263 ids
        width=24,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_width=10,
        context_length=28,
    ),
}


@pytest.fixture(scope="session")
def bytes_tokenizer() -> Tokenizer:
    return train_tokenizer(TokenizerConfig(kind="byte", vocab_size=263), [])


@pytest.fixture(params=PRESETS)
def model(request: pytest.FixtureRequest) -> Decoder:
    return random_model(PRESETS[request.param]())


@pytest.fixture
def make_model() -> Callable[..., Decoder]:
    """`make_model(preset, **changes)`."""
    return lambda name, **changes: random_model(dataclasses.replace(PRESETS[name](), **changes))


@pytest.fixture
def scripted() -> type[Script]:
    return Script


def random_model(config: DecoderConfig) -> Decoder:
    """Weights large enough for decided predictions, so that rounding does not choose the token."""
    model = Decoder(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    return model


class Script:
    """A reader that predicts given ids one after another, and records what it was shown."""

    def __init__(self, ids: Sequence[int], vocab_size: int = 263) -> None:
        self.ids, self.vocab_size = list(ids), vocab_size
        self.shown: list[list[list[int]]] = []

    def next_logits(self, rows: Sequence[Sequence[int]]) -> Tensor:
        self.shown.append([list(row) for row in rows])
        logits = torch.zeros(len(rows), self.vocab_size)
        logits[:, self.ids[len(self.shown) - 1]] = 50.0
        return logits
