"""Tensors on disk: safetensors alone, every name and shape checked before a tensor is read.

Nothing here reads or writes a pickle.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from groundup.config import UserError, require
from groundup.files import read_json
from groundup.models.state_dict import mismatch, strip_wrappers

FILE = "model.safetensors"
INDEX = f"{FILE}.index.json"


def write_weights(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write model.safetensors into a folder. Raises OSError when the disk is full."""
    held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(held, folder / FILE, metadata={"format": "pt"})
    except SafetensorError as error:  # the library's wrapping of a full disk and the like
        raise OSError(f"Could not write {folder / FILE}: {error}") from None


@dataclass(frozen=True)
class Weights:
    """The open files of a folder's weights: names and shapes are known, no tensor is read yet."""

    where: Path
    """What to name in a complaint: the one file, or the folder of several."""
    names: Mapping[str, str]
    """Names without the prefixes of wrappers -> as the files hold them."""
    files: Mapping[str, Any]

    def read(
        self, chosen: Mapping[str, str], expected: Mapping[str, Sequence[int]]
    ) -> dict[str, Tensor]:
        """Some of `names`, perhaps under other keys, read when they have the `expected` shapes.

        Raises UserError naming what is missing, unexpected or of another shape.
        """
        with _readable(self.where):
            found = {
                name: self.files[key].get_slice(key).get_shape() for name, key in chosen.items()
            }
            if problem := mismatch(expected, found):
                raise UserError(f"{self.where} does not fit its config: it {problem}.")
            return {name: self.files[key].get_tensor(key) for name, key in chosen.items()}


@contextmanager
def open_weights(folder: Path) -> Iterator[Weights]:
    """Open model.safetensors, or the parts its index names; only their headers are read."""
    paths = _weight_files(folder)
    with ExitStack() as stack:
        files: dict[str, Any] = {}
        for path in paths:
            with _readable(path):
                file = stack.enter_context(safe_open(path, framework="pt"))
                files |= {name: file for name in file.keys()}  # noqa: SIM118  (not a dict)
        names = strip_wrappers({name: name for name in files})
        yield Weights(paths[0] if len(paths) == 1 else folder, names, files)


def _weight_files(folder: Path) -> list[Path]:
    """model.safetensors, or the files that a large model's index names."""
    path, index = folder / FILE, folder / INDEX
    if path.is_file():
        return [path]
    if index.is_file():
        parts = read_json(index).get("weight_map")
        names = sorted({str(part) for part in parts.values()}) if isinstance(parts, dict) else []
        for name in names:
            require(
                Path(name).name == name and name.endswith(".safetensors"),
                f"{index} names {name!r}, which is not a .safetensors file beside it.",
            )
            require((folder / name).is_file(), f"{folder / name} does not exist, but {index} is.")
        if names:
            return [folder / name for name in names]
    pickles = [p.name for p in folder.glob("*") if p.suffix in (".bin", ".pt", ".pth", ".ckpt")]
    note = f" {pickles[0]} is a pickle, which can run code when read." if pickles else ""
    raise UserError(f"{path} does not exist.{note} Only safetensors files are read.")


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except SafetensorError as error:
        raise UserError(
            f"{path} is damaged or cut off ({error}). Fetch or save it again."
        ) from None
