"""Picture files as the pixels that a model of images reads."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from groundup.config import UserError, require

FORMATS = ("PNG", "JPEG")
MOST_PIXELS = 1 << 26
"""Larger pictures are not unpacked: a small file can claim any size."""


def read_picture(path: str | Path, channels: int, size: int) -> np.ndarray:
    """A file of the user's -> (channels, size, size) uint8; see `decode_picture`."""
    require(Path(path).is_file(), f"There is no picture {path}.")
    return decode_picture(Path(path).read_bytes(), str(path), channels, size)


def decode_picture(data: bytes, name: str, channels: int, size: int) -> np.ndarray:
    """A PNG or JPEG -> (channels, size, size) uint8, squeezed where it is not square.

    Of one channel it is grey, on black where it is transparent, as scanned digits are; of three it
    is coloured, on white. Raises UserError where there is no such picture or Pillow is missing.
    """
    require_pillow()
    from PIL import Image, UnidentifiedImageError

    require(channels in (1, 3), f"The model reads {channels} channels, but pictures have 1 or 3.")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as file:
            require(
                file.width * file.height <= MOST_PIXELS,
                f"{name} has {file.width} × {file.height} pixels; scale it down first.",
            )
            picture = file.convert("RGBA")
    except UserError:
        raise
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        kinds = " or ".join(FORMATS)
        # Of a file it does not know, Pillow would name the buffer in memory.
        known = not isinstance(error, UnidentifiedImageError)
        why = f" ({error})" if known else ", the formats that are read here"
        raise UserError(f"{name} is not a whole {kinds} file{why}.") from None
    paper = Image.new("RGBA", picture.size, "white" if channels == 3 else "black")
    flat = Image.alpha_composite(paper, picture).convert("RGB" if channels == 3 else "L")
    values = np.asarray(flat.resize((size, size)))
    return np.ascontiguousarray(values.reshape(size, size, channels).transpose(2, 0, 1))


def require_pillow() -> None:
    """Raises UserError, saying how to get it, where Pillow is missing."""
    try:
        import PIL  # noqa: F401
    except ImportError:
        raise UserError(
            "Reading pictures needs Pillow: run `pip install 'groundup[images]'`."
        ) from None
