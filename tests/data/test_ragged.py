"""Batches of examples and of texts in memory: what a step holds, whoever asks for it, and when."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.data.batch import IGNORE, Batch
from groundup.data.loader import Loader, PretrainLoader
from groundup.data.ragged import POOL_STEPS, ImageLoader, RaggedLoader, shifted
from groundup.data.streams import MaskedLoader, SpanLoader, StreamLoader, TokenStream

BOS, MASK, END = 50, 51, 52
SENTINELS = tuple(range(53, 63))


def ragged(count: int, rows_per_step: int, seed: int = 3) -> RaggedLoader:
    random = np.random.default_rng(seed)
    sizes = random.integers(1, 12, (count, 2))
    rows = [(np.full(a, number), np.full(b, number)) for number, (a, b) in enumerate(sizes)]
    return RaggedLoader(rows, rows_per_step, seed, filler=BOS)


def text(length: int = 400) -> TokenStream:
    ids = np.random.default_rng(1).integers(0, BOS, length).tolist()
    return TokenStream([ids[:99], ids[99:]], END)


def windows() -> PretrainLoader:
    return PretrainLoader([text()], [1.0], length=30, rows_per_step=4, seed=5)


LOADERS = {
    "ragged": lambda: ragged(41, 4),
    "images": lambda: ImageLoader(
        np.random.default_rng(0).integers(0, 255, (9, 3, 5, 5)).astype(np.uint8),
        np.arange(9),
        rows_per_step=4,
        seed=1,
        shift=1,
    ),
    "masked": lambda: MaskedLoader(windows(), 7, MASK, 63, (BOS, MASK, END, *SENTINELS)),
    "spans": lambda: SpanLoader(windows(), 7, SENTINELS, END, BOS),
    "stream": lambda: StreamLoader(text(), length=13, rows_per_step=4),
}


def same(a: Batch, b: Batch) -> bool:
    return torch.equal(a.inputs, b.inputs) and torch.equal(a.targets, b.targets)


@pytest.mark.parametrize("name", LOADERS)
def test_a_batch_follows_from_the_step_alone(name: str) -> None:
    first: Loader = LOADERS[name]()
    second: Loader = LOADERS[name]()
    later = [first.step(index) for index in (40, 2, 17)]
    assert all(same(second.step(i), b) for i, b in zip((40, 2, 17), later, strict=True))
    whole = first.step(3)
    assert same(second.rows(3, 1, 3), whole.rows(1, 3))
    assert not same(first.step(0), first.step(1))


@settings(deadline=None, max_examples=25, derandomize=True)
@given(count=st.integers(1, 60), rows=st.integers(1, 7))
def test_every_example_is_seen_before_any_is_seen_again(count: int, rows: int) -> None:
    loader = ragged(count, rows)
    seen = np.concatenate(
        [loader.step(index).inputs[:, 0].numpy() for index in range(3 * POOL_STEPS)]
    )
    counts = np.bincount(seen, minlength=count)
    assert counts.max() - counts.min() <= 1 and len(seen) == 3 * POOL_STEPS * rows


def test_rows_of_like_length_share_a_step() -> None:
    loader = ragged(400, 8)
    padding = [float((loader.step(i).inputs == BOS).float().mean()) for i in range(POOL_STEPS)]
    mixed = [
        float((loader.batch(np.arange(i * 8, i * 8 + 8)).inputs == BOS).float().mean())
        for i in range(POOL_STEPS)
    ]
    assert np.mean(padding) < 0.1 < 0.3 < np.mean(mixed)
    batch = loader.step(0)
    assert bool(((batch.targets == batch.inputs[:, :1]) | (batch.targets == IGNORE)).all())


def test_a_stream_reads_on() -> None:
    loader, ids = StreamLoader(text(), length=13, rows_per_step=3), text().ids
    rows = torch.cat([loader.step(index).inputs for index in range(4)], 1).numpy()
    for row, start in zip(rows, (0, len(ids) // 3, 2 * len(ids) // 3), strict=True):
        np.testing.assert_array_equal(row, np.resize(np.roll(ids, -start), 52))
    assert torch.equal(loader.step(0).targets[:, :-1], loader.step(0).inputs[:, 1:])


def test_what_is_masked_is_asked_for() -> None:
    loader, plain = LOADERS["masked"](), windows()
    batch, ids = loader.step(2), plain.step(2).inputs
    asked = batch.targets != IGNORE
    assert 0.05 < asked.float().mean() < 0.3
    assert torch.equal(batch.targets[asked], ids[asked])
    assert torch.equal(batch.inputs[~asked], ids[~asked])
    assert not bool((batch.inputs == BOS).any())


def test_spans_and_what_is_left_make_the_window() -> None:
    batch, ids = LOADERS["spans"]().step(2), windows().step(2).inputs
    for source, target, window in zip(batch.inputs, batch.targets, ids, strict=True):
        spans = {}
        for id in target[target != IGNORE].tolist()[:-1]:
            if id in SENTINELS:
                spans[id] = []
            else:
                spans[list(spans)[-1]].append(id)
        whole = [x for id in source.tolist()[:-1] for x in spans.get(id, [id])]
        assert whole == window.tolist()


def test_images_move_and_their_classes_stay() -> None:
    images = np.zeros((40, 1, 6, 6), dtype=np.uint8)
    images[:, :, 2:4, 2:4] = 255
    moved = shifted(images, 1, np.random.default_rng(0))
    assert moved.sum() == images.sum() and len({image.tobytes() for image in moved}) == 9
    loader = ImageLoader(images, np.arange(40), rows_per_step=40, seed=2)
    batch = loader.step(0)
    assert sorted(batch.targets[:, 0].tolist()) == list(range(40))
    assert batch.inputs.min() == -1 and batch.inputs.max() == 1
    assert batch.num_positions == batch.num_targets == 40


def test_images_stand_beside_ids() -> None:
    images = np.arange(3, dtype=np.uint8)[:, None, None, None] * np.ones((1, 1, 2, 2), np.uint8)
    rows = [(np.full(n + 1, n), np.full(n + 1, n)) for n in range(3)]
    loader = RaggedLoader(rows, 2, seed=0, filler=BOS, images=images)
    batch = loader.step(0).rows(1, 2).to("cpu")
    assert batch.images is not None and len(batch.arguments) == 4
    expected = batch.inputs[0, 0].item() / 127.5 - 1
    assert batch.images.unique().item() == pytest.approx(expected)
