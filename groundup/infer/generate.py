"""Reference generation: one prompt, one or several replies, token by token with a key/value cache.

Every step asks a reader for the logits after the tokens so far and picks the next token. `Reader`
keeps keys and values and reads only what is new; `PlainReader` reads everything again each time,
and both give the same replies.

When the context window is full, `overflow="slide"` goes on with the newest half of the window (and
<|bos|>, where the prompt began with it), read afresh from position 0: half a window at a time, so
that the cost per token stays constant. `overflow="stop"` ends the reply with reason "context".
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from torch import Tensor, nn

from groundup.config import UserError
from groundup.infer.config import SamplingConfig, StopReason
from groundup.infer.sampling import next_tokens, uniform
from groundup.infer.stream import TextStream
from groundup.text.tokenizer import opening

if TYPE_CHECKING:
    from groundup.text.tokenizer import Tokenizer

Overflow = Literal["slide", "stop"]


class CachedModel(Protocol):
    """What generation asks of a model.

    A `Decoder` is one, a recurrent model, an encoder-decoder whose source is settled, and a
    vision-language model whose image is: see their method `given`.
    """

    config: Any
    """Of which context_length is read."""

    def __call__(self, ids: Tensor, /) -> Tensor: ...

    def hidden(self, ids: Tensor, *, cache: Any = None) -> Tensor: ...

    def logits(self, hidden: Tensor) -> Tensor: ...

    def new_cache(self, batch: int, capacity: int) -> Any: ...


@dataclass(frozen=True, slots=True)
class Piece:
    """One token of a reply as it comes. `text` is what has become certain: "" while held back."""

    id: int
    text: str
    logprob: float
    """The model's own log-probability in nats, before penalties, temperature and filters."""
    stop_reason: StopReason | None = None
    """Set on the last piece."""


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole reply. `ids` and `logprobs` include the stop token, `text` does not."""

    text: str
    ids: list[int]
    logprobs: list[float]
    stop_reason: StopReason


def generate(
    model: CachedModel,
    tokenizer: Tokenizer,
    prompt_ids: Sequence[int],
    config: SamplingConfig,
    stop_ids: Collection[int] | None = None,
    *,
    overflow: Overflow = "slide",
    reader: LogitsReader | None = None,
) -> Iterator[Piece]:
    """Stream one reply to `prompt_ids`; an empty prompt starts from <|bos|>.

    `stop_ids` defaults to <|end|> and <|bos|>. A `reader` kept from an earlier call reads only what
    differs from what it has read. The model is in eval mode until the iterator is exhausted or
    closed. Raises UserError when the prompt does not fit and `overflow` is "stop".
    """
    for (piece,) in _replies(
        model, tokenizer, prompt_ids, config, stop_ids, 1, overflow=overflow, reader=reader
    ):
        assert piece is not None
        yield piece


def complete(
    model: CachedModel,
    tokenizer: Tokenizer,
    prompt_ids: Sequence[int],
    config: SamplingConfig,
    stop_ids: Collection[int] | None = None,
    *,
    overflow: Overflow = "slide",
    reader: LogitsReader | None = None,
) -> Completion:
    """The whole reply at once; the arguments are those of `generate`."""
    pieces = generate(
        model, tokenizer, prompt_ids, config, stop_ids, overflow=overflow, reader=reader
    )
    return _join(list(pieces))


def complete_many(
    model: CachedModel,
    tokenizer: Tokenizer,
    prompt_ids: Sequence[int],
    config: SamplingConfig,
    samples: int,
    stop_ids: Collection[int] | None = None,
    *,
    overflow: Overflow = "slide",
    reader: LogitsReader | None = None,
) -> list[Completion]:
    """Several replies to one prompt, which is read once. Reply i is that of `seed + i` alone."""
    if samples < 1:
        raise UserError(f"samples is {samples}, but must be 1 or more.")
    replies: list[list[Piece]] = [[] for _ in range(samples)]
    for step in _replies(
        model, tokenizer, prompt_ids, config, stop_ids, samples, overflow=overflow, reader=reader
    ):
        for reply, piece in zip(replies, step, strict=True):
            if piece is not None:
                reply.append(piece)
    return [_join(reply) for reply in replies]


class LogitsReader(Protocol):
    """Anything that predicts the next token."""

    def next_logits(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """N rows of equally many ids -> (N, V) logits of the token after each."""
        ...


class Reader:
    """Predicts with a key/value cache: tokens that begin the rows as last time are not read again.

    One row may be followed by several that begin alike: its cache is copied for each of them.
    """

    def __init__(self, model: CachedModel, capacity: int, chunk: int = 512) -> None:
        """`capacity` in tokens; long prompts are read `chunk` tokens at a time to save memory."""
        self._model, self._capacity, self._chunk = model, capacity, chunk
        self._rows: list[list[int]] = []  # what the cache holds
        self._cache: Any = None

    @torch.inference_mode()
    def next_logits(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """N rows of equally many ids -> (N, V) logits of the token after each."""
        cache = self._cache_for(len(rows))
        known = min(common_prefix(*pair) for pair in zip(self._rows, rows, strict=True))
        known = min(known, len(rows[0]) - 1)  # the last token is read again: it gives the logits
        known = cache.reachable(known)
        # Set before the model runs: an interrupt halfway leaves only tokens that are in the cache.
        self._rows = [row[:known] for row in self._rows]
        cache.truncate(known)
        new = torch.tensor([row[known:] for row in rows], device=device_of(self._model))
        *earlier, last = new.split(self._chunk, dim=1)
        for ids in earlier:
            self._model.hidden(ids, cache=cache)
        hidden = self._model.hidden(last, cache=cache)
        self._rows = [list(row) for row in rows]
        return self._model.logits(hidden[:, -1])  # the head runs for one position, not for all

    def _cache_for(self, batch: int) -> Any:
        if self._cache is None or len(self._rows) not in (1, batch):
            self._cache = self._model.new_cache(batch, self._capacity)
            self._rows = [[] for _ in range(batch)]
        elif len(self._rows) != batch:
            self._cache = self._cache.expand(batch)
            self._rows = self._rows * batch
        return self._cache


class PlainReader:
    """Predicts by reading the whole rows every time: the reference for `Reader`."""

    def __init__(self, model: CachedModel) -> None:
        self._model = model

    @torch.inference_mode()
    def next_logits(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """N rows of equally many ids -> (N, V) logits of the token after each."""
        return self._model(torch.tensor(rows, device=device_of(self._model)))[:, -1]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Dropout off inside the block; afterwards the model trains again if it did before."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        if was_training:
            model.train()


def default_stop_ids(tokenizer: Tokenizer) -> frozenset[int]:
    """<|end|> closes a turn, <|bos|> begins another document, </s> ends one of T5's."""
    names = ("<|end|>", "<|bos|>", "</s>")  # a tokenizer made elsewhere may lack them
    return frozenset(tokenizer.special[name] for name in names if name in tokenizer.special)


def _replies(
    model: CachedModel,
    tokenizer: Tokenizer,
    prompt_ids: Sequence[int],
    config: SamplingConfig,
    stop_ids: Collection[int] | None,
    samples: int,
    *,
    overflow: Overflow,
    reader: LogitsReader | None,
) -> Iterator[list[Piece | None]]:
    """One step an item: the next piece of each reply, None for those that have ended."""
    prompt, context = _prompt(prompt_ids, tokenizer), model.config.context_length
    room = context - len(prompt) + 1  # the token after a full window can still be predicted
    if overflow == "stop" and room < 1:
        raise UserError(f"The prompt has {len(prompt)} tokens, but the context window {context}.")
    reader = reader or Reader(model, min(context, len(prompt) + config.max_tokens))
    seed = secrets.randbits(63) if config.seed is None else config.seed
    if stop_ids is None:
        stop_ids = default_stop_ids(tokenizer)
    window = _Window(context, prompt[:1] == opening(tokenizer))
    replies = [_Reply(prompt, tokenizer, config.stop, seed + i) for i in range(samples)]
    with evaluating(as_module(model)):
        for count in range(1, config.max_tokens + 1):
            rows = [reply.row for reply in replies]
            # All rows are the prompt at first: it is read once, for all of them.
            logits = reader.next_logits(window.visible(rows[:1] if count == 1 else rows))
            noise = [uniform(reply.seed, len(reply.row)) for reply in replies]
            chosen = _choose(logits[:, : tokenizer.vocab_size], rows, config, noise, len(prompt))
            last: StopReason | None = "length" if count == config.max_tokens else None
            if overflow == "stop" and count == room:
                last = last or "context"
            steps = zip(replies, *chosen, strict=True)
            yield [reply.add(id, logprob, stop_ids, last) for reply, id, logprob in steps]
            if all(reply.ended for reply in replies):
                return


def _prompt(ids: Sequence[int], tokenizer: Tokenizer) -> list[int]:
    if ids:
        return list(ids)
    if not opening(tokenizer):
        raise UserError("The prompt is empty, and this tokenizer has no <|bos|> to start from.")
    return opening(tokenizer)


class _Window:
    """What of the rows the model sees: all until the context is full, then the newest half."""

    def __init__(self, context: int, keep_first: bool) -> None:
        self._context = context
        self._keep = max(1, context // 2)
        self._head = 1 if keep_first and self._keep > 1 else 0
        self._start = 0

    def visible(self, rows: Sequence[list[int]]) -> list[list[int]]:
        length = len(rows[0])
        head = self._head if self._start else 0
        if head + length - self._start > self._context:
            head = self._head
            self._start = length - self._keep + head
        return [row[:head] + row[self._start :] for row in rows]


class _Reply:
    """One reply as it is written: the ids so far, prompt first, and their text."""

    def __init__(
        self, prompt: Sequence[int], tokenizer: Tokenizer, stop: Sequence[str], seed: int
    ) -> None:
        self.row, self.seed, self.ended = list(prompt), seed, False
        self._stream = TextStream(tokenizer, stop)

    def add(
        self, id: int, logprob: float, stop_ids: Collection[int], last: StopReason | None
    ) -> Piece | None:
        """The token as a piece, None after the end; `last` is why to end even without a stop."""
        self.row.append(id)  # ended or not: rows stay equally long
        if self.ended:
            return None
        text = "" if id in stop_ids else self._stream.push(id)
        reason = "stop" if id in stop_ids or self._stream.stopped else last
        self.ended = reason is not None
        return Piece(id, text + (self._stream.finish() if self.ended else ""), logprob, reason)


@torch.inference_mode()
def _choose(
    logits: Tensor,
    rows: Sequence[Sequence[int]],
    config: SamplingConfig,
    noise: Sequence[float],
    prompt_length: int,
) -> tuple[list[int], list[float]]:
    """(1 or N, V) logits -> the next id of each of N rows, and its log-probability."""
    logits = logits.float().expand(len(rows), -1)
    logprobs = logits.log_softmax(-1)
    if logprobs[:, 0].isnan().any():  # one number that is not finite spoils its whole row
        raise UserError("The model's logits are not finite: its weights are damaged or diverged.")
    ids = next_tokens(logits, rows, config, noise, prompt_length)
    return ids.tolist(), logprobs.gather(-1, ids[:, None]).squeeze(-1).tolist()


def _join(pieces: Sequence[Piece]) -> Completion:
    reason = pieces[-1].stop_reason
    assert reason is not None
    return Completion(
        "".join(piece.text for piece in pieces),
        [piece.id for piece in pieces],
        [piece.logprob for piece in pieces],
        reason,
    )


def common_prefix(first: Sequence[int], second: Sequence[int]) -> int:
    """How many ids two rows begin with alike."""
    if second[: len(first)] == first:  # the usual case, at the speed of C
        return len(first)
    differing = (i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b)
    return next(differing, min(len(first), len(second)))


def as_module(model: CachedModel) -> nn.Module:
    """The model as what it is to torch."""
    assert isinstance(model, nn.Module)
    return model


def device_of(model: CachedModel) -> torch.device:
    """Where its weights are."""
    return next(as_module(model).parameters()).device
