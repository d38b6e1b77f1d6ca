"""The pictures of the report: paths of its SVG charts, small bitmaps in them, and thumbnails of the stimuli; and the colours."""

from __future__ import annotations

import base64
import colorsys
import io
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageColor

from ..arrays import DoubleArray, IntArray
from ..images import load_image
from ..plugin import import_plugin

# Viridis at 16 even steps: perceptually uniform, and ordered for every kind of colour vision.
# Smith and van der Walt (2015), https://bids.github.io/colormap, in the public domain (CC0).
VIRIDIS = (
    *("#440154", "#481a6c", "#472f7d", "#414487", "#39568c", "#31688e", "#2a788e", "#23888e"),
    *("#1f988b", "#22a884", "#35b779", "#54c568", "#7ad151", "#a5db36", "#d2e21b", "#fde725"),
)
N_SCALE_COLOURS = 64
FIRST_LIGHT_STEP = 28  # black text is easier to read than white text from here on (WCAG 2.2, contrast ratio)
# Colour-blind people can distinguish these: Okabe and Ito (2008), "Color Universal Design".
OKABE_ITO_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
SHARED_COLOUR = "#f0e442"  # the seventh of them
GOLDEN_ANGLE = 0.381966  # of the circle of hues: two neighbours in a list of regions differ clearly
LIGHTNESSES = (0.42, 0.62, 0.52)

N_BINS = 50  # of a distribution
GRID = (36, 24)  # cells of a comparison, along noise ceilings and split-half ceilings
LOWEST_SPLIT_HALF = -0.5  # lower values are drawn here
FIRST_VISIBLE_STEP = 12  # of the colour scale: its dark end cannot be told from a dark page
PLOT = {"left": 46, "top": 8, "width": 300, "height": 230}  # of a comparison, in units of its view box
THUMBNAIL_SIZE = 72
N_POSITIONS = 730  # of the images of NSD: 100 images each


def scale_colours() -> list[str]:
    """Return the colours of the scale, from the lowest to the highest value, as CSS writes them."""
    anchors = np.array([ImageColor.getrgb(colour) for colour in VIRIDIS])
    positions = np.linspace(0, len(VIRIDIS) - 1, N_SCALE_COLOURS)
    channels = [np.interp(positions, np.arange(len(VIRIDIS)), anchors[:, channel]) for channel in range(3)]
    return [_hexadecimal(*colour) for colour in np.stack(channels, axis=1)]


def scale_step(value: float | None, highest: float) -> int:
    """Return the number of the scale's colour for a value from 0 to `highest`, or -1 for no value."""
    return -1 if value is None else int(min(N_SCALE_COLOURS - 1, N_SCALE_COLOURS * max(value, 0) / highest))


def region_colours(n_regions: int) -> list[str]:
    """Return a colour for each region: those for colour-blind people if they suffice, else many that differ in turn."""
    if n_regions <= len(OKABE_ITO_COLOURS):
        return list(OKABE_ITO_COLOURS[:n_regions])
    colours = (
        colorsys.hls_to_rgb(number * GOLDEN_ANGLE % 1, LIGHTNESSES[number % len(LIGHTNESSES)], 0.62)
        for number in range(n_regions)
    )
    return [_hexadecimal(*(255 * channel for channel in colour)) for colour in colours]


def _hexadecimal(red: float, green: float, blue: float) -> str:
    return f"#{round(red):02x}{round(green):02x}{round(blue):02x}"


def distribution_path(values: DoubleArray, *, highest: float) -> str:
    """Return the outline of the distribution of values from 0 to `highest`, 100 wide and 20 high.

    Parameters
    ----------
    values : array of shape (n_neuroids,)
        NaN values are left out; no value may be above `highest`.
    """
    counts, _ = np.histogram(values[np.isfinite(values)], N_BINS, (0, highest))
    heights = np.round(20 * counts / max(1, counts.max())).astype(int)
    return "M0 20" + "".join(f"V{20 - height}h2" for height in heights) + "V20z"


def expected_curve(highest: float) -> str:
    """Return the path of the split-half ceilings to expect of neuroids with noise ceilings from 0 to `highest` percent."""
    noise_ceilings = np.linspace(0, min(highest, 99.9), 200)[::4]
    split_half = import_plugin("analysis.ceiling").expected_consistency(noise_ceilings)
    across = PLOT["left"] + PLOT["width"] * noise_ceilings / highest
    down = PLOT["top"] + PLOT["height"] * (1 - split_half) / (1 - LOWEST_SPLIT_HALF)
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in zip(across, down, strict=True))


def comparison_picture(noise_ceilings: DoubleArray, split_half: DoubleArray, *, highest: float) -> str:
    """Return how many neuroids have which ceilings, as a picture with one pixel for each cell, coloured by their logarithm.

    Parameters
    ----------
    noise_ceilings : array of shape (n_neuroids,)
        In percent, from 0 to `highest`.
    split_half : array of shape (n_neuroids,)
        Unitless; values below -0.5 count as -0.5.
    """
    limits = ((0, highest), (LOWEST_SPLIT_HALF, 1))
    counts = np.histogram2d(noise_ceilings, np.clip(split_half, LOWEST_SPLIT_HALF, 1), GRID, limits)[0].T[::-1]
    palette = [(0, 0, 0), *map(ImageColor.getrgb, scale_colours()[FIRST_VISIBLE_STEP:])]
    shares = np.log1p(counts) / np.log1p(max(1, counts.max()))
    pixels = np.where(counts > 0, 1 + np.round(shares * (len(palette) - 2)), 0).astype(np.uint8)
    image = Image.fromarray(pixels, "P")
    image.putpalette([channel for colour in palette for channel in colour])
    return _data_uri(image, "PNG", transparency=0, optimize=True)


def position_path(nsd_ids: IntArray, n_images: int) -> str:
    """Return a path with a line, 8 high, where the images are among the first `n_images` of NSD."""
    return "".join(f"M{position}.5 1v8" for position in np.unique(nsd_ids * N_POSITIONS // n_images))


def thumbnails(stimuli: pd.DataFrame, folder: Path) -> list[dict[str, object]]:
    """Shrink the images of a stimulus table: `name`, the `source` as a data URI, and `width` and `height` in CSS pixels.

    Raises
    ------
    ValueError
        If a file is not an image, or black.
    """
    shown: list[dict[str, object]] = []
    for file_name, name in zip(stimuli["image_file_name"], stimuli["stimulus_id"], strict=True):
        image = load_image(folder / file_name)
        image.thumbnail((THUMBNAIL_SIZE, THUMBNAIL_SIZE))
        source = _data_uri(image.convert("RGB"), "JPEG", quality=72)
        shown.append({"name": name, "source": source, "width": image.width, "height": image.height})
    return shown


def _data_uri(image: Image.Image, kind: str, **options: int) -> str:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
