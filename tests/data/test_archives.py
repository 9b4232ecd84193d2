"""Members of archives: what is asked for comes out; what is damaged or hostile does not."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import resource
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from groundup.config import UserError
from groundup.data import archives
from groundup.data.archives import read_members, unpack

FILES = {"package/a.txt": b"first", "package/deep/b.txt": b"", "package/c.bin": bytes(range(256))}


SUFFIXES = (".whl", ".tgz", ".deb")


def build(pack: SimpleNamespace, suffix: str) -> Callable[[dict[str, bytes]], bytes]:
    return {".whl": pack.wheel, ".tgz": pack.tgz, ".deb": pack.deb}[suffix]


def members(path: Path, wanted: Callable[[str], bool] = lambda name: True) -> dict[str, bytes]:
    return dict(read_members(path, wanted))


def refusal(path: Path, wanted: Callable[[str], bool] = lambda name: True) -> str:
    with pytest.raises(UserError) as error:
        members(path, wanted)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_wanted_is_read(tmp_path: Path, pack: SimpleNamespace, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    path.write_bytes(build(pack, suffix)(FILES))
    assert members(path) == FILES
    assert members(path, lambda name: name.endswith(".txt")).keys() == {*list(FILES)[:2]}
    assert members(path, lambda name: False) == {}
    assert list(tmp_path.iterdir()) == [path], "nothing is written"


@pytest.mark.parametrize(
    ("packing", "compress"), [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress)]
)
def test_debian_packages_are_packed_in_several_ways(
    tmp_path: Path, pack: SimpleNamespace, packing: str, compress: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "x.deb"
    path.write_bytes(pack.deb(FILES, packing, compress))
    assert members(path) == FILES
    assert unpack(compress(b"content"), f"x.{packing}") == b"content"


def test_what_this_python_cannot_unpack_is_said(tmp_path: Path, pack: SimpleNamespace) -> None:
    path = tmp_path / "x.deb"
    path.write_bytes(pack.deb(FILES, "zst", bytes))
    assert "data.tar.zst" in refusal(path) and "dpkg-deb" in refusal(path)
    other = tmp_path / "x.rar"
    other.write_bytes(b"Rar!")
    assert "no archive that can be read" in refusal(other)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_damage_is_one_sentence_wherever_it_is(
    tmp_path: Path, pack: SimpleNamespace, suffix: str
) -> None:
    path, whole = tmp_path / f"x{suffix}", build(pack, suffix)(FILES)
    for cut in (0, 1, 9, 60, 80, len(whole) // 3, len(whole) // 2, len(whole) - 30):
        path.write_bytes(whole[:cut])
        refusal(path)
    for place in range(8, len(whole), 37):  # a changed byte is found out, or changes nothing read
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            found = members(path)
        except UserError:
            continue
        assert set(found.values()) <= set(FILES.values())


@pytest.mark.parametrize("name", ["../up.txt", "/etc/passwd", "a/../../b", "..\\up.txt"])
@pytest.mark.parametrize("suffix", [".whl", ".tgz"])
def test_names_that_lie_outside(
    tmp_path: Path, pack: SimpleNamespace, suffix: str, name: str
) -> None:
    path = tmp_path / f"x{suffix}"
    path.write_bytes(build(pack, suffix)({"package/a.txt": b"first", name: b"evil"}))
    assert "lies outside" in refusal(path)
    assert members(path, lambda found: found == "package/a.txt") == {"package/a.txt": b"first"}


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices(tmp_path: Path, pack: SimpleNamespace, kind: bytes) -> None:
    link = tarfile.TarInfo("package/link")
    link.type, link.linkname = kind, "/etc/passwd"
    path = tmp_path / "x.tgz"
    path.write_bytes(gzip.compress(pack.tar(FILES, link)))
    assert "is a link" in refusal(path)
    assert len(members(path, lambda name: "link" not in name)) == 3


def test_a_link_in_a_wheel(tmp_path: Path) -> None:
    path = tmp_path / "x.whl"
    with zipfile.ZipFile(path, "w") as archive:
        info = zipfile.ZipInfo("package/link")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    assert "is a link" in refusal(path)


def packed_zeros(size: int) -> bytes:
    """A tar archive with one member of so many zeros, packed a thousand to one."""
    info = tarfile.TarInfo("package/zeros")
    info.size = size
    buffer = io.BytesIO()
    with gzip.open(buffer, "wb", compresslevel=1) as file:
        file.write(info.tobuf())
        for _ in range(size >> 20):
            file.write(bytes(1 << 20))
        file.write(bytes(1024))
    return buffer.getvalue()


def test_bombs(tmp_path: Path, pack: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "LARGEST_MEMBER", 4 << 20)
    monkeypatch.setattr(archives, "LARGEST_WHOLE", 12 << 20)
    path = tmp_path / "x.tgz"
    path.write_bytes(packed_zeros(8 << 20))
    assert "claims 8,388,608 bytes" in refusal(path)
    assert members(path, lambda name: False) == {}
    path.write_bytes(packed_zeros(24 << 20))
    assert "absurd" in refusal(path, lambda name: False)
    path.write_bytes(pack.tgz({f"package/{i}": bytes(4 << 20) for i in range(2)}))
    assert len(members(path)) == 2
    path = tmp_path / "x.whl"
    path.write_bytes(pack.wheel({"package/zeros": bytes(5 << 20)}))
    assert "claims 5,242,880 bytes" in refusal(path)
    path.write_bytes(pack.wheel({f"package/{i}": bytes(4 << 20) for i in range(4)}))
    assert "more than 12,582,912 bytes" in refusal(path)
    monkeypatch.setattr(archives, "MOST_MEMBERS", 3)
    path = tmp_path / "x.tgz"
    path.write_bytes(pack.tgz({f"package/{i}": b"" for i in range(4)}))
    assert "more than 3 members" in refusal(path)
    for name, compress in ((".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)):
        with pytest.raises(UserError, match="unpacks to over"):
            unpack(compress(bytes(5 << 20)), f"x{name}")


def absurd_headers() -> list[bytes]:
    """Headers whose sizes would take all memory, or send the reader back to where it was."""
    found = []
    for kind in (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.REGTYPE):
        for size in (1 << 40, -1024, -512):
            info = tarfile.TarInfo("package/a")
            info.type, info.size = kind, size
            found.append(info.tobuf(format=tarfile.GNU_FORMAT) + bytes(1024))
    return found


@pytest.mark.parametrize("header", absurd_headers())
def test_absurd_sizes_take_neither_memory_nor_time(
    tmp_path: Path, pack: SimpleNamespace, header: bytes
) -> None:
    path = tmp_path / "x.tgz"
    path.write_bytes(gzip.compress(pack.tar(FILES)[: 6 * 512] + header + bytes(1 << 20)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for wanted in (lambda name: True, lambda name: False):
        refusal(path, wanted)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


def test_a_dictionary_of_gigabytes_is_refused(tmp_path: Path, pack: SimpleNamespace) -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 30}]
    packed = lzma.compress(b"little", filters=filters)
    with pytest.raises(UserError, match="damaged"):
        unpack(packed, "x.xz")
    path = tmp_path / "x.deb"
    path.write_bytes(pack.deb(FILES, compress=lambda data: lzma.compress(data, filters=filters)))
    refusal(path)
