"""Which vertices make up the Brain-Score regions, and the neuroids they become."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..errors import PackagingError
from .files import HEMISPHERES, NSDTree, read_vertices, subject_name
from .trials import N_REPETITIONS


@dataclass(frozen=True)
class Region:
    """A Brain-Score region: the labels of an NSD fsaverage atlas that make it up."""

    name: str
    atlas: str
    labels: tuple[int, ...]


REGIONS = (
    Region("V1", "Kastner2015", (1, 2)),  # V1v, V1d
    Region("V2", "Kastner2015", (3, 4)),  # V2v, V2d
    Region("V4", "Kastner2015", (7,)),  # hV4
    Region("IT", "streams", (5,)),  # ventral stream, as in the Algonauts 2023 challenge
)
ATLASES = tuple(dict.fromkeys(region.atlas for region in REGIONS))


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
        ``region``, ``hemisphere``, ``vertex_index``, ``number`` (counting a region through lh, then rh) and ``column``
        (the vertex's place in ``vertices`` of lh and rh, one after the other). V4 and IT may share vertices.
    """

    n_vertices: int
    vertices: dict[str, np.ndarray]
    members: pd.DataFrame


def read_regions(tree: NSDTree) -> RegionMap:
    """Read the atlases and find the vertices of every region.

    Raises
    ------
    PackagingError
        If a label file is missing or damaged, the files disagree on the vertex count, or a region is empty.
    """
    labels = {(a, h): read_vertices(tree, tree.labels_path(a, h)) for a in ATLASES for h in HEMISPHERES}
    n_vertices = len(labels[ATLASES[0], HEMISPHERES[0]])
    for (atlas, hemisphere), values in labels.items():
        if len(values) != n_vertices:
            raise PackagingError(
                f"{tree.storage.locate(tree.labels_path(atlas, hemisphere))} holds {len(values):,} vertices, but "
                f"{tree.labels_path(ATLASES[0], HEMISPHERES[0])} holds {n_vertices:,}. All labels must be on fsaverage."
            )
    masks = {(r.name, h): np.isin(labels[r.atlas, h], r.labels) for r in REGIONS for h in HEMISPHERES}
    for region in REGIONS:
        if not any(masks[region.name, h].any() for h in HEMISPHERES):
            raise PackagingError(
                f"{tree.labels_path(region.atlas, '?h')} in {tree} holds no vertex labelled {region.labels}, "
                f"expected some for {region.name}. Is it NSD's {region.atlas} atlas?"
            )
    vertices = {h: np.flatnonzero(np.any([masks[r.name, h] for r in REGIONS], axis=0)) for h in HEMISPHERES}
    return RegionMap(n_vertices, vertices, _members(masks, vertices))


def _members(masks: dict[tuple[str, str], np.ndarray], vertices: dict[str, np.ndarray]) -> pd.DataFrame:
    first_column = dict(zip(HEMISPHERES, (0, len(vertices["lh"])), strict=True))
    tables = []
    for region in REGIONS:
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


def noise_ceiling(ncsnr: np.ndarray, n_repetitions: int = N_REPETITIONS) -> np.ndarray:
    """Return the noise ceiling of responses averaged over repetitions, in percent of explainable variance.

    Parameters
    ----------
    ncsnr : array
        Noise-ceiling signal-to-noise ratio, unitless: signal over noise standard deviation. NaN stays NaN.

    References
    ----------
    Allen et al. (2022), Methods, "Noise ceiling estimation"; NSD Data Manual, "ncsnr".
    """
    signal = np.asarray(ncsnr, dtype=np.float64) ** 2
    return 100 * signal / (signal + 1 / n_repetitions)


def subject_neuroids(region_map: RegionMap, subject: int, ncsnr: np.ndarray) -> pd.DataFrame:
    """List the neuroids of one subject: its vertices region by region, lh before rh, ascending.

    Parameters
    ----------
    ncsnr : array of shape (n_read_vertices of lh + rh,)
        Noise-ceiling signal-to-noise ratio.

    Returns
    -------
    table with a row per neuroid and the neuroid coordinates as columns, and ``column``, its place among the vertices read.
    """
    neuroids = region_map.members.copy()
    name = subject_name(subject)
    neuroids["subject"] = name
    neuroids["neuroid_id"] = [
        f"{name}_{hemisphere}_{region}_v{number:05d}"
        for hemisphere, region, number in zip(neuroids.hemisphere, neuroids.region, neuroids.number, strict=True)
    ]
    neuroids["nc_testset"] = noise_ceiling(ncsnr)[neuroids.column]
    return neuroids


def read_ncsnr(tree: NSDTree, region_map: RegionMap, subject: int) -> np.ndarray:
    """Read the noise-ceiling SNR of the vertices read, lh then rh, unitless.

    Raises
    ------
    PackagingError
        If a file is missing, damaged or of another vertex count than the labels.
    """
    return np.concatenate([read_hemisphere_ncsnr(tree, region_map, subject, hemisphere) for hemisphere in HEMISPHERES])


def read_hemisphere_ncsnr(tree: NSDTree, region_map: RegionMap, subject: int, hemisphere: str) -> np.ndarray:
    """Read the noise-ceiling SNR of one hemisphere; see `read_ncsnr`."""
    path = tree.ncsnr_path(subject, hemisphere)
    values = read_vertices(tree, path)
    if len(values) != region_map.n_vertices:
        raise PackagingError(
            f"{tree.storage.locate(path)} holds {len(values):,} vertices, but the labels have "
            f"{region_map.n_vertices:,}. Was it downloaded from fsaverage/ and not from nativesurface/?"
        )
    return values[region_map.vertices[hemisphere]].astype(np.float64)
