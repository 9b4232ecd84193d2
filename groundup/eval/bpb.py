"""Bits per byte and perplexity over whole documents: how well a model predicts text it never saw.

Losses per token depend on the tokenizer; bits per byte of text do not, so models with different
vocabularies compare. Each document, <|bos|> first, is cut into windows that do not overlap; every
token after <|bos|> is predicted exactly once, from what its window holds before it. Sums run over
all tokens of all documents: perplexity is exp of the mean, never a mean of exps.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from groundup.config import UserError
from groundup.data.sources import read_text_file
from groundup.infer.generate import evaluating
from groundup.text.tokenizer import opening

if TYPE_CHECKING:
    from groundup.device import Policy
    from groundup.models.decoder import Decoder
    from groundup.text.tokenizer import Tokenizer

# A batch holds as many rows as keep its logits under this many numbers: 128 MB in fp32.
LOGITS_PER_BATCH = 2**25


@dataclass(frozen=True, slots=True)
class Score:
    """Sums over all scored tokens, and the measures made of them. Special tokens do not count."""

    nll_nats: float
    """Negative log-likelihood of all scored tokens together, in nats."""
    tokens: int
    bytes: int
    """UTF-8 bytes that the scored tokens stand for."""

    @property
    def nll_per_token(self) -> float:
        """Mean loss in nats, the number a training log calls loss."""
        return self.nll_nats / self.tokens

    @property
    def perplexity(self) -> float:
        """exp of the mean loss: as uncertain as a fair choice among this many tokens."""
        return math.exp(self.nll_per_token)

    @property
    def bpb(self) -> float:
        """Bits per byte of text."""
        return self.nll_nats / math.log(2) / self.bytes

    def __add__(self, other: Score) -> Score:
        return Score(
            self.nll_nats + other.nll_nats, self.tokens + other.tokens, self.bytes + other.bytes
        )

    def as_dict(self) -> dict[str, Any]:
        """The measures by name, for JSON."""
        return {
            "nll_per_token": self.nll_per_token,
            "tokens": self.tokens,
            "bits_per_byte": self.bpb,
            "bytes": self.bytes,
            "perplexity": self.perplexity,
        }


def score_documents(
    model: Decoder,
    tokenizer: Tokenizer,
    documents_ids: Iterable[np.ndarray],
    length: int,
    policy: Policy,
    *,
    rows: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Score:
    """Score documents, each an array of ids that begins with <|bos|>, in windows of `length`.

    `rows` windows are computed at once (0: as many as fit `LOGITS_PER_BATCH`); the result does not
    depend on it. `progress` is called with the number of tokens after each batch. Raises UserError
    when there is nothing to score or the model has fewer than `length` positions.
    """
    context = model.config.context_length
    if not 1 <= length <= context:
        raise UserError(f"The window is {length} tokens, but must be 1 to the model's {context}.")
    token_bytes = torch.from_numpy(tokenizer.token_bytes()).to(policy.torch_device)
    rows = rows or max(1, LOGITS_PER_BATCH // (length * model.config.vocab_size))
    total = Score(0.0, 0, 0)
    with evaluating(model), torch.inference_mode():
        for windows in _batches(documents_ids, length, rows):
            score = _score_windows(model, windows, token_bytes, policy)
            total = total + score
            if progress is not None:
                progress(score.tokens)
    if total.tokens == 0:
        raise UserError("There is no text to score: every document is empty.")
    return total


def score_text(
    model: Decoder, tokenizer: Tokenizer, text: str, policy: Policy, length: int = 0
) -> Score:
    """Score one text as one document; `length` 0 is the model's context length.

    Where the tokenizer has no <|bos|>, nothing predicts the first token, and it is not scored.
    """
    ids = np.array([*opening(tokenizer), *tokenizer.encode(text)], dtype=np.int64)
    return score_documents(model, tokenizer, [ids], length or model.config.context_length, policy)


def score_text_file(
    model: Decoder, tokenizer: Tokenizer, path: str | Path, policy: Policy, length: int = 0
) -> Score:
    """Score a UTF-8 text file as one document. Raises UserError when it is not one, or empty."""
    return score_text(model, tokenizer, read_text_file(path), policy, length)


def _score_windows(
    model: Decoder, windows: Sequence[np.ndarray], token_bytes: Tensor, policy: Policy
) -> Score:
    """One forward pass. A window of n + 1 ids has n inputs and n targets; rows are padded right.

    Padding changes nothing: attention is causal, and padded targets are not counted.
    """
    longest = max(len(window) for window in windows)
    ids = torch.zeros(len(windows), longest, dtype=torch.int64)
    present = torch.zeros(len(windows), longest, dtype=torch.bool)
    for i, window in enumerate(windows):
        ids[i, : len(window)] = torch.from_numpy(window.astype(np.int64))
        present[i, : len(window)] = True
    ids, present = ids.to(policy.torch_device), present.to(policy.torch_device)
    targets = ids[:, 1:]
    with policy.autocast():
        logits = model(ids[:, :-1])
    nll = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="none")
    bytes_of_targets = token_bytes[targets.flatten()]
    scored = present[:, 1:].flatten() & (bytes_of_targets > 0)
    # Summed in float64 on the CPU (some devices have none): millions of terms would drift in fp32.
    return Score(
        float(nll[scored].cpu().double().sum()),
        int(scored.sum()),
        int(bytes_of_targets[scored].sum()),
    )


def _batches(
    documents_ids: Iterable[np.ndarray], length: int, rows: int
) -> Iterator[list[np.ndarray]]:
    """Lists of at most `rows` windows of similar lengths, so that little of a batch is padding."""
    windows = _windows(documents_ids, length)
    while group := list(itertools.islice(windows, 64 * rows)):
        group.sort(key=len, reverse=True)
        yield from (group[i : i + rows] for i in range(0, len(group), rows))


def _windows(documents_ids: Iterable[np.ndarray], length: int) -> Iterator[np.ndarray]:
    """Pieces of up to length + 1 ids; the last id of one is the first of the next."""
    for ids in documents_ids:
        for start in range(0, len(ids) - 1, length):
            yield ids[start : start + length + 1]
