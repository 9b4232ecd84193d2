"""Archives built in memory, and the cache of fetched packages to put them in."""

from __future__ import annotations

import dataclasses
import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from groundup.data.packages import Package
from groundup.files import sha256_bytes


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder."""
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def store(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """store(module, name, files) puts a package of these files where fetching would have put it.

    `files` is the content of a file that is no archive, where it is bytes.
    """

    def put(module: ModuleType, name: str, files: dict[str, bytes] | bytes) -> None:
        package: Package = getattr(module, name)
        build = {".whl": wheel, ".tgz": tgz, ".deb": deb}.get(package.path.suffix)
        data = files if isinstance(files, bytes) else build(files) if build else b""
        package = dataclasses.replace(package, sha256=sha256_bytes(data))
        package.path.parent.mkdir(parents=True, exist_ok=True)
        package.path.write_bytes(data)
        monkeypatch.setattr(module, name, package)

    return put


@pytest.fixture
def pack() -> SimpleNamespace:
    """pack.tar, pack.tgz, pack.deb, pack.wheel: the bytes of an archive of some files."""
    return SimpleNamespace(tar=tar, tgz=tgz, deb=deb, wheel=wheel)


def tar(files: dict[str, bytes], *more: tarfile.TarInfo, prefix: str = "") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        folder = tarfile.TarInfo(f"{prefix}package")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, data in files.items():
            info = tarfile.TarInfo(prefix + name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for info in more:
            archive.addfile(info)
    return buffer.getvalue()


def tgz(files: dict[str, bytes]) -> bytes:
    return gzip.compress(tar(files), mtime=0)


def deb(
    files: dict[str, bytes], packing: str = "xz", compress: Callable[[bytes], bytes] = lzma.compress
) -> bytes:
    members = {
        "debian-binary": b"2.0\n",
        "control.tar.xz": b"odd",
        f"data.tar.{packing}": compress(tar(files, prefix="./")),
    }
    whole = b"!<arch>\n"
    for name, data in members.items():
        whole += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n".encode()
        whole += data + b"\n" * (len(data) % 2)
    return whole


def wheel(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.mkdir("package")
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()
