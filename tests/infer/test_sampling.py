"""Sampling: filters against definitions written out, frequencies against probabilities."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.config import UserError
from groundup.infer.config import SamplingConfig
from groundup.infer.sampling import (
    ban,
    count_penalties,
    count_tokens,
    draw,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    keep_typical,
    next_tokens,
    ngram_completions,
    penalise,
    repetition_penalty,
    shape_distribution,
    uniform,
)

PROBABILITIES = [0.5, 0.25, 0.15, 0.07, 0.03]


def log(probabilities: list[float]) -> torch.Tensor:
    return torch.tensor(probabilities).log()


def kept(logits: torch.Tensor) -> list[int]:
    return (logits > -torch.inf).nonzero().squeeze(-1).tolist()


def assert_frequencies(counts: Counter[int], expected: torch.Tensor, draws: int) -> None:
    """Pearson's chi-square under its 1e-6 quantile (Wilson-Hilferty), and nothing impossible."""
    possible = [i for i, p in enumerate(expected.tolist()) if p > 0]
    assert set(counts) <= set(possible)
    statistic = sum(
        (counts[i] - draws * expected[i].item()) ** 2 / (draws * expected[i].item())
        for i in possible
    )
    freedom = max(len(possible) - 1, 1)
    limit = freedom * (1 - 2 / (9 * freedom) + 4.75 * math.sqrt(2 / (9 * freedom))) ** 3
    assert statistic < limit, (statistic, limit)


def sample(logits: torch.Tensor, config: SamplingConfig, draws: int) -> Counter[int]:
    """Tokens drawn at `draws` positions from the same logits."""
    noise = [uniform(config.seed or 0, position) for position in range(draws)]
    rows = logits.expand(draws, -1)
    return Counter(next_tokens(rows, [[]] * draws, config, noise).tolist())


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, [0.5, 0.25, 0.15, 0.07, 0.03]),
        ({"temperature": 0.5}, [p**2 for p in PROBABILITIES]),
        ({"temperature": 2.0}, [p**0.5 for p in PROBABILITIES]),
        ({"top_k": 3}, [0.5, 0.25, 0.15, 0, 0]),
        ({"top_p": 0.7}, [0.5, 0.25, 0, 0, 0]),
        ({"top_p": 0.1}, [0.5, 0, 0, 0, 0]),
        ({"min_p": 0.2}, [0.5, 0.25, 0.15, 0, 0]),
        ({"top_k": 3, "top_p": 0.6}, [0.5, 0.25, 0, 0, 0]),
    ],
)
def test_frequencies_match_the_exact_distribution(change, expected) -> None:
    config = dataclasses.replace(SamplingConfig(temperature=1.0, seed=11), **change)
    exact = torch.tensor(expected)
    draws = 20_000
    counts = sample(log(PROBABILITIES), config, draws)
    assert_frequencies(counts, exact / exact.sum(), draws)


def test_filters_renormalise_and_do_not_flatten() -> None:
    """A softmax of probabilities would turn .7/.1 into .35/.19; the ratio must stay 7."""
    logits = log([0.7, 0.1, 0.05, 0.05, 0.05, 0.05])
    config = SamplingConfig(temperature=1.0, top_k=2)
    probabilities = shape_distribution(logits, config).softmax(-1)
    torch.testing.assert_close(probabilities[:2], torch.tensor([0.875, 0.125]))


def test_temperature_zero_is_greedy_and_ignores_noise() -> None:
    logits = torch.randn(7, 31)
    config = SamplingConfig(temperature=0.0, top_p=0.3, seed=None)
    for noise in (0.0, 0.999):
        chosen = next_tokens(logits, [[]] * 7, config, [noise] * 7)
        assert chosen.tolist() == logits.argmax(-1).tolist()


def test_low_temperature_does_not_overflow() -> None:
    logits = torch.tensor([[1e4, 9e3, -1e4]])
    config = SamplingConfig(temperature=1e-6)
    assert next_tokens(logits, [[]], config, [0.5]).tolist() == [0]


def test_top_p_keeps_the_token_that_crosses() -> None:
    logits = log([0.1, 0.6, 0.3])  # not sorted: the mask must go back to the right places
    assert kept(keep_top_p(logits, 0.5)) == [1]
    assert kept(keep_top_p(logits, 0.61)) == [1, 2]
    assert kept(keep_top_p(logits, 0.95)) == [0, 1, 2]


def test_top_k_keeps_ties_and_leaves_values_alone() -> None:
    logits = torch.tensor([3.0, 1.0, 2.0, 2.0])
    assert keep_top_k(logits, 2).tolist() == [3.0, -torch.inf, 2.0, 2.0]


def test_typical_prefers_ordinary_surprise_to_the_most_likely() -> None:
    """One likely token and many unlikely ones: the entropy is near the unlikely ones' surprise."""
    probabilities = [0.3] + [0.1] * 7
    assert kept(keep_typical(log(probabilities), 0.5)) == [1, 2, 3, 4, 5]


@given(
    logits=st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=40),
    top_k=st.integers(0, 50),
    top_p=st.floats(1e-6, 1),
    typical_p=st.floats(1e-6, 1),
    min_p=st.floats(0, 1),
    temperature=st.floats(1e-6, 100),
)
@settings(deadline=None, max_examples=200, derandomize=True)
def test_no_settings_leave_nothing(logits, top_k, top_p, typical_p, min_p, temperature) -> None:
    config = SamplingConfig(
        temperature=temperature, top_k=top_k, top_p=top_p, typical_p=typical_p, min_p=min_p
    )
    shaped = shape_distribution(torch.tensor(logits), config)
    probabilities = shaped.softmax(-1)
    assert probabilities.isfinite().all()
    for noise in (0.0, 0.5, 1 - 2**-24):
        chosen = draw(probabilities[None], [noise]).item()
        assert 0 <= chosen < len(logits)
        assert probabilities[int(chosen)] > 0


@given(
    probabilities=st.lists(st.floats(1e-4, 1), min_size=2, max_size=30, unique=True),
    p=st.floats(0.01, 0.99),
)
@settings(deadline=None, max_examples=100, derandomize=True)
def test_top_p_is_the_smallest_sufficient_set(probabilities, p) -> None:
    total = sum(probabilities)
    exact = [value / total for value in probabilities]
    ordered = sorted(range(len(exact)), key=lambda i: -exact[i])
    nucleus, mass = [], 0.0
    for token in ordered:
        if abs(mass - p) < 1e-5:
            return  # rounding decides: nothing to compare
        if mass >= p:
            break
        nucleus.append(token)
        mass += exact[token]
    assert kept(keep_top_p(log(exact), p)) == sorted(nucleus)


def test_filters_agree_with_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    logits = torch.randn(5, 37) * 3
    ids = torch.zeros(5, 1, dtype=torch.int64)
    pairs = [
        (transformers.TopKLogitsWarper(6), keep_top_k(logits, 6)),
        (transformers.TopPLogitsWarper(0.7), keep_top_p(logits, 0.7)),
        (transformers.MinPLogitsWarper(0.1), keep_min_p(logits, 0.1)),
        (transformers.TypicalLogitsWarper(0.6), keep_typical(logits, 0.6)),
    ]
    for theirs, ours in pairs:
        torch.testing.assert_close(ours, theirs(ids, logits))


def test_penalties_agree_with_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    logits = torch.randn(3, 11)
    histories = torch.randint(0, 11, (3, 9))
    seen = count_tokens(histories.tolist(), logits) > 0
    theirs = transformers.RepetitionPenaltyLogitsProcessor(1.3)(histories, logits.clone())
    torch.testing.assert_close(repetition_penalty(logits, seen, 1.3), theirs)
    for size in (1, 2, 3):
        banned = [ngram_completions(history, size) for history in histories.tolist()]
        theirs = transformers.NoRepeatNGramLogitsProcessor(size)(histories, logits.clone())
        torch.testing.assert_close(ban(logits, banned), theirs)


def test_repetition_penalty_lowers_positive_and_negative_logits() -> None:
    logits = torch.tensor([2.0, -2.0, 1.0])
    seen = torch.tensor([True, True, False])
    assert repetition_penalty(logits, seen, 2.0).tolist() == [1.0, -4.0, 1.0]


def test_count_penalties_scale_with_the_count_and_once() -> None:
    logits, counts = torch.zeros(3), torch.tensor([0.0, 1.0, 3.0])
    penalised = count_penalties(logits, counts, frequency=0.5, presence=0.25)
    assert penalised.tolist() == [0.0, -0.75, -1.75]


def test_frequency_counts_the_reply_and_repetition_the_prompt_too() -> None:
    logits, history = torch.ones(1, 4), [[0, 1, 1]]  # a prompt [0] and a reply [1, 1]
    frequency = penalise(logits, history, SamplingConfig(frequency_penalty=0.5), 1)
    assert frequency.tolist() == [[1.0, 0.0, 1.0, 1.0]]
    repetition = penalise(logits, history, SamplingConfig(repetition_penalty=2.0), 1)
    assert repetition.tolist() == [[0.5, 0.5, 1.0, 1.0]]


@given(st.lists(st.integers(0, 3), max_size=12), st.integers(1, 4))
@settings(deadline=None, max_examples=100, derandomize=True)
def test_ngram_completions_are_exactly_the_repeats(history, size) -> None:
    ngrams = [history[i : i + size] for i in range(len(history) - size + 1)]
    tail = history[len(history) - size + 1 :]
    repeats = {t for t in range(4) if len(tail) == size - 1 and [*tail, t] in ngrams}
    assert set(ngram_completions(history, size)) == repeats


def test_a_ban_on_everything_is_lifted() -> None:
    logits = torch.randn(2, 3)
    assert ban(logits, [[0, 1, 2], [0, 1]]).isfinite().tolist() == [
        [True] * 3,
        [False, False, True],
    ]


def test_noise_depends_on_seed_and_position_only_and_is_uniform() -> None:
    values = [uniform(seed, position) for seed in range(40) for position in range(500)]
    assert len(set(values)) > 19_950  # 24 bits: a few coincide
    assert all(0 <= value < 1 for value in values)
    bins = Counter(int(value * 16) for value in values)
    assert_frequencies(bins, torch.full((16,), 1 / 16), len(values))
    assert uniform(3, 7) == uniform(3, 7) != uniform(7, 3)
    # Neighbouring seeds and positions are as good as unrelated.
    pairs = Counter(
        4 * int(uniform(seed, position) * 4) + int(uniform(seed + 1, position) * 4)
        for seed in range(40)
        for position in range(200)
    )
    assert_frequencies(pairs, torch.full((16,), 1 / 16), 8000)


def test_rows_do_not_influence_each_other() -> None:
    logits = torch.randn(6, 50)
    histories = [torch.randint(0, 50, (length,)).tolist() for length in (1, 5, 9, 2, 30, 4)]
    noise = [uniform(5, i) for i in range(6)]
    config = SamplingConfig(
        top_p=0.9, top_k=20, repetition_penalty=1.2, frequency_penalty=0.3, no_repeat_ngram=2
    )
    together = next_tokens(logits, histories, config, noise).tolist()
    alone = [
        next_tokens(logits[i : i + 1], histories[i : i + 1], config, noise[i : i + 1]).item()
        for i in range(6)
    ]
    assert together == alone


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -0.1},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.01},
        {"typical_p": 0.0},
        {"min_p": -0.1},
        {"min_p": 1.5},
        {"repetition_penalty": 0.0},
        {"frequency_penalty": math.nan},
        {"no_repeat_ngram": -2},
        {"max_tokens": 0},
        {"stop": ("",)},
    ],
)
def test_wrong_settings_are_named(wrong) -> None:
    (name,) = wrong
    with pytest.raises(UserError, match=name):
        SamplingConfig(**wrong)
