"""The neuroids of an assembly and their coordinates, as arrays: text as fixed-width bytes, which takes little memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..arrays import AnyArray, DoubleArray, IntArray
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
        vertices, numbers, nc_testset = self.vertices[columns], self.numbers[columns], self.nc_testset[columns]
        return replace(self, vertices=vertices, numbers=numbers, nc_testset=nc_testset)

    @property
    def hemispheres(self) -> AnyArray:
        """The hemisphere of each neuroid, lh or rh."""
        return np.where(self.vertices < self.n_hemisphere_vertices, "lh", "rh")

    @property
    def ids(self) -> AnyArray:
        """The `neuroid_id`, such as ``subj01_lh_V1_v00000``."""
        subject, numbered = (
            subject_name(self.subject),
            zip(self.hemispheres.tolist(), self.numbers.tolist(), strict=True),
        )
        return np.array([f"{subject}_{hemisphere}_{self.region}_v{n:05d}" for hemisphere, n in numbered], dtype="S")


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
    n_neuroids = [len(group) for group in groups]
    return {
        "neuroid_id": np.concatenate([group.ids for group in groups]),
        "subject": np.repeat(np.array([subject_name(group.subject) for group in groups], dtype="S"), n_neuroids),
        "hemisphere": np.concatenate([group.hemispheres for group in groups]).astype("S"),
        "vertex_index": np.concatenate([group.vertices % group.n_hemisphere_vertices for group in groups]),
        "region": np.repeat(np.array([group.region for group in groups], dtype="S"), n_neuroids),
        "nc_testset": np.concatenate([group.nc_testset for group in groups]),
    }
