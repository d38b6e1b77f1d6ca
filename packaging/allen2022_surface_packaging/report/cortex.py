"""The cortex that a reader can turn: what its script needs, as compact as a page can hold it.

The vertices of fsaverage follow from subdividing an icosahedron again and again: each step keeps the vertices that there
are, and adds new ones behind them. So the first 10,242 of its 163,842 vertices are those of fsaverage5, and the 642
vertices of a small simulated tree are the first 642 of both.
"""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pandas as pd
from nilearn.datasets import fetch_surf_fsaverage
from nilearn.surface import load_surf_data, load_surf_mesh
from scipy.spatial import KDTree

from ..arrays import AnyArray
from ..facts import HEMISPHERES, N_VERTICES_OF_FSAVERAGE5
from ..release import Manifest
from .charts import SHARED_COLOUR, region_colours, scale_colours
from .statistics import Neuroids, highest_on_scale, region_names, subject_names

SURFACE_SIZES = tuple(10 * 4**n_subdivisions + 2 for n_subdivisions in range(8))  # 12 to fsaverage's 163,842
LARGEST_CODE = 65_534  # of a value; the next number stands for no value
POINT_UNIT = 0.005  # mm: 16 bits are enough for +-163 mm


def cortex_maps(neuroids: Neuroids, manifest: Manifest) -> dict[str, object] | None:
    """Return the maps of a release for the script of the page: numbers, texts, and arrays in base 64.

    Returns
    -------
    None if the positions of the vertices are not known: they are on fsaverage and on its earlier subdivisions, and those
    of a simulated tree are always the first of fsaverage. Else the surface as `_read_surface`, and
        `n`, the vertices per hemisphere that have a colour; `regions`, their names; `colours` of each region and of a vertex
        in several; `sets`, the numbers of the regions in each set of regions that a vertex can be in; `layouts`, arrays of
        shape (2 n,) with 1 + the number of the set of each vertex of both hemispheres, or 0; `scale`, the colours of
        values; `measures`, how each is written, its lowest and highest value, and the `end` of its scale, which starts
        at 0; and `subjects`, the last of which is the mean of several, each with its `name`, the number of its `layout`, and the `values` of each measure at the
        vertices in a region, as 16-bit numbers between the lowest and the highest value.
    """
    if not manifest.simulated and manifest.n_vertices not in SURFACE_SIZES:
        return None
    n_known = min(manifest.n_vertices, N_VERTICES_OF_FSAVERAGE5)
    names = region_names(manifest)
    region_sets: dict[tuple[int, ...], int] = {(number,): number for number in range(len(names))}
    measures = [_describe_measure(neuroids, *measure) for measure in neuroids.measures]
    layouts: dict[str, int] = {}
    subjects = []
    for name, neuroids_shown in _maps_to_show(neuroids, manifest, n_known).items():
        layout, shown = _lay_out(neuroids_shown, names, n_known, region_sets)
        values = []
        for measure, scale in zip(neuroids.measures, measures, strict=True):
            shares = (shown[measure.column].to_numpy() - scale["lowest"]) / (scale["highest"] - scale["lowest"])
            codes = np.where(np.isfinite(shares), np.round(LARGEST_CODE * np.nan_to_num(shares)), LARGEST_CODE + 1)
            values.append(_pack(codes.astype(np.uint16)))
        subjects.append({"name": name, "layout": layouts.setdefault(_pack(layout), len(layouts)), "values": values})
    return {
        **_read_surface(n_known),
        "n": n_known,
        "regions": names,
        "colours": [*region_colours(len(names)), SHARED_COLOUR],
        "sets": list(region_sets),
        "layouts": list(layouts),
        "scale": scale_colours(),
        "measures": measures,
        "subjects": subjects,
    }


def _maps_to_show(neuroids: Neuroids, manifest: Manifest, n_known: int) -> dict[str, pd.DataFrame]:
    """Return the neuroids at the first vertices of each subject; and of several subjects the mean, without NaN values.

    Where regions differ between subjects, a vertex is in each region that it is in in any of them.
    """
    shown = neuroids.table[neuroids.table["vertex_index"] < n_known]
    maps = {name: shown[shown["subject"] == name] for name in subject_names(manifest)}
    if len(maps) > 1:
        place, columns = ["hemisphere", "vertex_index"], [measure.column for measure in neuroids.measures]
        means = shown.drop_duplicates(["subject", *place]).groupby(place, observed=True)[columns].mean()
        regions = shown.drop_duplicates(["region", *place])[["region", *place]]
        maps[f"all {len(maps)} subjects (mean)"] = regions.join(means, on=place)
    return maps


def _lay_out(
    shown: pd.DataFrame, names: list[str], n_known: int, region_sets: dict[tuple[int, ...], int]
) -> tuple[AnyArray, pd.DataFrame]:
    """Return the layout of a map, and a row of its table for each vertex in a region.

    New sets of regions get new numbers. A vertex in several regions shows its values in the first.
    """
    numbers = shown["region"].cat.rename_categories({name: number for number, name in enumerate(names)}).to_numpy()
    vertices = shown["vertex_index"].to_numpy() + n_known * (shown["hemisphere"] == HEMISPHERES[1]).to_numpy()
    order = np.lexsort((numbers, vertices))
    covered, starts, n_regions = np.unique(vertices[order], return_index=True, return_counts=True)
    sets = numbers[order][starts]
    for vertex in np.flatnonzero(n_regions > 1):
        regions = numbers[order][starts[vertex] : starts[vertex] + n_regions[vertex]]
        sets[vertex] = region_sets.setdefault(tuple(regions.tolist()), len(region_sets))
    layout = np.zeros(n_known * len(HEMISPHERES), dtype=np.uint16)
    layout[covered] = sets + 1
    return layout, shown.iloc[order[starts]]


def _describe_measure(neuroids: Neuroids, column: str, title: str, unit: str, n_digits: int) -> dict[str, Any]:
    values = neuroids.values(column)
    valid = values[np.isfinite(values)]
    lowest, highest = (float(valid.min()), float(valid.max())) if len(valid) else (0.0, 1.0)
    scale = {"lowest": lowest, "highest": max(highest, lowest + 1e-6), "end": highest_on_scale(values, quantile=0.99)}
    return {"title": title, "unit": unit, "digits": n_digits, **scale}


def _read_surface(n_known: int) -> dict[str, object]:
    """Read the inflated fsaverage5 cortex from nilearn, which contains it, so that nothing is downloaded.

    Returns
    -------
    `faces`, the vertices of each triangle, the same for both hemispheres; `nearest`, for each vertex of fsaverage5, the one
    among the first `n_known` that gives it its colour; and `hemispheres`, each with its `points` in `unit` mm to the right,
    to the front and upwards, and the depth of its `sulci` in tenths of FreeSurfer's unit, below 0 on gyri.
    """
    files = fetch_surf_fsaverage("fsaverage5")
    sphere = load_surf_mesh(files["sphere_left"]).coordinates  # both hemispheres have the same sphere
    hemispheres = []
    for side in ("left", "right"):
        mesh, sulci = load_surf_mesh(files[f"infl_{side}"]), load_surf_data(files[f"sulc_{side}"])
        points = np.round(np.asarray(mesh.coordinates, dtype=np.float64) / POINT_UNIT)
        hemispheres.append(
            {
                "name": f"{side} hemisphere",
                "points": _pack(points.astype(np.int16)),
                "sulci": _pack(np.clip(10 * np.asarray(sulci, dtype=np.float64), -127, 127).astype(np.int8)),
            }
        )
    return {
        "unit": POINT_UNIT,
        "faces": _pack(np.asarray(mesh.faces, dtype=np.uint16)),
        "nearest": _pack(np.asarray(KDTree(sphere[:n_known]).query(sphere)[1], dtype=np.uint16)),
        "hemispheres": hemispheres,
    }


def _pack(array: AnyArray) -> str:
    """Return the bytes of an array, little-endian, in base 64."""
    little = array.astype(array.dtype.newbyteorder("<"))
    return base64.b64encode(little.tobytes()).decode("ascii")
