"""Prepared region assemblies: session-standardised averages that an earlier packaging left in the tree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np

from ..arrays import AnyArray, FloatArray, IntArray
from ..errors import PackagingError, one_line, raise_if_of_machine
from ..facts import DEFAULT_BETAS, HEMISPHERES, stimulus_name, subject_name
from ..nsd.bucket import Bucket
from ..nsd.plan import Plan
from ..nsd.regions import RegionMap
from ..nsd.storage import RawFile

if TYPE_CHECKING:
    import xarray

# Those that are compared
COORDINATES = ("nsd_id", "stimulus_id", "min_reps_across_subjects", "vertex_index", "hemisphere", "subject")

Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class PreparedAssembly:
    """The prepared assembly of one region."""

    file: RawFile
    dims: tuple[str, ...]
    dtype: np.dtype[Any]
    coordinates: dict[str, AnyArray]

    @classmethod
    def open(cls, file: RawFile) -> Self:
        """Read everything but the values.

        Raises
        ------
        PackagingError
            If the file is damaged.
        """
        return cls(file, *_read(file, _read_description))

    def read(self, subject: int) -> FloatArray:
        """Read the averages of a subject, whose neuroids follow each other: float32 (n_shared_images, n_vertices).

        Raises
        ------
        PackagingError
            If the file is damaged.
        """
        neuroids = np.flatnonzero(self.coordinates["subject"] == subject_name(subject))

        def read_values(assembly: xarray.DataArray) -> FloatArray:
            values: FloatArray = assembly[:, neuroids[0] : neuroids[-1] + 1].values
            return values

        return _read(self.file, read_values)


def _read_description(assembly: xarray.DataArray) -> tuple[tuple[str, ...], np.dtype[Any], dict[str, AnyArray]]:
    names = [name for name in COORDINATES if name in assembly.coords]
    return tuple(map(str, assembly.dims)), assembly.dtype, {name: assembly[name].values for name in names}


def _read(file: RawFile, read: Callable[[xarray.DataArray], Result]) -> Result:
    import xarray  # here, because its import takes a second that a build from the betas does not need

    try:
        with xarray.open_dataarray(str(file)) as assembly:
            return read(assembly)
    except Exception as error:  # xarray, netCDF4 and numpy each raise other exceptions for damaged files
        raise_if_of_machine(error, file)
        raise PackagingError(f"{file} cannot be read as an assembly ({one_line(error)}). Prepare it again.") from error


@dataclass(frozen=True, eq=False)
class PreparedAverages:
    """The averages of all shared images: an assembly per region, and the images of its rows."""

    assemblies: dict[str, PreparedAssembly]
    nsd_ids: IntArray

    def read(self, subject: int, region_map: RegionMap, nsd_ids: IntArray) -> FloatArray:
        """Return the averages of some images, of shape (n_images, n_read_vertices of lh + rh); unitless.

        An infinite average counts as NaN.

        Raises
        ------
        PackagingError
            If a vertex of two regions has different averages in them, or a file is damaged.
        """
        rows = np.searchsorted(self.nsd_ids, nsd_ids)
        averages = np.empty((len(rows), region_map.n_read_vertices), dtype=np.float32)
        is_known = np.zeros(region_map.n_read_vertices, dtype=bool)
        for region in region_map.regions:
            assembly, columns = self.assemblies[region.name], region_map.columns(region)
            values = assembly.read(subject)[rows]
            values[np.isinf(values)] = np.nan
            shared = is_known[columns]
            if not np.array_equal(averages[:, columns[shared]], values[:, shared], equal_nan=True):
                raise PackagingError(
                    f"{assembly.file} gives {subject_name(subject)} other averages than the assembly of another region with the "
                    "same vertex. Prepare them again."
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
        if "stimulus_id" in assembly.coordinates:
            _compare(
                file, "stimulus_id", assembly, np.array(list(map(stimulus_name, fewest.index))), "as in the design"
            )
        _compare(file, "min_reps_across_subjects", assembly, fewest.to_numpy(), "as counted in the design")
        vertices = np.concatenate([region.vertices[hemisphere] for hemisphere in HEMISPHERES])
        hemispheres = np.repeat(HEMISPHERES, [len(region.vertices[hemisphere]) for hemisphere in HEMISPHERES])
        _compare(file, "vertex_index", assembly, np.tile(vertices, len(subjects)), "as in the labels")
        _compare(file, "hemisphere", assembly, np.tile(hemispheres, len(subjects)), "as in the labels")
        names = np.repeat([subject_name(subject) for subject in subjects], region.n_vertices)
        _compare(file, "subject", assembly, names, "as chosen")
    return PreparedAverages(assemblies, fewest.index.to_numpy())


def _open_prepared(file: RawFile) -> PreparedAssembly:
    if not file.exists():
        raise PackagingError(
            f"{file} is missing. Build without --from-region-assemblies, or add the assemblies of all regions."
        )
    if isinstance(file.storage, Bucket):
        raise PackagingError(f"{file} is in a bucket, but prepared assemblies are read from a folder only. Copy it.")
    assembly = PreparedAssembly.open(file)
    if assembly.dims != ("presentation", "neuroid") or assembly.dtype != np.float32:
        raise PackagingError(
            f"{file} holds {assembly.dtype} of dimensions {assembly.dims}, expected float32 (presentation, neuroid)."
        )
    return assembly


def _compare(file: RawFile, name: str, assembly: PreparedAssembly, expected: AnyArray, source: str) -> None:
    if name not in assembly.coordinates:
        raise PackagingError(f"{file} lacks the coordinate {name}. Is it a prepared region assembly?")
    actual = assembly.coordinates[name]
    if actual.ndim != 1:
        raise PackagingError(f"{file}: {name} has {actual.ndim} dimensions, expected 1. Prepare it again.")
    if len(actual) != len(expected):
        raise PackagingError(f"{file} holds {len(actual)} values of {name}, expected {len(expected)} {source}.")
    differing = np.flatnonzero(actual != expected)
    if len(differing):
        i = differing[0]
        raise PackagingError(f"{file}: {name} number {i} is {actual[i]}, expected {expected[i]} {source}.")
