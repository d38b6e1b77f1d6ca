"""The cortex that a reader can turn: what its script needs, as compact as a page can hold it."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from ..arrays import AnyArray, DoubleArray, IntArray
from ..facts import HEMISPHERES, N_VERTICES_OF_FSAVERAGE5
from ..release import Manifest
from .colours import SHARED_COLOUR, region_colours, scale_colours
from .measures import MEASURES, Measure, highest_on_scale
from .statistics import NeuroidStatistics
from .summaries import region_names, subject_names
from .surface import SIDES, Surface, read_surface

LARGEST_CODE = 65_534  # of a value; the next number stands for no value
POINT_UNIT = 0.005  # mm: 16 bits are enough for +-163 mm


@dataclass(frozen=True, eq=False)
class RegionCodes:
    """Which regions each vertex of a subject is part of.

    Attributes
    ----------
    vertices : array of shape (n_covered,)
        The vertices in any region, ascending: those of the left hemisphere, then those of the right one.
    sets : array of shape (n_covered,)
        The number of each vertex's set of regions.
    rows : array of shape (n_covered,)
        A row of each vertex in the table of neuroids. A vertex in several regions has the same values in all.
    """

    vertices: IntArray
    sets: IntArray
    rows: IntArray


@dataclass(frozen=True)
class MeasureScale:
    """The values of a measure: the lowest and the highest one, and the end of their scale of colours, which starts at 0."""

    lowest: float
    highest: float
    end: float


def cortex_content(neuroids: NeuroidStatistics, manifest: Manifest) -> dict[str, object]:
    """Return the maps of a release for the script of the page: numbers, texts, and arrays in base 64."""
    n_known = min(manifest.n_vertices, N_VERTICES_OF_FSAVERAGE5)
    names = region_names(manifest)
    region_sets: dict[tuple[int, ...], int] = {(number,): number for number in range(len(names))}
    scales = {measure: _measure_scale(neuroids.values(measure.column)) for measure in MEASURES}
    layouts: dict[str, int] = {}
    subjects = []
    for subject in subject_names(manifest):
        rows = neuroids.rows(subject=subject)
        codes = _region_codes(neuroids.table.iloc[rows], names, n_known, region_sets)
        layout = layouts.setdefault(_pack_layout(codes, n_known), len(layouts))
        values = [
            _pack_values(neuroids.values(measure.column, rows[codes.rows]), scale) for measure, scale in scales.items()
        ]
        subjects.append({"name": subject, "layout": layout, "values": values})
    return {
        **_describe_surface(read_surface(manifest.n_vertices)),
        "n": n_known,
        "regions": names,
        "colours": [*region_colours(len(names)), SHARED_COLOUR],
        "sets": list(region_sets),
        "layouts": list(layouts),
        "scale": scale_colours(),
        "measures": [_describe_measure(measure, scale) for measure, scale in scales.items()],
        "subjects": subjects,
    }


def _region_codes(
    table: pd.DataFrame, names: Sequence[str], n_known: int, region_sets: dict[tuple[int, ...], int]
) -> RegionCodes:
    """Number the set of regions of each vertex. The first sets are single regions; new sets get new numbers."""
    known = np.flatnonzero(table["vertex_index"].to_numpy() < n_known)
    shown = table.iloc[known]
    vertices = shown["vertex_index"].to_numpy() + n_known * (shown["hemisphere"] == HEMISPHERES[1]).to_numpy()
    numbers = pd.Index(names).get_indexer(pd.Index(shown["region"]))
    order = np.lexsort((numbers, vertices))
    covered, starts, n_regions = np.unique(vertices[order], return_index=True, return_counts=True)
    sets = numbers[order][starts].astype(np.int64)
    for place in np.flatnonzero(n_regions > 1):
        regions = numbers[order][starts[place] : starts[place] + n_regions[place]]
        sets[place] = region_sets.setdefault(tuple(regions.tolist()), len(region_sets))
    return RegionCodes(covered, sets, known[order][starts])


def _pack_layout(codes: RegionCodes, n_known: int) -> str:
    """Return for each vertex of both hemispheres 1 + the number of its set of regions, or 0."""
    layout = np.zeros(n_known * len(HEMISPHERES), dtype=np.uint16)
    layout[codes.vertices] = codes.sets + 1
    return _pack(layout)


def _describe_surface(surface: Surface) -> dict[str, object]:
    return {
        "unit": POINT_UNIT,
        "faces": _pack(surface.faces.astype(np.uint16)),
        "nearest": _pack(surface.nearest.astype(np.uint16)),
        "hemispheres": [
            {
                "name": f"{side} hemisphere",
                "points": _pack(np.round(surface.points[hemisphere] / POINT_UNIT).astype(np.int16)),
                "sulci": _pack(np.clip(10 * surface.sulci[hemisphere], -127, 127).astype(np.int8)),
            }
            for hemisphere, side in SIDES.items()
        ],
    }


def _measure_scale(values: DoubleArray) -> MeasureScale:
    valid = values[np.isfinite(values)]
    lowest, highest = (float(valid.min()), float(valid.max())) if len(valid) else (0.0, 1.0)
    return MeasureScale(lowest, max(highest, lowest + 1e-6), highest_on_scale(values, quantile=0.99))


def _describe_measure(measure: Measure, scale: MeasureScale) -> dict[str, object]:
    return {"title": measure.title, "unit": measure.unit, "digits": measure.n_digits, **asdict(scale)}


def _pack_values(values: DoubleArray, scale: MeasureScale) -> str:
    """Return values as 16-bit numbers between the lowest and the highest value."""
    codes = np.round(LARGEST_CODE * (np.nan_to_num(values) - scale.lowest) / (scale.highest - scale.lowest))
    return _pack(np.where(np.isfinite(values), codes, LARGEST_CODE + 1).astype(np.uint16))


def _pack(array: AnyArray) -> str:
    """Return the bytes of an array, little-endian, in base 64."""
    little = array.astype(array.dtype.newbyteorder("<"))
    return base64.b64encode(little.tobytes()).decode("ascii")
