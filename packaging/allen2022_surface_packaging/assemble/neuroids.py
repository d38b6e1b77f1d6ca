"""The neuroids of an assembly and their coordinates, as arrays: text as fixed-width bytes, which takes little memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..arrays import AnyArray, BoolArray, DoubleArray, IntArray
from ..facts import noise_ceiling, subject_name
from ..nsd.regions import RegionMap
from .sessions import both_hemispheres


@dataclass(frozen=True, eq=False)
class RegionNeuroids:
    """Neuroids of one region of one subject, which follow each other in the assembly: lh before rh.

    Attributes
    ----------
    n_hemisphere_vertices : of fsaverage
    vertices : numbered through both hemispheres, ascending
    numbers : which count the vertices of the region through lh, then rh. Neuroids that are left out leave gaps.
    nc_testset : noise ceiling, in percent
    """

    subject: int
    region: str
    n_hemisphere_vertices: int
    vertices: IntArray
    numbers: IntArray
    nc_testset: DoubleArray

    def __len__(self) -> int:
        return len(self.vertices)

    def select(self, columns: IntArray | slice) -> RegionNeuroids:
        """Return some of the neuroids."""
        return replace(
            self,
            vertices=self.vertices[columns],
            numbers=self.numbers[columns],
            nc_testset=self.nc_testset[columns],
        )

    @property
    def is_left(self) -> BoolArray:
        """Whether each neuroid is in lh."""
        return self.vertices < self.n_hemisphere_vertices

    @property
    def ids(self) -> AnyArray:
        """The `neuroid_id`, such as ``subj01_lh_V1_v00000``."""
        prefixes = {is_left: f"{subject_name(self.subject)}_{h}_{self.region}_v" for is_left, h in _HEMISPHERES}
        ids = [f"{prefixes[left]}{n:05d}" for left, n in zip(self.is_left.tolist(), self.numbers.tolist(), strict=True)]
        return np.array(ids, dtype="S")


_HEMISPHERES = ((True, "lh"), (False, "rh"))


def list_neuroids(region_map: RegionMap, ncsnr: Mapping[int, DoubleArray]) -> list[RegionNeuroids]:
    """List the neuroids of all subjects in the order of the assembly: by region, subject, hemisphere and vertex.

    Parameters
    ----------
    ncsnr : arrays of shape (n_read_vertices of lh + rh,)
        Noise-ceiling signal-to-noise ratio by subject, unitless.
    """
    groups = []
    read_vertices = both_hemispheres(region_map.vertices, region_map.n_vertices)
    for region in region_map.regions:
        vertices = both_hemispheres(region.vertices, region_map.n_vertices)
        columns = np.searchsorted(read_vertices, vertices)
        for subject, values in ncsnr.items():
            nc_testset, numbers = noise_ceiling(values[columns]), np.arange(len(vertices))
            groups.append(RegionNeuroids(subject, region.name, region_map.n_vertices, vertices, numbers, nc_testset))
    return groups


def list_coordinates(groups: Sequence[RegionNeuroids]) -> dict[str, AnyArray]:
    """Return every neuroid coordinate of an assembly by its name."""
    return {
        "neuroid_id": np.concatenate([group.ids for group in groups]),
        "subject": _repeat([subject_name(group.subject) for group in groups], groups),
        "hemisphere": np.concatenate([np.where(group.is_left, b"lh", b"rh") for group in groups]),
        "vertex_index": np.concatenate([group.vertices % group.n_hemisphere_vertices for group in groups]),
        "region": _repeat([group.region for group in groups], groups),
        "nc_testset": np.concatenate([group.nc_testset for group in groups]),
    }


def _repeat(names: list[str], groups: Sequence[RegionNeuroids]) -> AnyArray:
    return np.repeat(np.array(names, dtype="S"), [len(group) for group in groups])
