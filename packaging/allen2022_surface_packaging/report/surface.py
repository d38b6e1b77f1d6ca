"""The surface of the maps: fsaverage5, and which of its vertices a release has.

The vertices of fsaverage follow from subdividing an icosahedron again and again: each step keeps the vertices that there
are, and adds new ones behind them. So the first 10,242 of its 163,842 vertices are those of fsaverage5, and the 642
vertices of a small simulated tree are the first 642 of both.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from nilearn.datasets import fetch_surf_fsaverage
from nilearn.surface import load_surf_data, load_surf_mesh
from scipy.spatial import KDTree

from ..arrays import DoubleArray, IntArray
from ..facts import HEMISPHERES, N_VERTICES_OF_FSAVERAGE5

SIDES = dict(zip(HEMISPHERES, ("left", "right"), strict=True))
SURFACE_SIZES = tuple(10 * 4**n_subdivisions + 2 for n_subdivisions in range(8))  # 12 to fsaverage's 163,842


@dataclass(frozen=True, eq=False)
class Surface:
    """The inflated fsaverage5 cortex.

    Attributes
    ----------
    points : arrays of shape (10,242, 3), by hemisphere
        Millimetres: to the right, to the front, upwards.
    sulci : arrays of shape (10,242,), by hemisphere
        Sulcal depth as FreeSurfer gives it, unitless: above 0 in sulci, below 0 on gyri.
    faces : array of shape (20,480, 3)
        The vertices of each triangle, the same for both hemispheres.
    nearest : array of shape (10,242,)
        For each vertex of fsaverage5, the vertex of the release that gives it its colour.
    """

    points: dict[str, DoubleArray]
    sulci: dict[str, DoubleArray]
    faces: IntArray
    nearest: IntArray


def has_surface(n_vertices: int, *, simulated: bool = False) -> bool:
    """Return whether the vertices of a release have known positions.

    They are known on fsaverage and on its earlier subdivisions. Those of a simulated tree are always the first of
    fsaverage.
    """
    return simulated or n_vertices in SURFACE_SIZES


def read_surface(n_vertices: int) -> Surface:
    """Read the surface from nilearn, which contains it, so that nothing is downloaded.

    Parameters
    ----------
    n_vertices : of a hemisphere of the release; they are the first of fsaverage
    """
    files = fetch_surf_fsaverage("fsaverage5")
    meshes = {hemisphere: load_surf_mesh(files[f"infl_{side}"]) for hemisphere, side in SIDES.items()}
    sphere = load_surf_mesh(files["sphere_left"]).coordinates  # both hemispheres have the same sphere
    n_known = min(n_vertices, N_VERTICES_OF_FSAVERAGE5)
    return Surface(
        points={hemisphere: np.asarray(mesh.coordinates, dtype=np.float64) for hemisphere, mesh in meshes.items()},
        sulci={
            hemisphere: np.asarray(load_surf_data(files[f"sulc_{side}"]), dtype=np.float64)
            for hemisphere, side in SIDES.items()
        },
        faces=np.asarray(meshes["lh"].faces, dtype=np.int64),
        nearest=np.asarray(KDTree(sphere[:n_known]).query(sphere)[1], dtype=np.int64),
    )
