"""Documents between stages: JSON lines in the run folder, in the format that recipes also read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from groundup.data.documents import Document
from groundup.files import atomic_write, read_json, write_json

INDEX = "documents/index.json"


def write_documents(path: Path, documents: Iterable[Document]) -> None:
    """One JSON object a line, atomically."""
    with atomic_write(path) as file:
        for document in documents:
            row: dict[str, object] = {"source": document.source, "id": document.id}
            row |= {"messages": document.messages} if document.messages else {"text": document.text}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def read_documents(path: Path) -> Iterator[Document]:
    """The documents that `write_documents` wrote, one at a time."""
    with open(path, encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            yield Document(
                row["source"], row["id"], row.get("text", ""), tuple(row.get("messages", ()))
            )


def write_index(run_folder: Path, sources: list[dict[str, object]]) -> None:
    """Which sources the run has: name, folder-safe key, weight, whether they are conversations."""
    write_json(run_folder / INDEX, {"sources": sources})


def read_index(run_folder: Path) -> list[dict]:
    """The sources in the order of the recipe; see `write_index`."""
    return read_json(run_folder / INDEX)["sources"]


def documents_path(run_folder: Path, key: str, split: str) -> Path:
    """Where the documents of a source and split ("train" or "heldout") are kept."""
    return run_folder / "documents" / f"{key}.{split}.jsonl"
