"""Where a run keeps its documents between stages, and what its sources are."""

from __future__ import annotations

from pathlib import Path

from groundup.data.documents import documents_file
from groundup.files import read_json, write_json

DOCUMENTS = "documents"
INDEX = f"{DOCUMENTS}/index.json"


def write_index(run_folder: Path, sources: list[dict[str, object]]) -> None:
    """Which sources the run has: name, folder-safe key, weight, whether they are conversations."""
    write_json(run_folder / INDEX, {"sources": sources})


def read_index(run_folder: Path) -> list[dict]:
    """The sources in the order of the recipe; see `write_index`."""
    return read_json(run_folder / INDEX)["sources"]


def documents_path(run_folder: Path, key: str, split: str) -> Path:
    """Where the documents of a source and split ("train" or "heldout") are kept."""
    return documents_file(run_folder / DOCUMENTS, key, split)
