"""The repetitions of the images of an assembly, and its values in blocks of neuroids."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import xarray as xr
from brainscore_core.supported_data_standards.brainio.assemblies import walk_coords
from numpy.typing import NDArray

NEUROIDS_AT_A_TIME = 2048  # a block fits into the cache of a processor, and needs little memory
NEUROIDS_READ_AT_ONCE = 32_768  # of an assembly that is lazy

DoubleArray: TypeAlias = NDArray[np.float64]
FloatingArray: TypeAlias = NDArray[np.floating[Any]]
IntArray: TypeAlias = NDArray[np.int64]
BoolArray: TypeAlias = NDArray[np.bool_]


def as_matrix(assembly: xr.DataArray) -> xr.Variable:
    """Return the values with the dimensions presentation and neuroid."""
    extra_sizes = {dim: size for dim, size in assembly.sizes.items() if dim not in ("presentation", "neuroid")}
    if len(assembly.dims) != len(extra_sizes) + 2 or any(size != 1 for size in extra_sizes.values()):
        raise ValueError(
            f"The assembly has the dimensions {dict(assembly.sizes)}, expected presentation, neuroid and at most one "
            "time_bin. Select one time_bin, as in assembly.isel(time_bin=0)."
        )
    matrix: xr.Variable = assembly.variable.isel(dict.fromkeys(extra_sizes, 0)).transpose("presentation", "neuroid")
    return matrix


def presentation_rows(assembly: xr.DataArray) -> IntArray:
    """Return the row of each repetition of each image in the assembly, of shape (n_images, n_repetitions)."""
    columns = {name: values for name, dims, values in walk_coords(assembly) if dims == ("presentation",)}
    if "repetition" not in columns:
        raise ValueError(
            "The assembly has no coordinate repetition, so it has no repetitions to compare. Load the test split."
        )
    table = pd.DataFrame(columns).assign(row=np.arange(assembly.sizes["presentation"]))
    # As in Brain-Score: presentations show the same image if all their coordinates but the repetition are equal.
    table["image"] = table.groupby([name for name in columns if name != "repetition"], dropna=False).ngroup()
    counts = table.groupby(["image", "repetition"]).size().unstack(fill_value=0)
    n_images, n_repetitions = counts.shape
    if n_repetitions < 2 or n_images < 2:
        raise ValueError(
            f"The assembly has {n_repetitions} repetitions of {n_images} images, expected 2 or more of each. "
            "Select more presentations."
        )
    if (counts != 1).any(axis=None):
        image, number = np.argwhere(counts.to_numpy() != 1)[0]
        stimulus_id = table["stimulus_id"][table["image"] == image].iloc[0]
        raise ValueError(
            f"Image {stimulus_id} has {counts.iat[image, number]} presentations with repetition {counts.columns[number]} and "
            "the same coordinates, expected 1. Select whole images."
        )
    return table.pivot(index="image", columns="repetition", values="row").to_numpy(dtype=np.int64)


def region_groups(assembly: xr.DataArray) -> Iterator[tuple[str, str, slice | IntArray]]:
    """Yield subject, region and neuroids of each region of each subject, in the order of the assembly."""
    subjects, regions = (neuroid_coordinate(assembly, name) for name in ("subject", "region"))
    groups = pd.DataFrame({"subject": subjects, "region": regions})
    for (subject, region), group in groups.groupby(["subject", "region"], sort=False):
        neuroids = group.index.to_numpy(dtype=np.int64)
        is_contiguous = neuroids[-1] - neuroids[0] == len(neuroids) - 1
        yield str(subject), str(region), slice(int(neuroids[0]), int(neuroids[-1]) + 1) if is_contiguous else neuroids


def neuroid_coordinate(assembly: xr.DataArray, name: str) -> NDArray[Any]:
    """Return a coordinate of the neuroids."""
    for coordinate, dims, values in walk_coords(assembly):
        if coordinate == name and dims == ("neuroid",):
            return np.asarray(values)
    raise ValueError(f"The assembly has no neuroid coordinate {name}. Load it from a release, or add the coordinate.")


def blocks(values: xr.Variable, rows: IntArray) -> Iterator[tuple[slice, FloatingArray]]:
    """Yield blocks of neuroids: where they lie, and their values, of shape (n_repetitions, n_images, n_neuroids_in_block)."""
    for start in range(0, values.shape[1], NEUROIDS_READ_AT_ONCE):
        matrix = values[:, start : start + NEUROIDS_READ_AT_ONCE].values
        for first in range(0, matrix.shape[1], NEUROIDS_AT_A_TIME):
            block = matrix[:, first : first + NEUROIDS_AT_A_TIME]
            yield slice(start + first, start + first + block.shape[1]), block[rows.T]


def valid_images(responses: FloatingArray) -> tuple[DoubleArray, DoubleArray]:
    """Mark images that have a NaN repetition, for each neuroid.

    Parameters
    ----------
    responses : array of shape (n_repetitions, n_images, n_neuroids)

    Returns
    -------
    array of shape (n_repetitions, n_images, n_neuroids)
        The responses minus that to the first valid presentation, so that constant neuroids are exactly 0. Invalid images are 0.
    array of shape (n_images, n_neuroids)
        0 where an image has a NaN repetition, else 1.
    """
    is_valid = np.isfinite(responses).all(axis=0)
    values = np.where(is_valid, responses, 0).astype(np.float64)
    values -= np.take_along_axis(values[0], is_valid.argmax(axis=0)[None], axis=0)
    values *= is_valid
    return values, is_valid.astype(np.float64)
