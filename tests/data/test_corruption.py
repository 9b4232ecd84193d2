"""Hidden tokens and spans: the shares are the papers', and nothing of the text is lost."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.config import UserError
from groundup.data.batch import IGNORE
from groundup.data.corruption import corrupt_spans, mask_tokens

MASK, KEEP, VOCABULARY = 4, (0, 1, 2), 500


def test_of_fifteen_in_a_hundred_eighty_are_masked_and_ten_replaced() -> None:
    generator = np.random.default_rng(0)
    ids = generator.integers(5, VOCABULARY, (300, 400))
    inputs, targets = mask_tokens(ids, generator, mask_id=MASK, vocab_size=VOCABULARY, keep=KEEP)
    asked = targets != IGNORE
    assert np.array_equal(targets[asked], ids[asked])
    assert np.array_equal(inputs[~asked], ids[~asked])
    assert asked.mean() == pytest.approx(0.15, abs=0.005)
    masked, same = inputs[asked] == MASK, inputs[asked] == ids[asked]
    assert masked.mean() == pytest.approx(0.8, abs=0.01)
    assert same.mean() == pytest.approx(0.1, abs=0.01)
    others = inputs[asked][~masked & ~same]
    assert not np.isin(others, [MASK, *KEEP]).any()
    assert len(np.unique(others)) > 0.95 * (VOCABULARY - 4)


def test_special_tokens_are_never_asked_for_and_seeds_decide() -> None:
    ids = np.tile([0, 7, 8, 1, 2, 2], (50, 1))
    settings = {"mask_id": MASK, "vocab_size": 9, "keep": KEEP, "rate": 0.9}
    first = mask_tokens(ids, np.random.default_rng((3, 5)), **settings)
    again = mask_tokens(ids, np.random.default_rng((3, 5)), **settings)
    assert np.array_equal(first[0], again[0]) and np.array_equal(first[1], again[1])
    assert (first[1][:, [0, 3, 4, 5]] == IGNORE).all()
    assert np.array_equal(first[0][:, [0, 3, 4, 5]], ids[:, [0, 3, 4, 5]])


@given(st.integers(2, 200), st.floats(0.05, 0.6), st.floats(1, 6), st.integers(0, 99))
@settings(deadline=None, max_examples=80, derandomize=True)
def test_source_and_target_make_the_text_again(
    length: int, rate: float, span: float, seed: int
) -> None:
    ids, end = np.arange(1, length + 1), 999
    sentinels = list(range(1000, 1200))
    source, target = corrupt_spans(
        ids,
        np.random.default_rng(seed),
        sentinels=sentinels,
        end_id=end,
        rate=rate,
        mean_span=span,
    )
    assert source[-1] == target[-1] == end
    used = [id for id in source if id >= 1000]
    assert used == [id for id in target if id >= 1000] == sentinels[: len(used)]
    spans = np.split(target[:-1], np.flatnonzero(target[:-1] >= 1000))[1:]
    filled = {part[0]: part[1:] for part in spans}
    assert all(len(part) for part in filled.values())
    text = [t for id in source[:-1] for t in (filled[id] if id >= 1000 else [id])]
    assert text == ids.tolist()
    hidden = sum(len(part) for part in filled.values())
    assert abs(hidden - rate * length) <= 1


def test_ends_and_mistakes() -> None:
    generator = np.random.default_rng(0)
    source, target = corrupt_spans([5], generator, sentinels=[8], end_id=9)
    assert source.tolist() == [5, 9] and target.tolist() == [9]
    with pytest.raises(UserError, match="sentinels"):
        corrupt_spans(range(100), generator, sentinels=[8], end_id=9)
    with pytest.raises(UserError, match="rate"):
        mask_tokens(np.array([5]), generator, mask_id=1, vocab_size=9, rate=1.0)
