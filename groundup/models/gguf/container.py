"""A GGUF file's metadata and tensors, every length and offset checked before anything is read.

The `gguf` package knows the number formats; its reader trusts the file, so the few bytes of
structure are read here. Nothing is allocated that the file's own size does not justify. Layout:
github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from __future__ import annotations

import importlib
import math
import mmap
import struct
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from groundup.config import UserError, require

READABLE = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q4_K", "Q6_K")
MOST_KEYS = 1 << 16
Metadata = dict[str, int | float | str | bool]
"""Keys to be written, and their values."""
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q"}
_SCALARS |= {12: "d"}
_STRING, _ARRAY = 8, 9


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies. `shape` is as in torch, the slowest dimension first."""

    name: str
    shape: tuple[int, ...]
    kind: str
    start: int
    size: int


class GGUFFile:
    """An open GGUF file: `metadata`, `tensors` by name, and `read` for one of them as fp32.

    Raises UserError naming the key, tensor or offset at fault when the file is cut off or absurd.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._gguf = import_gguf(f"Reading {self.path}")
        require(self.path.is_file(), f"There is no file {self.path}.")
        require(self.path.stat().st_size >= 24, f"{self.path} is not a GGUF file: it is too short.")
        with open(self.path, "rb") as file:
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._at = 0
        magic = self._take(4, "the magic number")
        require(magic == b"GGUF", f"{self.path} is not a GGUF file: it begins with {magic!r}.")
        version = self._number("I", "version")
        require(
            version in (2, 3),
            f"{self.path} has GGUF version {version}, but 2 and 3 (little-endian) are read.",
        )
        num_tensors = self._number("Q", "tensor_count")
        num_keys = self._number("Q", "kv_count")
        for what, count in (("tensor_count", num_tensors), ("kv_count", num_keys)):
            require(count <= MOST_KEYS, f"{self.path}: {what} {count:,} is absurd.")
        self.metadata: dict[str, Any] = {}
        for _ in range(num_keys):
            key = self._string("a key")
            require(key not in self.metadata, f"{self.path} holds the key '{key}' twice.")
            self.metadata[key] = self._value(self._number("I", key), key)
        self.tensors = self._directory(num_tensors)

    def read(self, name: str) -> np.ndarray:
        """A tensor's values as fp32, in its torch shape."""
        tensor = self.tensors[name]
        kind = self._gguf.GGMLQuantizationType[tensor.kind]
        raw = np.frombuffer(self._bytes, np.uint8, tensor.size, tensor.start)
        rows = raw.reshape(math.prod(tensor.shape[:-1]), -1)
        if tensor.kind in ("F32", "F16"):
            rows = rows.view(np.float32 if tensor.kind == "F32" else np.float16)
        values = self._gguf.quants.dequantize(rows, kind)
        return np.array(values, dtype=np.float32).reshape(tensor.shape)

    def _directory(self, count: int) -> dict[str, StoredTensor]:
        """Names, shapes, formats and places; the data begins after them, at an aligned offset."""
        listed = []
        for _ in range(count):
            name = self._string("a tensor's name")
            num_dimensions = self._number("I", name)
            require(
                1 <= num_dimensions <= 4,
                f"{self.path}: tensor '{name}' has {num_dimensions} dimensions.",
            )
            shape = tuple(self._number("Q", name) for _ in range(num_dimensions))[::-1]
            listed.append((name, shape, self._number("I", name), self._number("Q", name)))
        alignment = self.metadata.get("general.alignment", 32)
        require(
            isinstance(alignment, int) and 1 <= alignment <= 1 << 20,
            f"{self.path}: general.alignment {alignment!r} is absurd.",
        )
        start = -(-self._at // alignment) * alignment
        tensors: dict[str, StoredTensor] = {}
        for name, shape, kind, offset in listed:
            require(name not in tensors, f"{self.path} holds the tensor '{name}' twice.")
            tensors[name] = self._placed(name, shape, kind, start + offset)
        self._refuse_overlaps(tensors)
        return tensors

    def _refuse_overlaps(self, tensors: dict[str, StoredTensor]) -> None:
        """Tensors that shared bytes could ask for any amount of memory in a small file."""
        placed = sorted(tensors.values(), key=lambda tensor: tensor.start)
        for first, second in pairwise(placed):
            require(
                first.start + first.size <= second.start,
                f"{self.path} is damaged: tensor '{second.name}' begins at byte "
                f"{second.start:,}, inside '{first.name}', which ends at byte "
                f"{first.start + first.size:,}.",
            )

    def _placed(self, name: str, shape: tuple[int, ...], kind: int, start: int) -> StoredTensor:
        formats = {int(kind): kind.name for kind in self._gguf.GGMLQuantizationType}
        format_name = formats.get(kind, f"number {kind}")
        require(
            format_name in READABLE,
            f"{self.path}: tensor '{name}' is in format {format_name}; only {', '.join(READABLE)} "
            "are read.",
        )
        block, block_bytes = self._gguf.GGML_QUANT_SIZES[self._gguf.GGMLQuantizationType(kind)]
        require(
            min(shape) > 0 and shape[-1] % block == 0,
            f"{self.path}: tensor '{name}' of shape {shape} does not divide into {format_name}'s "
            f"blocks of {block}.",
        )
        size = math.prod(shape) // block * block_bytes
        require(
            start + size <= len(self._bytes),
            f"{self.path} is cut off or damaged: tensor '{name}' should end at byte "
            f"{start + size:,}, but the file has {len(self._bytes):,}.",
        )
        return StoredTensor(name, shape, format_name, start, size)

    def _value(self, kind: int, key: str) -> Any:
        if kind in _SCALARS:
            return self._number(_SCALARS[kind], key)
        if kind == _STRING:
            return self._string(key)
        require(kind == _ARRAY, f"{self.path}: key '{key}' has the unknown type {kind}.")
        kind, length = self._number("I", key), self._number("Q", key)
        if kind == _STRING:
            # Every string takes eight bytes at least, so a list cannot outgrow the file.
            self._check(8 * length, f"key '{key}'")
            return [self._string(key) for _ in range(length)]
        require(kind in _SCALARS, f"{self.path}: key '{key}' is a list of the unknown type {kind}.")
        letter = _SCALARS[kind]
        raw = self._take(length * struct.calcsize(f"<{letter}"), f"key '{key}'")
        return np.frombuffer(raw, np.dtype(letter).newbyteorder("<")).tolist()

    def _string(self, what: str) -> str:
        raw = self._take(self._number("Q", what), f"key '{what}'")
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            raise UserError(
                f"{self.path}: the text of '{what}', before byte {self._at:,}, is not UTF-8."
            ) from None

    def _number(self, letter: str, what: str) -> Any:
        return struct.unpack(
            f"<{letter}", self._take(struct.calcsize(f"<{letter}"), f"key '{what}'")
        )[0]

    def _take(self, size: int, what: str) -> bytes:
        self._check(size, what)
        raw = self._bytes[self._at : self._at + size]
        self._at += size
        return raw

    def _check(self, size: int, what: str) -> None:
        require(
            self._at + size <= len(self._bytes),
            f"{self.path} is cut off or damaged at byte {self._at:,}: {what} should take "
            f"{size:,} bytes, but {len(self._bytes) - self._at:,} are left.",
        )


def import_gguf(what: str) -> Any:
    """The `gguf` package. Raises UserError, saying that `what` needs it, when it is missing."""
    try:
        return importlib.import_module("gguf")
    except ModuleNotFoundError:
        raise UserError(f"{what} needs gguf: run `pip install 'groundup[hf]'`.") from None
