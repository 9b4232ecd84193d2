"""Beam search: exact where it keeps everything, greedy with one beam, the same with a cache."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from groundup.config import UserError
from groundup.infer.beam import beam_search, greedy_batch, length_penalty
from groundup.infer.config import SamplingConfig
from groundup.infer.generate import PlainReader, complete, complete_many
from groundup.models.decoder import Decoder
from groundup.models.encoder_decoder import EncoderDecoder, GivenSource
from groundup.models.encoder_decoder_config import t5, transformer
from groundup.models.presets import gpt2, qwen3

VOCABULARY, STOP, LONGEST = 5, 3, 4
SHAPE: dict[str, Any] = {"vocab_size": VOCABULARY, "width": 24, "num_layers": 2, "num_heads": 2}
PRESETS = {"qwen3": qwen3, "gpt2": gpt2, "t5": t5, "transformer": transformer}


@pytest.fixture(params=PRESETS)
def model(request: pytest.FixtureRequest) -> Decoder | GivenSource:
    config = PRESETS[request.param](**SHAPE, context_length=16)
    family = Decoder if request.param in ("qwen3", "gpt2") else EncoderDecoder
    model = family(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    if isinstance(model, EncoderDecoder):
        return model.eval().given(torch.randint(0, VOCABULARY, (1, 7)))
    return model.eval()


@torch.no_grad()
def brute_force(model: Decoder | GivenSource, prompt: list[int], alpha: float) -> list[tuple]:
    """Every reply there is, scored by reading it whole."""
    others = [id for id in range(VOCABULARY) if id != STOP]
    replies = [
        [*start, STOP] for n in range(LONGEST) for start in itertools.product(others, repeat=n)
    ]
    replies += [list(reply) for reply in itertools.product(others, repeat=LONGEST)]
    scored = []
    for reply in replies:
        logprobs = model(torch.tensor([[*prompt, *reply[:-1]]]))[0].log_softmax(-1)
        total = sum(logprobs[len(prompt) - 1 + i, id].item() for i, id in enumerate(reply))
        scored.append((total / length_penalty(len(reply), alpha), reply))
    return sorted(scored, reverse=True)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
@pytest.mark.parametrize("cached", [True, False])
def test_with_enough_beams_it_is_brute_force(model, alpha: float, cached: bool) -> None:
    expected = brute_force(model, [1, 2], alpha)
    found = beam_search(
        model, [1, 2], beams=VOCABULARY**LONGEST, max_tokens=LONGEST, stop_ids={STOP},
        alpha=alpha, cached=cached,
    )  # fmt: skip
    assert len(found) == len(expected)
    assert [reply.ids for reply in found[:9]] == [ids for _, ids in expected[:9]]
    scores = torch.tensor([reply.score for reply in found])
    torch.testing.assert_close(scores, torch.tensor([s for s, _ in expected]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("beams", [1, 2, 3])
def test_the_cache_changes_nothing_and_more_beams_find_no_worse(model, beams: int) -> None:
    settings = {"max_tokens": 9, "stop_ids": {STOP}}
    found = beam_search(model, [1], beams=beams, **settings)
    plain = beam_search(model, [1], beams=beams, **settings, cached=False)
    assert [reply.ids for reply in found] == [reply.ids for reply in plain]
    assert len(found) == beams
    assert len({tuple(reply.ids) for reply in found}) == beams


def test_ids_beyond_the_tokenizers_are_never_chosen(model) -> None:
    found = beam_search(model, [1], beams=4, max_tokens=5, vocab_size=3)
    assert max(id for reply in found for id in reply.ids) < 3
    free = beam_search(model, [1], beams=4, max_tokens=5)
    assert free[0].logprob >= found[0].logprob


def test_one_beam_is_greedy_search(model) -> None:
    (best,) = beam_search(model, [1], beams=1, max_tokens=8)
    ids = [1]
    with torch.no_grad():
        for _ in range(8):
            ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    assert best.ids == ids[1:]
    assert greedy_batch(model, [[1]], max_tokens=8) == [ids[1:]]


def test_a_batch_of_sources_is_answered_at_once() -> None:
    model = EncoderDecoder(t5(**SHAPE, context_length=16)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    sources = torch.randint(0, VOCABULARY, (3, 7))
    visible = torch.arange(7) < torch.tensor([[7], [4], [1]])
    given = model.given(sources, visible)
    found = greedy_batch(given, [[0]] * 3, max_tokens=6, stop_ids={STOP})
    for row, length in enumerate((7, 4, 1)):
        alone = model.given(sources[row : row + 1, :length])
        assert [found[row]] == greedy_batch(alone, [[0]], max_tokens=6, stop_ids={STOP})


def test_length_penalty_favours_longer_replies(model) -> None:
    settings = {"beams": 40, "max_tokens": 6, "stop_ids": {STOP}}
    plain, long = (beam_search(model, [1], **settings, alpha=a)[0] for a in (0.0, 3.0))
    assert len(long.ids) >= len(plain.ids)
    assert length_penalty(7, 0.0) == 1 and length_penalty(7, 1.0) == 2


def test_mistakes_are_named(model) -> None:
    with pytest.raises(UserError, match="beams"):
        beam_search(model, [1], beams=0, max_tokens=3)
    with pytest.raises(UserError, match="empty"):
        beam_search(model, [], beams=1, max_tokens=3)
    with pytest.raises(UserError, match="context_length is 16"):
        beam_search(model, [1, 2], beams=1, max_tokens=16)
    with pytest.raises(UserError, match="equally long"):
        greedy_batch(model, [[1], [1, 2]], max_tokens=3)


@pytest.mark.parametrize("family", [t5, transformer])
def test_an_encoder_decoder_streams_like_a_decoder(family, tiny_tokenizer) -> None:
    shape = SHAPE | {"vocab_size": tiny_tokenizer.vocab_size}
    model = EncoderDecoder(family(**shape, context_length=32)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    given: Any = model.given(torch.randint(0, 300, (1, 9)))
    sampling = SamplingConfig(temperature=0.0, max_tokens=12)
    reply = complete(given, tiny_tokenizer, [0], sampling, stop_ids=())
    plain = complete(given, tiny_tokenizer, [0], sampling, stop_ids=(), reader=PlainReader(given))
    assert reply.ids == plain.ids == greedy_batch(given, [[0]], max_tokens=12)[0]
    several = complete_many(given, tiny_tokenizer, [0], SamplingConfig(seed=3, max_tokens=5), 3, ())
    assert len({tuple(one.ids) for one in several}) > 1
