"""The assemblies of a release: opened with a check that they can be read, and read some neuroids at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import xarray

from ..arrays import AnyArray, DoubleArray, IntArray
from ..errors import PackagingError, one_line, raise_if_of_machine
from ..release import DIMENSIONS, NEUROID_COORDINATES, TIME_BIN, UNREADABLE, require_regular_file

NEUROIDS_AT_A_TIME = 4096  # bounds the memory of a comparison


@contextmanager
def opened_assembly(path: Path, *, decode: bool = True) -> Iterator[xarray.DataArray]:
    """Open an assembly, and close it at the end.

    Parameters
    ----------
    decode : bool
        Apply attributes such as ``scale_factor``, as every reader does. Otherwise, the values are those in the file.

    Raises
    ------
    PackagingError
        If there is no regular file, or it holds no assembly that can be read.
    """
    assembly = open_assembly(path, decode=decode)
    try:
        yield assembly
    finally:
        assembly.close()


def open_assembly(path: Path, *, decode: bool = True) -> xarray.DataArray:
    """Open an assembly, as `opened_assembly`. Its coordinates are read at once, its values when they are needed."""
    require_regular_file(path)
    try:
        return _open(path, decode)
    except UNREADABLE as error:
        raise_if_of_machine(error, path)
        raise PackagingError(
            f"{path} cannot be read as a NetCDF file with one assembly ({one_line(error)}). Build the release again."
        ) from error


def _open(path: Path, decode: bool) -> xarray.DataArray:
    assembly: xarray.DataArray = xarray.open_dataarray(path, mask_and_scale=decode, decode_times=decode)
    try:
        for coordinate in assembly.coords.values():
            coordinate.load()
    except BaseException:
        assembly.close()
        raise
    return assembly


def require_coordinates(path: Path, assembly: xarray.DataArray, presentation_coordinates: list[str]) -> None:
    """Raise a `PackagingError` unless an assembly has the dimensions and coordinates of a release."""
    if assembly.dims != DIMENSIONS:
        raise PackagingError(
            f"{path} has the dimensions {assembly.dims}, expected {DIMENSIONS}. Build the release again."
        )
    expected = dict.fromkeys(presentation_coordinates, "presentation")
    expected |= dict.fromkeys(NEUROID_COORDINATES, "neuroid") | dict.fromkeys(TIME_BIN, "time_bin")
    for name, dimension in expected.items():
        if name not in assembly.coords or assembly[name].dims != (dimension,):
            raise PackagingError(f"{path} has no coordinate {name} of {dimension}. Build the release again.")


def read_neuroids(assembly: xarray.DataArray, columns: IntArray) -> DoubleArray:
    """Read the first time bin of some neuroids.

    Parameters
    ----------
    assembly : of the dimensions presentation, neuroid and, if any, time_bin
    columns : array of shape (n_columns,)

    Returns
    -------
    array of shape (n_presentations, n_columns)
        Unitless.
    """
    if not len(columns):
        return np.empty((assembly.sizes["presentation"], 0))
    # One slice is read, and then the columns are chosen from it: the file would be read column by column otherwise.
    first, stop = int(columns.min()), int(columns.max()) + 1
    return np.asarray(read_block(assembly, slice(first, stop))[:, columns - first], dtype=np.float64)


def read_block(assembly: xarray.DataArray, columns: slice) -> AnyArray:
    """Read the first time bin of neuroids that lie together.

    Returns
    -------
    array of shape (n_presentations, n_columns)
        Unitless, of the type that the file has.

    Raises
    ------
    PackagingError
        If the values cannot be read.
    OSError
        If the system cannot read the file.
    """
    path = assembly.encoding.get("source", "the assembly")
    try:
        values = assembly.variable.transpose("presentation", "neuroid", ...)[:, columns].values
    except UNREADABLE as error:
        raise_if_of_machine(error, path)
        raise PackagingError(
            f"{path} cannot be read ({one_line(error)}). Is the disk sound? If so, build the release again."
        ) from error
    first_time_bin: AnyArray = values.reshape(*values.shape[:2], math.prod(values.shape[2:]))[:, :, 0]
    return first_time_bin
