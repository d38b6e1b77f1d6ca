"""Prepared region assemblies: session-standardised averages that an earlier packaging left in the tree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..errors import PackagingError
from ..nsd.files import NSDTree, subject_name
from ..nsd.regions import REGIONS, RegionMap
from ..nsd.storage import Bucket

if TYPE_CHECKING:
    import xarray


def prepared_path(region: str) -> str:
    """Return the path of the prepared assembly of a region in an NSD tree."""
    return f"assemblies/Allen2022_surface.{region}.nc"


@dataclass(frozen=True)
class PreparedAverages:
    """The averages of all shared images, by region: float32 of shape (n_images, n_neuroids of that region)."""

    assemblies: dict[str, xarray.DataArray]
    nsd_ids: np.ndarray

    def of(self, subject: int, region: str, nsd_ids: np.ndarray) -> np.ndarray:
        """Return the averages of some images, of shape (n_images, n_vertices of the subject's region)."""
        assembly = self.assemblies[region]
        columns = np.flatnonzero(assembly["subject"].values == subject_name(subject))
        rows = np.searchsorted(self.nsd_ids, nsd_ids)
        return assembly[:, columns[0] : columns[-1] + 1].values[rows]


def read_prepared_averages(
    tree: NSDTree, region_map: RegionMap, subjects: Sequence[int], fewest: pd.Series
) -> PreparedAverages:
    """Open the prepared assemblies of all regions and check that they are of this tree.

    Raises
    ------
    PackagingError
        If one is missing, damaged, or its subjects, vertices or images disagree with the tree.
    """
    assemblies = {region.name: _open_prepared(tree, region.name) for region in REGIONS}
    for region, assembly in assemblies.items():
        place = tree.storage.locate(prepared_path(region))
        _compare(place, "nsd_id", assembly, fewest.index.to_numpy(), "as in the design")
        _compare(place, "min_reps_across_subjects", assembly, fewest.to_numpy(), "as counted in the design")
        members = region_map.members[region_map.members.region == region]
        for name, own in (("vertex_index", members.vertex_index), ("hemisphere", members.hemisphere)):
            _compare(place, name, assembly, np.tile(own.to_numpy(), len(subjects)), "as in the labels")
        names = np.repeat([subject_name(subject) for subject in subjects], len(members))
        _compare(place, "subject", assembly, names, "as chosen")
    return PreparedAverages(assemblies, fewest.index.to_numpy())


def _open_prepared(tree: NSDTree, region: str) -> xarray.DataArray:
    path = prepared_path(region)
    import xarray  # here, because its import takes a second that a build from the betas need not spend

    place = tree.storage.locate(path)
    if not tree.storage.exists(path):
        raise PackagingError(f"{place} is missing. Build without --from-region-assemblies, or bring all four regions.")
    if isinstance(tree.storage, Bucket):
        raise PackagingError(f"{place} lies in a bucket, but prepared assemblies are read from a folder only. Copy it.")
    try:
        assembly = xarray.open_dataarray(place)
    except (OSError, ValueError) as error:
        raise PackagingError(f"{place} cannot be read as an assembly ({error}). Prepare it again.") from error
    if assembly.dims != ("presentation", "neuroid") or assembly.dtype != np.float32:
        raise PackagingError(
            f"{place} holds {assembly.dtype} of dimensions {assembly.dims}, expected float32 (presentation, neuroid)."
        )
    return assembly


def _compare(place: str, name: str, assembly: xarray.DataArray, expected: np.ndarray, source: str) -> None:
    if name not in assembly.coords:
        raise PackagingError(f"{place} lacks the coordinate {name}. Is it a prepared region assembly?")
    found = assembly[name].values
    if len(found) != len(expected):
        raise PackagingError(f"{place} holds {len(found)} values of {name}, expected {len(expected)} {source}.")
    differ = np.flatnonzero(found != expected)
    if len(differ):
        i = differ[0]
        raise PackagingError(f"{place}: {name} number {i} is {found[i]}, expected {expected[i]} {source}.")
