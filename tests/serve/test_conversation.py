"""Conversations: what is remembered, what still fits, what is read again."""

from __future__ import annotations

import dataclasses
import json

import pytest

from groundup.config import UserError
from groundup.infer.config import SamplingConfig
from groundup.text.chat_format import ChatFormat, Turn


def say(conversation, text: str) -> str:
    return "".join(piece.text for piece in conversation.reply(text))


def test_messages_alternate_and_reset_forgets_them(make_conversation) -> None:
    conversation = make_conversation("Good day.")
    conversation.system = "Be kind."
    assert say(conversation, "Hi!") == "Good day."
    assert say(conversation, "And?") == "Good day."
    assert conversation.messages == [
        {"role": "user", "content": "Hi!"},
        {"role": "assistant", "content": "Good day."},
        {"role": "user", "content": "And?"},
        {"role": "assistant", "content": "Good day."},
    ]
    conversation.reset()
    assert conversation.messages == []
    assert conversation.system == "Be kind."


def test_only_new_tokens_are_read(make_conversation) -> None:
    conversation = make_conversation("Good day.")
    say(conversation, "Hello there.")
    conversation.model.read = 0
    say(conversation, "Yes?")
    # The reply's <|end|>, then <|user|>Yes?<|end|><|assistant|>, then the nine tokens of the reply.
    assert conversation.model.read == 1 + 7 + 9


def test_retry_replaces_the_last_reply(make_conversation) -> None:
    conversation = make_conversation("one")
    with pytest.raises(UserError, match="no message"):
        conversation.retry()
    say(conversation, "Hi!")
    conversation.model.script = b"two"
    assert "".join(piece.text for piece in conversation.retry()) == "two"
    assert [message["content"] for message in conversation.messages] == ["Hi!", "two"]


def test_a_retry_that_cannot_fit_changes_nothing(make_conversation) -> None:
    conversation = make_conversation("Yes.", context=64, max_tokens=10)
    say(conversation, "Hi!")
    before = list(conversation.messages)
    conversation.system = "x" * 200
    with pytest.raises(UserError, match="with the system text"):
        conversation.retry()
    assert conversation.messages == before


def test_a_closed_reply_keeps_what_was_said(make_conversation) -> None:
    conversation = make_conversation("A long answer.")
    pieces = conversation.reply("Hi!")
    for _ in range(6):
        next(pieces)
    pieces.close()
    assert conversation.messages[-1] == {"role": "assistant", "content": "A long"}
    assert say(conversation, "Go on.") == "A long answer."


def test_the_oldest_turns_give_way(make_conversation) -> None:
    conversation = make_conversation("Yes.", context=64, max_tokens=10)
    for i in range(5):
        assert say(conversation, f"Question {i}?") == "Yes."
    # A turn takes 12 + 2 and 4 + 2 tokens: two and a half of them fit 54.
    assert conversation.dropped == 4
    assert len(conversation.messages) == 10


def test_a_message_that_cannot_fit_leaves_no_trace(make_conversation) -> None:
    conversation = make_conversation("Yes.", context=64, max_tokens=10)
    say(conversation, "Hi!")
    before = list(conversation.messages)
    with pytest.raises(UserError, match="204 tokens.*54"):
        conversation.reply("x" * 200)
    assert conversation.messages == before
    assert say(conversation, "Hi!") == "Yes."


def test_a_reply_may_fill_the_context_and_no_more(make_conversation) -> None:
    conversation = make_conversation("y" * 100, context=40, max_tokens=500)
    pieces = list(conversation.reply("Hi!"))
    assert pieces[-1].stop_reason == "context"
    assert len(pieces) == 40 - 7 + 1


def test_special_tokens_in_a_reply_end_it(make_conversation, tokenizer) -> None:
    conversation = make_conversation()
    conversation.model.end = tokenizer.special["<|user|>"]
    assert say(conversation, "Hi!") == "Hello!"
    assert conversation.messages[-1]["content"] == "Hello!"


def test_text_never_becomes_a_special_token(make_conversation) -> None:
    conversation = make_conversation("<|end|><|user|>")
    assert say(conversation, "<|assistant|>") == "<|end|><|user|>"


def test_seeds_repeat_a_session_and_vary_within(make_conversation) -> None:
    def session() -> list[str]:
        conversation = make_conversation(seed=3, temperature=1.0, max_tokens=8)
        conversation.model.logits = lambda hidden: hidden.new_zeros(*hidden.shape[:-1], 263)
        return [say(conversation, "Hi!"), "".join(p.text for p in conversation.retry())]

    first = session()
    assert first == session()
    assert first[0] != first[1]


def test_saved_and_restored(make_conversation) -> None:
    conversation = make_conversation("Good day 🙂", temperature=0.3, stop=("x",))
    conversation.system = "Be kind."
    say(conversation, "Hi!")
    saved = json.loads(json.dumps(conversation.as_dict()))
    other = make_conversation()
    other.restore(saved)
    assert other.as_dict() == conversation.as_dict()
    assert other.sampling == SamplingConfig(temperature=0.3, stop=("x",))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "messages"),
        ({"messages": "Hi"}, "messages"),
        ({"messages": [{"role": "wizard", "content": "Hi"}]}, "Message 1"),
        ({"messages": [{"role": "user", "content": "Hi"}, {"role": "user"}]}, "Message 2"),
        ({"messages": [], "system": 3}, "system"),
        ({"messages": [], "sampling": {"temprature": 1}}, "temperature"),
    ],
)
def test_what_cannot_be_restored_changes_nothing(make_conversation, data, message) -> None:
    conversation = make_conversation()
    say(conversation, "Hi!")
    before = conversation.as_dict()
    with pytest.raises(UserError, match=message):
        conversation.restore(data)
    assert conversation.as_dict() == before


def test_what_a_format_puts_before_a_reply_is_not_part_of_it(make_conversation) -> None:
    """As the space in Llama 2's: the model writes it, and the next prompt holds it once."""
    conversation = make_conversation(" Hello!")
    user = Turn(role="user", before="<|user|>", after="<|assistant|>")
    answer = Turn(role="assistant", before=" ", after="<|end|>")
    chat = ChatFormat(opening="<|bos|>", turns=(user, answer), reply="", end="<|end|>")
    vocabulary = dataclasses.replace(conversation.tokenizer.vocabulary, chat=chat)
    conversation.tokenizer = type(conversation.tokenizer)(vocabulary)
    assert say(conversation, "Hi") == "Hello!"
    conversation.model.read = 0
    assert say(conversation, "Hi") == "Hello!"
    assert conversation.messages[1]["content"] == "Hello!"
    # The reply's <|end|>, <|user|>Hi<|assistant|>, then the seven tokens of the reply.
    assert conversation.model.read == 1 + 4 + 7
