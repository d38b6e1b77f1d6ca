"""The assemblies of a release, read some neuroids at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import xarray

from ..arrays import DoubleArray, IntArray
from ..errors import PackagingError, reading
from ..release import DIMENSIONS

AGAIN = "Build the release again."
NEUROIDS_AT_A_TIME = 4096  # bounds the memory


@contextmanager
def opened_assembly(path: Path) -> Iterator[xarray.DataArray]:
    """Open an assembly, and close it at the end. Its values are read when they are needed, by `read_neuroids`.

    Raises
    ------
    PackagingError
        If the file is missing, or holds no assembly that can be read.
    """
    if not path.is_file():
        raise PackagingError(f"{path} is missing. Build the release again.")
    with reading(path, "an assembly", AGAIN):
        assembly: xarray.DataArray = xarray.open_dataarray(path)
    with assembly:
        if set(assembly.dims) != set(DIMENSIONS):
            raise PackagingError(
                f"{path} has the dimensions {assembly.dims}, expected {DIMENSIONS}. Build the release again."
            )
        yield assembly


def read_neuroids(assembly: xarray.DataArray, columns: IntArray) -> DoubleArray:
    """Read the first time bin of some neuroids.

    Returns
    -------
    array of shape (n_presentations, n_columns)
        Unitless.

    Raises
    ------
    PackagingError
        If the values cannot be read.
    """
    if not len(columns):
        return np.empty((assembly.sizes["presentation"], 0))
    # One slice is read, and then the columns are chosen from it: the file would be read column by column otherwise.
    first = int(columns.min())
    block = assembly.variable.isel(neuroid=slice(first, int(columns.max()) + 1), time_bin=0)
    with reading(assembly.encoding.get("source", "The assembly"), "an assembly", AGAIN):
        values: DoubleArray = block.transpose("presentation", "neuroid").values[:, columns - first].astype(np.float64)
    return values
