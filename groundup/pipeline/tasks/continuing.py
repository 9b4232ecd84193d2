"""A text learned from itself: its next token, its hidden tokens, or spans that were cut out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from groundup.config import require
from groundup.data.batch import IGNORE, Batch
from groundup.data.examples import Example
from groundup.data.loader import Loader, PretrainLoader
from groundup.data.streams import MaskedLoader, SpanLoader, StreamLoader, TokenStream
from groundup.infer.beam import greedy_batch
from groundup.infer.generate import evaluating
from groundup.models.encoder_config import HeadConfig
from groundup.models.recurrent import RecurrentModel
from groundup.pipeline.tasks import rows
from groundup.pipeline.tasks.learner import Learner, Lesson
from groundup.pipeline.tasks.shapes import Needs
from groundup.train.objectives import NextTokenLoss, cross_entropy_sum
from groundup.train.objectives_encoder import LabelLoss, SequenceToSequenceLoss
from groundup.train.objectives_recurrent import CarriedStateLoss

SHOWN = 60
"""Characters of a sample: as many are given, and as many asked for."""


class StreamLearner(Learner):
    """What the three have in common: one text, windows of it, and held-out windows."""

    opening = "<|bos|>"

    def __init__(self, lesson: Lesson) -> None:
        super().__init__(lesson)
        self.words, self.length = lesson.words, self.settings.length
        self.stream = self.as_stream(lesson.data.train)
        require(
            self.stream.num_tokens > self.length,
            f"The text has only {self.stream.num_tokens} tokens, no window of {self.length}.",
        )
        self.windows = PretrainLoader(
            [self.stream], [1.0], self.length, self.settings.rows, self.settings.seed
        )
        self.loader = self.windows

    def as_stream(self, examples: Sequence[Example]) -> TokenStream:
        """The texts one after the other."""
        documents = (self.words.encode(example.target) for example in examples)
        return TokenStream(documents, self.words.special[self.opening])

    def unseen(self, examples: Sequence[Example]) -> PretrainLoader:
        """Every window of held-out texts, once."""
        stream = self.as_stream(examples)
        rows_per_step = min(32, -(-stream.num_tokens // self.length))
        return PretrainLoader([stream], [1.0], self.length, rows_per_step, seed=0)

    def holes(self, windows: PretrainLoader) -> Loader:
        """The windows as this learner reads them."""
        return windows

    def batches(self, examples: Sequence[Example]) -> Iterator[Batch]:
        loader = self.holes(self.unseen(examples))
        for index in range(math.ceil(loader.steps_per_epoch)):
            yield loader.step(index)

    def pose(self, example: Example) -> tuple[str, str]:
        text = example.target
        return text[:SHOWN], text[SHOWN : 2 * SHOWN]


class Continuer(StreamLearner):
    """Decoders and recurrent models: the next token, over and over."""

    def __init__(self, lesson: Lesson) -> None:
        super().__init__(lesson)
        context = max(self.length, 2 * SHOWN + 8)
        self.model = self.build(Needs(vocab_size=self.words.vocab_size, context_length=context))
        if isinstance(self.model, RecurrentModel):
            self.loader = StreamLoader(self.stream, self.length, self.settings.rows)
            self.loss = CarriedStateLoss(self.model, self.settings.rows).to(self.device)
        else:
            self.loss = NextTokenLoss(self.model)

    @torch.no_grad()
    def score(self, examples: Sequence[Example]) -> dict[str, float]:
        """Bits per character: a text's in windows, every token but its first once."""
        nats, characters = 0.0, 0
        opening = self.words.special[self.opening]
        with evaluating(self.model):
            for example in examples:
                ids = torch.tensor([[opening, *self.words.encode(example.target)]])
                nats += self.cost(ids.to(self.device))
                characters += len(example.target)
        return {"bits_per_character": nats / math.log(2) / max(1, characters)}

    def cost(self, ids: torch.Tensor) -> float:
        """(1, T) -> nats of all but the first token."""
        total, state = 0.0, None
        for start in range(0, ids.shape[1] - 1, self.length):
            piece = ids[:, start : start + self.length + 1]
            if isinstance(self.model, RecurrentModel):
                logits, state = self.model.read(piece[:, :-1], state)
            else:
                logits = self.model(piece[:, :-1])
            total += cross_entropy_sum(logits, piece[:, 1:]).item()
        return total

    def answer(self, examples: Sequence[Example]) -> list[str]:
        answers = []
        with evaluating(self.model):
            for example in examples:
                prompt = [self.words.special[self.opening]]
                prompt += self.words.encode(example.target[:SHOWN])[:SHOWN]
                answers.append(self.words.decode(self.write(prompt))[:SHOWN])
        return answers

    def write(self, prompt: list[int]) -> list[int]:
        """The likeliest tokens after the prompt."""
        return greedy_batch(self.model, [prompt], max_tokens=SHOWN)[0]


class Masker(StreamLearner):
    """An encoder: tokens that are hidden from it. Documents are parted by <|end|>."""

    opening = "<|end|>"

    def __init__(self, lesson: Lesson) -> None:
        super().__init__(lesson)
        self.mask_id = self.words.special[rows.MASK]
        self.model = self.build(
            Needs(
                vocab_size=self.words.vocab_size,
                context_length=self.length,
                head=HeadConfig(kind="masked"),
            )
        )
        self.loader = self.holes(self.windows)
        self.loss = LabelLoss(self.model, self.words.special["<|bos|>"])

    def holes(self, windows: PretrainLoader) -> Loader:
        special = self.words.special
        return MaskedLoader(
            windows, self.settings.seed, self.mask_id, self.words.vocab_size, special.values()
        )

    @torch.no_grad()
    def score(self, examples: Sequence[Example]) -> dict[str, float]:
        """Accuracy: the share of hidden tokens that are guessed."""
        right = total = 0
        with evaluating(self.model):
            for batch in self.batches(examples):
                guessed = self.model(batch.inputs.to(self.device)).argmax(-1).cpu()
                asked = batch.targets != IGNORE
                right += int((guessed == batch.targets)[asked].sum())
                total += int(asked.sum())
        return {"accuracy": right / max(1, total)}

    def pose(self, example: Example) -> tuple[str, str]:
        ids, hidden = self.riddle(example)
        shown = np.where(hidden, self.mask_id, ids)
        text = self.words.decode(shown, special=True).replace(rows.MASK, "[…]")
        return text, " / ".join(self.words.decode([i]) for i in ids[hidden])

    @torch.no_grad()
    def answer(self, examples: Sequence[Example]) -> list[str]:
        answers = []
        with evaluating(self.model):
            for example in examples:
                ids, hidden = self.riddle(example)
                shown = torch.from_numpy(np.where(hidden, self.mask_id, ids))[None]
                guessed = self.model(shown.to(self.device)).argmax(-1)[0].cpu().numpy()
                answers.append(" / ".join(self.words.decode([i]) for i in guessed[hidden]))
        return answers

    def riddle(self, example: Example) -> tuple[np.ndarray, np.ndarray]:
        """The beginning of a text, of which every eighth token is to be hidden."""
        ids = np.array(self.words.encode(example.target[: 2 * SHOWN])[: self.length])
        return ids, np.arange(len(ids)) % 8 == 5


class SpanFiller(StreamLearner):
    """An encoder-decoder: spans that were cut out of a text. Documents are parted by <|end|>."""

    opening = "<|end|>"

    def __init__(self, lesson: Lesson) -> None:
        super().__init__(lesson)
        bos = self.words.special["<|bos|>"]
        self.model = self.build(
            Needs(vocab_size=self.words.vocab_size, context_length=self.length + 2, start_id=bos)
        )
        self.loader = self.holes(self.windows)
        self.loss = SequenceToSequenceLoss(self.model, bos)

    @property
    def sentinels(self) -> list[int]:
        """What stands for the spans, first to last."""
        return [self.words.special[name] for name in rows.SENTINELS]

    def holes(self, windows: PretrainLoader) -> Loader:
        special = self.words.special
        return SpanLoader(
            windows, self.settings.seed, self.sentinels, special["<|end|>"], special["<|bos|>"]
        )

    @torch.no_grad()
    def score(self, examples: Sequence[Example]) -> dict[str, float]:
        """Accuracy: the share of cut out tokens that are guessed, each from those before it."""
        right = total = 0
        smallest = min(self.words.special.values())
        with evaluating(self.model):
            for batch in self.batches(examples):
                batch = batch.to(self.device)
                logits = self.model(batch.inputs, self.model.shift_right(batch.targets))
                asked = (batch.targets != IGNORE) & (batch.targets < smallest)
                right += int((logits.argmax(-1) == batch.targets)[asked].sum())
                total += int(asked.sum())
        return {"accuracy": right / max(1, total)}

    def pose(self, example: Example) -> tuple[str, str]:
        source, target = self.riddle(example)
        return self.words.decode(source, special=True), self.words.decode(target, special=True)

    @torch.no_grad()
    def answer(self, examples: Sequence[Example]) -> list[str]:
        special, answers = self.words.special, []
        with evaluating(self.model):
            for example in examples:
                source, target = self.riddle(example)
                given = self.model.given(torch.from_numpy(source)[None].to(self.device))
                prompt = [[special["<|bos|>"]]]
                most = 2 * len(target)
                (reply,) = greedy_batch(
                    given, prompt, max_tokens=most, stop_ids=[special["<|end|>"]]
                )
                answers.append(self.words.decode(reply, special=True))
        return answers

    def riddle(self, example: Example) -> tuple[np.ndarray, np.ndarray]:
        """The beginning of a text with two spans cut out, and those spans."""
        ids = self.words.encode(example.target[: 2 * SHOWN])[: self.length]
        ids += self.words.encode(" ") * max(0, 8 - len(ids))  # enough to cut from
        first, second = self.sentinels[:2]
        third, half, end = len(ids) // 3, len(ids) * 2 // 3, len(ids)
        source = [*ids[:third], first, *ids[third + 2 : half], second, *ids[half + 2 : end]]
        target = [first, *ids[third : third + 2], second, *ids[half : half + 2]]
        return np.array(source), np.array(target)
