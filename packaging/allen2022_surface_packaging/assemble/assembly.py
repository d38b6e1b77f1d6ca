"""The assembly files of a release: brainio NetCDF, whose values are written without the library."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import netCDF4
import numpy as np
import pandas as pd

from ..arrays import AnyArray, FloatArray
from ..errors import DISK_ADVICE, explaining
from ..files import naming
from ..release import DIMENSIONS, TIME_BIN

VARIABLE_NAME = "data"  # as in brainio's files


@contextmanager
def create_assembly(
    path: Path,
    *,
    identifier: str,
    stimulus_set_identifier: str | None = None,
    presentations: pd.DataFrame,
    neuroids: pd.DataFrame,
) -> Iterator[Callable[[int, int, FloatArray], None]]:
    """Create an assembly file with all its coordinates, and yield a function that writes values.

    The function takes the first row, the first neuroid, and values of shape (n_rows, n_neuroids). Several threads may call it.

    The values, float32 of shape (n_presentations, n_neuroids, 1), are contiguous and not compressed: compression saves
    one percent, but takes a minute to write and slows down each reading of a region. Strings have a fixed width, which
    reads several times faster than strings of variable length.

    Parameters
    ----------
    presentations, neuroids : tables whose columns become coordinates

    Raises
    ------
    PackagingError
        If the library cannot write the file, because the disk fails or is full.
    OSError
        If the disk has no space for the values.
    """
    with explaining(path, "could not be written", DISK_ADVICE):
        _create_file(path, identifier, stimulus_set_identifier or identifier, presentations, neuroids)
        with h5py.File(path, "r") as created:
            offset = created[VARIABLE_NAME].id.get_offset()

    def write(first_row: int, first_neuroid: int, values: FloatArray) -> None:
        with naming(path):
            for row, row_values in enumerate(np.ascontiguousarray(values, dtype="<f4"), start=first_row):
                buffer = row_values.data.cast("B")
                position = offset + 4 * (row * len(neuroids) + first_neuroid)
                while buffer:
                    n_written = os.pwrite(file.fileno(), buffer, position)
                    buffer, position = buffer[n_written:], position + n_written

    with naming(path), path.open("r+b", buffering=0) as file:
        try:  # so that the disk cannot fill up later
            os.posix_fallocate(file.fileno(), offset, 4 * len(presentations) * len(neuroids))
        except (AttributeError, OSError) as error:  # some systems and disks cannot reserve any space
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
        yield write


def _create_file(
    path: Path,
    identifier: str,
    stimulus_set_identifier: str,
    presentations: pd.DataFrame,
    neuroids: pd.DataFrame,
) -> None:
    """Write everything but the values."""
    tables = dict(zip(DIMENSIONS, (presentations, neuroids, pd.DataFrame(TIME_BIN)), strict=True))
    with netCDF4.Dataset(path, "w", format="NETCDF4") as file:
        for dimension, table in tables.items():
            file.createDimension(dimension, len(table))
        for dimension, table in tables.items():
            for name in table:
                _write_coordinate(file, str(name), dimension, table[name].to_numpy())
        # A fill value would make the library write the whole file twice.
        variable = file.createVariable(VARIABLE_NAME, np.float32, DIMENSIONS, contiguous=True, fill_value=False)
        variable.coordinates = " ".join(str(name) for table in tables.values() for name in table)
        variable.identifier = identifier
        variable.stimulus_set_identifier = stimulus_set_identifier
        variable[-1, -1, -1] = 0  # so that the library gives the values their place in the file


def _write_coordinate(file: netCDF4.Dataset, name: str, dimension: str, values: AnyArray) -> None:
    if values.dtype.kind != "O":
        dtype = np.float64 if values.dtype.kind == "f" else np.int64
        variable = file.createVariable(name, dtype, (dimension,), compression="zlib", complevel=4, fill_value=False)
        variable[:] = values
        return
    texts = values.astype("S")  # of a fixed width
    width = texts.dtype.itemsize
    length = f"string{width}"
    if length not in file.dimensions:
        file.createDimension(length, width)
    variable = file.createVariable(name, "S1", (dimension, length), compression="zlib", complevel=4, fill_value=False)
    variable.set_auto_chartostring(False)
    variable[:] = texts.view("S1").reshape(len(texts), width)
    # The last step: with this attribute netCDF4 would take the characters for strings, and xarray needs it to read them.
    variable.setncattr("_Encoding", "utf-8")
