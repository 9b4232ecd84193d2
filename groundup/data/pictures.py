"""A picture in a file of the user's, as the pixels a model of images reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from groundup.config import UserError, require

FORMATS = ("PNG", "JPEG")
MOST_PIXELS = 1 << 26
"""Larger pictures are not unpacked: a small file can claim any size."""


def read_picture(path: str | Path, channels: int, size: int) -> np.ndarray:
    """A PNG or JPEG file -> (channels, size, size) uint8, squeezed where it is not square.

    Of one channel it is grey, on black where it is transparent, as scanned digits are; of three it
    is coloured, on white. Raises UserError where there is no such picture or Pillow is missing.
    """
    try:
        from PIL import Image
    except ImportError:
        raise UserError(
            "Reading pictures needs Pillow: run `pip install 'groundup[images]'`."
        ) from None
    path = Path(path)
    require(path.is_file(), f"There is no picture {path}.")
    require(channels in (1, 3), f"The model reads {channels} channels, but pictures have 1 or 3.")
    try:
        with Image.open(path, formats=FORMATS) as file:
            require(
                file.width * file.height <= MOST_PIXELS,
                f"{path} has {file.width} × {file.height} pixels; scale it down first.",
            )
            picture = file.convert("RGBA")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        if isinstance(error, UserError):
            raise
        kinds = " or ".join(FORMATS)
        raise UserError(f"{path} is not a whole {kinds} file ({error}).") from None
    paper = Image.new("RGBA", picture.size, "white" if channels == 3 else "black")
    flat = Image.alpha_composite(paper, picture).convert("RGB" if channels == 3 else "L")
    values = np.asarray(flat.resize((size, size)))
    return np.ascontiguousarray(values.reshape(size, size, channels).transpose(2, 0, 1))
