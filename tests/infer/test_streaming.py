"""The text of a reply as it streams: whole characters, and nothing of a stop string."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from groundup.infer.config import SamplingConfig
from groundup.infer.generate import complete, generate
from groundup.text.config import TokenizerConfig
from groundup.text.train import train_tokenizer

GREEDY = SamplingConfig(temperature=0.0, max_tokens=19)


@pytest.fixture
def spell(model, bytes_tokenizer, scripted) -> Callable[..., list[tuple[str, str | None]]]:
    """`spell(text, stop=…)`: pieces of a reply whose every token is one byte of `text`."""

    def pieces(text: str | bytes, stop: tuple[str, ...] = ()) -> list[tuple[str, str | None]]:
        data = text.encode() if isinstance(text, str) else text
        config = dataclasses.replace(GREEDY, stop=stop, max_tokens=len(data))
        reader = scripted(list(data))
        reply = generate(model, bytes_tokenizer, [1], config, reader=reader)
        return [(piece.text, piece.stop_reason) for piece in reply]

    return pieces


@pytest.mark.parametrize("text", ["naïve 🙂 日本語 👩‍👩‍👧 ok", "é", "🙂"])
def test_streams_show_whole_characters_only(spell, text) -> None:
    pieces = spell(text)
    assert "".join(piece for piece, _ in pieces) == text
    assert all("\ufffd" not in piece for piece, _ in pieces)
    assert len(pieces) == len(text.encode())


def test_a_character_cut_by_the_end_is_left_out(spell) -> None:
    assert "".join(piece for piece, _ in spell("ab🙂".encode()[:-1])) == "ab"


def test_bytes_that_are_no_utf8_become_replacement_characters(spell) -> None:
    pieces = spell(b"a\xff\xc3b")
    assert "".join(piece for piece, _ in pieces) == "a\ufffd\ufffdb"


def test_stop_strings_across_tokens_are_never_shown(spell) -> None:
    pieces = spell("one\nUser: two", stop=("\nUser:",))
    assert pieces[-1] == ("", "stop")
    assert [text for text, _ in pieces] == ["o", "n", "e", "", "", "", "", "", ""]


def test_what_only_looked_like_a_stop_string_is_shown_in_the_end(spell) -> None:
    pieces = spell("a\nUse", stop=("\nUser:",))
    assert pieces[-1] == ("\nUse", "length")
    pieces = spell("aab!", stop=("ab?", "aab?"))
    assert "".join(text for text, _ in pieces) == "aab!"


def test_the_stop_string_that_is_complete_first_wins(spell) -> None:
    pieces = spell("xabcd", stop=("abcd", "bc"))
    assert "".join(text for text, _ in pieces) == "xa"
    assert pieces[-1][1] == "stop"


def test_a_stop_string_may_be_an_emoji(spell) -> None:
    pieces = spell("hi 🙂 there", stop=("🙂",))
    assert "".join(text for text, _ in pieces) == "hi "


@pytest.mark.parametrize("kind", ["bpe", "char", "word", "byte"])
def test_every_tokenizer_streams_what_it_decodes(kind, make_model, scripted) -> None:
    text = "the naïve 🙂 cat sat on the mat, the cat sat — 日本語 and the cat sat again " * 4
    tokenizer = train_tokenizer(TokenizerConfig(kind=kind, vocab_size=290), [text])
    model = make_model("llama", vocab_size=tokenizer.vocab_size)
    ids = tokenizer.encode(text)[:90]
    config = dataclasses.replace(GREEDY, max_tokens=len(ids))
    reader = scripted(ids, tokenizer.vocab_size)
    reply = complete(model, tokenizer, [], config, (), reader=reader)
    assert reply.text == tokenizer.decode(ids).removesuffix("\ufffd")
    assert reply.text
