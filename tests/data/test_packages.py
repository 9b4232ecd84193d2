"""Pinned files of registries: fetched once, checked, and where they cannot be, it says what to do.

The clients are programs written here, put first on the PATH; nothing leaves this machine.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

from groundup.config import UserError
from groundup.data import packages
from groundup.data.download import Download
from groundup.data.packages import Deb, DebianFile, Package, Tarball, Wheel, fetch
from groundup.files import sha256_bytes

SHA = sha256_bytes(b"whole")
WHEEL = Wheel("tiny-plays", "1.2.3", SHA)
TARBALL = Tarball("@stdlib/tiny-mails", "0.2.1", SHA)
DEB = Deb("tiny-shirts", "0.0~git20-1", SHA)
INDEX = DebianFile("main/i18n/Translation-xx.bz2", "bookworm", SHA)
ALL = (WHEEL, TARBALL, DEB, INDEX)


@pytest.fixture(autouse=True)
def no_web(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "download", lambda wanted: pytest.fail("asked for the web"))


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """What every client leaves in its folder under the name of the package; changes count."""
    content: dict[str, bytes] = {"data": b"whole", "calls": b""}

    def run(self: Package, folder: str) -> str:
        content["calls"] += b"."
        if content["data"]:
            (Path(folder) / self.filename).write_bytes(content["data"])
        return "" if content["data"] else "E: no such package"

    monkeypatch.setattr(packages, "_run_client", run)
    return content


@pytest.mark.parametrize("package", ALL, ids=lambda package: type(package).__name__)
def test_fetched_once_then_offline(package: Package, sent: dict[str, bytes], cache: Path) -> None:
    assert not package.is_cached()
    path = fetch(package)
    assert path == cache / package.folder / package.filename and package.is_cached()
    assert path.read_bytes() == b"whole"
    assert fetch(package) == path and len(sent["calls"]) == 1
    assert list(path.parent.iterdir()) == [path], "no temporary folder is left"
    path.write_bytes(b"cut")
    assert not package.is_cached()
    assert fetch(package).read_bytes() == b"whole" and len(sent["calls"]) == 2


def test_every_registry_has_its_own_names() -> None:
    assert [package.filename for package in ALL] == [
        "tiny_plays-1.2.3-py3-none-any.whl",
        "stdlib-tiny-mails-0.2.1.tgz",
        "tiny-shirts_0.0~git20-1_all.deb",
        "Translation-xx-bookworm.bz2",
    ]
    assert TARBALL.url == "https://registry.npmjs.org/@stdlib/tiny-mails/-/tiny-mails-0.2.1.tgz"
    assert DEB.url.endswith("/debian/pool/main/t/tiny-shirts/tiny-shirts_0.0~git20-1_all.deb")
    assert INDEX.url.endswith(f"/dists/bookworm/main/i18n/by-hash/SHA256/{SHA}")
    assert WHEEL.command()[:4] == [sys.executable, "-m", "pip", "download"]
    assert "--no-deps" in WHEEL.command() and WHEEL.command()[-1] == "tiny-plays==1.2.3"
    assert TARBALL.command()[:2] == ["npm", "pack"]
    assert DEB.command()[-1] == "tiny-shirts=0.0~git20-1"


@pytest.mark.parametrize("package", ALL, ids=lambda package: type(package).__name__)
def test_another_file_than_the_pinned_one_is_refused(
    package: Package, sent: dict[str, bytes]
) -> None:
    sent["data"] = b"evil"
    with pytest.raises(UserError, match="SHA-256"):
        fetch(package)
    assert list(package.path.parent.iterdir()) == []


@pytest.mark.parametrize("package", ALL, ids=lambda package: type(package).__name__)
def test_without_a_network_it_says_what_to_do(
    package: Package, sent: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Download] = []

    def refuse(wanted: Download) -> Path:
        asked.append(wanted)
        raise UserError("Could not fetch it (no route to host).")

    monkeypatch.setattr(packages, "download", refuse)
    sent["data"] = b""
    with pytest.raises(UserError) as error:
        fetch(package)
    assert package.by_hand in str(error.value) and str(package.path) in str(error.value)
    assert ("no such package" if package is WHEEL else "no route to host") in str(error.value)
    wanted = [] if package is WHEEL else [Download(url=package.url, path=package.path, sha256=SHA)]
    assert asked == wanted


def test_where_there_is_no_client_the_web_is_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    def answer(wanted: Download) -> Path:
        wanted.path.write_bytes(b"whole")
        return wanted.path

    monkeypatch.setattr(packages, "download", answer)
    assert fetch(TARBALL).read_bytes() == b"whole"
    assert fetch(DEB).read_bytes() == b"whole"


def test_a_client_runs_in_a_folder_of_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "npm"
    program.write_text(
        '#!/bin/sh\necho "npm: $*" >&2\nprintf whole > "stdlib-tiny-mails-0.2.1.tgz"'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert fetch(TARBALL).read_bytes() == b"whole"
    program.write_text("#!/bin/sh\necho 'npm: first' >&2\necho 'npm: 404 of' \"$4\" >&2\nexit 1")
    TARBALL.path.unlink()
    monkeypatch.setattr(packages.Tarball, "url", "")
    with pytest.raises(UserError, match=r"\(npm: 404 of --fetch-timeout=20000\)"):
        fetch(TARBALL)


def test_fetching_at_once_is_safe(sent: dict[str, bytes]) -> None:
    results: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: results.append(fetch(WHEEL).read_bytes())) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [b"whole"] * 8
    assert [path.name for path in WHEEL.path.parent.iterdir()] == [WHEEL.filename]
