"""The pictures of the report: drawn from arrays, returned as data URIs, the same bytes from the same arrays."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import matplotlib
import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Colormap, ListedColormap, LogNorm
from matplotlib.figure import Figure
from nilearn.datasets import fetch_surf_fsaverage
from nilearn.plotting import plot_surf
from nilearn.surface import load_surf_data, load_surf_mesh
from PIL import Image

from ..nsd.files import HEMISPHERES
from ..nsd.trials import N_REPETITIONS

N_VERTICES_OF_FSAVERAGE5 = 10_242  # its vertices are the first of fsaverage
VIEWS = ("lateral", "medial", "ventral")
COLOUR_MAP = "viridis"  # perceptually uniform, and ordered for every kind of colour vision
REGION_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7")  # Okabe and Ito (2008), told apart by the colour-blind
SHARED_COLOUR = "#f0e442"
# Text and lines take the colour of the page, by two stand-ins that the drawn SVG is searched for.
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
    "svg.fonttype": "path",  # the same on every machine, whatever fonts it has
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
    """A picture to put into a page: what it shows in words, its bytes as a data URI and its size in CSS pixels."""

    alt: str
    source: str
    width: int
    height: int


def noise_ceiling_distributions(ceilings: dict[str, np.ndarray], *, highest: float, alt: str) -> Picture:
    """Draw how the noise ceilings of a region are distributed, a row per subject with its median.

    Parameters
    ----------
    ceilings : arrays of shape (n_neuroids,) by subject
        Percent; NaN is left out.
    highest : float
        The end of the axis, percent.
    """
    bins = np.linspace(0, highest, 51)
    with _style():
        figure = Figure(figsize=(4.6, 0.9 + 0.34 * len(ceilings)), layout="constrained")
        axes = figure.add_subplot()
        for row, values in enumerate(reversed(ceilings.values())):
            values = values[np.isfinite(values)]
            if not len(values):
                continue
            density = np.histogram(np.minimum(values, highest), bins)[0].astype(float)
            density *= 0.85 / density.max()
            axes.stairs(row + density, bins, baseline=row, fill=True, color="#3b76af", alpha=0.75)
            median = np.median(values)
            axes.plot([median, median], [row, row + 0.85], color=INK, linewidth=1.6)
        axes.set_yticks(np.arange(len(ceilings)) + 0.3, list(reversed(ceilings)))
        axes.tick_params(axis="y", length=0)
        axes.set_xlim(0, highest)
        axes.set_ylim(0, len(ceilings))
        axes.set_xlabel("noise ceiling (% of variance)")
        return _svg(figure, alt)


def split_half_against_noise_ceiling(
    noise_ceilings: np.ndarray, split_half: np.ndarray, *, highest: float, alt: str
) -> Picture:
    """Draw the split-half ceilings of a region's neuroids against their noise ceilings, and what is expected of them.

    Parameters
    ----------
    noise_ceilings : array of shape (n_neuroids,)
        Percent.
    split_half : array of shape (n_neuroids,)
        Unitless; neuroids where either is not finite are left out.
    highest : float
        The end of the axis of noise ceilings, percent.
    """
    valid = np.isfinite(noise_ceilings) & np.isfinite(split_half)
    with _style():
        figure = Figure(figsize=(4.6, 3.7), layout="constrained")
        axes = figure.add_subplot()
        bins = axes.hexbin(
            np.minimum(noise_ceilings[valid], highest),
            np.clip(split_half[valid], -0.5, 1),
            gridsize=(36, 24),
            extent=(0, highest, -0.5, 1),
            mincnt=1,
            cmap=ListedColormap(matplotlib.colormaps[COLOUR_MAP](np.linspace(0.2, 1, 256))),  # seen on a dark page too
            linewidths=0.2,
        )
        expected = np.linspace(0, min(highest, 99.9), 200)
        axes.plot(expected, expected_split_half(expected), color=INK, linewidth=1.6)
        axes.axhline(0, color=FAINT, linewidth=0.8, zorder=0)
        axes.set_xlim(0, highest)
        axes.set_ylim(-0.5, 1)
        axes.set_xlabel("noise ceiling (% of variance)")
        axes.set_ylabel("split-half ceiling (r)")
        if valid.any():
            most = max(10, int(np.max(np.asarray(bins.get_array()))))
            bins.set_norm(LogNorm(1, most))
            powers = [10**k for k in range(len(str(most)))]
            bar = figure.colorbar(bins, ax=axes, label="neuroids", pad=0.02, ticks=powers, format="{x:,.0f}")
            bar.ax.minorticks_off()
            bar.outline.set_visible(False)
        return _svg(figure, alt)


def expected_split_half(noise_ceiling: np.ndarray) -> np.ndarray:
    """Return the split-half ceiling of a neuroid whose repetitions differ by nothing but independent noise.

    Brain-Score correlates one repetition with the average of the other two, and corrects for two halves.

    Parameters
    ----------
    noise_ceiling : array
        Of the average of three repetitions, percent, below 100.

    Returns
    -------
    array
        Unitless.
    """
    signal = noise_ceiling / (100 - noise_ceiling) / N_REPETITIONS  # variance, that of one trial's noise being 1
    n_second = N_REPETITIONS - N_REPETITIONS // 2
    n_first = N_REPETITIONS - n_second
    correlation = signal / np.sqrt((signal + 1 / n_first) * (signal + 1 / n_second))
    return 2 * correlation / (1 + correlation)


def split_overview(nsd_ids: Mapping[str, np.ndarray], *, alt: str) -> Picture:
    """Draw where the images of each split lie among NSD's own, a line per image."""
    with _style():
        figure = Figure(figsize=(9.4, 0.8 + 0.45 * len(nsd_ids)), layout="constrained")
        axes = figure.add_subplot()
        rows = np.arange(len(nsd_ids))[::-1]
        for row, ids, colour in zip(rows, nsd_ids.values(), REGION_COLOURS, strict=False):
            axes.vlines(ids, row - 0.36, row + 0.36, color=colour, linewidth=0.7)
        axes.set_yticks(rows, list(nsd_ids))
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("nsd_id (0-based number of the image)")
        axes.margins(x=0.01)
        return _svg(figure, alt)


def cortical_map(
    values: np.ndarray, vertices: np.ndarray, hemisphere: str, *, limits: tuple[float, float], alt: str
) -> Picture:
    """Draw values on the inflated fsaverage5 cortex of a hemisphere, in lateral, medial and ventral view.

    Parameters
    ----------
    values : array of shape (n_vertices,)
        What is not finite is left blank; what lies beyond `limits` takes the colour of the limit.
    vertices : array of shape (n_vertices,)
        Their vertex indices on fsaverage; only the first 10,242 are on the mesh.
    """
    return _cortex(values, vertices, hemisphere, COLOUR_MAP, limits, _mean_of_valid, alt)


def region_map(codes: np.ndarray, vertices: np.ndarray, hemisphere: str, *, alt: str) -> Picture:
    """Draw which region each vertex belongs to: its number in `REGIONS`, or `len(REGION_COLOURS)` for more than one."""
    colours = ListedColormap([*REGION_COLOURS, SHARED_COLOUR])
    limits = (-0.5, len(REGION_COLOURS) + 0.5)
    # The largest of a triangle's codes: their mean would be another region.
    return _cortex(codes, vertices, hemisphere, colours, limits, np.fmax.reduce, alt)


def colour_scale(n_colours: int = 12) -> list[str]:
    """Return colours of the map's scale, lowest first, as CSS writes them."""
    colours = matplotlib.colormaps[COLOUR_MAP](np.linspace(0, 1, n_colours))
    return [matplotlib.colors.to_hex(colour) for colour in colours]


def thumbnail(path: Path, *, alt: str) -> Picture:
    """Shrink a stimulus, for a contact sheet."""
    with Image.open(path) as image:
        image.thumbnail((THUMBNAIL_SIZE, THUMBNAIL_SIZE))
        buffer = io.BytesIO()
        image.convert("RGB").save(buffer, "JPEG", quality=72)
        return Picture(alt, _data_uri("image/jpeg", buffer.getvalue()), image.width, image.height)


def _cortex(
    values: np.ndarray,
    vertices: np.ndarray,
    hemisphere: str,
    colours: Colormap | str,
    limits: tuple[float, float],
    average: Callable[[np.ndarray], float],
    alt: str,
) -> Picture:
    drawn = (vertices < N_VERTICES_OF_FSAVERAGE5) & np.isfinite(values)
    of_mesh = np.full(N_VERTICES_OF_FSAVERAGE5, np.nan)
    of_mesh[vertices[drawn]] = np.clip(values[drawn], *limits)
    side = dict(zip(HEMISPHERES, ("left", "right"), strict=True))[hemisphere]
    mesh, background = _mesh(side)
    with _style():
        figure = Figure(figsize=(3 * len(VIEWS), 2))
        canvas = FigureCanvasAgg(figure)
        for i, view in enumerate(VIEWS):
            # Taller than the figure, which cuts off what is empty above and below.
            place = (i / len(VIEWS), -0.25, 1 / len(VIEWS), 1.5)
            axes: Axes = figure.add_axes(place, projection="3d")
            plot_surf(
                mesh,
                surf_map=of_mesh,
                bg_map=background,
                hemi=side,
                view=view,
                cmap=colours,
                vmin=limits[0],
                vmax=limits[1],
                avg_method=average,
                colorbar=False,
                engine="matplotlib",
                axes=axes,
            )
        buffer = io.BytesIO()
        canvas.print_png(buffer, metadata={"Software": None})
    return _compact_png(buffer, alt)


@cache
def _mesh(side: str) -> tuple[object, np.ndarray]:
    files = fetch_surf_fsaverage("fsaverage5")  # comes with nilearn: nothing is downloaded
    is_sulcus = load_surf_data(files[f"sulc_{side}"]) > 0
    # Two light greys, within 0 and 1 so that nilearn takes them as they are: none is near a colour of the scale.
    return load_surf_mesh(files[f"infl_{side}"]), np.where(is_sulcus, 0.34, 0.2)


def _mean_of_valid(values: np.ndarray) -> float:
    """Average the vertices of a triangle that have a value, so that every vertex with one is seen."""
    valid = values[values == values]
    return valid.sum() / len(valid) if len(valid) else np.nan


def _compact_png(buffer: io.BytesIO, alt: str) -> Picture:
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
    return matplotlib.style.context(["default", STYLE])  # whatever the reader's own matplotlibrc says


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
