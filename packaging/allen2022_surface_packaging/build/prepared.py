"""Prepared region assemblies: session-standardised averages that an earlier packaging left in the tree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..arrays import AnyArray, FloatArray, IntArray
from ..errors import PackagingError, one_line
from ..nsd.bucket import Bucket
from ..nsd.facts import subject_name
from ..nsd.plan import Plan
from ..nsd.storage import RawFile

if TYPE_CHECKING:
    import xarray


@dataclass(frozen=True, eq=False)
class PreparedAverages:
    """The averages of all shared images: an assembly per region, and the images of its rows."""

    assemblies: dict[str, xarray.DataArray]
    nsd_ids: IntArray

    def read(self, subject: int, region: str, nsd_ids: IntArray) -> FloatArray:
        """Return the averages of some images, of shape (n_images, n_vertices of the subject's region); unitless."""
        assembly = self.assemblies[region]
        columns = np.flatnonzero(assembly["subject"].values == subject_name(subject))
        rows = np.searchsorted(self.nsd_ids, nsd_ids)
        averages: FloatArray = assembly[:, columns[0] : columns[-1] + 1].values[rows]
        return averages


def read_prepared_averages(plan: Plan) -> PreparedAverages:
    """Open the prepared assemblies of all regions, and check that they belong to the tree.

    Raises
    ------
    PackagingError
        If one is missing or damaged, or its subjects, vertices or images disagree with the tree.
    """
    assemblies = {}
    fewest, subjects = plan.fewest_repetitions, plan.recipe.subjects
    for region in plan.recipe.regions:
        file = plan.tree.prepared_assembly(region.name)
        assembly = assemblies[region.name] = _open_prepared(file)
        _compare(file, "nsd_id", assembly, fewest.index.to_numpy(), "as in the design")
        _compare(file, "min_reps_across_subjects", assembly, fewest.to_numpy(), "as counted in the design")
        members = plan.region_map.members
        members = members[members["region"] == region.name]
        for name in ("vertex_index", "hemisphere"):
            _compare(file, name, assembly, np.tile(members[name].to_numpy(), len(subjects)), "as in the labels")
        names = np.repeat([subject_name(subject) for subject in subjects], len(members))
        _compare(file, "subject", assembly, names, "as chosen")
    return PreparedAverages(assemblies, fewest.index.to_numpy())


def _open_prepared(file: RawFile) -> xarray.DataArray:
    import xarray  # here, because its import takes a second that a build from the betas does not need

    if not file.exists():
        raise PackagingError(
            f"{file} is missing. Build without --from-region-assemblies, or add the assemblies of all regions."
        )
    if isinstance(file.storage, Bucket):
        raise PackagingError(f"{file} is in a bucket, but prepared assemblies are read from a folder only. Copy it.")
    try:
        assembly: xarray.DataArray = xarray.open_dataarray(str(file))
    except (OSError, ValueError) as error:
        raise PackagingError(f"{file} cannot be read as an assembly ({one_line(error)}). Prepare it again.") from error
    if assembly.dims != ("presentation", "neuroid") or assembly.dtype != np.float32:
        raise PackagingError(
            f"{file} holds {assembly.dtype} of dimensions {assembly.dims}, expected float32 (presentation, neuroid)."
        )
    return assembly


def _compare(file: RawFile, name: str, assembly: xarray.DataArray, expected: AnyArray, source: str) -> None:
    if name not in assembly.coords:
        raise PackagingError(f"{file} lacks the coordinate {name}. Is it a prepared region assembly?")
    actual = assembly[name].values
    if len(actual) != len(expected):
        raise PackagingError(f"{file} holds {len(actual)} values of {name}, expected {len(expected)} {source}.")
    differing = np.flatnonzero(actual != expected)
    if len(differing):
        i = differing[0]
        raise PackagingError(f"{file}: {name} number {i} is {actual[i]}, expected {expected[i]} {source}.")
