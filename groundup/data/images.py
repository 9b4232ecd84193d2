"""Small images with a class each: drawn by rules, handwritten digits, or pieces of clothing.

| name    | what                                 | size    | comes from                            |
|---------|--------------------------------------|---------|---------------------------------------|
| shapes  | outlines of eight shapes, with noise | 16 × 16 | drawn here                            |
| digits  | 1,797 handwritten digits             | 8 × 8   | the package scikit-learn              |
| fashion | 70,000 pieces of clothing            | 28 × 28 | a Debian package, fetched once        |
| a path  | a folder of IDX files, as MNIST's    | any     | the user                              |
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from groundup.config import UserError, require
from groundup.data.archives import unpack
from groundup.data.examples import Example
from groundup.data.packages import Deb, read_package

FASHION = Deb(
    package="dataset-fashion-mnist",
    version="0.0~git20200523.55506a9-1",
    sha256="39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
)
"""What it would install lies in /usr/share/datasets/fashion-mnist, laid out as MNIST."""
FASHION_NAMES = (
    "T-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
SHAPES = ("circle", "square", "triangle", "diamond", "cross", "plus", "bars", "columns")
_STEMS = {"train": "train", "test": "t10k"}


@dataclass(frozen=True, slots=True)
class Images:
    """N grey images and the number of each one's class."""

    pixels: np.ndarray
    """(N, height, width) uint8, 0 is background."""
    labels: np.ndarray
    """(N,) int64."""
    names: tuple[str, ...]
    """Of the classes."""

    def __len__(self) -> int:
        return len(self.labels)

    def normalized(self) -> np.ndarray:
        """(N, 1, height, width) float32 from -1 to 1, what the models read."""
        return normalized(self.pixels[:, None])

    def examples(self) -> list[Example]:
        """The images with the names of their classes."""
        named = zip(self.pixels[:, None], self.labels.tolist(), strict=True)
        return [Example(target=self.names[label], image=image) for image, label in named]

    def rows(self, indices: np.ndarray) -> Images:
        """Some of the images."""
        return Images(self.pixels[indices], self.labels[indices], self.names)


def normalized(pixels: np.ndarray) -> np.ndarray:
    """uint8 of any shape -> float32 from -1 to 1, what the models read."""
    return pixels.astype(np.float32) / 127.5 - 1.0


def load_images(name: str, split: Literal["train", "test"]) -> Images:
    """The images a name stands for; see the table above. Raises UserError where they are missing.

    "shapes" and "digits" are split here, one image of six for testing; the files come split.
    """
    if name == "shapes":
        return shapes(*((6000, 1) if split == "train" else (1200, 2)))
    if name == "digits":
        whole = digits()
        held_out = np.arange(len(whole)) % 6 == 5
        return whole.rows(np.flatnonzero(held_out == (split == "test")))
    if name == "fashion":
        return fashion(split)
    folder = Path(name)
    require(
        folder.is_dir(),
        f"There is no folder {folder}. Name a folder of IDX files, or one of shapes, digits and "
        "fashion.",
    )
    return read_idx_folder(folder, split)


def shapes(count: int, seed: int, size: int = 16, noise: float = 0.15) -> Images:
    """`count` outlines, each of its own place, size and brightness, under noise."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, len(SHAPES), count)
    rows, columns = np.mgrid[0:size, 0:size].astype(np.float64)
    pixels = np.empty((count, size, size), dtype=np.uint8)
    for index, label in enumerate(labels):
        radius = random.uniform(0.22, 0.36) * size
        middle = random.uniform(radius, size - 1 - radius, 2)
        drawn = _draw(SHAPES[label], (rows - middle[0]) / radius, (columns - middle[1]) / radius)
        image = drawn * random.uniform(0.6, 1.0) + random.normal(0, noise, drawn.shape)
        pixels[index] = np.clip(255 * image, 0, 255).astype(np.uint8)
    return Images(pixels, labels.astype(np.int64), SHAPES)


def digits() -> Images:
    """The digits that come with scikit-learn, from Alpaydin & Kaynak 1998."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise UserError("The digits need scikit-learn: pip install scikit-learn") from None
    values, labels = load_digits(return_X_y=True)  # 64 numbers from 0 to 16 each
    pixels = np.asarray(values).reshape(-1, 8, 8) * (255 / 16)
    return Images(pixels.astype(np.uint8), np.asarray(labels, np.int64), tuple("0123456789"))


def fashion(split: Literal["train", "test"]) -> Images:
    """Fashion-MNIST (Xiao, Rasul and Vollgraf 2017): 60,000 images to train on, 10,000 to test."""
    stem = _STEMS[split]
    files = {
        PurePosixPath(name).name: unpack(data, name)
        for name, data in read_package(FASHION, lambda name: f"fashion-mnist/{stem}-" in name)
    }
    pixels, labels = (
        parse_idx(files[f"{stem}-{what}.gz"], what, dimensions)
        for what, dimensions in (("images-idx3-ubyte", 3), ("labels-idx1-ubyte", 1))
    )
    return Images(pixels, labels.astype(np.int64), FASHION_NAMES)


def read_idx_folder(folder: Path, split: Literal["train", "test"]) -> Images:
    """Images and labels of a folder laid out as MNIST's: `train-images-idx3-ubyte.gz` and so on."""
    stem = _STEMS[split]
    pixels = read_idx(_either(folder / f"{stem}-images-idx3-ubyte"), dimensions=3)
    labels = read_idx(_either(folder / f"{stem}-labels-idx1-ubyte"), dimensions=1)
    require(
        len(pixels) == len(labels) > 0,
        f"{folder} holds {len(pixels)} images but {len(labels)} labels for {split}.",
    )
    named = len(FASHION_NAMES) > labels.max() and "fashion" in str(folder)
    names = FASHION_NAMES if named else tuple(str(n) for n in range(int(labels.max()) + 1))
    return Images(pixels, labels.astype(np.int64), names)


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """An IDX file of bytes, packed or not -> uint8 array. Raises UserError when it is damaged."""
    return parse_idx(unpack(path.read_bytes(), str(path)), str(path), dimensions)


def parse_idx(data: bytes, name: str, dimensions: int) -> np.ndarray:
    """Two zero bytes, the type (8: bytes), the number of dimensions, each one's size in 4 bytes,
    and the values; `name` is for the message. http://yann.lecun.com/exdb/mnist
    """
    header = 4 + 4 * dimensions
    require(
        data[:4] == bytes((0, 0, 8, dimensions)) and len(data) >= header,
        f"{name} is not an IDX file of bytes in {dimensions} dimensions: it begins with "
        f"{data[:4].hex(' ') or 'nothing'}.",
    )
    shape = tuple(int.from_bytes(data[i : i + 4], "big") for i in range(4, header, 4))
    expected = math.prod(shape)
    require(
        len(data) - header == expected,
        f"{name} is damaged or cut off: its header says {' × '.join(map(str, shape))} values, "
        f"but {len(data) - header} follow. Fetch it again.",
    )
    return np.frombuffer(data, dtype=np.uint8, offset=header).reshape(shape)


def _either(path: Path) -> Path:
    """The file, or the same with .gz."""
    packed = path.with_name(path.name + ".gz")
    found = next((p for p in (path, packed) if p.is_file()), None)
    if found is None:
        raise UserError(f"{path.parent} holds neither {path.name} nor {packed.name}.")
    return found


def _draw(shape: str, down: np.ndarray, right: np.ndarray) -> np.ndarray:
    """A shape of radius 1 around (0, 0), as brightness from 0 to 1."""
    across, along = np.abs(right), np.abs(down)
    inside = np.maximum(across, along) <= 1.05
    distance = {
        "circle": np.abs(np.hypot(down, right) - 1),
        "square": np.abs(np.maximum(across, along) - 0.9),
        "triangle": np.abs(np.maximum(2 * across - down - 0.8, 2 * (down - 0.8)) / 2),
        "diamond": np.abs(across + along - 1) / 1.4,
        "cross": np.where(inside, np.abs(across - along) / 1.4, 1.0),
        "plus": np.where(inside, np.minimum(across, along), 1.0),
        "bars": np.where(inside, np.abs(along - 0.6), 1.0),
        "columns": np.where(inside, np.abs(across - 0.6), 1.0),
    }[shape]
    return np.clip(1.4 - distance / 0.16, 0, 1)
