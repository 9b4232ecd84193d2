"""Figures and samples that several stages take from a model: held-out loss, text, a chat."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from groundup.eval.bpb import Score, score_documents
from groundup.infer.config import CHAT_SAMPLING, SamplingConfig
from groundup.infer.generate import complete
from groundup.text.chat import Message, chat_of, render

if TYPE_CHECKING:
    from groundup.data.shards import Shards
    from groundup.models.decoder import Decoder
    from groundup.pipeline.run import Run

WINDOW = 512
"""Tokens per window when held-out documents are scored; less for a model of shorter context."""


def heldout_score(
    run: Run,
    model: Decoder,
    shards: list[Shards],
    max_tokens: int = 0,
    progress: Callable[[float], None] | None = None,
) -> Score:
    """Bits per byte and more over whole held-out documents, shared among the processes.

    `max_tokens` scores an even spread of documents of about that many tokens; 0 scores all.
    `progress` is told about how many tokens all processes have scored.
    """
    total = sum(source.num_tokens for source in shards)
    stride = max(1, round(total / max_tokens)) if max_tokens else 1
    documents: list[np.ndarray] = [
        source.document(i) for source in shards for i in range(0, source.num_documents, stride)
    ]
    own = documents[run.world.rank :: run.world.size]
    length = min(WINDOW, model.config.context_length)
    # A process left without documents still has to join the sum.
    score = Score(0.0, 0, 0)
    if own:
        done = 0

        def count(tokens: int) -> None:
            nonlocal done
            done += tokens
            if progress is not None:
                progress(done * run.world.size)

        score = score_documents(model, run.tokenizer, own, length, run.policy, progress=count)
    nll, tokens, size = run.world.sum([score.nll_nats, score.tokens, score.bytes])
    return Score(nll, int(tokens), int(size))


def heldout_evaluation(run: Run, model: Decoder, max_tokens: int = 0) -> dict[str, float]:
    """The figures of `heldout_score` over all sources, under the names the log uses."""
    score = heldout_score(run, model, run.shards("heldout"), max_tokens)
    return {"val_loss": score.nll_per_token, "val_bpb": score.bpb}


def text_sample(run: Run, model: Decoder, prompt: str = "", max_tokens: int = 80) -> str:
    """The prompt and what the model writes after it, with a fixed seed."""
    ids = [run.tokenizer.special["<|bos|>"], *run.tokenizer.encode(prompt)]
    sampling = SamplingConfig(seed=run.config.seed, max_tokens=max_tokens, top_p=0.95)
    return prompt + complete(model, run.tokenizer, ids, sampling).text


def chat_sample(run: Run, model: Decoder, turns: list[str], max_tokens: int = 80) -> list[Message]:
    """A conversation: the given user turns, each with the model's reply, with a fixed seed."""
    messages: list[Message] = []
    sampling = dataclasses.replace(CHAT_SAMPLING, seed=run.config.seed, max_tokens=max_tokens)
    for turn in turns:
        messages.append({"role": "user", "content": turn})
        ids = render(run.tokenizer, messages, reply=True).ids
        reply = complete(model, run.tokenizer, ids, sampling).text
        reply = reply.removeprefix(chat_of(run.tokenizer).lead)
        messages.append({"role": "assistant", "content": reply})
    return messages
