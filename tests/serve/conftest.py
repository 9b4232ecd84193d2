"""A conversation with a tiny model whose replies are prescribed or its own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from groundup.infer.config import SamplingConfig
from groundup.models.decoder import Decoder
from groundup.models.presets import qwen3
from groundup.serve.conversation import Conversation
from groundup.text.config import TokenizerConfig
from groundup.text.tokenizer import Tokenizer
from groundup.text.train import train_tokenizer


class Parrot(Decoder):
    """A decoder that, whatever it reads, spells out `script` and closes its turn."""

    script: bytes = b""
    end: int = 0
    opening: int = 0
    read: int = 0

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        next_id = self.script[self.said] if self.said < len(self.script) else self.end
        self.said += 1
        logits = torch.zeros(*hidden.shape[:-1], self.config.vocab_size)
        logits[..., next_id] = 50.0
        return logits

    def hidden(self, ids: torch.Tensor, **arguments) -> torch.Tensor:
        self.read += ids.numel()
        if ids[0, -1] == self.opening:
            self.said = 0
        return super().hidden(ids, **arguments)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TokenizerConfig(kind="byte", vocab_size=263), [])


@pytest.fixture
def make_conversation(tokenizer: Tokenizer) -> Callable[..., Conversation]:
    def make(script: str | bytes = "Hello!", context: int = 96, **settings) -> Conversation:
        config = qwen3(vocab_size=263, width=12, num_layers=1, num_heads=2, context_length=context)
        parrot = Parrot(config).eval()
        parrot.script = script.encode() if isinstance(script, str) else script
        parrot.end = tokenizer.special["<|end|>"]
        parrot.opening = tokenizer.special["<|assistant|>"]
        return Conversation(parrot, tokenizer, SamplingConfig(**settings))

    return make
