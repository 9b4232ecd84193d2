"""Members of archives, read into memory: nothing is unpacked to disk, and nothing is trusted.

| file           | what it is                                                              |
|----------------|-------------------------------------------------------------------------|
| .whl, .zip     | a zip archive                                                           |
| .tgz, .tar.gz  | a tar archive, packed with gzip                                         |
| .deb           | an `ar` archive of three members, one of them data.tar.xz (deb(5))      |
| .gz, .bz2, .xz | a single packed file                                                    |

An archive may lie about its sizes, hold links to anywhere, or unpack to a million times its size.
So only members that are asked for are read, links among them are refused, and every size has a
bound that is checked before memory is taken.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any

from groundup.config import UserError, require

LARGEST_MEMBER = 1 << 28
"""Bytes of one member, unpacked."""
LARGEST_WHOLE = 1 << 31
"""Bytes of an archive, unpacked."""
MOST_MEMBERS = 1 << 17
XZ_MEMORY = 1 << 27
"""Bytes that unpacking an .xz may need; `xz -9` makes files that need 65 million."""
_OPENERS = {".gz": gzip.open, ".tgz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}

Wanted = Callable[[str], bool]


def read_members(path: Path, wanted: Wanted) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of the members whose name is wanted, in the order of the archive.

    Names have forward slashes and no "./" before them. Raises UserError where the archive is
    damaged, or where a wanted member is no plain file, too large, or named as if it lay elsewhere.
    """
    read = {".whl": _zip, ".zip": _zip, ".deb": _deb, ".tgz": _tar, ".gz": _tar}.get(path.suffix)
    require(read is not None, f"{path} is no archive that can be read: .whl, .tgz or .deb.")
    assert read is not None
    total = 0
    with _damage_named(path):
        for name, data in read(path, wanted):
            total += len(data)
            require(total <= LARGEST_WHOLE, f"{path} holds more than {LARGEST_WHOLE:,} bytes.")
            yield name, data


def unpack(data: bytes, name: str) -> bytes:
    """A packed file's content; how it is packed is in the name. Raises UserError if damaged."""
    opener = _OPENERS.get(PurePosixPath(name).suffix)
    with _damage_named(name):
        if opener is None:
            return data
        if opener is lzma.open:
            _require_modest_dictionary(data)
        with opener(io.BytesIO(data)) as file:
            unpacked = file.read(LARGEST_MEMBER + 1)
    require(len(unpacked) <= LARGEST_MEMBER, f"{name} unpacks to over {LARGEST_MEMBER:,} bytes.")
    return unpacked


def _zip(path: Path, wanted: Wanted) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if not info.is_dir() and wanted(info.filename):
                is_link = stat.S_ISLNK(info.external_attr >> 16)
                _check(path, info.filename, info.file_size, not is_link)
                yield info.filename, archive.read(info)


def _tar(path: Path, wanted: Wanted) -> Iterator[tuple[str, bytes]]:
    with gzip.open(path) as stream:
        yield from _tar_members(stream, path, wanted)


def _deb(path: Path, wanted: Wanted) -> Iterator[tuple[str, bytes]]:
    """The files that a Debian package would install."""
    with path.open("rb") as file:
        name, data = _ar_member(file, path, "data.tar")
    packing = PurePosixPath(name).suffix
    require(
        packing in (".xz", ".gz", ".bz2", ".tar"),
        f"{path} holds a {name}, which this Python cannot unpack; unpack the package with "
        "`dpkg-deb -x` instead.",
    )
    if packing == ".xz":
        _require_modest_dictionary(data)
    packed = io.BytesIO(data)
    with packed if packing == ".tar" else _OPENERS[packing](packed) as stream:
        yield from _tar_members(stream, path, wanted)


def _ar_member(file: IO[bytes], path: Path, prefix: str) -> tuple[str, bytes]:
    """The first member of an `ar` archive whose name begins with `prefix`; see ar(5)."""
    size = path.stat().st_size
    require(file.read(8) == b"!<arch>\n", f"{path} is not a Debian package.")
    while len(header := file.read(60)) == 60:
        digits = header[48:58].strip()
        if header[58:] != b"`\n" or not digits.isdigit() or file.tell() + int(digits) > size:
            break
        name = header[:16].decode("ascii", "replace").strip().rstrip("/")
        if name.startswith(prefix):
            return name, file.read(int(digits))
        file.seek(int(digits) + int(digits) % 2, io.SEEK_CUR)
    raise UserError(f"{path} is damaged or cut off: there is no whole {prefix} in it.")


def _tar_members(stream: Any, path: Path, wanted: Wanted) -> Iterator[tuple[str, bytes]]:
    bounded: Any = _Bounded(stream, path)
    with tarfile.open(fileobj=bounded, mode="r:") as archive:
        for number, info in enumerate(archive):
            require(number < MOST_MEMBERS, f"{path} has more than {MOST_MEMBERS:,} members.")
            name = info.name.removeprefix("./")
            if not info.isdir() and wanted(name):
                _check(path, name, info.size, info.isreg())
                file = archive.extractfile(info)
                assert file is not None, "a regular file has content"
                yield name, file.read()
    while bounded.tell() <= LARGEST_WHOLE and stream.read(1 << 20):
        pass  # at the very end stands the checksum of the whole


class _Bounded:
    """An unpacked stream for `tarfile`, which believes what headers say.

    The lengths of long names and the places of members are numbers in the archive. One that is
    absurd would take all memory, and one that points back would make it read forever.
    """

    def __init__(self, stream: IO[bytes], path: Path) -> None:
        self._stream, self._path = stream, path

    def read(self, size: int = -1) -> bytes:
        self._require(0 <= size <= LARGEST_MEMBER)
        return self._stream.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._require(whence == io.SEEK_SET and self.tell() - 1 <= offset <= LARGEST_WHOLE)
        return self._stream.seek(offset)

    def tell(self) -> int:
        return self._stream.tell()

    def _require(self, fact: bool) -> None:
        require(fact, f"{self._path} gives a size that is absurd near byte {self.tell():,} of it.")


def _check(path: Path, name: str, size: int, is_file: bool) -> None:
    parts = PurePosixPath(name)
    require(
        is_file and not parts.is_absolute() and ".." not in parts.parts and "\\" not in name,
        f"{path} holds {name!r:.200}, which is a link or lies outside: it is not used.",
    )
    require(
        0 <= size <= LARGEST_MEMBER,
        f"{name} in {path} claims {size:,} bytes, more than the {LARGEST_MEMBER:,} allowed.",
    )


def _require_modest_dictionary(data: bytes) -> None:
    """Refuse an .xz that asks for absurd amounts of memory, before it is given any."""
    decompressor = lzma.LZMADecompressor(memlimit=XZ_MEMORY)
    decompressor.decompress(data[: 1 << 16], max_length=1)


@contextmanager
def _damage_named(path: Path | str) -> Iterator[None]:
    """Many libraries, one error: what they find wrong becomes a sentence about the file."""
    try:
        yield
    except UserError:
        raise
    except (
        *(tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, gzip.BadGzipFile),
        *(EOFError, ValueError, OverflowError, NotImplementedError, RuntimeError),
    ) as error:
        raise UserError(
            f"{path} is damaged or cut off ({error or type(error).__name__}): fetch it again."
        ) from None
