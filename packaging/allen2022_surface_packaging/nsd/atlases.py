"""The atlases of a simulated cortex: connected areas, about where those of NSD's atlases are, also on each subject's own surface.

Their names and numbers are those of the real atlases, and the published regions have the sizes of NSD. The areas of
HCP_MMP1 only divide the cortex, from the occipital pole on; they are not where their names say.
"""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.cluster.vq import kmeans2
from scipy.spatial import KDTree

from ..arrays import AnyArray, DoubleArray
from ..errors import PackagingError
from ..facts import HEMISPHERES, N_VERTICES_OF_FSAVERAGE, NATIVE_ATLASES

FOLDER = Path(__file__).parent / "simulated_atlases"  # areas.toml, and the colour table of each atlas
# Directions are those of the left hemisphere; on the sphere of the right one, every place is turned by this rotation.
ROTATION_OF_RIGHT = np.array([(0.955, 0.2, 0.22), (-0.174, 0.976, -0.131), (-0.241, 0.087, 0.967)])
AREA_JITTER, SIZE_JITTER = 0.04, 0.3  # of the areas of a subject: radii of the sphere, and of the logarithm of the size
LACKING = {4: "aTL-faces"}  # a subject may lack an area
# The triangles of an icosahedron, a digit a corner. Their order, and that of the smaller triangles below, gives every
# vertex the number that it has in FreeSurfer.
TRIANGLES = "043 054 015 021 032 382 398 349 4a9 45a 56a 516 176 127 287 89b 9ab a6b 67b 78b"

CALCARINE = ((-0.14, -0.82, -0.55), (-0.44, -0.7, -0.56), (-0.68, -0.59, -0.44))  # from the occipital pole to the front
MEDIAL_WALL, RADIUS_OF_MEDIAL_WALL = (-0.93, 0.25, -0.28), 0.53
FEWEST_VERTICES = {"V1": 6, "V2": 6, "V3": 2, "hV4": 6, "ventral": 6}  # on a coarse surface
FEWEST_NATIVE_VERTICES = 4  # of an area of a subject: some of them are not copied to fsaverage


def make_labels(n_vertices: int, hemisphere: str) -> dict[str, AnyArray]:
    """Draw the atlases on a hemisphere.

    Returns
    -------
    the labels of every vertex, int32 of shape (n_vertices,), by atlas

    Raises
    ------
    PackagingError
        If there are too few vertices for the published regions.
    """
    if n_vertices < sum(FEWEST_VERTICES.values()):
        raise PackagingError(f"--vertices {n_vertices} is too few: the regions need {sum(FEWEST_VERTICES.values())}.")
    directions = vertex_directions(n_vertices, hemisphere)
    side, areas = HEMISPHERES.index(hemisphere), _read_areas()
    kastner = _draw("Kastner2015", areas["Kastner2015"], np.zeros(n_vertices, dtype=np.int32), directions, side)
    early, general = (np.isin(kastner, range(1, last + 1)).astype(np.int32) for last in (6, 7))  # V1 to V3, and to hV4
    return {
        "Kastner2015": kastner,
        "streams": _draw("streams", areas["streams"], early, directions, side),
        "nsdgeneral": _draw("nsdgeneral", areas["nsdgeneral"], general, directions, side),
        "HCP_MMP1": _divide(directions, len(read_names("HCP_MMP1"))),
    }


def make_native_labels(
    directions: DoubleArray, subject: int, hemisphere: str, rng: np.random.Generator
) -> dict[str, AnyArray]:
    """Draw the atlases of a subject on its own surface. Areas of one name are not at the same place in every subject.

    Parameters
    ----------
    directions : array of shape (n_native_vertices, 3)
        In the coordinates of this module.

    Returns
    -------
    the labels of every vertex, int32 of shape (n_native_vertices,), by atlas
    """
    labels, areas = {}, _read_areas()
    for atlas in NATIVE_ATLASES:
        varied = {
            name: {
                "path": np.add(area["path"], rng.normal(0, AREA_JITTER, 3)),
                "n_vertices": np.array(area["n_vertices"]) * np.exp(rng.normal(0, SIZE_JITTER)),
            }
            for name, area in areas[atlas].items()
            if name != LACKING.get(subject)
        }
        none = np.zeros(len(directions), dtype=np.int32)
        labels[atlas] = _draw(atlas, varied, none, directions, HEMISPHERES.index(hemisphere), FEWEST_NATIVE_VERTICES)
    return labels


@functools.cache
def _read_areas() -> dict[str, Any]:
    return tomllib.loads((FOLDER / "areas.toml").read_text(encoding="utf-8"))


def colour_table(atlas: str) -> Path:
    """Return the path of the table that names the labels of an atlas."""
    return FOLDER / f"{atlas}.mgz.ctab"


def read_names(atlas: str) -> list[str]:
    """Return the names of the labels of an atlas, from label 1 on."""
    return re.findall("^[1-9][0-9]* (.+)$", colour_table(atlas).read_text(encoding="utf-8"), re.MULTILINE)


def _draw(
    atlas: str, areas: dict[str, Any], labels: AnyArray, directions: DoubleArray, side: int, fewest: int = 1
) -> AnyArray:
    """Give each area the free vertices next to its path; divide V1, V2 and V3 into a lower and an upper half."""
    names = read_names(atlas)
    heights = directions @ np.cross(CALCARINE[2], CALCARINE[0])
    for name, area in areas.items():
        n = max(
            FEWEST_VERTICES.get(name, fewest), round(area["n_vertices"][side] * len(labels) / N_VERTICES_OF_FSAVERAGE)
        )
        n -= (labels == names.index(name) + 1).sum() if name in names else 0
        free = np.flatnonzero(labels == 0)
        vertices = free[np.argsort(distances_to_path(directions[free], area["path"]), kind="stable")[: max(0, n)]]
        if name in names:
            labels[vertices] = names.index(name) + 1
        else:
            vertices = vertices[np.argsort(heights[vertices], kind="stable")]
            labels[vertices] = names.index(f"{name}v") + 1 + (np.arange(len(vertices)) >= len(vertices) // 2)
    return labels


def _divide(directions: DoubleArray, n_areas: int) -> AnyArray:
    """Divide the cortex without the medial wall into areas of about equal size, numbered from the occipital pole on.

    The centres are those of a coarse surface, so that every area has a vertex on a coarse surface too.
    """
    is_cortex = np.linalg.norm(directions - MEDIAL_WALL, axis=1) > RADIUS_OF_MEDIAL_WALL
    coarse = directions[:642][is_cortex[:642]]
    centres = kmeans2(coarse, min(n_areas, len(coarse)), minit="++", seed=0)[0]
    centres = centres[np.argsort(np.linalg.norm(centres - CALCARINE[0], axis=1))]
    return np.where(is_cortex, 1 + KDTree(centres).query(directions)[1], 0).astype(np.int32)


def distances_to_path(directions: DoubleArray, corners: Sequence[tuple[float, float, float]]) -> DoubleArray:
    """Return the distance of every vertex to the nearest point of a path along straight lines between corners.

    Parameters
    ----------
    directions : array of shape (n_vertices, 3)

    Returns
    -------
    array of shape (n_vertices,)
        In radii of the sphere.
    """
    distances: DoubleArray = np.linalg.norm(directions - corners[0], axis=1)
    for start, end in zip(np.array(corners[:-1]), np.array(corners[1:]), strict=True):
        line = end - start
        shares = np.clip((directions - start) @ line / (line @ line), 0, 1)
        distances = np.minimum(distances, np.linalg.norm(directions - start - shares[:, None] * line, axis=1))
    return distances


def vertex_directions(n_vertices: int, hemisphere: str) -> DoubleArray:
    """Return where the first vertices of fsaverage are, in the coordinates of this module.

    FreeSurfer's fsaverage is an icosahedron that was divided seven times. Each step keeps the vertices that there are and adds
    the middle of every edge behind them: the first 10,242 vertices are fsaverage5, and all 163,842 are fsaverage.

    Returns
    -------
    array of shape (n_vertices, 3)
        Unitless, on the unit sphere: sideways away from the middle of the brain, to the front, upwards, as in lh.
    """
    upper = np.radians([-72, 0, 72, 144, 216])
    rings = [
        np.stack([2 * np.cos(angles), 2 * np.sin(angles), np.full(5, height)], axis=1) / np.sqrt(5)
        for angles, height in ((upper, 1), (upper - np.radians(36), -1))
    ]
    vertices = np.concatenate([[(0, 0, 1)], *rings, [(0, 0, -1)]])
    triangles = np.array([[int(corner, 16) for corner in triangle] for triangle in TRIANGLES.split()])
    while len(vertices) < n_vertices:  # divide each triangle into four
        edges = np.sort(triangles[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
        numbers, firsts = pd.factorize(edges @ (len(vertices), 1))  # edges count where they occur first
        middles = vertices[np.stack(np.divmod(firsts, len(vertices)), axis=1)].sum(axis=1)
        a, b, c = triangles.T
        ab, bc, ca = len(vertices) + numbers.reshape(-1, 3).T
        others = np.stack([ab, b, bc, ca, ab, bc, ca, bc, c], axis=1).reshape(-1, 3)
        triangles = np.concatenate([np.stack([a, ab, ca], axis=1), others])
        vertices = np.concatenate([vertices, middles / np.linalg.norm(middles, axis=1, keepdims=True)])
    directions: DoubleArray = vertices[:n_vertices] * (-1, 1, 1)
    return directions if hemisphere == "lh" else vertices[:n_vertices] @ ROTATION_OF_RIGHT
