"""Three families in a few minutes: encoder, decoder and encoder-decoder learn number words.

| family          | reads                     | gives             | score                         |
|-----------------|---------------------------|-------------------|-------------------------------|
| encoder         | four hundred twenty-seven | 7, the last digit | accuracy                      |
| decoder         | 4 2 7 =                   | its name          | names right in every piece    |
| encoder-decoder | 4 2 7                     | its name          | the same                      |

Scores are over numbers never trained on, before and after.
All are built from the same blocks, start from random weights and see the same numbers.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.config import require
from groundup.data.batch import IGNORE
from groundup.data.number_words import (
    END,
    PAD,
    START,
    Example,
    Language,
    Level,
    Vocabulary,
    examples,
)
from groundup.data.padding import pad
from groundup.device import seed_everything
from groundup.models.decoder import Decoder
from groundup.models.encoder import Encoder
from groundup.models.encoder_config import HeadConfig, modernbert
from groundup.models.encoder_decoder import EncoderDecoder
from groundup.models.encoder_decoder_config import t5
from groundup.models.presets import qwen3
from groundup.optim.build import build_optimizer
from groundup.optim.clip import clip_gradients
from groundup.optim.config import OptimizerConfig, ScheduleConfig
from groundup.optim.schedules import factor, set_learning_rates

Progress = Callable[[str, int, float], None]
_CONTEXT = 24  # more tokens than the longest row


@dataclass(frozen=True, kw_only=True)
class QuickstartConfig:
    """How much of everything; the defaults take a few minutes on two cores."""

    level: Level = "medium"
    languages: tuple[Language, ...] = ("en", "de", "fr")
    width: int = 96
    num_layers: int = 2
    steps: int = 300
    rows: int = 128
    """Examples in a step."""
    test_examples: int = 1000
    learning_rate: float = 3e-3
    seed: int = 1

    def __post_init__(self) -> None:
        for name in ("num_layers", "steps", "rows", "test_examples"):
            value = getattr(self, name)
            require(value >= 1, f"{name} should be at least 1, but is {value}.")
        require(len(self.languages) >= 1, "languages is empty; name at least one of en, de, fr.")
        require(
            self.width >= 32 and self.width % 32 == 0,
            f"width should be a multiple of 32, the width of a head, but is {self.width}.",
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one family reached."""

    family: str
    parameters: int
    before: float
    """The score of the random weights."""
    after: float
    seconds: float
    """Of training."""
    question: str
    answer_before: str
    answer_after: str

    def as_dict(self) -> dict[str, Any]:
        """For JSON; the score under its own name."""
        score = "accuracy" if self.family == "encoder" else "exact_match"
        return asdict(self) | {score: self.after}


def table(outcomes: Sequence[Outcome]) -> str:
    """Before and after, a line per family."""
    lines = [f"{'family':17}{'parameters':>10}{'before':>9}{'after':>9}{'seconds':>9}   it says"]
    for one in outcomes:
        lines.append(
            f"{one.family:17}{one.parameters:>10,}{one.before:>9.1%}{one.after:>9.1%}"
            f"{one.seconds:>9.1f}   {one.question} → {one.answer_after}"
        )
    return "\n".join(lines)


class Family(ABC):
    """What differs between the families: the model, its rows, and what counts as an answer."""

    name: str

    def __init__(self, config: QuickstartConfig, device: torch.device) -> None:
        self.config, self.words, self.device = config, Vocabulary(config.languages), device
        self.model = self.build().to(device)

    @abstractmethod
    def build(self) -> nn.Module:
        """The model with random weights."""

    @abstractmethod
    def predict(self, rows: Sequence[Example]) -> tuple[Tensor, Tensor]:
        """N examples -> logits (N, ..., V), and targets (N, ...) with IGNORE where none is."""

    @abstractmethod
    def answer(self, example: Example) -> str:
        """What the model makes of one example, as text."""

    def rows(self, ids: Sequence[Sequence[int]], filler: int) -> tuple[Tensor, Tensor]:
        """Padded ids (N, T) and where they are real (N, T), on the model's device."""
        padded, real = pad(ids, filler)
        return torch.from_numpy(padded).to(self.device), torch.from_numpy(real).to(self.device)

    def loss(self, rows: Sequence[Example]) -> Tensor:
        """Mean cross-entropy over the targets of the rows."""
        logits, targets = self.predict(rows)
        return F.cross_entropy(
            logits.flatten(0, -2).float(), targets.flatten(), ignore_index=IGNORE
        )

    @torch.no_grad()
    def score(self, rows: Sequence[Example]) -> float:
        """The share of examples answered without a mistake.

        Each piece is predicted from the true ones before it. That measures the same as writing the
        name greedily: it comes out right exactly when every next piece is the likeliest one.
        """
        right = 0
        for start in range(0, len(rows), 500):
            logits, targets = self.predict(rows[start : start + 500])
            correct = (logits.argmax(-1) == targets) | (targets == IGNORE)
            right += int(correct.flatten(1).all(1).sum())
        return right / len(rows)


class EncoderFamily(Family):
    """Sees a whole name at once and sorts it into one of ten classes."""

    name = "encoder"

    def build(self) -> Encoder:
        config = self.config
        return Encoder(
            modernbert(
                vocab_size=self.words.size,
                width=config.width,
                num_layers=config.num_layers,
                num_heads=config.width // 32,
                context_length=_CONTEXT,
                head=HeadConfig(kind="sequence", num_classes=10),
            )
        )

    def predict(self, rows: Sequence[Example]) -> tuple[Tensor, Tensor]:
        logits = self.model(*self.rows([[START, *self.words.target(row)] for row in rows], PAD))
        return logits[:, None], self.rows([[row.number % 10] for row in rows], IGNORE)[0]

    @torch.no_grad()
    def answer(self, example: Example) -> str:
        return str(self.predict([example])[0].argmax().item())


class DecoderFamily(Family):
    """Goes on writing after the digits, one piece after the other."""

    name = "decoder"

    def build(self) -> Decoder:
        config = self.config
        return Decoder(
            qwen3(
                vocab_size=self.words.size,
                width=config.width,
                num_layers=config.num_layers,
                num_heads=config.width // 32,
                context_length=_CONTEXT,
            )
        )

    def predict(self, rows: Sequence[Example]) -> tuple[Tensor, Tensor]:
        prompts = [[*self.words.source(row), START] for row in rows]
        names = [[*self.words.target(row), END] for row in rows]
        whole = [p + n for p, n in zip(prompts, names, strict=True)]
        aligned = [[IGNORE] * (len(p) - 1) + n for p, n in zip(prompts, names, strict=True)]
        inputs, _ = self.rows([row[:-1] for row in whole], PAD)
        return self.model(inputs), self.rows(aligned, IGNORE)[0]

    def answer(self, example: Example) -> str:
        prompt = [*self.words.source(example), START]
        return self.words.text(greedy(self.model, prompt, self.device))


class EncoderDecoderFamily(Family):
    """Reads the digits both ways, then writes with an eye on them."""

    name = "encoder-decoder"
    model: EncoderDecoder

    def build(self) -> EncoderDecoder:
        config = self.config
        shape = t5(
            vocab_size=self.words.size,
            width=config.width,
            num_layers=config.num_layers,
            num_heads=config.width // 32,
            head_width=32,
            context_length=_CONTEXT,
            start_id=START,
        )
        # T5's own scales are those of a long training with another optimizer.
        attention = replace(shape.attention, scale=None)
        return EncoderDecoder(
            replace(shape, attention=attention, embedding_std=None, head_scale=1.0)
        )

    def predict(self, rows: Sequence[Example]) -> tuple[Tensor, Tensor]:
        source, visible = self.rows([self.words.source(row) for row in rows], PAD)
        targets, _ = self.rows([[*self.words.target(row), END] for row in rows], IGNORE)
        return self.model(source, self.model.shift_right(targets), visible), targets

    def answer(self, example: Example) -> str:
        source, _ = self.rows([self.words.source(example)], PAD)
        return self.words.text(greedy(self.model.given(source), [START], self.device))


FAMILIES: tuple[type[Family], ...] = (EncoderFamily, DecoderFamily, EncoderDecoderFamily)


def quickstart(
    config: QuickstartConfig, device: torch.device, progress: Progress | None = None
) -> list[Outcome]:
    """Train each family in turn; `progress` hears (family, step, loss) every 50 steps."""
    outcomes = []
    for family in FAMILIES:
        seed_everything(config.seed)
        outcomes.append(run_family(family(config, device), progress))
    return outcomes


def run_family(family: Family, progress: Progress | None = None) -> Outcome:
    """Score, train, score again."""
    config, model = family.config, family.model
    train = list(examples(config.level, config.languages, "train"))
    test = list(examples(config.level, config.languages, "test"))
    order = np.random.default_rng(config.seed)
    chosen = order.permutation(len(test))[: config.test_examples]
    test = [test[i] for i in chosen]
    model.eval()
    before, answer_before = family.score(test), family.answer(test[0])
    optimizer = build_optimizer(
        model, OptimizerConfig(kind="muon", learning_rate=config.learning_rate)
    )
    schedule = ScheduleConfig(kind="linear", warmup_steps=min(50, config.steps // 4))
    model.train()
    begin = time.perf_counter()
    for step in range(config.steps):
        set_learning_rates(optimizer, factor(schedule, step, config.steps))
        rows = [train[i] for i in order.integers(0, len(train), config.rows)]
        loss = family.loss(rows)
        loss.backward()
        clip_gradients(model.parameters(), 1.0, 0.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if progress is not None and (step + 1) % 50 == 0:
            progress(family.name, step + 1, loss.item())
    seconds = time.perf_counter() - begin
    model.eval()
    return Outcome(
        family=family.name,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        before=before,
        after=family.score(test),
        seconds=round(seconds, 1),
        question=test[0].text if family.name == "encoder" else str(test[0].number),
        answer_before=answer_before,
        answer_after=family.answer(test[0]),
    )


@torch.no_grad()
def greedy(model: nn.Module, prompt: Sequence[int], device: torch.device) -> list[int]:
    """The likeliest token again and again, until END or the end of the context."""
    ids = list(prompt)
    while len(ids) < _CONTEXT:
        ids.append(int(model(torch.tensor([ids], device=device))[0, -1].argmax()))
        if ids[-1] == END:
            break
    return ids[len(prompt) :]
