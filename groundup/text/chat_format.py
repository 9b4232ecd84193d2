"""A chat format as data: what stands around the content of each role, ours or another model's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NoReturn

from groundup.config import UserError, did_you_mean
from groundup.text.config import SPECIAL_TOKENS
from groundup.text.vocabulary import Vocabulary

ROLES = ("system", "user", "assistant", "tool_call", "tool_output")


@dataclass(frozen=True, kw_only=True)
class Turn:
    """The text around one message of a role. Special tokens stand in it by name."""

    role: str
    before: str
    after: str


@dataclass(frozen=True, kw_only=True)
class ChatFormat:
    """How a model wants conversations written, as text in which special tokens stand by name.

        opening [no_system]  before content after  before content after …  [reply]

    Special tokens are recognised in these texts alone, never in what people write.
    """

    opening: str
    no_system: str = ""
    """What follows the opening when the first message is not the system's."""
    turns: tuple[Turn, ...]
    reply: str
    """Opens the assistant's turn, for the model to fill."""
    end: str
    """The special token with which the model ends its turn."""
    strip: bool = False
    """Leave out white space around contents."""
    template: str = ""
    """The Jinja text this was derived from, kept for other tools."""

    @property
    def lead(self) -> str:
        """What the model itself writes before the content of its reply, as Llama 2's a space."""
        before = self.turn("assistant").before
        return before.removeprefix(self.reply) if before.startswith(self.reply) else ""

    def turn(self, role: str) -> Turn:
        """The turn of a role. Raises UserError when the format has none."""
        for turn in self.turns:
            if turn.role == role:
                return turn
        known = ", ".join(turn.role for turn in self.turns)
        raise UserError(f"This model's chat format has no role {role!r}, only {known}.")


OURS = ChatFormat(
    opening="<|bos|>",
    turns=tuple(Turn(role=role, before=f"<|{role}|>", after="<|end|>") for role in ROLES),
    reply="<|assistant|>",
    end="<|end|>",
)


def format_of(vocabulary: Vocabulary) -> ChatFormat:
    """The chat format that goes with a vocabulary. Raises UserError when there is none."""
    if vocabulary.chat is not None:
        return vocabulary.chat
    return OURS if set(SPECIAL_TOKENS) <= vocabulary.special.keys() else no_chat(vocabulary.special)


def no_chat(special: Mapping[str, int]) -> NoReturn:
    """Raise UserError: with these special tokens alone a tokenizer holds no chat."""
    missing = sorted(set(SPECIAL_TOKENS) - special.keys())
    raise UserError(
        f"This tokenizer cannot hold a chat: it has no {', '.join(missing)}, and no chat template "
        "that could be followed. Use a tokenizer trained by groundup, or a model that was made for "
        "chats."
    )


def with_chat(vocabulary: Vocabulary, chat: ChatFormat | None, document_start: str) -> Vocabulary:
    """The vocabulary of somebody else's model, with its chat format; see `aliases`."""
    special = aliases(vocabulary.special, chat, document_start)
    return replace(vocabulary, special=special, chat=chat)


def aliases(
    special: Mapping[str, int], chat: ChatFormat | None, document_start: str
) -> dict[str, int]:
    """Special tokens of somebody else's model, with the names by which we know two of them.

    "<|bos|>" is the token documents begin with, "<|end|>" the one that ends a reply. Raises
    UserError when a named token does not exist.
    """
    known = dict(special)
    names = {"<|bos|>": document_start, "<|end|>": chat.end if chat is not None else ""}
    for ours, theirs in names.items():
        if not theirs:
            continue
        if theirs not in known:
            hint = did_you_mean(theirs, known)
            raise UserError(f"The tokenizer has no special token {theirs!r}.{hint}")
        known.setdefault(ours, known[theirs])
    return known


def split_special(text: str, special: Mapping[str, int]) -> list[int | str]:
    """A text of the format in parts: ids of special tokens, and the plain text between them."""
    names = sorted(special, key=len, reverse=True)
    pattern = "|".join(map(re.escape, names))
    parts = re.split(f"({pattern})", text) if names else [text]
    return [special.get(part, part) for part in parts if part]
