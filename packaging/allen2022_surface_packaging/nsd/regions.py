"""Which vertices belong to the regions of a recipe, and the neuroids that they become."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..arrays import AnyArray, BoolArray, DoubleArray, IntArray
from ..errors import PackagingError
from ..recipe import Region
from .facts import HEMISPHERES, noise_ceiling, subject_name
from .files import read_vertices
from .storage import RawFile
from .tree import NSDTree


@dataclass(frozen=True)
class RegionMap:
    """The vertices of the regions on fsaverage, the same for every subject.

    Attributes
    ----------
    n_vertices : int
        Vertices of one hemisphere.
    vertices : dict of arrays of shape (n_read_vertices,)
        Per hemisphere the vertices that belong to at least one region, ascending.
    members : table with the columns
        ``region``, ``hemisphere``, ``vertex_index``, ``number`` (which counts the vertices of a region through lh, then
        rh) and ``column`` (the position of the vertex in ``vertices`` of lh followed by rh). V4 and IT may share
        vertices.
    """

    n_vertices: int
    vertices: dict[str, IntArray]
    members: pd.DataFrame

    @property
    def n_read_vertices(self) -> int:
        """The number of vertices in both hemispheres that belong to at least one region."""
        return sum(len(vertices) for vertices in self.vertices.values())


def read_regions(tree: NSDTree, regions: Sequence[Region]) -> RegionMap:
    """Read the atlases and find the vertices of every region.

    Raises
    ------
    PackagingError
        If a label file is missing or damaged, the files disagree on the vertex count, or a region is empty.
    """
    atlases = dict.fromkeys(region.atlas for region in regions)
    files = {(atlas, hemisphere): tree.labels(atlas, hemisphere) for atlas in atlases for hemisphere in HEMISPHERES}
    labels = {key: read_vertices(file) for key, file in files.items()}
    n_vertices = _common_length(files, labels)
    masks = {(r.name, h): np.isin(labels[r.atlas, h], r.labels) for r in regions for h in HEMISPHERES}
    for region in regions:
        if not any(masks[region.name, hemisphere].any() for hemisphere in HEMISPHERES):
            raise PackagingError(
                f"{tree.labels(region.atlas, '?h')} holds no vertex labelled {region.labels}, expected some for "
                f"{region.name}. Is it NSD's {region.atlas} atlas?"
            )
    vertices = {h: np.flatnonzero(np.any([masks[r.name, h] for r in regions], axis=0)) for h in HEMISPHERES}
    return RegionMap(n_vertices, vertices, _list_members(regions, masks, vertices))


def _common_length(files: dict[tuple[str, str], RawFile], labels: dict[tuple[str, str], AnyArray]) -> int:
    first, *_ = labels
    n_vertices = len(labels[first])
    for key, values in labels.items():
        if len(values) != n_vertices:
            raise PackagingError(
                f"{files[key]} holds {len(values):,} vertices, but {files[first]} holds {n_vertices:,}. "
                "All labels must be on fsaverage."
            )
    return n_vertices


def _list_members(
    regions: Sequence[Region], masks: dict[tuple[str, str], BoolArray], vertices: dict[str, IntArray]
) -> pd.DataFrame:
    first_column = dict(zip(HEMISPHERES, (0, len(vertices["lh"])), strict=True))
    tables = []
    for region in regions:
        for hemisphere in HEMISPHERES:
            vertex_index = np.flatnonzero(masks[region.name, hemisphere])
            column = first_column[hemisphere] + np.searchsorted(vertices[hemisphere], vertex_index)
            tables.append(
                pd.DataFrame(
                    {"region": region.name, "hemisphere": hemisphere, "vertex_index": vertex_index, "column": column}
                )
            )
    members = pd.concat(tables, ignore_index=True)
    members["number"] = members.groupby("region").cumcount()
    return members


def list_neuroids(region_map: RegionMap, subject: int, ncsnr: DoubleArray) -> pd.DataFrame:
    """List the neuroids of one subject: its vertices region by region, lh before rh, ascending.

    Parameters
    ----------
    ncsnr : array of shape (n_read_vertices of lh + rh,)
        Noise-ceiling signal-to-noise ratio, unitless.

    Returns
    -------
    table with a row per neuroid
        Its columns are the neuroid coordinates, ``number`` and ``column`` of `RegionMap.members`. ``nc_testset`` is in
        percent, NaN where `ncsnr` is.
    """
    neuroids = region_map.members.copy()
    name = subject_name(subject)
    neuroids["subject"] = name
    neuroids["neuroid_id"] = [
        f"{name}_{hemisphere}_{region}_v{number:05d}"
        for hemisphere, region, number in zip(neuroids.hemisphere, neuroids.region, neuroids.number, strict=True)
    ]
    neuroids["nc_testset"] = noise_ceiling(ncsnr)[neuroids["column"].to_numpy()]
    return neuroids


def read_ncsnr(tree: NSDTree, region_map: RegionMap, subject: int, hemisphere: str) -> DoubleArray:
    """Read the noise-ceiling signal-to-noise ratio of the vertices of one hemisphere that belong to a region.

    Returns
    -------
    array of shape (n_read_vertices,)
        Unitless.

    Raises
    ------
    PackagingError
        If the file is missing, damaged or of another vertex count than the labels.
    """
    file = tree.ncsnr(subject, hemisphere)
    values = read_vertices(file)
    if len(values) != region_map.n_vertices:
        raise PackagingError(
            f"{file} holds {len(values):,} vertices, but the labels have {region_map.n_vertices:,}. "
            "Was it downloaded from fsaverage/ and not from nativesurface/?"
        )
    return values[region_map.vertices[hemisphere]].astype(np.float64)
