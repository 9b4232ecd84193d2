"""Texts answered with texts, classes or tags: decoders, recurrent models, both kinds of encoder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from groundup.data.batch import Batch
from groundup.data.examples import Example
from groundup.data.padding import batches_by_length, pad
from groundup.data.ragged import Row
from groundup.infer.beam import greedy_batch
from groundup.infer.generate import evaluating
from groundup.models.encoder_config import HeadConfig
from groundup.pipeline.tasks import rows
from groundup.pipeline.tasks.learner import TOKENS_AT_ONCE, Learner, Lesson, by_length, in_groups
from groundup.pipeline.tasks.learner import judge as judge_written
from groundup.pipeline.tasks.shapes import Needs
from groundup.train.objectives import NextTokenLoss
from groundup.train.objectives_encoder import LabelLoss, SequenceToSequenceLoss

MARKS = 16
"""Room in a row for what stands around source and answer."""


class Writer(Learner):
    """Answers by writing, be it a class or a text: decoders and recurrent models, in a chat."""

    def __init__(self, lesson: Lesson) -> None:
        super().__init__(lesson)
        examples, words = lesson.data.train, lesson.words
        self.end = words.special["<|end|>"]
        longest = max(len(words.encode(example.target)) for example in examples)
        self.longest_answer = min(longest, self.settings.length // 2) + 1
        self.longest_source = self.room()
        self.loader = self.ragged(examples, self.as_rows(examples))
        self.model = self.build(self.needs())
        self.loss = self.objective()

    def room(self) -> int:
        """Tokens of a source, for which an answer leaves room in the row."""
        return self.settings.length - self.longest_answer

    def needs(self) -> Needs:
        words = self.lesson.words
        return Needs(
            vocab_size=words.vocab_size,
            context_length=self.settings.length + MARKS,
            start_id=words.special["<|bos|>"],
        )

    def objective(self) -> torch.nn.Module:
        return NextTokenLoss(self.model)

    def as_rows(self, examples: Sequence[Example]) -> list[Row]:
        """A row for each example."""
        words, most = self.lesson.words, self.longest_answer - 1
        return [
            rows.conversation(words, self.source(example), rows.cut(words, example.target, most))
            for example in examples
        ]

    def source(self, example: Example) -> str:
        """What is asked, not longer than it was in training."""
        return rows.cut(self.lesson.words, example.source, self.longest_source)

    def batches(self, examples: Sequence[Example]) -> Iterator[Batch]:
        return by_length(self.ragged(examples, self.as_rows(examples)))

    def score(self, examples: Sequence[Example]) -> dict[str, float]:
        expected = [example.target for example in examples]
        return judge_written(self.lesson.task.kind, self.answer(examples), expected)

    def answer(self, examples: Sequence[Example]) -> list[str]:
        words = self.lesson.words
        prompts = [rows.question(words, self.source(example)) for example in examples]
        with evaluating(self.model):
            replies = in_groups(prompts, len, self.write)
        return [words.decode(reply) for reply in replies]

    def write(self, prompts: list[list[int]]) -> list[list[int]]:
        """Prompts of one length -> the likeliest answers, without their ends."""
        return greedy_batch(
            self.model, prompts, max_tokens=self.longest_answer, stop_ids=[self.end]
        )


class Translator(Writer):
    """An encoder-decoder: reads the source, writes the target."""

    def room(self) -> int:
        return self.settings.length  # source and target are rows of their own

    def objective(self) -> torch.nn.Module:
        return SequenceToSequenceLoss(self.model, self.lesson.words.special["<|bos|>"])

    def as_rows(self, examples: Sequence[Example]) -> list[Row]:
        words, most = self.lesson.words, self.longest_source
        return [
            (
                rows.reading(words, example.source, most),
                rows.closed(words, example.target, self.longest_answer),
            )
            for example in examples
        ]

    @torch.no_grad()
    def answer(self, examples: Sequence[Example]) -> list[str]:
        words = self.lesson.words
        sources = [source for source, _ in self.as_rows(examples)]
        bos = words.special["<|bos|>"]
        answers = [""] * len(sources)
        with evaluating(self.model):
            for chosen in batches_by_length([len(s) for s in sources], TOKENS_AT_ONCE):
                ids, real = pad([sources[i] for i in chosen], bos)
                given = self.model.given(self.tensor(ids), self.tensor(real))
                prompts = [[bos]] * len(chosen)
                replies = greedy_batch(
                    given, prompts, max_tokens=self.longest_answer, stop_ids=[self.end]
                )
                for index, reply in zip(chosen, replies, strict=True):
                    answers[index] = words.decode(reply)
        return answers

    def tensor(self, array: np.ndarray) -> Tensor:
        """On the model's device."""
        return torch.from_numpy(array).to(self.device)


class Labeller(Learner):
    """An encoder: one class for a text, or one for each of its words."""

    def __init__(self, lesson: Lesson) -> None:
        super().__init__(lesson)
        self.tags = lesson.task.kind == "tag"
        self.names = list(lesson.data.classes)
        self.number = {name: index for index, name in enumerate(self.names)}
        self.pad_id = lesson.words.special["<|bos|>"]
        self.loader = self.ragged(lesson.data.train, self.as_rows(lesson.data.train))
        head = HeadConfig(
            kind="token" if self.tags else "sequence",
            num_classes=len(self.names),
            dropout=self.settings.dropout or 0.0,
        )
        self.model = self.build(
            Needs(
                vocab_size=lesson.words.vocab_size,
                context_length=self.settings.length,
                head=head,
            )
        )
        self.loss = LabelLoss(self.model, self.pad_id)

    def as_rows(self, examples: Sequence[Example]) -> list[Row]:
        """A row for each example."""
        words, most = self.lesson.words, self.settings.length
        if self.tags:
            return [rows.tagging(words, example, self.number, most) for example in examples]
        return [
            (rows.reading(words, example.source, most), np.array([self.number[example.target]]))
            for example in examples
        ]

    def batches(self, examples: Sequence[Example]) -> Iterator[Batch]:
        return by_length(self.ragged(examples, self.as_rows(examples)))

    def score(self, examples: Sequence[Example]) -> dict[str, float]:
        expected = [example.target for example in examples]
        return judge_written(self.lesson.task.kind, self.answer(examples), expected)

    @torch.no_grad()
    def answer(self, examples: Sequence[Example]) -> list[str]:
        words, most = self.lesson.words, self.settings.length
        read = [rows.word_starts(words, example.source, most) for example in examples]
        if not self.tags:
            read = [(rows.reading(words, example.source, most), [0]) for example in examples]
        answers = [""] * len(read)
        with evaluating(self.model):
            for chosen in batches_by_length([len(ids) for ids, _ in read], TOKENS_AT_ONCE):
                padded, real = pad([read[i][0] for i in chosen], self.pad_id)
                ids, visible = torch.from_numpy(padded), torch.from_numpy(real)
                logits = self.model(ids.to(self.device), visible.to(self.device))
                best = logits.argmax(-1).reshape(len(chosen), -1).tolist()
                for index, classes in zip(chosen, best, strict=True):
                    answers[index] = " ".join(self.names[classes[i]] for i in read[index][1])
        return answers
