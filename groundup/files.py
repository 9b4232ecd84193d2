"""Files that are either whole or absent: atomic writes, hashes and the cache folder."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal

from groundup.config import UserError


@contextmanager
def atomic_write(path: str | Path, mode: Literal["w", "wb"] = "w") -> Iterator[IO[Any]]:
    """Open a temporary file beside `path`; rename it into place when the block succeeds.

    Readers see the old file or the new one, never half of either, even after a power cut
    (the data is synced before the rename). On any error the old file stays as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, mode, encoding="utf-8" if mode == "w" else None) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield an empty temporary folder beside `path`; swap it into place when the block succeeds."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp"))
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                with open(file, "rb") as handle:
                    os.fsync(handle.fileno())
                os.chmod(file, 0o666 & ~_umask())  # some libraries write files for us alone
        os.chmod(temporary, 0o777 & ~_umask())
        if path.exists():
            _exchange(temporary, path)  # the old folder is now the temporary one
        else:
            os.rename(temporary, path)
            temporary = path
        _sync_folder(path.parent)
    finally:
        if temporary != path:
            shutil.rmtree(temporary, ignore_errors=True)


def sha256_file(path: str | Path) -> str:
    """Hex digest of a file, read in blocks."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_bytes(data: bytes) -> str:
    """Hex digest of bytes."""
    return hashlib.sha256(data).hexdigest()


def cache_folder() -> Path:
    """Where downloads and compiled things are kept: `$GROUNDUP_CACHE`, else `~/.cache/groundup`."""
    root = os.environ.get("GROUNDUP_CACHE")
    return Path(root).expanduser() if root else Path.home() / ".cache" / "groundup"


def read_json(path: str | Path) -> dict[str, Any]:
    """Read a JSON object. Raises UserError, naming the file, when it is missing or broken."""
    path = Path(path)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist.") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}); it may have been cut off.") from None
    if not isinstance(data, dict):
        raise UserError(f"{path} should hold a JSON object, but holds a {type(data).__name__}.")
    return data


def write_json(path: str | Path, data: Any) -> None:
    """Write `data` as indented JSON, atomically."""
    with atomic_write(path) as file:
        json.dump(data, file, indent=2, ensure_ascii=False)
        file.write("\n")


def check_writable(path: str | Path) -> None:
    """Raise UserError where no file could be written at `path`: ask before long work.

    Nothing is made: folders that are missing on the way are what writing makes itself.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path} is a folder; name a file.")
    folder = path.absolute().parent
    while not os.path.lexists(folder):
        folder = folder.parent
    if not folder.is_dir():
        raise UserError(f"Cannot write {path}: {folder} is not a folder; name another place.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"Cannot write {path}: no permission in {folder}; name another place.")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _exchange(first: Path, second: Path) -> None:
    """Swap two folders. One system call on Linux, so no moment exists without `second`."""
    at_fdcwd, rename_exchange = -100, 2
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is not None:
        paths = os.fsencode(first), os.fsencode(second)
        if renameat2(at_fdcwd, paths[0], at_fdcwd, paths[1], rename_exchange) == 0:
            return
    aside = first.with_name(first.name + ".old")
    os.rename(second, aside)
    os.rename(first, second)
    os.rename(aside, first)
