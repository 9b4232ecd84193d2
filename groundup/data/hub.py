"""Datasets of the Hugging Face hub: whole Parquet files where there are some, else row by row.

Files come through huggingface_hub, which knows tokens and mirrors (HF_TOKEN, HF_ENDPOINT), fetches
several at a time, resumes what broke off, and keeps them in its own cache.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from groundup.config import UserError, did_you_mean

PREFIX = "hf:"
WORKERS = 4


def parquet_files(name: str, split: str) -> list[Path]:
    """The split's Parquet files, fetched if need be; none where the dataset has another format.

    `name` is "hf:org/name", or "hf:org/name:subset" for one configuration of a dataset. Raises
    UserError when the hub or the dataset cannot be reached, or has no such split.
    """
    datasets = import_extra("datasets", f"Source {name}")
    path, subset = _parts(name)
    try:
        found = datasets.load_dataset_builder(path, subset).config.data_files or {}
        if found and split not in found:
            raise UserError(f"{name} has no split '{split}'.{did_you_mean(split, found)}")
        files = [str(file) for file in found.get(split, ())]
        if not all(file.endswith(".parquet") for file in files):
            return []
        return _fetch(files, name)
    except UserError:
        raise
    except Exception as error:
        _refuse(name, split, error)


def stream_rows(name: str, split: str) -> Iterator[Mapping[str, Any]]:
    """Rows one after another over the network; only what is asked for is fetched."""
    datasets = import_extra("datasets", f"Source {name}")
    path, subset = _parts(name)
    try:
        yield from datasets.load_dataset(path, subset, split=split, streaming=True)
    except Exception as error:
        _refuse(name, split, error)


def import_extra(module: str, what: str) -> Any:
    """A module of the `hf` extra. Raises UserError, saying that `what` needs it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:
        package = module.partition(".")[0]
        raise UserError(f"{what} needs {package}: run `pip install 'groundup[hf]'`.") from None


def _parts(name: str) -> tuple[str, str | None]:
    path, _, subset = name.removeprefix(PREFIX).partition(":")
    return path, subset or None


def _fetch(files: list[str], name: str) -> list[Path]:
    """Local paths of files that are local already, or named hf://datasets/ORG/NAME@REVISION/FILE"""
    marker = "hf://datasets/"
    if not files or not files[0].startswith(marker):
        return [Path(file) for file in files]
    hub = import_extra("huggingface_hub", f"Source {name}")
    repository, _, rest = files[0].removeprefix(marker).partition("@")
    revision = rest.partition("/")[0]
    start = f"{marker}{repository}@{revision}/"
    inside = [file.removeprefix(start) for file in files]
    folder = hub.snapshot_download(
        repository,
        repo_type="dataset",
        revision=revision,
        allow_patterns=inside,
        max_workers=WORKERS,
    )
    return [Path(folder) / file for file in inside]


def _refuse(name: str, split: str, error: Exception) -> NoReturn:
    """Three libraries raise what they like here, without a common base: it becomes one sentence."""
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    raise UserError(
        f"Could not read {name}, split {split} ({reason}): check the name and the network, or "
        "fetch its files elsewhere and give their folder as the source."
    ) from None
