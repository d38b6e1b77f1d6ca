"""Image files that may be damaged."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from .errors import one_line, raise_if_of_machine


def load_image(path: Path | io.BytesIO) -> Image.Image:
    """Read an image and all of its pixels, from a file or from its content.

    Raises
    ------
    ValueError
        If the file is not an image, is one of too many pixels, or has no pixel but black ones, as no image of NSD.
    OSError
        If the system cannot read the file.
    """
    try:
        with Image.open(path) as image:
            image.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # what Pillow raises
        raise_if_of_machine(error, path)
        raise ValueError(f"{path} is not an image ({one_line(error)}).") from error
    if image.getbbox() is None:
        raise ValueError(f"{path} is black: all of its pixels are 0. Were the images complete from which it was made?")
    return image
