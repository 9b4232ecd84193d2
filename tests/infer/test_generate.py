"""Generation: with and without a cache, alone and together, the same replies; every way to end."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from groundup.config import UserError
from groundup.infer.config import SamplingConfig
from groundup.infer.generate import complete, complete_many, generate
from groundup.text.tokenizer import BPETokenizer
from groundup.text.vocabulary import ALL_BYTES, Vocabulary

GREEDY = SamplingConfig(temperature=0.0, max_tokens=19)
NOISY = SamplingConfig(temperature=1.3, top_p=0.9, max_tokens=19, seed=4)


def test_logprobs_are_the_models_own(model, bytes_tokenizer) -> None:
    prompt = [72, 105]
    reply = complete(model, bytes_tokenizer, prompt, NOISY, ())
    ids = torch.tensor([prompt + reply.ids])
    with torch.no_grad():
        logits = model(ids[:, :-1])[:, 1:, : bytes_tokenizer.vocab_size]
    expected = logits.log_softmax(-1).gather(-1, ids[:, 2:, None]).flatten()
    torch.testing.assert_close(torch.tensor(reply.logprobs), expected, atol=1e-4, rtol=1e-4)


def test_padded_ids_are_never_chosen(bytes_tokenizer, make_model) -> None:
    model = make_model("qwen3")
    config = dataclasses.replace(NOISY, temperature=50.0, top_p=1.0, max_tokens=200)
    reply = complete(model, bytes_tokenizer, [], config, ())
    assert max(reply.ids) < bytes_tokenizer.vocab_size < model.config.vocab_size


def test_samples_are_those_of_single_replies(model, bytes_tokenizer) -> None:
    end = bytes_tokenizer.special["<|end|>"]
    stop_ids = {end, *range(0, 60)}  # so that the replies end at different lengths
    config = dataclasses.replace(NOISY, max_tokens=40, no_repeat_ngram=3, frequency_penalty=0.2)
    together = complete_many(model, bytes_tokenizer, [80, 81], config, 5, stop_ids)
    alone = [
        complete(
            model, bytes_tokenizer, [80, 81], dataclasses.replace(config, seed=4 + i), stop_ids
        )
        for i in range(5)
    ]
    assert [reply.ids for reply in together] == [reply.ids for reply in alone]
    assert [reply.text for reply in together] == [reply.text for reply in alone]
    assert [reply.stop_reason for reply in together] == [reply.stop_reason for reply in alone]
    assert len({len(reply.ids) for reply in together}) > 1


def test_samples_read_the_prompt_once(bytes_tokenizer, model, scripted) -> None:
    script = scripted([65, 66, 67])
    config = dataclasses.replace(GREEDY, max_tokens=3)
    complete_many(model, bytes_tokenizer, [1, 2], config, 4, reader=script)
    assert [len(rows) for rows in script.shown] == [1, 4, 4]


def test_seeds(model, bytes_tokenizer) -> None:
    def reply(seed: int | None) -> list[int]:
        config = dataclasses.replace(NOISY, seed=seed)
        return complete(model, bytes_tokenizer, [65], config, ()).ids

    state = torch.random.get_rng_state()
    assert reply(1) == reply(1) != reply(2)
    assert reply(None) != reply(None)
    assert torch.equal(state, torch.random.get_rng_state())  # nobody else's noise is used up


def test_a_seeded_reply_goes_on_where_it_was_cut(model, bytes_tokenizer) -> None:
    """Noise belongs to the position: reading half of a reply as prompt gives the other half."""
    config = dataclasses.replace(NOISY, max_tokens=12)
    whole = complete(model, bytes_tokenizer, [65, 66], config, ()).ids
    rest = complete(model, bytes_tokenizer, [65, 66, *whole[:5]], config, ()).ids
    assert rest[:7] == whole[5:]


def test_an_empty_prompt_starts_from_bos(model, bytes_tokenizer, scripted) -> None:
    script = scripted([65])
    complete(model, bytes_tokenizer, [], dataclasses.replace(GREEDY, max_tokens=1), reader=script)
    assert script.shown == [[[bytes_tokenizer.special["<|bos|>"]]]]


@pytest.mark.parametrize("name", ["<|end|>", "<|bos|>"])
def test_stop_ids_end_a_reply_and_are_not_text(model, bytes_tokenizer, name, scripted) -> None:
    special = bytes_tokenizer.special[name]
    reader = scripted([72, 105, special])
    reply = complete(model, bytes_tokenizer, [1], GREEDY, reader=reader)
    assert (reply.text, reply.stop_reason) == ("Hi", "stop")
    assert reply.ids == [72, 105, special]
    assert len(reply.logprobs) == 3


def test_other_special_tokens_are_not_text_either(model, bytes_tokenizer, scripted) -> None:
    reader = scripted([72, bytes_tokenizer.special["<|user|>"], 105])
    config = dataclasses.replace(GREEDY, max_tokens=3)
    assert complete(model, bytes_tokenizer, [1], config, reader=reader).text == "Hi"


def test_reasons_length_and_context(model, bytes_tokenizer) -> None:
    context = model.config.context_length
    config = dataclasses.replace(GREEDY, max_tokens=10)
    cut = complete(model, bytes_tokenizer, [65] * (context - 2), config, (), overflow="stop")
    assert (len(cut.ids), cut.stop_reason) == (3, "context")
    last = complete(model, bytes_tokenizer, [65] * context, config, (), overflow="stop")
    assert (len(last.ids), last.stop_reason) == (1, "context")
    assert complete(model, bytes_tokenizer, [65], config, ()).stop_reason == "length"
    with pytest.raises(UserError, match=f"{context + 1} tokens"):
        complete(model, bytes_tokenizer, [65] * (context + 1), config, overflow="stop")


def test_what_is_in_view_when_the_context_overflows(bytes_tokenizer, make_model, scripted) -> None:
    """The newest half of the window, begun by <|bos|> if the prompt was."""
    model, bos = make_model("gpt2", context_length=6), bytes_tokenizer.special["<|bos|>"]
    script = scripted([3, 4, 5, 6, 7, 8, 9])
    sampling = dataclasses.replace(GREEDY, max_tokens=7)
    complete(model, bytes_tokenizer, [bos, 1, 2], sampling, (), reader=script)
    assert [rows[0] for rows in script.shown] == [
        [bos, 1, 2],
        [bos, 1, 2, 3],
        [bos, 1, 2, 3, 4],
        [bos, 1, 2, 3, 4, 5],
        [bos, 5, 6],
        [bos, 5, 6, 7],
        [bos, 5, 6, 7, 8],
    ]


@pytest.mark.parametrize("context", [1, 2, 3])
def test_tiny_contexts_still_slide(bytes_tokenizer, context, make_model) -> None:
    model = make_model("llama", context_length=context)
    bos = bytes_tokenizer.special["<|bos|>"]
    for prompt in ([], [65], [bos, 65, 66, 67, 68]):
        assert len(complete(model, bytes_tokenizer, prompt, NOISY, ()).ids) == 19


def test_broken_weights_are_reported(model, bytes_tokenizer) -> None:
    with torch.no_grad():
        model.final_norm.weight.fill_(torch.nan)
    for config in (GREEDY, NOISY):
        with pytest.raises(UserError, match="not finite"):
            complete(model, bytes_tokenizer, [65], config)


def test_training_goes_on_after_generation(bytes_tokenizer, make_model) -> None:
    model = make_model("gpt2", embedding_dropout=0.5).train()
    greedy = complete(model, bytes_tokenizer, [65], GREEDY, ())
    assert model.training
    assert complete(model.eval(), bytes_tokenizer, [65], GREEDY, ()).ids == greedy.ids
    pieces = generate(model.train(), bytes_tokenizer, [65], GREEDY, ())
    next(pieces)
    assert not model.training and torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    pieces.close()  # type: ignore[attr-defined]
    assert model.training


def test_a_tokenizer_without_bos_needs_a_prompt(make_model) -> None:
    tokenizer = BPETokenizer(Vocabulary("bpe", r"\S+|\s+", ALL_BYTES))
    model = make_model("llama", vocab_size=256, context_length=8)
    with pytest.raises(UserError, match=r"no <\|bos\|> to start from"):
        complete(model, tokenizer, [], GREEDY)
    assert len(complete(model, tokenizer, [65], GREEDY).ids) == GREEDY.max_tokens
