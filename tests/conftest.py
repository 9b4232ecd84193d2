"""What every test shares: one thread, fixed seeds, a tiny tokenizer and a tiny model on demand."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

if TYPE_CHECKING:
    from groundup.models.decoder import Decoder
    from groundup.text.tokenizer import Tokenizer

# Two test processes share two cores; and one thread always sums in the same order.
torch.set_num_threads(1)

TEXT = (
    "From the ground up, a small house grows: first the stones, then the beams, then the roof. "
    "Who builds it? We do! And when it's done, we'll sit by the fire and talk until morning. "
    "The naïve café, 3 × 7 = 21, “quoted”, 日本語, 🙂 — a few characters beyond ASCII.\n"
)


@pytest.fixture(autouse=True)
def seeds() -> None:
    """The same random numbers in every test, whichever tests ran before."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Tokenizer:
    """A byte-level BPE tokenizer of 320 ids."""
    from groundup.text.config import TokenizerConfig
    from groundup.text.train import train_tokenizer

    return train_tokenizer(TokenizerConfig(kind="bpe", vocab_size=320), [TEXT])


@pytest.fixture
def tiny_model(tiny_tokenizer: Tokenizer) -> Decoder:
    """An untrained decoder for `tiny_tokenizer`: 2 layers, width 24, grouped heads of width 10."""
    from groundup.models.config import AttentionConfig, DecoderConfig, FeedForwardConfig
    from groundup.models.decoder import Decoder

    config = DecoderConfig(
        vocab_size=tiny_tokenizer.vocab_size,
        width=24,
        num_layers=2,
        context_length=48,
        attention=AttentionConfig(num_heads=4, num_kv_heads=2, head_width=10, qk_norm=True),
        feed_forward=FeedForwardConfig(width=40),
    )
    return Decoder(config).eval()
