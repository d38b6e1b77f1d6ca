"""The repetitions of the images of an assembly, and its values in blocks of neuroids."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import xarray as xr
from brainscore_core.supported_data_standards.brainio.assemblies import walk_coords
from numpy.typing import NDArray

NEUROIDS_IN_MEMORY = 65_536  # of a lazy assembly
NEUROIDS_AT_A_TIME = 2048  # a block fits into the cache of a processor, and needs little memory

DoubleArray: TypeAlias = NDArray[np.float64]
FloatingArray: TypeAlias = NDArray[np.floating[Any]]
IntArray: TypeAlias = NDArray[np.int64]


def as_matrix(assembly: xr.DataArray) -> xr.Variable:
    """Return the values with the dimensions presentation and neuroid. A lazy assembly stays lazy."""
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
    table = pd.DataFrame(columns)
    # As in Brain-Score: presentations show the same image if all their coordinates but the repetition are equal.
    table["image"] = table.groupby([name for name in columns if name != "repetition"], dropna=False).ngroup()
    repetitions, table["number"] = np.unique(table["repetition"], return_inverse=True)
    counts = np.zeros((int(table["image"].max()) + 1, len(repetitions)), dtype=np.int64)
    np.add.at(counts, (table["image"], table["number"]), 1)
    _refuse_incomplete(counts, table, repetitions)
    rows = np.empty_like(counts)
    rows[table["image"], table["number"]] = np.arange(len(table))
    return rows


def _refuse_incomplete(counts: IntArray, table: pd.DataFrame, repetitions: NDArray[Any]) -> None:
    """Raise a ValueError unless there are several images, each with all of several repetitions once."""
    n_images, n_repetitions = counts.shape
    if n_repetitions < 2 or n_images < 2:
        raise ValueError(
            f"The assembly has {n_repetitions} repetitions of {n_images} images, expected 2 or more of each. "
            "Select more presentations."
        )
    if (counts != 1).any():
        image, number = np.argwhere(counts != 1)[0]
        stimulus_id = table["stimulus_id"][table["image"] == image].iloc[0]
        raise ValueError(
            f"Image {stimulus_id} has {counts[image, number]} presentations with repetition {repetitions[number]} and the "
            "same coordinates, expected 1. Select whole images."
        )


def blocks(values: xr.Variable, rows: IntArray) -> Iterator[tuple[slice, FloatingArray]]:
    """Yield blocks of neuroids: where they lie, and their values, of shape (n_repetitions, n_images, n_neuroids_in_block)."""
    for start, stop in _read_ranges(values):
        responses = values[:, start:stop].values
        for first in range(start, stop, NEUROIDS_AT_A_TIME):
            block = slice(first, min(first + NEUROIDS_AT_A_TIME, stop))
            yield block, responses[:, block.start - start : block.stop - start][rows.T]


def _read_ranges(values: xr.Variable) -> Iterator[tuple[int, int]]:
    """Yield the first neuroid of each read, and the neuroid after its last.

    A read covers whole chunks, because dask reads a chunk only as a whole. A very large chunk is still read in several
    parts, so that it does not lie in memory twice.
    """
    ends = np.cumsum(values.chunks[1]) if values.chunks else np.array([values.shape[1]])
    start = 0
    while start < ends[-1]:
        n_chunks = max(
            np.searchsorted(ends, start, "right") + 1, np.searchsorted(ends, start + NEUROIDS_AT_A_TIME, "right")
        )
        stop = min(int(ends[n_chunks - 1]), start + NEUROIDS_IN_MEMORY)
        yield start, stop
        start = stop
