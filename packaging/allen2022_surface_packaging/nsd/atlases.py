"""The atlases of a simulated cortex: which vertices have which label, and how the labels are called."""

from __future__ import annotations

import numpy as np

from ..arrays import AnyArray
from ..errors import PackagingError
from ..recipe import PUBLISHED_REGIONS
from .facts import HEMISPHERES, N_VERTICES_OF_FSAVERAGE

# Vertices of each region in lh and rh of fsaverage. Of IT only the sum, 19,065, is known.
N_REGION_VERTICES = {"V1": (2153, 2123), "V2": (1643, 1748), "V4": (410, 504), "IT": (9530, 9535)}
FEWEST_REGION_VERTICES = 6
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
# About how much of fsaverage each atlas labels beside the published regions. Of nsdgeneral the whole, 39,548 vertices, is
# known from the Algonauts 2023 challenge.
LABELLED_SHARE = {"Kastner2015": 0.06, "streams": 0.14, "HCP_MMP1": 0.9, "nsdgeneral": 0.04}


def make_labels(n_vertices: int, hemisphere: str, rng: np.random.Generator) -> dict[str, AnyArray]:
    """Scatter the atlases over a hemisphere; a third of V4 belongs to IT as well.

    Returns
    -------
    the labels of every vertex, int32 of shape (n_vertices,), by atlas

    Raises
    ------
    PackagingError
        If there are too few vertices for the published regions.
    """
    sizes = {
        name: max(
            FEWEST_REGION_VERTICES, round(counts[HEMISPHERES.index(hemisphere)] * n_vertices / N_VERTICES_OF_FSAVERAGE)
        )
        for name, counts in N_REGION_VERTICES.items()
    }
    if sum(sizes.values()) > n_vertices:
        raise PackagingError(f"--vertices {n_vertices} is too few: the regions need {sum(sizes.values())}.")
    order = rng.permutation(n_vertices)
    n_overlap = sizes["V4"] // 3
    starts = np.cumsum([0, sizes["V1"], sizes["V2"], sizes["V4"] - n_overlap])
    atlases = {atlas: _scatter_labels(atlas, n_vertices, rng) for atlas in LABEL_NAMES}
    for region, start in zip(PUBLISHED_REGIONS, starts, strict=True):
        region_vertices = order[start : start + sizes[region.name]]
        labels = [label for label in region.labels if isinstance(label, int)]
        atlases[region.atlas][region_vertices] = np.resize(labels, len(region_vertices))
        atlases["nsdgeneral"][region_vertices] = 1
    return atlases


def _scatter_labels(atlas: str, n_vertices: int, rng: np.random.Generator) -> AnyArray:
    """Give some vertices a label of an atlas, each label about equally often, but no label of a published region."""
    published = [label for region in PUBLISHED_REGIONS if region.atlas == atlas for label in region.labels]
    others = [label for label in range(1, len(LABEL_NAMES[atlas]) + 1) if label not in published]
    labels = np.zeros(n_vertices, dtype=np.int32)
    labelled = rng.permutation(n_vertices)[: round(LABELLED_SHARE[atlas] * n_vertices)]
    labels[labelled] = np.resize(others, len(labelled))
    return labels
