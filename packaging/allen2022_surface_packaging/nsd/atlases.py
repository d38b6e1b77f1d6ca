"""The atlases of a simulated cortex: connected areas, about where those of NSD's atlases are.

The centres of the areas are directions on the sphere of fsaverage. They were found by looking up, on the pial surface of
fsaverage5, the vertices next to the usual MNI coordinates of the areas, and then moved apart until the simulated areas
have room. Only the sizes of the published regions are NSD's.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.spatial import KDTree

from ..arrays import AnyArray, DoubleArray, IntArray
from ..errors import PackagingError
from ..facts import HEMISPHERES, N_VERTICES_OF_FSAVERAGE
from .sphere import sphere_vertices

# Vertices of each region in lh and rh of fsaverage. Of IT only the sum, 19,065, is known.
N_REGION_VERTICES = {"V1": (2153, 2123), "V2": (1643, 1748), "V4": (410, 504), "IT": (9530, 9535)}
N_NSDGENERAL_VERTICES = (19_004, 20_544)  # known from the Algonauts 2023 challenge
FEWEST_REGION_VERTICES = 6
N_V4_PER_SHARED = 3  # one vertex of V4 in three belongs to IT as well
# Names in the order of their labels, which begin at 1. Of HCP_MMP1 only the number of areas is NSD's.
LABEL_NAMES = {
    "Kastner2015": (
        *("V1v", "V1d", "V2v", "V2d", "V3v", "V3d", "hV4", "VO1", "VO2", "PHC1", "PHC2", "MST", "hMT"),
        *("LO2", "LO1", "V3b", "V3a", "IPS0", "IPS1", "IPS2", "IPS3", "IPS4", "IPS5", "SPL1", "FEF"),
    ),
    "streams": ("early", "midventral", "midlateral", "midparietal", "ventral", "lateral", "parietal"),
    "HCP_MMP1": tuple(f"area{number:03d}" for number in range(1, 181)),
    "nsdgeneral": ("nsdgeneral",),
}

# Directions are sideways away from the middle of the brain, to the front, upwards. They are those of the left hemisphere;
# on the sphere of the right one, every place is turned by this rotation.
ROTATION_OF_RIGHT = np.array([(0.955, 0.2, 0.22), (-0.174, 0.976, -0.131), (-0.241, 0.087, 0.967)])
CALCARINE = ((-0.14, -0.82, -0.55), (-0.44, -0.7, -0.56), (-0.68, -0.59, -0.44))  # from the occipital pole to the front
MIDDLE_OF_NSDGENERAL = (0.02, -0.78, -0.63)
MEDIAL_WALL = (-0.93, 0.25, -0.28)
RADIUS_OF_MEDIAL_WALL = 0.53
KASTNER_CENTRES = {
    "hV4": (0.1, -0.65, -0.76),
    "VO1": (-0.06, -0.48, -0.88),
    "VO2": (-0.15, -0.33, -0.93),
    "PHC1": (-0.21, -0.17, -0.96),
    "PHC2": (-0.25, 0, -0.97),
    "MST": (0.62, -0.71, -0.34),
    "hMT": (0.48, -0.78, -0.4),
    "LO2": (0.32, -0.86, -0.4),
    "LO1": (0.21, -0.94, -0.29),
    "V3b": (0.08, -0.98, -0.15),
    "V3a": (-0.09, -0.99, -0.05),
    "IPS0": (-0.15, -0.98, 0.12),
    "IPS1": (-0.18, -0.94, 0.28),
    "IPS2": (-0.18, -0.88, 0.44),
    "IPS3": (-0.12, -0.8, 0.59),
    "IPS4": (-0.02, -0.7, 0.71),
    "IPS5": (0.1, -0.59, 0.8),
    "SPL1": (-0.34, -0.79, 0.51),
    "FEF": (-0.06, 0.21, 0.98),
}
N_V3_VERTICES = 1500
N_SMALL_AREA_VERTICES = 450  # of every other area of Kastner2015
# The regions of streams beside `early`, which is V1 to V3: the path along the middle of each, and how many vertices it has.
STREAMS_PATHS = {
    "midventral": (((0.2, -0.72, -0.66), (0.12, -0.68, -0.72)), 700),
    "midlateral": (((0.32, -0.86, -0.4), (0.21, -0.94, -0.29)), 1200),
    "midparietal": (((0.08, -0.98, -0.15), (-0.09, -0.99, -0.05)), 1200),
    "ventral": (((0.14, -0.4, -0.91), (0.12, -0.16, -0.98), (0.1, 0.08, -0.99)), 9530),
    "lateral": (((0.5, -0.77, -0.4), (0.75, -0.59, -0.29)), 4500),
    "parietal": (((-0.18, -0.96, 0.2), (-0.12, -0.8, 0.59)), 4500),
}


def make_labels(n_vertices: int, hemisphere: str) -> dict[str, AnyArray]:
    """Draw the atlases on a hemisphere. They agree: the region `early` of streams is V1 to V3 of Kastner2015.

    Returns
    -------
    the labels of every vertex, int32 of shape (n_vertices,), by atlas

    Raises
    ------
    PackagingError
        If there are too few vertices for the published regions.
    """
    sizes = {
        name: max(FEWEST_REGION_VERTICES, _scale_count(counts[HEMISPHERES.index(hemisphere)], n_vertices))
        for name, counts in N_REGION_VERTICES.items()
    }
    if sum(sizes.values()) > n_vertices:
        raise PackagingError(f"--vertices {n_vertices} is too few: the regions need {sum(sizes.values())}.")
    directions = vertex_directions(n_vertices, hemisphere)
    kastner = _label_kastner(directions, sizes)
    n_general = _scale_count(N_NSDGENERAL_VERTICES[HEMISPHERES.index(hemisphere)], n_vertices)
    return {
        "Kastner2015": kastner,
        "streams": _label_streams(directions, kastner, sizes),
        "HCP_MMP1": _label_parcels(directions),
        "nsdgeneral": _label_nsdgeneral(directions, kastner, n_general),
    }


def vertex_directions(n_vertices: int, hemisphere: str) -> DoubleArray:
    """Return where the vertices of a hemisphere are, in the coordinates of this module.

    Returns
    -------
    array of shape (n_vertices, 3)
        Unitless: sideways away from the middle of the brain, to the front, upwards; as on the left hemisphere.
    """
    vertices = sphere_vertices(n_vertices)
    directions: DoubleArray = vertices * (-1, 1, 1) if hemisphere == "lh" else vertices @ ROTATION_OF_RIGHT
    return directions


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
    distances: DoubleArray = np.linalg.norm(directions - np.array(corners[0]), axis=1)
    for start, end in zip(np.array(corners[:-1]), np.array(corners[1:]), strict=True):
        line = end - start
        shares = np.clip((directions - start) @ line / (line @ line), 0, 1)
        np.minimum(distances, np.linalg.norm(directions - start - shares[:, None] * line, axis=1), out=distances)
    return distances


def _scale_count(count: int, n_vertices: int) -> int:
    return round(count * n_vertices / N_VERTICES_OF_FSAVERAGE)


def _nearest(distances: DoubleArray, is_free: AnyArray, n: int) -> IntArray:
    """Return the free vertices with the shortest distances."""
    free = np.flatnonzero(is_free)
    nearest: IntArray = free[np.argsort(distances[free], kind="stable")[: max(n, 0)]]
    return nearest


def _label_kastner(directions: DoubleArray, sizes: dict[str, int]) -> AnyArray:
    """Surround the calcarine sulcus with V1, V2 and V3, and put the other areas around their centres."""
    n_vertices = len(directions)
    labels = np.zeros(n_vertices, dtype=np.int32)
    start, _, end = np.array(CALCARINE)
    distances = distances_to_path(directions, CALCARINE)
    is_behind_end = (directions - end) @ (end - start) < 0
    heights = directions @ np.cross(end, start)
    n_v3 = max(2, _scale_count(N_V3_VERTICES, n_vertices))
    for ventral, n in ((1, sizes["V1"]), (3, sizes["V2"]), (5, n_v3)):
        area = _nearest(distances, (labels == 0) & is_behind_end, n)
        area = area[np.argsort(heights[area], kind="stable")]
        labels[area] = ventral + (np.arange(len(area)) >= len(area) // 2)
    n_small = max(1, _scale_count(N_SMALL_AREA_VERTICES, n_vertices))
    for name, centre in KASTNER_CENTRES.items():
        n = sizes["V4"] if name == "hV4" else n_small
        area = _nearest(distances_to_path(directions, (centre,)), labels == 0, n)
        labels[area] = 1 + LABEL_NAMES["Kastner2015"].index(name)
    return labels


def _label_streams(directions: DoubleArray, kastner: AnyArray, sizes: dict[str, int]) -> AnyArray:
    """Label the streams. Of V4, the vertices next to the ventral region belong to it, and the others to `midventral`."""
    numbers = {name: number for number, name in enumerate(LABEL_NAMES["streams"], start=1)}
    labels = np.zeros(len(directions), dtype=np.int32)
    labels[np.isin(kastner, range(1, 7))] = numbers["early"]
    is_v4 = kastner == 7
    to_ventral = distances_to_path(directions, STREAMS_PATHS["ventral"][0])
    shared = _nearest(to_ventral, is_v4, sizes["V4"] // N_V4_PER_SHARED)
    labels[is_v4] = numbers["midventral"]
    labels[shared] = numbers["ventral"]
    for name, (path, n_at_full_size) in STREAMS_PATHS.items():
        n = sizes["IT"] if name == "ventral" else max(1, _scale_count(n_at_full_size, len(directions)))
        is_free = labels == 0
        if name == "midventral":
            is_free &= to_ventral > to_ventral[shared].max()
        missing = n - int((labels == numbers[name]).sum())
        labels[_nearest(distances_to_path(directions, path), is_free, missing)] = numbers[name]
    return labels


def _label_parcels(directions: DoubleArray) -> AnyArray:
    """Divide the cortex without the medial wall into areas of about equal size, numbered from the occipital pole on.

    The centres are vertices of a coarse surface, so that every area has a vertex on a coarse surface too.
    """
    is_cortex = np.linalg.norm(directions - MEDIAL_WALL, axis=1) > RADIUS_OF_MEDIAL_WALL
    candidates = directions[:642][is_cortex[:642]]
    to_pole = np.linalg.norm(candidates - np.array(CALCARINE[0]), axis=1)
    centres = [int(np.argmin(to_pole))]
    distances = np.linalg.norm(candidates - candidates[centres[0]], axis=1)
    while len(centres) < min(len(LABEL_NAMES["HCP_MMP1"]), len(candidates)):
        centres.append(int(np.argmax(distances)))
        distances = np.minimum(distances, np.linalg.norm(candidates - candidates[centres[-1]], axis=1))
    centres.sort(key=lambda vertex: to_pole[vertex])
    labels = 1 + KDTree(candidates[centres]).query(directions)[1]
    return np.where(is_cortex, labels, 0).astype(np.int32)


def _label_nsdgeneral(directions: DoubleArray, kastner: AnyArray, n: int) -> AnyArray:
    """Label V1 to V4, and the vertices around them."""
    labels = np.isin(kastner, range(1, 8)).astype(np.int32)
    labels[_nearest(distances_to_path(directions, (MIDDLE_OF_NSDGENERAL,)), labels == 0, n - int(labels.sum()))] = 1
    return labels
