"""The chat format: ids, mask, template, view, and what a malformed conversation is told."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.config import UserError
from groundup.text.chat import ROLES, Message, colour_view, render
from groundup.text.config import TokenizerConfig
from groundup.text.tokenizer import Tokenizer, from_vocabulary
from groundup.text.train import train_tokenizer
from groundup.text.vocabulary import ALL_BYTES, Vocabulary

TALK: list[Message] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": " 2*3? "},
    {"role": "tool_call", "content": "2*3"},
    {"role": "tool_output", "content": "6"},
    {"role": "assistant", "content": "Six 🙂\n"},
    {"role": "user", "content": ""},
    {"role": "assistant", "content": ""},
]


def test_layout_and_mask(tiny_tokenizer: Tokenizer) -> None:
    rendered = render(tiny_tokenizer, TALK)
    assert len(rendered.ids) == len(rendered.mask)
    assert tiny_tokenizer.decode(rendered.ids, special=True) == (
        "<|bos|><|system|>Be brief.<|end|><|user|> 2*3? <|end|><|tool_call|>2*3<|end|>"
        "<|tool_output|>6<|end|><|assistant|>Six 🙂\n<|end|><|user|><|end|><|assistant|><|end|>"
    )
    trained = [id for id, on in zip(rendered.ids, rendered.mask, strict=True) if on]
    assert tiny_tokenizer.decode(trained, special=True) == "2*3<|end|>Six 🙂\n<|end|><|end|>"


def test_reply_opens_an_untrained_turn(tiny_tokenizer: Tokenizer) -> None:
    closed, opened = render(tiny_tokenizer, TALK), render(tiny_tokenizer, TALK, reply=True)
    assert opened.ids == [*closed.ids, tiny_tokenizer.special["<|assistant|>"]]
    assert opened.mask == [*closed.mask, False]


@settings(deadline=None, max_examples=60, derandomize=True)
@given(content=st.lists(st.sampled_from([*"<|> a\n", "end", "<|end|>", "<|user|>"])).map("".join))
def test_text_never_becomes_a_special_token(tiny_tokenizer: Tokenizer, content: str) -> None:
    rendered = render(tiny_tokenizer, [{"role": "user", "content": content}])
    special = set(tiny_tokenizer.special.values())
    assert sum(id in special for id in rendered.ids) == 3
    assert tiny_tokenizer.decode(rendered.ids) == content


@pytest.mark.parametrize("kind", ["bpe", "char", "word", "byte"])
def test_transformers_renders_the_same_ids(kind: str, tmp_path: Path) -> None:
    words = ["hello", "there,", "how", "are", "you?", "12", "é", "日本", "\n", "", "fine"]
    config = TokenizerConfig(kind=kind, vocab_size=300)  # type: ignore[arg-type]
    tokenizer = train_tokenizer(config, [" ".join(words)] * 3)
    tokenizer.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert (theirs.bos_token, theirs.eos_token) == ("<|bos|>", "<|end|>")
    rng = random.Random(5)
    talks = [TALK]
    for _ in range(10):
        contents = [" ".join(rng.choices(words, k=rng.randrange(6))) for _ in range(4)]
        talks.append([{"role": rng.choice(ROLES), "content": text} for text in contents])
    for talk in talks:
        for reply in (False, True):
            ids = theirs.apply_chat_template(talk, add_generation_prompt=reply, return_dict=False)
            assert ids == render(tokenizer, talk, reply).ids
    with pytest.raises(Exception, match="Unknown role: bot"):
        theirs.apply_chat_template([{"role": "bot", "content": "hi"}])


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "at least one message"),
        ([{"role": "asistant", "content": "x"}], "unknown role 'asistant'. Did you mean 'assistan"),
        ([TALK[0], {"role": "user"}], "Message 2 should have a role and a content"),
        (["hello"], "Message 1 should have a role and a content"),
        ([{"role": "user", "content": None}], "should be text, but is of type NoneType"),
        ([{"role": ["user"], "content": "x"}], "unknown role"),
    ],
)
def test_malformed_conversations(tiny_tokenizer: Tokenizer, messages, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        render(tiny_tokenizer, messages)


def test_a_tokenizer_without_chat_tokens_says_so() -> None:
    with pytest.raises(
        UserError, match="cannot hold a chat: it has no <|assistant|>".replace("|", r"\|")
    ):
        render(from_vocabulary(Vocabulary("byte", "", ALL_BYTES)), TALK)


def test_view_colours_what_is_trained_and_hides_control_characters(
    tiny_tokenizer: Tokenizer,
) -> None:
    talk: list[Message] = [
        {"role": "user", "content": "a\x1b[31mb\x9b\rc\n"},
        {"role": "assistant", "content": "naïve 🙂"},
    ]
    view = colour_view(tiny_tokenizer, render(tiny_tokenizer, talk))
    assert "\x1b[32mnaïve 🙂\x1b[0m\x1b[32;1m<|end|>" in view
    assert "\x1b[2ma\\x1b[31mb\\x9b\\rc\n\x1b[0m" in view
    plain = re.sub(r"\x1b\[[\d;]*m", "", view)
    assert plain == ("<|bos|><|user|>a\\x1b[31mb\\x9b\\rc\n<|end|>\n<|assistant|>naïve 🙂<|end|>\n")
