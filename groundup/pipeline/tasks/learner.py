"""A family at a task: the model, what it minimises, its batches, and how its answers are scored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from groundup.data.batch import Batch
from groundup.data.examples import Example, TaskData
from groundup.data.padding import batches_by_length
from groundup.data.ragged import RaggedLoader
from groundup.data.tasks import Task
from groundup.eval.writing import character_error_rate, chrf, exact_match, word_accuracy
from groundup.models.kinds import build
from groundup.pipeline.tasks.settings import TaskSettings
from groundup.pipeline.tasks.shapes import Needs, model_config
from groundup.text.tokenizer import Tokenizer

TOKENS_AT_ONCE = 8192
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Lesson:
    """A task for one family; its settings leave nothing open."""

    task: Task
    family: str
    data: TaskData
    settings: TaskSettings
    device: torch.device
    tokenizer: Tokenizer | None = None

    @property
    def words(self) -> Tokenizer:
        """The tokenizer, for tasks that have one."""
        assert self.tokenizer is not None, "a task of images alone has no tokenizer"
        return self.tokenizer


class Learner(ABC):
    """Built with random weights from torch's generator."""

    model: Any
    """A `Trainable` module, of a class that is each learner's own."""
    loss: nn.Module
    loader: Any
    """A `Loader`."""

    def __init__(self, lesson: Lesson) -> None:
        self.lesson, self.settings, self.device = lesson, lesson.settings, lesson.device

    @abstractmethod
    def score(self, examples: Sequence[Example]) -> dict[str, float]:
        """All scores there are for the kind of task, by name."""

    @abstractmethod
    def answer(self, examples: Sequence[Example]) -> list[str]:
        """What the model makes of each example."""

    @abstractmethod
    def batches(self, examples: Sequence[Example]) -> Iterator[Batch]:
        """Held-out examples as the loss reads them."""

    def pose(self, example: Example) -> tuple[str, str]:
        """Question and expected answer of an example, to be shown."""
        return example.source, example.target

    def build(self, needs: Needs) -> Any:
        """The family's model on the device."""
        config = model_config(self.lesson.family, needs, self.settings)
        return build(config).to(self.device)

    def ragged(self, examples: Sequence[Example], rows: Any, images: Any = None) -> RaggedLoader:
        """A loader of rows, padded with <|bos|>."""
        filler = self.lesson.words.special["<|bos|>"]
        settings = self.settings
        count = min(settings.rows, len(examples))
        return RaggedLoader(rows, count, settings.seed, filler, images)


def judge(kind: str, written: Sequence[str], expected: Sequence[str]) -> dict[str, float]:
    """The scores of written answers."""
    if kind in ("classify", "image"):
        return {"accuracy": exact_match(written, expected)}
    if kind == "tag":
        return {"accuracy": word_accuracy(written, expected)}
    return {
        "exact_match": exact_match(written, expected),
        "chrf": chrf(written, expected),
        "character_error_rate": character_error_rate(written, expected),
    }


def by_length(loader: RaggedLoader) -> Iterator[Batch]:
    """All rows of a loader once, those of like length together."""
    for chosen in batches_by_length([int(n) for n in loader.lengths[:, 0]], TOKENS_AT_ONCE):
        yield loader.batch(np.array(chosen))


def in_groups(
    items: Sequence[Item],
    size: Callable[[Item], int],
    work: Callable[[list[Item]], Sequence[Result]],
    most: int = 128,
) -> list[Result]:
    """`work` over the items, of which those of one size come together; results in their order."""
    results: dict[int, Result] = {}
    groups: dict[int, list[int]] = {}
    for index, item in enumerate(items):
        groups.setdefault(size(item), []).append(index)
    for indices in groups.values():
        for start in range(0, len(indices), most):
            part = indices[start : start + most]
            results.update(zip(part, work([items[i] for i in part]), strict=True))
    return [results[i] for i in range(len(items))]
