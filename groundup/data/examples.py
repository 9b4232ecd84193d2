"""Examples of a task: what a model is given, and what it should make of it.

| kind of task | it is given     | it should give                                          |
|--------------|-----------------|---------------------------------------------------------|
| classify     | source, a text  | target, the name of a class                             |
| tag          | source, words   | target, a tag for each word, both separated by spaces   |
| write        | source, a text  | target, a text                                          |
| continue     | nothing         | target, a text, each piece from those before it         |
| image        | image           | target, the name of a class                             |
| caption      | image           | target, a text                                          |
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from groundup.config import require


@dataclass(frozen=True, slots=True)
class Example:
    """One question and its answer; what a kind of task does not have stays empty."""

    source: str = ""
    target: str = ""
    image: np.ndarray | None = None
    """(channels, height, width) uint8: one channel, where 0 is background, or red, green, blue."""


@dataclass(frozen=True)
class TaskData:
    """What to train on and what to measure on; nothing of `heldout` resembles a part of `train`.

    `classes` are the names that targets are made of, in the tasks that have them: classify, tag
    and image.
    """

    train: Sequence[Example]
    heldout: Sequence[Example]
    classes: tuple[str, ...] = ()


def pixels(examples: Sequence[Example]) -> np.ndarray:
    """N examples with images of one size -> (N, channels, height, width) uint8."""
    images = [example.image for example in examples if example.image is not None]
    require(len(images) == len(examples) > 0, "These examples have no images.")
    return np.stack(images)


def is_drawn(key: str, one_in: int = 10) -> bool:
    """Whether what `key` names is held out: one of `one_in`, drawn by the hash of the key.

    It depends on the key alone: an example keeps its side when others come or go, and examples of
    one key never stand on both sides.
    """
    digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % one_in == 0


def divide(
    examples: Iterable[Example],
    key: Callable[[Example], str],
    classes: Sequence[str] = (),
    one_in: int = 10,
) -> TaskData:
    """Examples on two sides: those with the same `key` on the same one."""
    sides: tuple[list[Example], list[Example]] = [], []
    for example in examples:
        sides[is_drawn(key(example), one_in)].append(example)
    return TaskData(*sides, classes=tuple(classes))
