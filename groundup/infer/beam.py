"""Beam search: the most likely reply found by keeping several beginnings at once; greedy batches.

For every model that reads like a decoder: see `CachedModel`. The cache follows the beams, so no
token is read twice.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from groundup.config import require
from groundup.infer.generate import CachedModel, as_module, device_of, evaluating


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A reply, its stop token included, and how likely it is."""

    ids: list[int]
    logprob: float
    """Of the whole reply, in nats."""
    score: float
    """By which replies are ranked: logprob over the length penalty."""


def length_penalty(length: int, alpha: float) -> float:
    """((5 + length) / 6)^alpha: 1 for alpha 0, nearly the length for 1.

    Without it shorter replies win, as every token costs. Wu et al. 2016, arXiv:1609.08144,
    equation 14.
    """
    return ((5 + length) / 6) ** alpha


@torch.inference_mode()
def beam_search(
    model: CachedModel,
    prompt: Sequence[int],
    *,
    beams: int,
    max_tokens: int,
    stop_ids: Collection[int] = (),
    alpha: float = 0.0,
    cached: bool = True,
    vocab_size: int | None = None,
) -> list[Hypothesis]:
    """The best `beams` replies to `prompt` that were found, best first; a source may be all of it.

    Every step extends each of the `beams` likeliest beginnings by every token. A reply is finished
    by a stop id or by its `max_tokens`-th token. With as many beams as there are beginnings this
    is exact; with one it is greedy search. It ends early when no beginning can still overtake the
    worst finished reply that would be returned. `cached` False reads everything anew each time:
    the reference, at a cost that grows with the square of the length. `vocab_size` leaves out the
    ids from there on, which a model may have beyond its tokenizer's.
    """
    require(beams >= 1, f"beams should be at least 1, but is {beams}.")
    require(alpha >= 0, f"alpha should be at least 0, but is {alpha}.")
    require(max_tokens >= 1, f"max_tokens should be at least 1, but is {max_tokens}.")
    require(len(prompt) >= 1, "The prompt is empty: begin with <|bos|>, or with the start_id.")
    _check_room(model, len(prompt) + max_tokens - 1)
    rows, logprobs = [list(prompt)], torch.zeros(1)
    finished: list[Hypothesis] = []
    cache = model.new_cache(1, len(prompt) + max_tokens - 1) if cached else None
    with evaluating(as_module(model)):
        for length in range(1, max_tokens + 1):
            next_ones = _next_logprobs(model, rows, cache)[:, :vocab_size]
            totals = logprobs[:, None] + next_ones  # (rows, V)
            live: list[tuple[int, int, float]] = []
            # Stop ids may take the best places, so look further; what is not live is finished.
            for row, id, total in _best(totals, beams * (1 + len(stop_ids))):
                if id in stop_ids or length == max_tokens:
                    reply = [*rows[row][len(prompt) :], id]
                    score = total / length_penalty(length, alpha)
                    finished.append(Hypothesis(reply, total, score))
                elif len(live) < beams:
                    live.append((row, id, total))
            finished = sorted(finished, key=lambda reply: -reply.score)[:beams]
            if not live or _settled(finished, live[0][2], beams, max_tokens, alpha):
                break
            cache = cache.select([row for row, _, _ in live]) if cache is not None else None
            rows = [[*rows[row], id] for row, id, _ in live]
            logprobs = torch.tensor([total for _, _, total in live])
    return finished


@torch.inference_mode()
def greedy_batch(
    model: CachedModel,
    prompts: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    stop_ids: Collection[int] = (),
) -> list[list[int]]:
    """N prompts of one length -> N replies, the likeliest token at each step, stop id left out.

    With `EncoderDecoder.given` for N sources, and the start_id as every prompt, a whole batch of
    sources is answered at once.
    """
    lengths = {len(prompt) for prompt in prompts}
    require(len(lengths) == 1 and lengths != {0}, "Prompts of one batch should be equally long.")
    capacity = lengths.pop() + max_tokens - 1
    _check_room(model, capacity)
    device = device_of(model)
    ids = torch.tensor([list(prompt) for prompt in prompts], device=device)
    cache, replies = model.new_cache(len(prompts), capacity), [[] for _ in prompts]
    ended = [False] * len(prompts)
    with evaluating(as_module(model)):
        for _ in range(max_tokens):
            ids = model.logits(model.hidden(ids, cache=cache)[:, -1:]).argmax(-1)  # (N, 1)
            for row, id in enumerate(ids[:, 0].tolist()):
                ended[row] = ended[row] or id in stop_ids
                if not ended[row]:
                    replies[row].append(id)
            if all(ended):
                break
    return replies


def _next_logprobs(model: CachedModel, rows: Sequence[Sequence[int]], cache: Any) -> Tensor:
    """-> (rows, V) log-probabilities of the token after each row, fp32 on the CPU."""
    start = cache.length if cache is not None else 0
    device = device_of(model)
    ids = torch.tensor([row[start:] for row in rows], device=device)
    hidden = model.hidden(ids, cache=cache)[:, -1]
    return model.logits(hidden).float().log_softmax(-1).cpu()


def _best(totals: Tensor, count: int) -> list[tuple[int, int, float]]:
    """(rows, V) -> the likeliest (row, id, total), best first."""
    values, places = totals.flatten().topk(min(count, totals.numel()))
    vocab_size = totals.shape[1]
    pairs = zip(places.tolist(), values.tolist(), strict=True)
    return [(place // vocab_size, place % vocab_size, value) for place, value in pairs]


def _settled(
    finished: Sequence[Hypothesis], best: float, beams: int, max_tokens: int, alpha: float
) -> bool:
    """No beginning can still enter the list: its logprob only falls, its penalty is bounded."""
    bound = best / length_penalty(max_tokens if alpha > 0 else 1, alpha)
    return len(finished) == beams and finished[-1].score >= bound


def _check_room(model: CachedModel, length: int) -> None:
    context = model.config.context_length
    require(
        length <= context,
        f"The prompt and max_tokens need {length} tokens, but the model's context_length is "
        f"{context}. Ask for fewer.",
    )
