"""Prepared region assemblies: session-standardised averages that an earlier packaging left in the tree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..arrays import AnyArray, FloatArray, IntArray
from ..errors import PackagingError, one_line
from ..nsd.bucket import Bucket
from ..nsd.facts import DEFAULT_BETAS, HEMISPHERES, subject_name
from ..nsd.plan import Plan
from ..nsd.regions import RegionMap
from ..nsd.storage import RawFile

if TYPE_CHECKING:
    import xarray


@dataclass(frozen=True, eq=False)
class PreparedAverages:
    """The averages of all shared images: an assembly per region, and the images of its rows."""

    assemblies: dict[str, xarray.DataArray]
    nsd_ids: IntArray

    def read(self, subject: int, region_map: RegionMap, nsd_ids: IntArray) -> FloatArray:
        """Return the averages of some images, of shape (n_images, n_read_vertices of lh + rh); unitless.

        Raises
        ------
        PackagingError
            If a vertex of two regions has different averages in them.
        """
        rows = np.searchsorted(self.nsd_ids, nsd_ids)
        averages = np.empty((len(rows), region_map.n_read_vertices), dtype=np.float32)
        is_known = np.zeros(region_map.n_read_vertices, dtype=bool)
        for region in region_map.regions:
            assembly, columns = self.assemblies[region.name], region_map.columns(region)
            neuroids = np.flatnonzero(assembly["subject"].values == subject_name(subject))
            values: FloatArray = assembly[:, neuroids[0] : neuroids[-1] + 1].values[rows]
            shared = is_known[columns]
            if not np.array_equal(averages[:, columns[shared]], values[:, shared], equal_nan=True):
                raise PackagingError(
                    f"The prepared assembly of {region.name} gives {subject_name(subject)} other averages than the one "
                    "of another region with the same vertex. Prepare them again."
                )
            averages[:, columns] = values
            is_known[columns] = True
        return averages


def read_prepared_averages(plan: Plan) -> PreparedAverages:
    """Open the prepared assemblies of all regions, and check that they belong to the tree.

    Raises
    ------
    PackagingError
        If one is missing or damaged, its subjects, vertices or images disagree with the tree, or the recipe asks for
        other betas or images than those that were prepared.
    """
    if plan.recipe.betas != DEFAULT_BETAS or plan.recipe.pool != "shared":
        raise PackagingError(
            f"{plan.recipe} asks for {plan.recipe.betas} and the images of the pool {plan.recipe.pool!r}, but prepared "
            f"assemblies hold {DEFAULT_BETAS} of shared images. Build without --from-region-assemblies."
        )
    assemblies = {}
    fewest, subjects = plan.fewest_repetitions, plan.recipe.subjects
    for region in plan.region_map.regions:
        file = plan.tree.prepared_assembly(region.name)
        assembly = assemblies[region.name] = _open_prepared(file)
        _compare(file, "nsd_id", assembly, fewest.index.to_numpy(), "as in the design")
        _compare(file, "min_reps_across_subjects", assembly, fewest.to_numpy(), "as counted in the design")
        vertices = np.concatenate([region.vertices[hemisphere] for hemisphere in HEMISPHERES])
        hemispheres = np.repeat(HEMISPHERES, [len(region.vertices[hemisphere]) for hemisphere in HEMISPHERES])
        _compare(file, "vertex_index", assembly, np.tile(vertices, len(subjects)), "as in the labels")
        _compare(file, "hemisphere", assembly, np.tile(hemispheres, len(subjects)), "as in the labels")
        names = np.repeat([subject_name(subject) for subject in subjects], region.n_vertices)
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
