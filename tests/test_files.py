"""Atomic files and folders: whole or absent, and nothing left lying about."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

import pytest

from groundup import files
from groundup.config import UserError
from groundup.files import (
    atomic_folder,
    atomic_write,
    cache_folder,
    check_writable,
    read_json,
    sha256_bytes,
    sha256_file,
    write_json,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("mode", ["w", "wb"])
def test_write_and_replace(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "deep" / "er" / "file"
    for text in ("first ä", "second 日本"):
        with atomic_write(path, mode) as file:  # type: ignore[arg-type]
            file.write(text if mode == "w" else text.encode())
            assert not path.exists() or path.read_text(encoding="utf-8") != text
        assert path.read_text(encoding="utf-8") == text
        assert names(path.parent) == ["file"]


def test_a_new_file_has_ordinary_permissions(tmp_path: Path) -> None:
    previous = os.umask(0o027)
    try:
        with atomic_write(tmp_path / "file") as file:
            file.write("x")
        with atomic_folder(tmp_path / "folder") as folder:
            (folder / "inside").write_text("x")
            (folder / "inside").chmod(0o600)  # as safetensors does
    finally:
        os.umask(previous)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o750
    assert stat.S_IMODE((tmp_path / "folder" / "inside").stat().st_mode) == 0o640


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(error), atomic_write(path) as file:
        file.write("half of the n")
        file.flush()
        raise error
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_a_failing_sync_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "file"
    path.write_text("old")
    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space"), atomic_write(path) as file:
        file.write("new")
    with pytest.raises(OSError, match="No space"), atomic_folder(tmp_path / "folder") as folder:
        (folder / "inside").write_text("new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_folder_appears_whole(tmp_path: Path) -> None:
    path = tmp_path / "a" / "model"
    with atomic_folder(path) as temporary:
        (temporary / "sub").mkdir()
        (temporary / "sub" / "x").write_text("1")
        assert not path.exists()
    assert (path / "sub" / "x").read_text() == "1"
    assert names(path.parent) == ["model"]


@pytest.mark.parametrize("with_system_call", [True, False])
def test_folder_replaces_an_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_system_call: bool
) -> None:
    if not with_system_call:  # macOS, and file systems that cannot exchange
        monkeypatch.setattr(files.ctypes, "CDLL", lambda *_, **__: object())
    path = tmp_path / "model"
    path.mkdir()
    (path / "old").write_text("old")
    with atomic_folder(path) as temporary:
        (temporary / "new").write_text("new")
        assert names(path) == ["old"]
    assert names(path) == ["new"]
    assert names(tmp_path) == ["model"]


def test_an_error_leaves_the_old_folder(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.mkdir()
    (path / "old").write_text("old")
    with pytest.raises(RuntimeError), atomic_folder(path) as temporary:
        (temporary / "new").write_text("new")
        raise RuntimeError
    assert names(path) == ["old"]
    assert names(tmp_path) == ["model"]


def test_json_round_trip_and_errors(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    data = {"a": [1, 2.5, None], "text": "ä日🙂\u2028"}
    write_json(path, data)
    assert read_json(path) == data
    path.write_text(path.read_text(encoding="utf-8")[:-5], encoding="utf-8")
    with pytest.raises(UserError, match=r"x\.json is not valid JSON .* cut off"):
        read_json(path)
    path.write_bytes(b"\xff{}")
    with pytest.raises(UserError, match="not valid JSON"):
        read_json(path)
    path.write_text("[1]")
    with pytest.raises(UserError, match="should hold a JSON object, but holds a list"):
        read_json(path)
    with pytest.raises(UserError, match="does not exist"):
        read_json(tmp_path / "none.json")


def test_a_place_is_checked_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("old")
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    for good in ("file", "new", "deep/er/new"):
        check_writable(tmp_path / good)
    assert names(tmp_path) == ["broken", "file"], "asking makes nothing"
    for bad, words in (
        (".", "is a folder; name a file"),
        ("file/new", "file is not a folder"),
        ("file/deep/er/new", "file is not a folder"),
        ("broken/new", "broken is not a folder"),
    ):
        with pytest.raises(UserError, match=words):
            check_writable(tmp_path / bad)
    monkeypatch.chdir(tmp_path)
    check_writable("new")
    monkeypatch.setattr(files.os, "access", lambda *_: False)  # root may write everywhere
    with pytest.raises(UserError, match="no permission in"):
        check_writable("deep/new")


def test_hashes(tmp_path: Path) -> None:
    data = os.urandom(1_000_003)
    (tmp_path / "x").write_bytes(data)
    expected = hashlib.sha256(data).hexdigest()
    assert sha256_file(tmp_path / "x") == sha256_bytes(data) == expected


def test_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROUNDUP_CACHE", "~/somewhere")
    assert cache_folder() == Path.home() / "somewhere"
    monkeypatch.delenv("GROUNDUP_CACHE")
    assert cache_folder() == Path.home() / ".cache" / "groundup"
