"""The charts of the report, as SVG whose colours are those of the page, and the thumbnails of its stimuli."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup
from PIL import Image

from ..arrays import DoubleArray, IntArray
from ..images import load_image
from .colours import channels_of, scale_colours
from .statistics import CeilingComparison

N_BINS = 50  # of a distribution
GRID = (36, 24)  # cells of a comparison, along noise ceilings and split-half ceilings
LOWEST_SPLIT_HALF = -0.5  # lower values are drawn here
FIRST_VISIBLE_STEP = 12  # of the colour scale: its dark end cannot be told from a dark page
THUMBNAIL_SIZE = 72
POSITION_BINS = 730  # of the images of NSD: 100 images each
PLOT = {"left": 46, "top": 8, "width": 300, "height": 230}  # of a comparison, in units of its view box


@dataclass(frozen=True)
class Thumbnail:
    """A small picture of a stimulus: its name, its bytes as a data URI, and its size in CSS pixels."""

    name: str
    source: str
    width: int
    height: int


def distribution(values: DoubleArray, *, highest: float) -> Markup:
    """Draw the distribution of values from 0 to `highest`, with a line at the median. The picture has no text.

    Parameters
    ----------
    values : array of shape (n_neuroids,)
        NaN values are left out; no value may be above `highest`.
    """
    valid = values[np.isfinite(values)]
    if not len(valid):
        return Markup("")
    counts, _ = np.histogram(valid, N_BINS, (0, highest))
    heights = np.round(20 * counts / max(1, counts.max())).astype(int)
    steps = "".join(f"V{20 - height}h2" for height in heights)
    median = f"{100 * np.median(valid) / highest:.2f}"
    return Markup(
        f'<svg class="bars" viewBox="0 0 100 20" preserveAspectRatio="none" aria-hidden="true"><path d="M0 20{steps}V20z"/>'
        f'<path class="mark" d="M{median} 0V20"/></svg>'
    )


def comparison(
    ceilings: CeilingComparison, expected: tuple[DoubleArray, DoubleArray], *, highest: float, alt: str
) -> Markup:
    """Draw the split-half ceilings of neuroids against their noise ceilings, and the curve that is expected.

    Parameters
    ----------
    ceilings : the ceilings of each neuroid
        Noise ceilings are in percent, from 0 to `highest`. Split-half ceilings are unitless; those below -0.5 are drawn
        at -0.5.
    expected : two arrays of shape (n_points,)
        The curve: noise ceilings, in percent, and the split-half ceilings to expect of them.
    """
    x, y, width, height = PLOT["left"], PLOT["top"], PLOT["width"], PLOT["height"]
    points = np.stack([x + width * expected[0] / highest, y + height * (1 - _height(expected[1]))], axis=1)
    curve = "L".join(f"{across:.1f} {down:.1f}" for across, down in points[::4])
    zero = y + height * (1 - _height(np.zeros(1))[0])
    source = _count_picture(ceilings, highest)
    return Markup(
        '<svg class="comparison" viewBox="0 0 360 290" role="img" aria-label="{alt}">'
        '<image href="{source}" x="{x}" y="{y}" width="{width}" height="{height}" preserveAspectRatio="none"/>'
        '<path class="axis" d="M{x} {zero:.1f}h{width}"/><path class="curve" d="M{curve}"/>'
        '<path class="axis" d="M{x} {y}v{height}h{width}"/>{ticks}</svg>'
    ).format(
        alt=alt, source=source, x=x, y=y, width=width, height=height, zero=zero, curve=curve, ticks=_ticks(highest)
    )


def _height(split_half: DoubleArray) -> DoubleArray:
    """Return how high split-half ceilings are drawn, from 0 to 1."""
    return (np.clip(split_half, LOWEST_SPLIT_HALF, 1) - LOWEST_SPLIT_HALF) / (1 - LOWEST_SPLIT_HALF)


def _count_picture(ceilings: CeilingComparison, highest: float) -> str:
    """Return the numbers of neuroids as a picture with one pixel for each cell, coloured by their logarithm."""
    split_half = np.clip(ceilings.split_half, LOWEST_SPLIT_HALF, 1)
    limits = ((0, highest), (LOWEST_SPLIT_HALF, 1))
    counts = np.histogram2d(ceilings.noise_ceilings, split_half, GRID, limits)[0].T[::-1]
    palette = [(0, 0, 0), *(channels_of(colour) for colour in scale_colours()[FIRST_VISIBLE_STEP:])]
    with np.errstate(divide="ignore"):
        shares = np.log1p(counts) / np.log1p(max(1, counts.max()))
    pixels = np.where(counts > 0, 1 + np.round(shares * (len(palette) - 2)), 0).astype(np.uint8)
    image = Image.fromarray(pixels, "P")
    image.putpalette([channel for colour in palette for channel in colour])
    buffer = io.BytesIO()
    image.save(buffer, "PNG", transparency=0, optimize=True)
    return _data_uri("image/png", buffer.getvalue())


def _ticks(highest: float) -> Markup:
    x, y, width, height = PLOT["left"], PLOT["top"], PLOT["width"], PLOT["height"]
    across = [(x + width * share, f"{highest * share:g}") for share in (0, 0.25, 0.5, 0.75, 1)]
    up = [(y + height * (1 - share), text) for share, text in ((0, "−0.5"), (1 / 3, "0"), (2 / 3, "0.5"), (1, "1"))]
    texts = [f'<text x="{left:.0f}" y="{y + height + 16}" text-anchor="middle">{text}</text>' for left, text in across]
    texts += [f'<text x="{x - 6}" y="{top + 4:.0f}" text-anchor="end">{text}</text>' for top, text in up]
    texts.append(
        f'<text x="{x + width / 2:.0f}" y="{y + height + 38}" text-anchor="middle">noise ceiling (% of variance)</text>'
    )
    middle = y + height / 2
    texts.append(
        f'<text x="12" y="{middle:.0f}" text-anchor="middle" transform="rotate(-90 12 {middle:.0f})">split-half ceiling (r)</text>'
    )
    return Markup("".join(texts))


def positions(nsd_ids: Mapping[str, IntArray], *, alt: str) -> Markup:
    """Draw where the images of each split are among the images of NSD: the more images, the stronger the colour.

    Parameters
    ----------
    nsd_ids : arrays of shape (n_images,), by split
    """
    n_images = 1 + max(int(ids.max()) for ids in nsd_ids.values())
    rows = []
    for row, (split, ids) in enumerate(nsd_ids.items()):
        bins = np.unique(ids * POSITION_BINS // n_images)
        path = "".join(f"M{number}.5 {10 * row + 1}v8" for number in bins)
        rows.append(Markup('<path class="{split}" d="{path}"/>').format(split=split, path=path))
    return Markup(
        '<svg class="positions" viewBox="0 0 {width} {height}" preserveAspectRatio="none" role="img" aria-label="{alt}">'
        "{rows}</svg>"
    ).format(width=POSITION_BINS, height=10 * len(nsd_ids), alt=alt, rows=Markup("").join(rows))


def thumbnail(path: Path, *, name: str) -> Thumbnail:
    """Shrink a stimulus for a contact sheet.

    Raises
    ------
    ValueError
        If the file is not an image.
    """
    image = load_image(path)
    image.thumbnail((THUMBNAIL_SIZE, THUMBNAIL_SIZE))
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=72)
    return Thumbnail(name, _data_uri("image/jpeg", buffer.getvalue()), image.width, image.height)


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
