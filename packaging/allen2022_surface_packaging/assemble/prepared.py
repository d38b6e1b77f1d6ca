"""Prepared region assemblies: session-standardised averages that an earlier packaging left in the tree."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..arrays import AnyArray, FloatArray, IntArray
from ..errors import PackagingError, one_line, raise_if_of_machine
from ..facts import DEFAULT_BETAS, HEMISPHERES, stimulus_name, subject_name
from ..nsd.bucket import Bucket
from ..nsd.plan import Plan
from ..nsd.regions import LabelledRegion
from ..nsd.storage import RawFile

if TYPE_CHECKING:
    import xarray


@dataclass(frozen=True, eq=False)
class PreparedAssembly:
    """The averages of all shared images for the vertices of one region.

    Attributes
    ----------
    nsd_ids : the images of its rows, ascending
    subjects : which follow each other in its columns, each with all vertices of the region
    """

    file: RawFile
    nsd_ids: IntArray
    subjects: tuple[int, ...]
    n_vertices: int

    def read(self, subject: int, nsd_ids: IntArray) -> FloatArray:
        """Read the averages of some images, of shape (n_images, n_vertices); unitless. An infinite one counts as NaN.

        Raises
        ------
        PackagingError
            If the file is damaged.
        """
        first = self.subjects.index(subject) * self.n_vertices
        with _opened(self.file) as assembly:
            averages: FloatArray = assembly[:, first : first + self.n_vertices].values
        averages = averages[np.searchsorted(self.nsd_ids, nsd_ids)]
        averages[np.isinf(averages)] = np.nan
        return averages


def open_prepared(plan: Plan) -> dict[str, PreparedAssembly]:
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
    return {region.name: _open_region(plan, region) for region in plan.region_map.regions}


def _open_region(plan: Plan, region: LabelledRegion) -> PreparedAssembly:
    file = plan.prepared_assemblies[region.name]
    if not file.exists():
        raise PackagingError(
            f"{file} is missing. Build without --from-region-assemblies, or add the assemblies of all regions."
        )
    if isinstance(file.storage, Bucket):
        raise PackagingError(f"{file} is in a bucket, but prepared assemblies are read from a folder only. Copy it.")
    subjects, fewest = plan.recipe.subjects, plan.fewest_repetitions
    nsd_ids = fewest.index.to_numpy()
    hemispheres = np.repeat(HEMISPHERES, [len(region.vertices[hemisphere]) for hemisphere in HEMISPHERES])
    vertices = np.concatenate([region.vertices[hemisphere] for hemisphere in HEMISPHERES])
    with _opened(file) as assembly:
        if assembly.dims != ("presentation", "neuroid") or assembly.dtype != np.float32:
            raise PackagingError(
                f"{file} holds {assembly.dtype} of dimensions {assembly.dims}, expected float32 (presentation, neuroid)."
            )
        _compare(file, assembly, "nsd_id", nsd_ids, "as in the design")
        if "stimulus_id" in assembly.coords:
            _compare(file, assembly, "stimulus_id", np.array([*map(stimulus_name, nsd_ids)]), "as in the design")
        _compare(file, assembly, "min_reps_across_subjects", fewest.to_numpy(), "as counted in the design")
        _compare(file, assembly, "vertex_index", np.tile(vertices, len(subjects)), "as in the labels")
        _compare(file, assembly, "hemisphere", np.tile(hemispheres, len(subjects)), "as in the labels")
        names = np.repeat([subject_name(subject) for subject in subjects], region.n_vertices)
        _compare(file, assembly, "subject", names, "as chosen")
    return PreparedAssembly(file, nsd_ids, subjects, region.n_vertices)


@contextmanager
def _opened(file: RawFile) -> Iterator[xarray.DataArray]:
    import xarray  # here, because its import takes a second that a build from the betas does not need

    try:
        with xarray.open_dataarray(str(file)) as assembly:
            yield assembly
    except PackagingError:
        raise
    except Exception as error:  # xarray, netCDF4 and numpy each raise other exceptions for damaged files
        raise_if_of_machine(error, file)
        raise PackagingError(f"{file} cannot be read as an assembly ({one_line(error)}). Prepare it again.") from error


def _compare(file: RawFile, assembly: xarray.DataArray, name: str, expected: AnyArray, source: str) -> None:
    if name not in assembly.coords:
        raise PackagingError(f"{file} lacks the coordinate {name}. Is it a prepared region assembly?")
    actual = assembly[name].values
    if actual.shape != expected.shape:
        raise PackagingError(f"{file} holds {len(actual.ravel())} values of {name}, expected {len(expected)} {source}.")
    differing = np.flatnonzero(actual != expected)
    if len(differing):
        i = differing[0]
        raise PackagingError(f"{file}: {name} number {i} is {actual[i]}, expected {expected[i]} {source}.")
