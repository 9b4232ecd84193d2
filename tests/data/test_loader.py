"""Pretraining batches: everything once, in one order, whoever asks for which part of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from groundup.config import UserError
from groundup.data.batch import IGNORE, Batch
from groundup.data.documents import Document
from groundup.data.loader import PretrainLoader
from groundup.data.shards import Shards, write_shards

property_test = settings(
    deadline=None,
    max_examples=25,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
BOS = 0


class NumberTokenizer(SimpleNamespace):
    """A text is a list of numbers, which are its ids."""

    vocab_size = 100_000
    special: Any = {"<|bos|>": BOS}  # noqa: RUF012
    fingerprint = "numbers"

    def encode_batch(self, texts: Sequence[str], workers: int = 1) -> list[np.ndarray]:
        return [np.array([int(word) for word in text.split()], dtype=np.int32) for text in texts]


MakeShards = Callable[..., Shards]


@pytest.fixture
def make_shards(tmp_path: Path) -> MakeShards:
    """Shards of documents of the given sizes (bos included); ids first, first + 1, ... in order."""
    folders = count()

    def make(sizes: Sequence[int], first: int = 1, tokens_per_file: int = 1 << 20) -> Shards:
        ids = count(first)
        texts = [" ".join(str(next(ids)) for _ in range(size - 1)) for size in sizes]
        folder = tmp_path / str(next(folders))
        documents = [Document("numbers", str(i), text) for i, text in enumerate(texts)]
        tokenizer: Any = NumberTokenizer()
        write_shards(folder, documents, tokenizer, workers=1, tokens_per_file=tokens_per_file)
        return Shards(folder, "numbers")

    return make


def scored(batch: Batch) -> list[int]:
    return batch.targets[batch.targets != IGNORE].tolist()


def equal(first: Batch, second: Batch) -> bool:
    same = torch.equal(first.inputs, second.inputs) and torch.equal(first.targets, second.targets)
    if first.documents is None or second.documents is None:
        return same and first.documents is second.documents
    return same and torch.equal(first.documents, second.documents)


@property_test
@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=12),
    length=st.integers(1, 40),
    tokens_per_file=st.integers(1, 50),
    seed=st.integers(0, 1000),
)
def test_every_token_is_a_target_once_each_time_round(
    make_shards: MakeShards, sizes: list[int], length: int, tokens_per_file: int, seed: int
) -> None:
    shards = make_shards(sizes, tokens_per_file=tokens_per_file)
    stream = shards.tokens(0, shards.num_tokens).tolist()
    loader = PretrainLoader([shards], [1.0], length, 1, seed)
    rows = -(-shards.num_tokens // length)
    assert loader.steps_per_epoch == rows
    for epoch in range(3):
        batches = [loader.step(epoch * rows + index) for index in range(rows)]
        targets = [token for batch in batches for token in scored(batch)]
        assert Counter(targets) == Counter(stream)
        follows = set(zip(stream, [*stream[1:], stream[0]], strict=True))
        for batch in batches:
            assert batch.inputs.shape == batch.targets.shape == (1, length)
            kept = batch.targets[0] != IGNORE
            pairs = zip(
                batch.inputs[0][kept].tolist(), batch.targets[0][kept].tolist(), strict=True
            )
            assert set(pairs) <= follows
            # Unscored positions still show the tokens before, so that the scored ones have context.
            assert torch.equal(batch.inputs[0, 1:][kept[:-1]], batch.targets[0, :-1][kept[:-1]])


def test_under_one_percent_of_the_positions_is_not_scored(make_shards: MakeShards) -> None:
    shards = make_shards([13] * 400)
    loader = PretrainLoader([shards], [1.0], 37, 1, seed=0)
    rows = int(loader.steps_per_epoch)
    batches = [loader.step(index) for index in range(rows)]
    assert sum(batch.num_targets for batch in batches) == shards.num_tokens
    assert shards.num_tokens / (rows * 37) > 0.99


def test_windows_begin_elsewhere_each_time_round(make_shards: MakeShards) -> None:
    loader = PretrainLoader([make_shards([1000])], [1.0], 200, 5, seed=4)
    firsts = [frozenset(loader.step(epoch).inputs[:, 0].tolist()) for epoch in range(6)]
    assert len(set(firsts)) >= 5  # of 200 possible offsets


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("documents", [False, True])
def test_ranks_together_see_the_global_batch(
    make_shards: MakeShards, ranks: int, documents: bool
) -> None:
    sources = [make_shards([9, 31, 4] * 20, tokens_per_file=97), make_shards([17] * 11, first=5000)]

    def build() -> PretrainLoader:
        return PretrainLoader(sources, [0.7, 2.0], 11, 6, seed=3, documents=documents)

    whole, loaders = build(), [build() for _ in range(ranks)]
    share = 6 // ranks
    for index in (0, 1, 40, 1000):
        parts = [
            loader.rows(index, rank * share, (rank + 1) * share)
            for rank, loader in enumerate(loaders)
        ]
        for rank, part in enumerate(parts):
            assert equal(part, whole.step(index).rows(rank * share, (rank + 1) * share))
        assert torch.equal(torch.cat([part.inputs for part in parts]), whole.step(index).inputs)


def test_any_step_can_be_asked_for_first(make_shards: MakeShards) -> None:
    shards = make_shards([23, 8, 41, 5])
    walked = PretrainLoader([shards], [1.0], 7, 5, seed=8)
    batches = [walked.step(index) for index in range(12)]
    for index in reversed(range(12)):
        assert equal(PretrainLoader([shards], [1.0], 7, 5, seed=8).step(index), batches[index])


def test_rows_per_step_only_cuts_the_same_stream_elsewhere(make_shards: MakeShards) -> None:
    shards = make_shards([50, 60, 70])
    by_4 = PretrainLoader([shards], [1.0], 9, 4, seed=2)
    by_6 = PretrainLoader([shards], [1.0], 9, 6, seed=2)
    first = torch.cat([by_4.step(index).inputs for index in range(6)])
    second = torch.cat([by_6.step(index).inputs for index in range(4)])
    assert torch.equal(first, second)


def test_seeds_give_different_orders(make_shards: MakeShards) -> None:
    shards = make_shards([400])
    loaders = [PretrainLoader([shards], [1.0], 8, 50, seed) for seed in range(3)]
    inputs = [loader.step(0).inputs for loader in loaders]
    assert not torch.equal(inputs[0], inputs[1]) and not torch.equal(inputs[1], inputs[2])


def test_weights_decide_how_often_each_source_is_seen(make_shards: MakeShards) -> None:
    sources = [make_shards([100] * 3), make_shards([90], first=1000), make_shards([80], first=2000)]
    loader = PretrainLoader(sources, [0.5, 1.0, 2.0], 10, 1, seed=1)
    rows = int(loader.steps_per_epoch)
    assert rows == 15 + 9 + 16
    seen = Counter(token for index in range(2 * rows) for token in scored(loader.step(index)))
    assert all(seen[token] == 1 for token in range(1, 298))
    assert all(seen[token] == 2 for token in range(1000, 1089))
    assert all(seen[token] == 4 for token in range(2000, 2079))
    assert seen[BOS] == 3 + 2 + 4


@property_test
@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=9), length=st.integers(1, 25))
def test_document_numbers_change_exactly_where_a_document_begins(
    make_shards: MakeShards, sizes: list[int], length: int
) -> None:
    loader = PretrainLoader([make_shards(sizes)], [1.0], length, 3, seed=0, documents=True)
    batch = loader.step(2)
    assert batch.documents is not None and batch.documents.dtype == torch.int32
    for inputs, numbers in zip(batch.inputs.tolist(), batch.documents.tolist(), strict=True):
        for t in range(1, length):
            assert numbers[t] - numbers[t - 1] == (inputs[t] == BOS)


def test_a_batch_moves_and_splits_whole() -> None:
    inputs = torch.arange(15).view(3, 5)
    targets = inputs + 1
    targets[1, 2:] = IGNORE
    batch = Batch(inputs, targets, torch.zeros(3, 5, dtype=torch.int32))
    assert batch.num_targets == 12 and isinstance(batch.num_targets, int)
    part = batch.rows(1, 3).to("cpu")
    assert part.num_targets == 7
    assert part.documents is not None and part.documents.shape == (2, 5)
    assert Batch(inputs, targets).rows(0, 1).documents is None


def test_mistakes_are_named(make_shards: MakeShards) -> None:
    shards = make_shards([20])
    with pytest.raises(UserError, match="at least one source"):
        PretrainLoader([], [], 8, 4, seed=0)
    with pytest.raises(UserError, match="window length"):
        PretrainLoader([shards], [1.0], 0, 4, seed=0)
    with pytest.raises(UserError, match="at least one row"):
        PretrainLoader([shards], [1.0], 8, 0, seed=0)
    with pytest.raises(UserError, match="need 1 weights, not 2"):
        PretrainLoader([shards], [1.0, 2.0], 8, 4, seed=0)
