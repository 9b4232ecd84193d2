"""Readers: with a cache and without, the same predictions; only what is new is read."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from groundup.infer.config import SamplingConfig
from groundup.infer.generate import PlainReader, Reader, complete

GREEDY = SamplingConfig(temperature=0.0, max_tokens=19)
NOISY = SamplingConfig(temperature=1.3, top_p=0.9, max_tokens=19, seed=4)


@pytest.mark.parametrize("config", [GREEDY, NOISY], ids=["greedy", "sampled"])
@pytest.mark.parametrize("prompt_length", [1, 7])
def test_cached_equals_uncached(model, bytes_tokenizer, config, prompt_length) -> None:
    prompt = torch.randint(0, 256, (prompt_length,)).tolist()
    cached = complete(model, bytes_tokenizer, prompt, config, ())
    plain = complete(model, bytes_tokenizer, prompt, config, (), reader=PlainReader(model))
    assert cached.ids == plain.ids
    assert len(set(cached.ids)) > 1
    assert cached.logprobs == pytest.approx(plain.logprobs, abs=1e-4)


@pytest.mark.parametrize("begins_with_bos", [False, True])
def test_sliding_past_the_context_is_the_same_with_a_cache(
    model, bytes_tokenizer, begins_with_bos
) -> None:
    context = model.config.context_length
    prompt = [bytes_tokenizer.special["<|bos|>"] if begins_with_bos else 65, 66, 67]
    config = dataclasses.replace(NOISY, max_tokens=3 * context)
    cached = complete(model, bytes_tokenizer, prompt, config, ())
    plain = complete(model, bytes_tokenizer, prompt, config, (), reader=PlainReader(model))
    assert len(cached.ids) == 3 * context
    assert cached.ids == plain.ids
    assert cached.stop_reason == "length"


def test_a_reader_reads_only_what_differs(model, bytes_tokenizer) -> None:
    read: list[int] = []
    hidden = model.hidden

    def counting(ids: Tensor, **arguments) -> Tensor:
        read.append(ids.shape[1])
        return hidden(ids, **arguments)

    model.hidden = counting
    reader, plain = Reader(model, model.config.context_length, chunk=4), PlainReader(model)
    for row, expected in [
        ([1, 2, 3, 4, 5, 6, 7], [4, 3]),  # in chunks
        ([1, 2, 3, 4, 5, 6, 7, 8], [1]),
        ([1, 2, 3, 9], [1]),
        ([1, 2, 3, 9], [1]),  # the last token is read for its logits
        ([1, 2], [1]),
        ([5, 2, 3], [3]),
    ]:
        read.clear()
        logits = reader.next_logits([row])
        assert read == expected
        torch.testing.assert_close(logits, plain.next_logits([row]), atol=1e-4, rtol=1e-4)


def test_a_reader_survives_an_interrupt_between_layers(model) -> None:
    reader, plain = Reader(model, model.config.context_length), PlainReader(model)
    reader.next_logits([[1, 2, 3]])
    last = model.blocks[-1]
    handle = last.register_forward_pre_hook(_interrupt)
    with pytest.raises(KeyboardInterrupt):
        reader.next_logits([[1, 2, 3, 4, 5]])
    handle.remove()
    logits = reader.next_logits([[1, 2, 3, 6, 7, 8]])
    torch.testing.assert_close(
        logits, plain.next_logits([[1, 2, 3, 6, 7, 8]]), atol=1e-4, rtol=1e-4
    )


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
