"""The document: the unit that is cleaned, split into train and held-out, tokenised and packed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
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

    def as_line(self) -> bytes:
        """A JSON object on a line of its own, in a format that recipes also read."""
        row: dict[str, object] = {"source": self.source, "id": self.id}
        row |= {"messages": self.messages} if self.messages else {"text": self.text}
        return json.dumps(row, ensure_ascii=False).encode() + b"\n"


def read_line(line: bytes) -> Document:
    """The inverse of `Document.as_line`."""
    row = json.loads(line)
    return Document(row["source"], row["id"], row.get("text", ""), tuple(row.get("messages", ())))


def read_documents(path: Path) -> Iterator[Document]:
    """The documents of a file of such lines, one at a time."""
    with open(path, "rb") as file:
        yield from map(read_line, file)


def documents_file(folder: Path, key: str, split: str) -> Path:
    """Where the documents of a source and split ("train" or "heldout") are kept in `folder`."""
    return folder / f"{key}.{split}.jsonl"
