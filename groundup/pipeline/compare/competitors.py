"""The three families as competitors: what each reads of a number, and how it gives an answer.

| family          | sort: a name to the sum of its digits | write: digits to a name              |
|-----------------|---------------------------------------|--------------------------------------|
| encoder         | a class of the whole name             | fills places for all pieces at once  |
| decoder         | goes on: the sum, digit by digit      | goes on: the name, piece by piece    |
| encoder-decoder | reads the name, writes the sum        | reads the digits, writes the name    |

All are made of the same blocks. They differ in who sees whom, in how they are told positions, and
in the encoder-decoder's attention from one text to the other.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
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
from groundup.data.ragged import Row
from groundup.infer.beam import greedy_batch
from groundup.infer.generate import evaluating
from groundup.models.decoder import Decoder
from groundup.models.encoder import Encoder
from groundup.models.encoder_config import HeadConfig, modernbert
from groundup.models.encoder_decoder import EncoderDecoder
from groundup.models.encoder_decoder_config import t5
from groundup.models.presets import qwen3
from groundup.pipeline.tasks.learner import in_groups
from groundup.train.objectives import NextTokenLoss
from groundup.train.objectives_encoder import LabelLoss, SequenceToSequenceLoss

TaskName = Literal["sort", "write"]
HEAD_WIDTH = 32
STRIDES: dict[Level, int] = {"hard": 7}
"""Every how many numbers one is used: hundreds of thousands of names are enough."""


class NumberTask:
    """A question about a number and its answer, both as ids of one vocabulary."""

    def __init__(self, name: TaskName, level: Level, languages: Sequence[Language]) -> None:
        require(len(languages) > 0, "languages is empty; name at least one of en, de, fr.")
        once = len(set(languages)) == len(languages)
        require(once, f"languages names one twice: {' '.join(languages)}; name each once.")
        self.name, self.vocabulary = name, Vocabulary(languages)
        stride = STRIDES.get(level, 1)
        self.train = list(examples(level, languages, "train", stride))
        # One language for each number held out: three names of a number are not three trials.
        self.heldout = list(examples(level, languages, "test", stride))
        numbers = len(self.heldout) // len(languages)
        picked = np.random.default_rng(0).integers(0, len(languages), numbers)
        self.heldout = [self.heldout[i * len(languages) + k] for i, k in enumerate(picked)]
        everything = [*self.train, *self.heldout]
        self.longest_question = max(len(self.question(one)) for one in everything)
        self.longest_answer = max(len(self.answer(one)) for one in everything)
        self.num_classes = 1 + max(digit_sum(one) for one in everything)

    def question(self, example: Example) -> list[int]:
        """What is given."""
        if self.name == "sort":
            return self.vocabulary.target(example)
        return self.vocabulary.source(example)

    def answer(self, example: Example) -> list[int]:
        """What is asked for, without END."""
        if self.name == "sort":
            return self.vocabulary.digits(digit_sum(example))
        return self.vocabulary.target(example)

    def words(self, example: Example) -> str:
        """The question, for a reader."""
        return example.text if self.name == "sort" else f"{example.language} {example.number}"


def digit_sum(example: Example) -> int:
    """427 -> 13: to know it from a name takes every word of it, wherever it stands."""
    return sum(map(int, str(example.number)))


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The size of a model; of an encoder-decoder's layers one half reads and one half writes."""

    width: int
    num_layers: int
    feed_forward_width: int

    def __post_init__(self) -> None:
        require(
            self.width % HEAD_WIDTH == 0 and self.width > 0,
            f"width should be a multiple of {HEAD_WIDTH}, a head's width, but is {self.width}.",
        )

    def arguments(self, task: NumberTask) -> dict[str, Any]:
        """What all presets take."""
        return {
            "vocab_size": task.vocabulary.size,
            "width": self.width,
            "num_layers": self.num_layers,
            "num_heads": self.width // HEAD_WIDTH,
            "feed_forward_width": self.feed_forward_width,
            "context_length": task.longest_question + task.longest_answer + 2,
        }


class Competitor(ABC):
    """A family with one model: its rows for training, its loss, and its answers."""

    family: str
    loss: nn.Module

    def __init__(self, task: NumberTask, shape: Shape, device: torch.device) -> None:
        self.task, self.device = task, device
        self.model = self.build(shape).to(device)

    @abstractmethod
    def build(self, shape: Shape) -> Any:
        """The model with random weights."""

    @abstractmethod
    def row(self, example: Example) -> Row:
        """What is read in training, and what is to be predicted."""

    @abstractmethod
    def reply(self, rows: Sequence[Example]) -> list[list[int]]:
        """The answers to questions of one length."""

    def answers(self, rows: Sequence[Example]) -> list[list[int]]:
        """The model's answers as ids, those of equally long questions written together."""
        most = max(1, len(rows))
        with evaluating(self.model), torch.no_grad():
            return in_groups(rows, lambda row: len(self.task.question(row)), self.reply, most)

    def right(self, rows: Sequence[Example]) -> int:
        """How many examples are answered without a mistake."""
        answers = zip(self.answers(rows), rows, strict=True)
        return sum(ids == self.task.answer(row) for ids, row in answers)

    def num_block_parameters(self) -> int:
        """Numbers learned, without token tables and heads: these depend on the vocabulary."""
        tables = {
            id(p)
            for m in self.model.modules()
            if isinstance(m, nn.Embedding)
            for p in m.parameters()
        }
        head = getattr(self.model, "head", None)
        outside = tables | {id(p) for p in (head.parameters() if head is not None else ())}
        return sum(p.numel() for p in self.model.parameters() if id(p) not in outside)

    def tensor(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Rows of one length -> (N, T) ids on the model's device."""
        return torch.tensor(rows, device=self.device)


class EncoderCompetitor(Competitor):
    """Sees everything at once and answers in one pass, each place for itself."""

    family = "encoder"
    model: Encoder

    def build(self, shape: Shape) -> Encoder:
        task, sorts = self.task, self.task.name == "sort"
        head = HeadConfig(kind="sequence", num_classes=task.num_classes)
        if not sorts:
            head = HeadConfig(kind="token", num_classes=task.vocabulary.size)
        config = modernbert(**shape.arguments(task), theta=10_000.0, head=head)
        self.model = Encoder(same_blocks(config))
        self.loss = LabelLoss(self.model, PAD)
        return self.model

    def row(self, example: Example) -> Row:
        read, answer = self.read(example), self.task.answer(example)
        if self.task.name == "sort":
            return np.array(read), np.array([digit_sum(example)])
        targets = np.full(len(read), IGNORE)
        places = len(read) - self.places
        # Places after the end are to say END too: the model is not told how long the answer is.
        targets[places:] = END
        targets[places : places + len(answer)] = answer
        return np.array(read), targets

    def reply(self, rows: Sequence[Example]) -> list[list[int]]:
        likeliest = self.model(self.tensor([self.read(row) for row in rows])).argmax(-1)
        if self.task.name == "sort":
            return [self.task.vocabulary.digits(label) for label in likeliest.tolist()]
        written = likeliest[:, -self.places :].tolist()
        return [ids[: ids.index(END)] if END in ids else ids for ids in written]

    def read(self, example: Example) -> list[int]:
        """The question after START; when writing, then a START for every place to fill."""
        places = 0 if self.task.name == "sort" else self.places
        return [START, *self.task.question(example), *[START] * places]

    @property
    def places(self) -> int:
        return self.task.longest_answer + 1


class DecoderCompetitor(Competitor):
    """Goes on writing after the question, one token after the other."""

    family = "decoder"
    model: Decoder

    def build(self, shape: Shape) -> Decoder:
        self.model = Decoder(same_blocks(qwen3(**shape.arguments(self.task))))
        self.loss = NextTokenLoss(self.model)
        return self.model

    def row(self, example: Example) -> Row:
        prompt, answer = self.prompt(example), [*self.task.answer(example), END]
        ignored = [IGNORE] * (len(prompt) - 1)
        return np.array([*prompt, *answer[:-1]]), np.array([*ignored, *answer])

    def reply(self, rows: Sequence[Example]) -> list[list[int]]:
        prompts = [self.prompt(row) for row in rows]
        most = self.task.longest_answer + 1
        return greedy_batch(self.model, prompts, max_tokens=most, stop_ids=(END,))

    def prompt(self, example: Example) -> list[int]:
        """The question, and START where the answer begins."""
        return [*self.task.question(example), START]


class EncoderDecoderCompetitor(Competitor):
    """Reads the question both ways, then writes with an eye on it."""

    family = "encoder-decoder"
    model: EncoderDecoder

    def build(self, shape: Shape) -> EncoderDecoder:
        arguments = shape.arguments(self.task)
        arguments["num_layers"] //= 2
        config = t5(**arguments, head_width=HEAD_WIDTH, start_id=START)
        # T5's own scales are those of a long training with another optimizer.
        attention = replace(config.attention, scale=None)
        config = replace(config, attention=attention, embedding_std=None, head_scale=1.0)
        self.model = EncoderDecoder(same_blocks(config))
        self.loss = SequenceToSequenceLoss(self.model, PAD)
        return self.model

    def row(self, example: Example) -> Row:
        return np.array(self.task.question(example)), np.array([*self.task.answer(example), END])

    def reply(self, rows: Sequence[Example]) -> list[list[int]]:
        given = self.model.given(self.tensor([self.task.question(row) for row in rows]))
        starts, most = [[START]] * len(rows), self.task.longest_answer + 1
        return greedy_batch(given, starts, max_tokens=most, stop_ids=(END,))


COMPETITORS: dict[str, type[Competitor]] = {
    competitor.family: competitor
    for competitor in (EncoderCompetitor, DecoderCompetitor, EncoderDecoderCompetitor)
}


def same_blocks(config: Any) -> Any:
    """A preset with T5's kind of blocks: RMSNorm before each branch, ReLU, no biases."""
    like = t5(**_ONE, head_width=1)
    return replace(
        config,
        norm=like.norm,
        init_std=config.width**-0.5,
        attention=replace(config.attention, qk_norm=False),
        feed_forward=replace(like.feed_forward, width=config.feed_forward.width),
    )


_ONE: dict[str, Any] = dict.fromkeys(
    ("vocab_size", "width", "num_layers", "num_heads", "context_length"), 1
)
