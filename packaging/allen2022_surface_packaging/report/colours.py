"""The colours of the report: a scale for values, and a colour for each region."""

from __future__ import annotations

import colorsys

import numpy as np

from ..arrays import DoubleArray, IntArray

# Viridis at 16 even steps: perceptually uniform, and ordered for every kind of colour vision.
# Smith and van der Walt (2015), https://bids.github.io/colormap, in the public domain (CC0).
VIRIDIS = (
    *("#440154", "#481a6c", "#472f7d", "#414487", "#39568c", "#31688e", "#2a788e", "#23888e"),
    *("#1f988b", "#22a884", "#35b779", "#54c568", "#7ad151", "#a5db36", "#d2e21b", "#fde725"),
)
N_SCALE_COLOURS = 64
# Colour-blind people can distinguish these: Okabe and Ito (2008), "Color Universal Design".
OKABE_ITO_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
SHARED_COLOUR = "#f0e442"  # the seventh of them
GOLDEN_ANGLE = 0.381966  # of the circle of hues: two neighbours in a list of regions differ clearly
LIGHTNESSES = (0.42, 0.62, 0.52)


def scale_colours() -> list[str]:
    """Return the colours of the scale, from the lowest to the highest value, as CSS writes them."""
    anchors = np.array([channels_of(colour) for colour in VIRIDIS])
    positions = np.linspace(0, len(VIRIDIS) - 1, N_SCALE_COLOURS)
    channels = [np.interp(positions, np.arange(len(VIRIDIS)), anchors[:, channel]) for channel in range(3)]
    return [_hexadecimal(*colour) for colour in np.stack(channels, axis=1)]


def ink_on(colour: str) -> str:
    """Return black or white, whichever is easier to read on a colour (WCAG 2.2, contrast ratio)."""
    red, green, blue = (_linear(channel / 255) for channel in channels_of(colour))
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return "#000" if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else "#fff"


def scale_steps(values: DoubleArray, limits: tuple[float, float]) -> IntArray:
    """Return the number of the scale's colour for each value, -1 where a value is NaN.

    Values outside the limits have the colour of the limit.
    """
    low, high = limits
    share = np.clip((np.nan_to_num(values) - low) / (high - low or 1), 0, 1)
    steps = np.minimum(N_SCALE_COLOURS * share, N_SCALE_COLOURS - 1).astype(np.int64)
    return np.where(np.isfinite(values), steps, -1)


def region_colours(n_regions: int) -> list[str]:
    """Return a colour for each region: those for colour-blind people if they suffice, else many that differ in turn."""
    if n_regions <= len(OKABE_ITO_COLOURS):
        return list(OKABE_ITO_COLOURS[:n_regions])
    return [_spread_colour(number) for number in range(n_regions)]


def _spread_colour(number: int) -> str:
    lightness = LIGHTNESSES[number % len(LIGHTNESSES)]
    return _hexadecimal(*(255 * c for c in colorsys.hls_to_rgb(number * GOLDEN_ANGLE % 1, lightness, 0.62)))


def channels_of(colour: str) -> tuple[int, int, int]:
    """Return red, green and blue of a colour, from 0 to 255."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _hexadecimal(red: float, green: float, blue: float) -> str:
    return f"#{round(red):02x}{round(green):02x}{round(blue):02x}"


def _linear(channel: float) -> float:
    """Undo the gamma of sRGB."""
    return channel / 12.92 if channel <= 0.04045 else float(((channel + 0.055) / 1.055) ** 2.4)
