"""The document: the unit that is cleaned, split into train and held-out, tokenised and packed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from groundup.text.chat import Message


@dataclass(frozen=True, slots=True)
class Document:
    """One text or one conversation of a source.

    Either `text` or `messages` is filled, never both. `id` is readable and unique inside `source`,
    such as "hamlet/act-3/scene-1" or "notes.txt:12".
    """

    source: str
    id: str
    text: str = ""
    messages: tuple[Message, ...] = ()

    def as_text(self) -> str:
        """The text, or the turns of a conversation one a line without speaker labels.

        The view that tokenizer training, pretraining and bits per byte share.
        """
        if self.messages:
            return "\n".join(message["content"] for message in self.messages)
        return self.text
