"""Conversations as ids: the chat format, which tokens are trained on, and a coloured view of both.

    <|bos|><|user|>Hi!<|end|><|assistant|>Hello.<|end|>

A conversation is built as ids: special tokens are placed by id and contents are encoded as plain
text, so nothing a user writes can become a special token or close a turn. Models made elsewhere
have formats of their own, which are data of their tokenizers: `groundup.text.chat_format`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypedDict

from groundup.config import UserError, did_you_mean
from groundup.text.base import PieceTokenizer
from groundup.text.chat_format import ChatFormat, format_of, split_special
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
    Contents are encoded apart from what stands around them, as they are when the model writes them.
    Raises UserError when there are no messages, or one is malformed or has an unknown role.
    """
    if not messages:
        raise UserError("A conversation needs at least one message, but the list is empty.")
    chat = chat_of(tokenizer)
    checked = [_checked(message, number) for number, message in enumerate(messages, start=1)]
    ids = _ids(tokenizer, chat.opening)
    if checked[0][0] != "system":
        ids += _ids(tokenizer, chat.no_system)
    mask, starts = [False] * len(ids), []
    end = tokenizer.special[chat.end]
    for role, content in checked:
        turn = chat.turn(role)
        before, after = _ids(tokenizer, turn.before), _ids(tokenizer, turn.after)
        content_ids = tokenizer.encode(content.strip() if chat.strip else content)
        starts.append(len(ids))
        ids += [*before, *content_ids, *after]
        # What the format puts after the token that ends a turn is not the model's to write.
        learned = len(content_ids) + (after.index(end) + 1 if end in after else len(after))
        mask += [False] * len(before) + [role in TRAINED_ROLES] * learned
        mask += [False] * (len(ids) - len(mask))
    if reply:
        ids += _ids(tokenizer, chat.reply)
        mask += [False] * (len(ids) - len(mask))
    exchanges = [start for start, (role, _) in zip(starts, checked, strict=True) if role == "user"]
    return Rendered(ids, mask, starts, exchanges)


def chat_of(tokenizer: Tokenizer) -> ChatFormat:
    """How conversations are written for a tokenizer's model. Raises UserError when they cannot."""
    if isinstance(tokenizer, PieceTokenizer):
        return format_of(tokenizer.vocabulary)
    raise UserError(f"A {tokenizer.kind} tokenizer cannot hold a chat.")


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
            parts.append((colour, _visible(tokenizer.decode(run))))
        start = i
    return "".join(f"\x1b[{colour}m{text}\x1b[0m" for colour, text in parts)


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """A text of the chat format, in which special tokens stand by name."""
    parts = split_special(text, tokenizer.special)
    encoded = [[part] if isinstance(part, int) else tokenizer.encode(part) for part in parts]
    return [id for ids in encoded for id in ids]


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
