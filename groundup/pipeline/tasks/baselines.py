"""What something simple reaches on a task, so that a model's score means something.

| kind of task     | the simple thing                                                        |
|------------------|-------------------------------------------------------------------------|
| classify         | always the most frequent class                                          |
| tag              | each word's most frequent tag in training, else the most frequent tag   |
| write            | the source, copied                                                      |
| image            | the class whose mean image is nearest                                   |
| caption          | the caption of the training image that is nearest                       |
| continue         | five-grams of characters; for hidden tokens, the most frequent one      |
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

import numpy as np

from groundup.data.batch import IGNORE
from groundup.data.examples import Example, TaskData, pixels
from groundup.data.tasks import Task
from groundup.eval.ngram import CharacterNgrams
from groundup.pipeline.tasks.learner import Learner, judge

NGRAM_ORDER = 5
NGRAM_CHARACTERS = 1_000_000
"""Of training text, at most."""


def baseline(
    task: Task, metric: str, data: TaskData, heldout: Sequence[Example], learner: Learner
) -> tuple[str, float]:
    """The name of the simple thing, and its score on the held-out examples by `metric`."""
    if task.kind == "continue":
        return (
            _ngrams(data, heldout) if metric == "bits_per_character" else _tokens(learner, heldout)
        )
    name, answers = _SIMPLE[task.kind](data.train, heldout)
    return name, judge(task.kind, answers, [example.target for example in heldout])[metric]


def _most_frequent(train: Sequence[Example], heldout: Sequence[Example]) -> tuple[str, list[str]]:
    ((name, _),) = Counter(example.target for example in train).most_common(1)
    return "the most frequent class", [name] * len(heldout)


def _word_tags(train: Sequence[Example], heldout: Sequence[Example]) -> tuple[str, list[str]]:
    tags_of: dict[str, Counter[str]] = defaultdict(Counter)
    for example in train:
        for word, tag in zip(example.source.split(), example.target.split(), strict=True):
            tags_of[word][tag] += 1
            tags_of[""][tag] += 1
    best = {word: counts.most_common(1)[0][0] for word, counts in tags_of.items()}
    answers = [" ".join(best.get(w, best[""]) for w in e.source.split()) for e in heldout]
    return "each word's most frequent tag", answers


def _copied(train: Sequence[Example], heldout: Sequence[Example]) -> tuple[str, list[str]]:
    return "a copy of the source", [example.source for example in heldout]


def _nearest_mean(train: Sequence[Example], heldout: Sequence[Example]) -> tuple[str, list[str]]:
    images = _flat(train)
    names = sorted({example.target for example in train})
    labels = np.array([names.index(example.target) for example in train])
    means = np.stack([images[labels == number].mean(0) for number in range(len(names))])
    nearest = _distances(_flat(heldout), means).argmin(1)
    return "the nearest mean image", [names[number] for number in nearest]


def _nearest_image(train: Sequence[Example], heldout: Sequence[Example]) -> tuple[str, list[str]]:
    nearest = _distances(_flat(heldout), _flat(train)).argmin(1)
    return "the caption of the nearest image", [train[number].target for number in nearest]


def _ngrams(data: TaskData, heldout: Sequence[Example]) -> tuple[str, float]:
    texts, room = [], NGRAM_CHARACTERS
    for example in data.train:
        texts.append(example.target[: max(0, room)])
        room -= len(example.target)
    counted = CharacterNgrams(texts, NGRAM_ORDER)
    name = f"{NGRAM_ORDER}-grams of characters"
    return name, counted.bits_per_character(example.target for example in heldout)


def _tokens(learner: Learner, heldout: Sequence[Example]) -> tuple[str, float]:
    batches = [batch.targets.numpy() for batch in learner.batches(heldout)]
    asked = np.concatenate([targets[targets != IGNORE] for targets in batches])
    asked = asked[asked < min(learner.lesson.words.special.values())]
    return "the most frequent token", Counter(asked.tolist()).most_common(1)[0][1] / len(asked)


def _flat(examples: Sequence[Example]) -> np.ndarray:
    images = pixels(examples).astype(np.float32)
    return images.reshape(len(images), -1)


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(N, D), (M, D) -> (N, M), up to what is the same for a row."""
    return (b**2).sum(1) - 2 * a @ b.T


_SIMPLE: dict[str, Callable[[Sequence[Example], Sequence[Example]], tuple[str, list[str]]]] = {
    "classify": _most_frequent,
    "tag": _word_tags,
    "write": _copied,
    "image": _nearest_mean,
    "caption": _nearest_image,
}
