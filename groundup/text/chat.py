"""Conversations as ids: the chat format, which tokens are trained on, and a coloured view of both.

    <|bos|><|user|>Hi!<|end|><|assistant|>Hello.<|end|>

A conversation is built as ids: special tokens are placed by id and contents are encoded as plain
text, so nothing a user writes can become a special token or close a turn. Models made elsewhere
have formats of their own, which are data of their tokenizers: `groundup.text.chat_format`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Literal, TypedDict

from groundup.config import UserError, did_you_mean
from groundup.text.chat_format import ChatFormat, split_special
from groundup.text.tokenizer import Tokenizer

Role = Literal["system", "user", "assistant", "tool_call", "tool_output"]
ROLES: tuple[Role, ...] = ("system", "user", "assistant", "tool_call", "tool_output")
TRAINED_ROLES: tuple[Role, ...] = ("assistant", "tool_call")

# Only for other tools: transformers, vLLM and llama.cpp render their chats with it. It gives the
# ids of `render`, but being text it cannot keep special tokens out of what users write.
CHAT_TEMPLATE = """\
{{- '<|bos|>' -}}
{%- for message in messages -%}
{%- if message['role'] not in ['system', 'user', 'assistant', 'tool_call', 'tool_output'] -%}
{{- raise_exception('Unknown role: ' + message['role']) -}}
{%- endif -%}
{{- '<|' + message['role'] + '|>' + message['content'] + '<|end|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|assistant|>' -}}
{%- endif -%}
"""


class Message(TypedDict):
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Rendered:
    """ids: (T,) the conversation. mask: (T,) True where the token is a training target."""

    ids: list[int]
    mask: list[bool]
    starts: list[int] = field(default_factory=list)
    """Where each message begins."""
    exchanges: list[int] = field(default_factory=list)
    """Where each message of the user begins."""


def render(tokenizer: Tokenizer, messages: Sequence[Message], reply: bool = False) -> Rendered:
    """Messages -> ids and mask. `reply` opens the assistant's turn, for a model to fill.

    Trained on are the contents of assistant and tool-call turns and the <|end|> that closes them.
    What people write is plain text: special tokens are found in the format's own texts alone.
    Raises UserError when there are no messages, or one is malformed or has an unknown role.
    """
    if not messages:
        raise UserError("A conversation needs at least one message, but the list is empty.")
    chat = chat_of(tokenizer)
    checked = [_checked(message, number) for number, message in enumerate(messages, start=1)]
    parts: list[int | str] = []
    trained: list[bool] = []

    def add(text: str, learned: bool = False, plain: bool = False) -> None:
        """Text of the format, in which special tokens stand by name, or `plain` text of people."""
        for part in [text] if plain else split_special(text, tokenizer.special):
            parts.append(part)
            trained.append(learned)
            # What the format puts after the token that ends a turn is not the model's to write.
            learned = learned and part != end

    end = tokenizer.special[chat.end]
    add(chat.opening)
    if checked[0][0] != "system":
        add(chat.no_system)
    begins = []
    for role, content in checked:
        turn, learned = chat.turn(role), role in TRAINED_ROLES
        begins.append(len(parts))
        add(turn.before)
        add(content.strip() if chat.strip else content, learned, plain=True)
        add(turn.after, learned)
    if reply:
        add(chat.reply)
    encoded = tokenizer.encode_parts(parts)
    places = [0, *accumulate(map(len, encoded))]
    starts = [places[begin] for begin in begins]
    exchanges = [start for start, (role, _) in zip(starts, checked, strict=True) if role == "user"]
    mask = [learned for part, learned in zip(encoded, trained, strict=True) for _ in part]
    return Rendered([id for part in encoded for id in part], mask, starts, exchanges)


def chat_of(tokenizer: Tokenizer) -> ChatFormat:
    """How conversations are written for a tokenizer's model. Raises UserError when they cannot."""
    return tokenizer.chat_format()


def colour_view(tokenizer: Tokenizer, rendered: Rendered) -> str:
    """The conversation for a terminal: trained tokens green, special tokens bold, the rest dim.

    Control characters in the text are shown as `\\x1b`, so that a chat cannot steer the terminal.
    """
    names = {id: name for name, id in reversed(list(tokenizer.special.items()))}
    end = tokenizer.special.get("<|end|>")
    parts: list[tuple[str, str]] = []
    start = 0
    for i in range(1, len(rendered.ids) + 1):
        same = i < len(rendered.ids) and rendered.mask[i] == rendered.mask[start]
        if same and rendered.ids[i] not in names and rendered.ids[start] not in names:
            continue
        run = rendered.ids[start:i]
        colour = "32" if rendered.mask[start] else "2"
        if run[0] in names:
            newline = "\n" if run[0] == end else ""
            parts.append((f"{colour};1", names[run[0]] + newline))
        else:
            text = tokenizer.decode_bytes(run).decode("utf-8", "replace")
            parts.append((colour, _visible(text)))
        start = i
    return "".join(f"\x1b[{colour}m{text}\x1b[0m" for colour, text in parts)


def _checked(message: Message, number: int) -> tuple[str, str]:
    if not isinstance(message, Mapping) or not {"role", "content"} <= message.keys():
        raise UserError(f"Message {number} should have a role and a content, but is {message!r}.")
    role, content = message["role"], message["content"]
    if role not in ROLES:
        raise UserError(
            f"Message {number} has unknown role {role!r}.{did_you_mean(str(role), ROLES)}"
        )
    if not isinstance(content, str):
        kind = type(content).__name__
        raise UserError(f"The content of message {number} should be text, but is of type {kind}.")
    return role, content


def _visible(text: str) -> str:
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)
