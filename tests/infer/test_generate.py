"""Generation: with and without a cache, alone and together, the same replies; every way to end."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from groundup.config import UserError
from groundup.infer.config import SamplingConfig
from groundup.infer.generate import (
    PlainReader,
    Reader,
    complete,
    complete_many,
    generate,
)
from groundup.models.config import DecoderConfig
from groundup.models.decoder import Decoder
from groundup.models.presets import gpt2, llama, qwen3
from groundup.text.config import TokenizerConfig
from groundup.text.tokenizer import BPETokenizer, Tokenizer
from groundup.text.train import train_tokenizer
from groundup.text.vocabulary import ALL_BYTES, Vocabulary

PRESETS = {
    "gpt2": lambda: gpt2(vocab_size=263, width=20, num_layers=2, num_heads=4, context_length=26),
    "llama": lambda: llama(
        vocab_size=263, width=24, num_layers=1, num_heads=6, num_kv_heads=1, context_length=31
    ),
    "qwen3": lambda: qwen3(
        vocab_size=271,  # padded beyond the tokenizer's 263 ids
        width=24,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_width=10,
        context_length=28,
    ),
}
GREEDY = SamplingConfig(temperature=0.0, max_tokens=19)
NOISY = SamplingConfig(temperature=1.3, top_p=0.9, max_tokens=19, seed=4)


@pytest.fixture(scope="module")
def bytes_tokenizer() -> Tokenizer:
    return train_tokenizer(TokenizerConfig(kind="byte", vocab_size=263), [])


@pytest.fixture(params=PRESETS)
def model(request: pytest.FixtureRequest) -> Decoder:
    return random_model(PRESETS[request.param]())


def random_model(config: DecoderConfig) -> Decoder:
    """Weights large enough for decided predictions, so that rounding does not choose the token."""
    model = Decoder(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    return model


class Script:
    """A reader that predicts given ids one after another, and records what it was shown."""

    def __init__(self, ids: Sequence[int], vocab_size: int = 263) -> None:
        self.ids, self.vocab_size = list(ids), vocab_size
        self.shown: list[list[list[int]]] = []

    def next_logits(self, rows: Sequence[Sequence[int]]) -> Tensor:
        self.shown.append([list(row) for row in rows])
        logits = torch.zeros(len(rows), self.vocab_size)
        logits[:, self.ids[len(self.shown) - 1]] = 50.0
        return logits


def spell(
    model: Decoder, tokenizer: Tokenizer, text: str | bytes, stop: tuple[str, ...] = ()
) -> list[tuple[str, str | None]]:
    """Pieces of a reply whose every token is one byte of `text`."""
    data = text.encode() if isinstance(text, str) else text
    config = dataclasses.replace(GREEDY, stop=stop, max_tokens=len(data))
    pieces = generate(model, tokenizer, [1], config, reader=Script(list(data)))
    return [(piece.text, piece.stop_reason) for piece in pieces]


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


def test_logprobs_are_the_models_own(model, bytes_tokenizer) -> None:
    prompt = [72, 105]
    reply = complete(model, bytes_tokenizer, prompt, NOISY, ())
    ids = torch.tensor([prompt + reply.ids])
    with torch.no_grad():
        logits = model(ids[:, :-1])[:, 1:, : bytes_tokenizer.vocab_size]
    expected = logits.log_softmax(-1).gather(-1, ids[:, 2:, None]).flatten()
    torch.testing.assert_close(torch.tensor(reply.logprobs), expected, atol=1e-4, rtol=1e-4)


def test_padded_ids_are_never_chosen(bytes_tokenizer) -> None:
    model = random_model(PRESETS["qwen3"]())
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


def test_samples_read_the_prompt_once(bytes_tokenizer, model) -> None:
    script = Script([65, 66, 67])
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


def test_an_empty_prompt_starts_from_bos(model, bytes_tokenizer) -> None:
    script = Script([65])
    complete(model, bytes_tokenizer, [], dataclasses.replace(GREEDY, max_tokens=1), reader=script)
    assert script.shown == [[[bytes_tokenizer.special["<|bos|>"]]]]


@pytest.mark.parametrize("name", ["<|end|>", "<|bos|>"])
def test_stop_ids_end_a_reply_and_are_not_text(model, bytes_tokenizer, name) -> None:
    special = bytes_tokenizer.special[name]
    reader = Script([72, 105, special])
    reply = complete(model, bytes_tokenizer, [1], GREEDY, reader=reader)
    assert (reply.text, reply.stop_reason) == ("Hi", "stop")
    assert reply.ids == [72, 105, special]
    assert len(reply.logprobs) == 3


def test_other_special_tokens_are_not_text_either(model, bytes_tokenizer) -> None:
    reader = Script([72, bytes_tokenizer.special["<|user|>"], 105])
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


def test_what_is_in_view_when_the_context_overflows(bytes_tokenizer) -> None:
    """The newest half of the window, begun by <|bos|> if the prompt was."""
    config = dataclasses.replace(PRESETS["gpt2"](), context_length=6)
    model, bos = Decoder(config), bytes_tokenizer.special["<|bos|>"]
    script = Script([3, 4, 5, 6, 7, 8, 9])
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
def test_tiny_contexts_still_slide(bytes_tokenizer, context) -> None:
    model = random_model(dataclasses.replace(PRESETS["llama"](), context_length=context))
    bos = bytes_tokenizer.special["<|bos|>"]
    for prompt in ([], [65], [bos, 65, 66, 67, 68]):
        assert len(complete(model, bytes_tokenizer, prompt, NOISY, ()).ids) == 19


@pytest.mark.parametrize("text", ["naïve 🙂 日本語 👩‍👩‍👧 ok", "é", "🙂"])
def test_streams_show_whole_characters_only(model, bytes_tokenizer, text) -> None:
    pieces = spell(model, bytes_tokenizer, text)
    assert "".join(piece for piece, _ in pieces) == text
    assert all("\ufffd" not in piece for piece, _ in pieces)
    assert len(pieces) == len(text.encode())


def test_a_character_cut_by_the_end_is_left_out(model, bytes_tokenizer) -> None:
    assert (
        "".join(piece for piece, _ in spell(model, bytes_tokenizer, "ab🙂".encode()[:-1])) == "ab"
    )


def test_bytes_that_are_no_utf8_become_replacement_characters(model, bytes_tokenizer) -> None:
    pieces = spell(model, bytes_tokenizer, b"a\xff\xc3b")
    assert "".join(piece for piece, _ in pieces) == "a\ufffd\ufffdb"


def test_stop_strings_across_tokens_are_never_shown(model, bytes_tokenizer) -> None:
    pieces = spell(model, bytes_tokenizer, "one\nUser: two", stop=("\nUser:",))
    assert pieces[-1] == ("", "stop")
    assert [text for text, _ in pieces] == ["o", "n", "e", "", "", "", "", "", ""]


def test_what_only_looked_like_a_stop_string_is_shown_in_the_end(model, bytes_tokenizer) -> None:
    pieces = spell(model, bytes_tokenizer, "a\nUse", stop=("\nUser:",))
    assert pieces[-1] == ("\nUse", "length")
    pieces = spell(model, bytes_tokenizer, "aab!", stop=("ab?", "aab?"))
    assert "".join(text for text, _ in pieces) == "aab!"


def test_the_stop_string_that_is_complete_first_wins(model, bytes_tokenizer) -> None:
    pieces = spell(model, bytes_tokenizer, "xabcd", stop=("abcd", "bc"))
    assert "".join(text for text, _ in pieces) == "xa"
    assert pieces[-1][1] == "stop"


def test_a_stop_string_may_be_an_emoji(model, bytes_tokenizer) -> None:
    pieces = spell(model, bytes_tokenizer, "hi 🙂 there", stop=("🙂",))
    assert "".join(text for text, _ in pieces) == "hi "


def test_broken_weights_are_reported(model, bytes_tokenizer) -> None:
    with torch.no_grad():
        model.final_norm.weight.fill_(torch.nan)
    for config in (GREEDY, NOISY):
        with pytest.raises(UserError, match="not finite"):
            complete(model, bytes_tokenizer, [65], config)


def test_training_goes_on_after_generation(bytes_tokenizer) -> None:
    model = Decoder(dataclasses.replace(PRESETS["gpt2"](), embedding_dropout=0.5)).train()
    greedy = complete(model, bytes_tokenizer, [65], GREEDY, ())
    assert model.training
    assert complete(model.eval(), bytes_tokenizer, [65], GREEDY, ()).ids == greedy.ids
    pieces = generate(model.train(), bytes_tokenizer, [65], GREEDY, ())
    next(pieces)
    assert not model.training and torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    pieces.close()  # type: ignore[attr-defined]
    assert model.training


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


@pytest.mark.parametrize("kind", ["bpe", "char", "word", "byte"])
def test_every_tokenizer_streams_what_it_decodes(kind) -> None:
    text = "the naïve 🙂 cat sat on the mat, the cat sat — 日本語 and the cat sat again " * 4
    tokenizer = train_tokenizer(TokenizerConfig(kind=kind, vocab_size=290), [text])
    model = random_model(dataclasses.replace(PRESETS["llama"](), vocab_size=tokenizer.vocab_size))
    ids = tokenizer.encode(text)[:90]
    config = dataclasses.replace(GREEDY, max_tokens=len(ids))
    reader = Script(ids, tokenizer.vocab_size)
    reply = complete(model, tokenizer, [], config, (), reader=reader)
    assert reply.text == tokenizer.decode(ids).removesuffix("\ufffd")
    assert reply.text


def test_a_tokenizer_without_bos_needs_a_prompt() -> None:
    tokenizer = BPETokenizer(Vocabulary("bpe", r"\S+|\s+", ALL_BYTES))
    model = random_model(
        llama(vocab_size=256, width=12, num_layers=1, num_heads=2, context_length=8)
    )
    with pytest.raises(UserError, match=r"no <\|bos\|> to start from"):
        complete(model, tokenizer, [], GREEDY)
    assert len(complete(model, tokenizer, [65], GREEDY).ids) == GREEDY.max_tokens
