"""Logits to a token: penalties, temperature, filters and reproducible noise, all pure functions.

The order is that of `SamplingConfig`: penalties, temperature, top-k, top-p, typical, min-p. A
filter sets the logits of what it drops to -inf and always keeps at least one token, so no
combination of settings leaves nothing to choose from.

Noise is one uniform number per token that depends on nothing but (seed, position): a reply is the
same alone or in a batch, with or without a cache, on any device.

V is the vocabulary; `...` any leading shape.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from groundup.infer.config import SamplingConfig


def next_tokens(
    logits: Tensor,
    histories: Sequence[Sequence[int]],
    config: SamplingConfig,
    uniforms: Sequence[float],
    prompt_length: int = 0,
) -> Tensor:
    """(N, V) logits -> (N,) ids: one token for each of N sequences.

    `histories` holds the tokens of each sequence so far, its prompt first; `uniforms` one number in
    [0, 1) each (see `uniform`), unused when the temperature is 0.
    """
    logits = penalise(logits.float(), histories, config, prompt_length)
    if config.temperature == 0:
        return logits.argmax(-1)
    return draw(shape_distribution(logits, config).softmax(-1), uniforms)


def penalise(
    logits: Tensor, histories: Sequence[Sequence[int]], config: SamplingConfig, prompt_length: int
) -> Tensor:
    """(N, V) -> (N, V): everything that depends on the tokens so far.

    Repetition and n-grams look at prompt and reply; frequency and presence at the reply alone, as
    in the OpenAI API, so that a question does not forbid the words of its answer.
    """
    if config.repetition_penalty != 1:
        seen = count_tokens(histories, logits) > 0
        logits = repetition_penalty(logits, seen, config.repetition_penalty)
    if config.frequency_penalty or config.presence_penalty:
        counts = count_tokens([history[prompt_length:] for history in histories], logits)
        logits = count_penalties(logits, counts, config.frequency_penalty, config.presence_penalty)
    if config.no_repeat_ngram:
        banned = [ngram_completions(history, config.no_repeat_ngram) for history in histories]
        logits = ban(logits, banned)
    return logits


def shape_distribution(logits: Tensor, config: SamplingConfig) -> Tensor:
    """(..., V) -> (..., V): temperature (above 0) and the filters."""
    logits = logits / config.temperature
    if 0 < config.top_k < logits.shape[-1]:
        logits = keep_top_k(logits, config.top_k)
    if config.top_p < 1:
        logits = keep_top_p(logits, config.top_p)
    if config.typical_p < 1:
        logits = keep_typical(logits, config.typical_p)
    if config.min_p > 0:
        logits = keep_min_p(logits, config.min_p)
    return logits


def repetition_penalty(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """(..., V), (..., V) bool -> (..., V): push the logits of seen tokens down by a factor.

    Keskar et al. 2019, arXiv:1909.05858, with the division turned into a multiplication for
    negative logits, which dividing would raise.
    """
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def count_penalties(logits: Tensor, counts: Tensor, frequency: float, presence: float) -> Tensor:
    """(..., V), (..., V) counts -> (..., V): logit - count * frequency - (count > 0) * presence.

    OpenAI API reference, "frequency and presence penalties".
    """
    return logits - counts * frequency - (counts > 0) * presence


def ngram_completions(history: Sequence[int], size: int) -> list[int]:
    """Tokens that would complete an n-gram of `size` that `history` already holds.

    Paulus et al. 2017, arXiv:1705.04304 (trigrams in summaries).
    """
    prefix = tuple(history[len(history) - size + 1 :])
    starts = range(len(history) - size + 1)
    return [history[i + size - 1] for i in starts if tuple(history[i : i + size - 1]) == prefix]


def ban(logits: Tensor, banned: Sequence[Sequence[int]]) -> Tensor:
    """(N, V) -> (N, V): the banned ids of each row to -inf; a ban on everything is no ban."""
    rows = []
    for row, ids in zip(logits, banned, strict=True):
        rest = row.clone()
        rest[list(ids)] = -torch.inf
        rows.append(rest if rest.max() > -torch.inf else row)
    return torch.stack(rows)


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """(..., V) -> (..., V): the k largest logits and whatever ties with the last of them.

    Fan et al. 2018, arXiv:1805.04833.
    """
    smallest = logits.topk(k, dim=-1).values[..., -1:]
    return logits.masked_fill(logits < smallest, -torch.inf)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """(..., V) -> (..., V): the smallest set of most likely tokens with probability p or more.

    A token stays when those before it have less than p: so the one that crosses p stays, and the
    first always does. Holtzman et al. 2019, arXiv:1904.09751.
    """
    probabilities = logits.softmax(-1)
    ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
    return _keep_until(logits, ordered, order, p)


def keep_typical(logits: Tensor, p: float) -> Tensor:
    """(..., V) -> (..., V): tokens whose surprise is nearest to the entropy, up to probability p.

    Meister et al. 2022, arXiv:2202.00666. Where the distribution is peaked enough the most likely
    token is itself untypical and goes.
    """
    log_probabilities = logits.log_softmax(-1)
    probabilities = log_probabilities.exp()
    entropy = torch.special.entr(probabilities).sum(-1, keepdim=True)
    distance = (-log_probabilities - entropy).abs()
    order = distance.sort(dim=-1, stable=True).indices
    return _keep_until(logits, probabilities.gather(-1, order), order, p)


def keep_min_p(logits: Tensor, min_p: float) -> Tensor:
    """(..., V) -> (..., V): tokens at least `min_p` times as likely as the most likely one.

    Nguyen et al. 2024, arXiv:2407.01082.
    """
    probabilities = logits.softmax(-1)
    least = min_p * probabilities.amax(-1, keepdim=True)
    return logits.masked_fill(probabilities < least, -torch.inf)


def draw(probabilities: Tensor, uniforms: Sequence[float]) -> Tensor:
    """(N, V) -> (N,): the token whose slice of the cumulative distribution holds the uniform.

    A token of probability 0 has an empty slice and is never drawn.
    """
    cumulative = probabilities.cumsum(-1)
    points = torch.tensor(uniforms, dtype=cumulative.dtype, device=cumulative.device)
    # Scaled by the true total: a float32 sum over a vocabulary is not exactly 1. A uniform has 24
    # bits, so its product with the total rounds to less than the total.
    points = points[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, points, right=True).squeeze(-1)


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) with 24 bits that is a pure function of the seed and the position.

    The mixing function is SplitMix64 (Steele, Lea & Flood 2014, "Fast splittable pseudorandom
    number generators"), applied to the seed and again with the position.
    """
    return (_mix(_mix(seed) + position) >> 40) / 2**24


def count_tokens(histories: Sequence[Sequence[int]], logits: Tensor) -> Tensor:
    """N histories, (N, V) logits for shape and device -> (N, V) counts, in the logits' dtype."""
    counts = torch.zeros_like(logits)
    for row, history in zip(counts, histories, strict=True):
        ids = torch.tensor(list(history), dtype=torch.int64, device=logits.device)
        row += torch.bincount(ids, minlength=logits.shape[-1])
    return counts


def _keep_until(logits: Tensor, ordered: Tensor, order: Tensor, p: float) -> Tensor:
    """Keep tokens, in `order`, while those before them have less than p together."""
    before = ordered.cumsum(-1) - ordered
    dropped = torch.empty_like(before, dtype=torch.bool).scatter_(-1, order, before >= p)
    return logits.masked_fill(dropped, -torch.inf)


def _mix(value: int) -> int:
    """SplitMix64: one step of the generator and its output function, modulo 2**64."""
    word = 2**64 - 1
    value = (value + 0x9E3779B97F4A7C15) & word
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & word
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & word
    return value ^ (value >> 31)
