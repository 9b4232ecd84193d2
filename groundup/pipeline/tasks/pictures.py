"""Images: sorted into classes by an MLP or a ViT, written about by a vision-language model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from groundup.config import require
from groundup.data.batch import Batch
from groundup.data.examples import Example, pixels
from groundup.data.images import normalized
from groundup.data.ragged import ImageLoader, RaggedLoader, Row
from groundup.infer.beam import greedy_batch
from groundup.infer.generate import evaluating
from groundup.pipeline.tasks import rows
from groundup.pipeline.tasks.learner import Learner, Lesson, in_groups, judge
from groundup.pipeline.tasks.shapes import MOST_PATCHES, Needs, patch_size
from groundup.train.objectives_image import CaptionLoss, ImageLoss

SHIFT = 1
"""Pixels by which an image is moved in training, at most."""


class Classifier(Learner):
    """An MLP or a vision transformer."""

    def __init__(self, lesson: Lesson) -> None:
        super().__init__(lesson)
        self.names = list(lesson.data.classes)
        self.number = {name: index for index, name in enumerate(self.names)}
        images = pixels(lesson.data.train)
        labels = np.array([self.number[example.target] for example in lesson.data.train])
        count = min(self.settings.rows, len(images))
        self.loader = ImageLoader(images, labels, count, self.settings.seed, SHIFT)
        self.model = self.build(_image_needs(images, len(self.names)))
        self.loss = ImageLoss(self.model)

    def batches(self, examples: Sequence[Example]) -> Iterator[Batch]:
        images = normalized(pixels(examples))
        labels = np.array([[self.number[example.target]] for example in examples])
        for start in range(0, len(images), 256):
            part = slice(start, start + 256)
            yield Batch.from_numpy(images[part], labels[part])

    def score(self, examples: Sequence[Example]) -> dict[str, float]:
        return judge("image", self.answer(examples), [example.target for example in examples])

    @torch.no_grad()
    def answer(self, examples: Sequence[Example]) -> list[str]:
        with evaluating(self.model):
            best = [
                self.model(batch.inputs.to(self.device)).argmax(-1)
                for batch in self.batches(examples)
            ]
        return [self.names[index] for index in torch.cat(best).tolist()]

    def pose(self, example: Example) -> tuple[str, str]:
        return f"(image of {example.target})", example.target


class Captioner(Learner):
    """A vision-language model, for captions and for classes, whose names it writes."""

    def __init__(self, lesson: Lesson) -> None:
        super().__init__(lesson)
        words, images = lesson.words, pixels(lesson.data.train)
        self.end = words.special["<|end|>"]
        self.longest_answer = 1 + max(len(words.encode(e.target)) for e in lesson.data.train)
        size = images.shape[-1]
        self.places = (size // patch_size(size)) ** 2
        assert self.places <= MOST_PATCHES
        self.loader = self.with_images(lesson.data.train)
        self.model = self.build(_image_needs(images, 0, words.special[rows.IMAGE], self))
        self.loss = CaptionLoss(self.model)

    def with_images(self, examples: Sequence[Example]) -> RaggedLoader:
        """A loader of rows, each with its image."""
        words = self.lesson.words
        made: list[Row] = [
            rows.captioning(words, self.places, example.target, self.longest_answer)
            for example in examples
        ]
        return self.ragged(examples, made, pixels(examples))

    def batches(self, examples: Sequence[Example]) -> Iterator[Batch]:
        loader = self.with_images(examples)
        for start in range(0, len(examples), 64):
            yield loader.batch(np.arange(start, min(start + 64, len(examples))))

    def score(self, examples: Sequence[Example]) -> dict[str, float]:
        expected = [example.target for example in examples]
        return judge(self.lesson.task.kind, self.answer(examples), expected)

    def answer(self, examples: Sequence[Example]) -> list[str]:
        with evaluating(self.model):
            replies = in_groups(examples, lambda example: 0, self.write)
        return [self.lesson.words.decode(reply) for reply in replies]

    @torch.no_grad()
    def write(self, examples: Sequence[Example]) -> list[list[int]]:
        """The likeliest caption of each image, token by token."""
        images = torch.from_numpy(normalized(pixels(examples))).to(self.device)
        prompts = [rows.picture(self.lesson.words, self.places)] * len(examples)
        return greedy_batch(
            self.model.given(images),
            prompts,
            max_tokens=self.longest_answer,
            stop_ids=[self.end],
        )

    def pose(self, example: Example) -> tuple[str, str]:
        return f"(image of {example.target})", example.target


def _image_needs(
    images: np.ndarray, num_classes: int, image_id: int = 0, captioner: Captioner | None = None
) -> Needs:
    channels, height, width = images.shape[1:]
    require(height == width, f"Images should be square, but these are {height} × {width} pixels.")
    length, vocab_size = 0, 0
    if captioner is not None:
        length = captioner.loader.length + captioner.longest_answer + 8
        vocab_size = captioner.lesson.words.vocab_size
    return Needs(
        channels=channels,
        image_size=height,
        num_classes=num_classes,
        image_id=image_id,
        context_length=length,
        vocab_size=vocab_size,
    )
