"""Manifests: a JSON file in a folder of data that says what the other files must be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from groundup.config import UserError, from_dict, to_dict
from groundup.files import read_json, sha256_file, write_json

NAME = "manifest.json"


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """One file a manifest vouches for; `size` in bytes."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What every manifest says; each kind of folder adds its own counts.

    `tokenizer` is a fingerprint: token ids mean nothing under another tokenizer.
    """

    version: int
    kind: str
    tokenizer: str
    bos_id: int
    files: tuple[FileRecord, ...]


Kind = TypeVar("Kind", bound=Manifest)


def record_file(path: Path) -> FileRecord:
    """Measure a finished file."""
    return FileRecord(name=path.name, size=path.stat().st_size, sha256=sha256_file(path))


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `manifest.json`."""
    write_json(folder / NAME, to_dict(manifest))


def open_manifest(
    folder: Path, cls: type[Kind], *, kind: str, version: int, fingerprint: str
) -> Kind:
    """Read the manifest of `folder` and check kind, version, tokenizer and the size of each file.

    Raises UserError on the first thing that does not fit. Contents are left to `verify_files`.
    """
    if not (folder / NAME).is_file():
        raise UserError(
            f"{folder} has no {NAME}, so it is not a finished folder of {kind}; prepare it again."
        )
    data = read_json(folder / NAME)
    found = data.get("kind"), data.get("version")
    if found != (kind, version):
        raise UserError(
            f"{folder} should hold {kind} in format {version}, but holds {found[0]} in format "
            f"{found[1]}; delete it and prepare it again."
        )
    manifest = from_dict(cls, data, where=str(folder / NAME))
    if manifest.tokenizer != fingerprint:
        raise UserError(
            f"{folder} was made with tokenizer {manifest.tokenizer}, but this run's tokenizer is "
            f"{fingerprint}; use the tokenizer it was made with, or delete the folder to make it "
            "again."
        )
    for record in manifest.files:
        _check_size(folder / record.name, record.size)
    return manifest


def verify_files(folder: Path, files: Sequence[FileRecord]) -> None:
    """Read every file in full and compare its sha256. Raises UserError on a difference."""
    for record in files:
        _check_size(folder / record.name, record.size)
        if sha256_file(folder / record.name) != record.sha256:
            raise UserError(
                f"{folder / record.name} is not what {NAME} says: its contents changed since it "
                "was written. Delete the folder to make it again."
            )


def _check_size(path: Path, expected: int) -> None:
    if not path.is_file():
        raise UserError(f"{path} is missing; delete {path.parent} to make it again.")
    size = path.stat().st_size
    if size != expected:
        raise UserError(
            f"{path} should be {expected:,} bytes, but is {size:,}: it was cut off or changed. "
            f"Delete {path.parent} to make it again."
        )
