"""The values of an assembly on disk, read some neuroids at a time."""

from __future__ import annotations

import numpy as np
import xarray

from ..arrays import DoubleArray, IntArray

NEUROIDS_AT_A_TIME = 4096  # bounds the memory of a comparison


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
    # One slice is read, and then the columns are chosen from it: the file would be read column by column otherwise.
    first, stop = (int(columns.min()), int(columns.max()) + 1) if len(columns) else (0, 0)
    values = assembly.variable.transpose("presentation", "neuroid", ...)[:, first:stop].values
    time_bins = values.reshape(*values.shape[:2], -1 if values.ndim > 2 else 1)
    return np.asarray(time_bins[:, columns - first, 0], dtype=np.float64)
