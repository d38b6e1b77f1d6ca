"""The pictures of the report, drawn from arrays. The same arrays give the same bytes."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from itertools import cycle, islice
from pathlib import Path

import matplotlib
import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import Colormap, ListedColormap, LogNorm, to_hex
from matplotlib.figure import Figure
from nilearn.datasets import fetch_surf_fsaverage
from nilearn.plotting import plot_surf
from nilearn.surface import load_surf_data, load_surf_mesh
from PIL import Image

from ..arrays import DoubleArray, IntArray
from ..nsd.facts import HEMISPHERES, N_VERTICES_OF_FSAVERAGE5

VIEWS = ("lateral", "medial", "ventral")
SIDES = dict(zip(HEMISPHERES, ("left", "right"), strict=True))
COLOUR_MAP = "viridis"  # perceptually uniform, and ordered for every kind of colour vision
# Colour-blind people can distinguish these: Okabe and Ito (2008), "Color Universal Design".
OKABE_ITO_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
SHARED_COLOUR = "#f0e442"  # the seventh of them
# Text and lines have the colours of the page: in the drawn SVG, these two colours are replaced by CSS variables.
INK, FAINT = "#010203", "#040506"
MAP_DPI = 110
STYLE = {
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "figure.dpi": MAP_DPI,
    "font.size": 11,
    "svg.fonttype": "path",  # the same on each machine, with or without its fonts
    "svg.hashsalt": "allen2022_surface",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}
SVG_STYLE = """<style>
svg { --ink: #1c2126; --faint: #7b838c }
@media (prefers-color-scheme: dark) { svg { --ink: #e4e7ea; --faint: #8b939b } }
</style>
"""
THUMBNAIL_SIZE = 72


@dataclass(frozen=True)
class Picture:
    """A picture of the page.

    Attributes
    ----------
    alt : a text that says what the picture shows
    source : the bytes as a data URI
    width, height : in CSS pixels
    """

    alt: str
    source: str
    width: int
    height: int


def noise_ceiling_distributions(ceilings: dict[str, DoubleArray], *, highest: float, alt: str) -> Picture:
    """Draw the distributions of the noise ceilings in a region: one row per subject, with its median.

    Parameters
    ----------
    ceilings : arrays of shape (n_neuroids,), by subject
        Percent. NaN values are left out.
    highest : float
        The end of the axis, in percent. Higher noise ceilings are counted in the last bin.
    """
    with _style():
        figure = Figure(figsize=(4.6, 0.9 + 0.34 * len(ceilings)), layout="constrained")
        axes = figure.add_subplot()
        for row, values in enumerate(reversed(ceilings.values())):
            valid = values[np.isfinite(values)]
            if len(valid):
                _draw_distribution(axes, row, valid, highest)
        axes.set_yticks(np.arange(len(ceilings)) + 0.3, list(reversed(ceilings)))
        axes.tick_params(axis="y", length=0)
        axes.set_xlim(0, highest)
        axes.set_ylim(0, len(ceilings))
        axes.set_xlabel("noise ceiling (% of variance)")
        return _svg(figure, alt)


def _draw_distribution(axes: Axes, row: int, ceilings: DoubleArray, highest: float) -> None:
    bins = np.linspace(0, highest, 51)
    density = np.histogram(np.minimum(ceilings, highest), bins)[0].astype(float)
    density *= 0.85 / density.max()
    axes.stairs(row + density, bins, baseline=row, fill=True, color="#3b76af", alpha=0.75)
    median = np.median(ceilings)
    axes.plot([median, median], [row, row + 0.85], color=INK, linewidth=1.6)


def split_half_against_noise_ceiling(
    noise_ceilings: DoubleArray,
    split_half: DoubleArray,
    expected: tuple[DoubleArray, DoubleArray],
    *,
    highest: float,
    alt: str,
) -> Picture:
    """Draw the split-half ceilings of neuroids against their noise ceilings, and the curve that is expected.

    Parameters
    ----------
    noise_ceilings : array of shape (n_neuroids,)
        Percent, finite.
    split_half : array of shape (n_neuroids,)
        Unitless, finite. Values below -0.5 are drawn at -0.5.
    expected : two arrays of shape (n_points,)
        The curve: noise ceilings, in percent, and the split-half ceilings to expect of them.
    highest : float
        The end of the axis of noise ceilings, in percent.
    """
    with _style():
        figure = Figure(figsize=(4.6, 3.7), layout="constrained")
        axes = figure.add_subplot()
        bins = axes.hexbin(
            np.minimum(noise_ceilings, highest),
            np.clip(split_half, -0.5, 1),
            gridsize=(36, 24),
            extent=(0, highest, -0.5, 1),
            mincnt=1,
            cmap=ListedColormap(_colours_of_map(0.2, 1, 256)),  # without the dark end, which a dark page hides
            linewidths=0.2,
        )
        axes.plot(*expected, color=INK, linewidth=1.6)
        axes.axhline(0, color=FAINT, linewidth=0.8, zorder=0)
        axes.set_xlim(0, highest)
        axes.set_ylim(-0.5, 1)
        axes.set_xlabel("noise ceiling (% of variance)")
        axes.set_ylabel("split-half ceiling (r)")
        if len(noise_ceilings):
            _add_colour_bar(figure, axes, bins)
        return _svg(figure, alt)


def _add_colour_bar(figure: Figure, axes: Axes, bins: PolyCollection) -> None:
    """Colour the bins by the logarithm of their counts, and explain the colours beside the axes."""
    most = max(10, int(np.max(np.asarray(bins.get_array()))))
    bins.set_norm(LogNorm(1, most))
    powers = [10**exponent for exponent in range(len(str(most)))]
    bar = figure.colorbar(bins, ax=axes, label="neuroids", pad=0.02, ticks=powers, format="{x:,.0f}")
    bar.ax.minorticks_off()
    bar.outline.set_visible(False)


def split_overview(nsd_ids: Mapping[str, IntArray], *, alt: str) -> Picture:
    """Draw where the images of each split are among the images of NSD: one line per image.

    Parameters
    ----------
    nsd_ids : arrays of shape (n_images,), by split
    """
    with _style():
        figure = Figure(figsize=(9.4, 0.8 + 0.45 * len(nsd_ids)), layout="constrained")
        axes = figure.add_subplot()
        rows = np.arange(len(nsd_ids))[::-1]
        for row, ids, colour in zip(rows, nsd_ids.values(), OKABE_ITO_COLOURS, strict=False):
            axes.vlines(ids, row - 0.36, row + 0.36, color=colour, linewidth=0.7)
        axes.set_yticks(rows, list(nsd_ids))
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("nsd_id (0-based number of the image)")
        axes.margins(x=0.01)
        return _svg(figure, alt)


def cortical_map(
    values: DoubleArray, vertices: IntArray, hemisphere: str, *, limits: tuple[float, float], alt: str
) -> Picture:
    """Draw values on the inflated fsaverage5 cortex of a hemisphere, in lateral, medial and ventral view.

    Parameters
    ----------
    values : array of shape (n_vertices,)
        Values that are not finite stay blank. Values outside the limits have the colour of the limit.
    vertices : array of shape (n_vertices,)
        Vertex indices on fsaverage. Only the first 10,242 are vertices of fsaverage5.
    """
    return _draw_cortex(values, vertices, hemisphere, CortexColours(COLOUR_MAP, limits, _mean_of_valid), alt)


def region_map(codes: DoubleArray, vertices: IntArray, hemisphere: str, *, colours: Sequence[str], alt: str) -> Picture:
    """Draw the region of each vertex on the inflated fsaverage5 cortex of a hemisphere.

    Parameters
    ----------
    codes : array of shape (n_vertices,)
        Numbers of the colours.
    vertices : array of shape (n_vertices,)
        Vertex indices on fsaverage. Only the first 10,242 are vertices of fsaverage5.
    """
    limits = (-0.5, len(colours) - 0.5)
    # A triangle has the largest code of its vertices: the mean of their codes could be the code of another region.
    cortex_colours = CortexColours(ListedColormap(list(colours)), limits, np.fmax.reduce)
    return _draw_cortex(codes, vertices, hemisphere, cortex_colours, alt)


def region_colours(n_regions: int) -> list[str]:
    """Return a colour for each region. The colours repeat if there are more regions than colours."""
    return list(islice(cycle(OKABE_ITO_COLOURS), n_regions))


def colour_scale(n_colours: int = 12) -> list[str]:
    """Return colours of the scale of the maps, from the lowest to the highest value, as CSS writes them."""
    return [to_hex(colour) for colour in _colours_of_map(0, 1, n_colours)]


def thumbnail(path: Path, *, alt: str) -> Picture:
    """Shrink a stimulus for a contact sheet."""
    with Image.open(path) as image:
        image.thumbnail((THUMBNAIL_SIZE, THUMBNAIL_SIZE))
        buffer = io.BytesIO()
        image.convert("RGB").save(buffer, "JPEG", quality=72)
        return Picture(alt, _data_uri("image/jpeg", buffer.getvalue()), image.width, image.height)


@dataclass(frozen=True)
class CortexColours:
    """How values become colours on the cortex: `average` makes one value of those of a triangle's vertices."""

    colour_map: Colormap | str
    limits: tuple[float, float]
    average: Callable[[DoubleArray], float]


def _draw_cortex(values: DoubleArray, vertices: IntArray, hemisphere: str, colours: CortexColours, alt: str) -> Picture:
    lowest, highest = colours.limits
    is_drawn = (vertices < N_VERTICES_OF_FSAVERAGE5) & np.isfinite(values)
    mesh_values = np.full(N_VERTICES_OF_FSAVERAGE5, np.nan)
    mesh_values[vertices[is_drawn]] = np.clip(values[is_drawn], lowest, highest)
    mesh, background = _mesh(SIDES[hemisphere])
    with _style():
        figure = Figure(figsize=(3 * len(VIEWS), 2))
        for number, view in enumerate(VIEWS):
            # The axes are taller than the figure, which cuts off the empty parts above and below the brain.
            rectangle = (number / len(VIEWS), -0.25, 1 / len(VIEWS), 1.5)
            plot_surf(
                mesh,
                surf_map=mesh_values,
                bg_map=background,
                hemi=SIDES[hemisphere],
                view=view,
                cmap=colours.colour_map,
                vmin=lowest,
                vmax=highest,
                avg_method=colours.average,
                colorbar=False,
                engine="matplotlib",
                axes=figure.add_axes(rectangle, projection="3d"),
            )
        return _png(figure, alt)


@cache
def _mesh(side: str) -> tuple[object, DoubleArray]:
    files = fetch_surf_fsaverage("fsaverage5")  # nilearn contains it: nothing is downloaded
    is_sulcus = load_surf_data(files[f"sulc_{side}"]) > 0
    # Two light greys that no colour of the scale is near. nilearn does not rescale them, because they are within 0 and 1.
    return load_surf_mesh(files[f"infl_{side}"]), np.where(is_sulcus, 0.34, 0.2)


def _mean_of_valid(values: DoubleArray) -> float:
    """Average the vertices of a triangle that have a value, so that each vertex with a value is visible."""
    valid = values[~np.isnan(values)]
    return float(valid.sum() / len(valid)) if len(valid) else np.nan


def _colours_of_map(start: float, stop: float, n_colours: int) -> DoubleArray:
    colours: DoubleArray = matplotlib.colormaps[COLOUR_MAP](np.linspace(start, stop, n_colours))
    return colours


def _png(figure: Figure, alt: str) -> Picture:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    with Image.open(buffer) as image:
        compact = image.quantize(128, method=Image.Quantize.FASTOCTREE)
        smaller = io.BytesIO()
        compact.save(smaller, "PNG", optimize=True)
        return Picture(alt, _data_uri("image/png", smaller.getvalue()), image.width, image.height)


def _svg(figure: Figure, alt: str) -> Picture:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue().replace(INK, "var(--ink)").replace(FAINT, "var(--faint)")
    start = text.index("<defs>")
    text = text[:start] + SVG_STYLE + text[start:]
    width, height = (round(96 * inches) for inches in figure.get_size_inches())
    return Picture(alt, _data_uri("image/svg+xml", text.encode()), width, height)


def _style() -> AbstractContextManager[None]:
    return matplotlib.style.context(["default", STYLE])  # the settings of the user have no effect


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
