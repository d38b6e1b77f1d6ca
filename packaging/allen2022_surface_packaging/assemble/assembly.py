"""The assembly files of a release: brainio NetCDF, whose values are written without the library."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import netCDF4
import numpy as np
import pandas as pd

from ..arrays import AnyArray, FloatArray
from ..errors import ADVICE
from ..files import naming, writing_hdf5
from ..release import DIMENSIONS, TIME_BIN

VARIABLE_NAME = "data"  # as in brainio's files


def encode_columns(table: pd.DataFrame) -> Iterator[tuple[str, AnyArray]]:
    """Yield name and values of every column; text as fixed-width bytes."""
    for name in table:
        values = table[name].to_numpy()
        yield str(name), values.astype("S") if values.dtype.kind == "O" else values


@dataclass(frozen=True)
class AssemblyFile:
    """An assembly file that is open for its values. Several threads may write it.

    Attributes
    ----------
    offset : where the values begin, in bytes
    n_neuroids : the number of values in a row
    """

    path: Path
    descriptor: int
    offset: int
    n_neuroids: int

    def write(self, first_row: int, first_neuroid: int, values: FloatArray) -> None:
        """Write values of shape (n_rows, n_neuroids) to their place."""
        with naming(self.path):
            for row, row_values in enumerate(np.ascontiguousarray(values, dtype="<f4"), start=first_row):
                buffer = row_values.data.cast("B")
                position = self.offset + 4 * (row * self.n_neuroids + first_neuroid)
                while buffer:
                    n_written = os.pwrite(self.descriptor, buffer, position)
                    buffer, position = buffer[n_written:], position + n_written


@contextmanager
def create_assembly(
    path: Path,
    *,
    identifier: str,
    stimulus_set_identifier: str | None = None,
    presentations: pd.DataFrame,
    neuroids: Iterable[tuple[str, AnyArray]],
) -> Iterator[AssemblyFile]:
    """Create an assembly file with all its coordinates, and yield it for the values.

    The values, float32 of shape (n_presentations, n_neuroids, 1), are contiguous and not compressed: compression saves
    one percent, but takes a minute to write and slows down each reading of a region. Strings have a fixed width, which
    reads several times faster than strings of variable length.

    Parameters
    ----------
    neuroids : names and values of the neuroid coordinates

    Raises
    ------
    PackagingError
        If the library cannot write the file, because the disk fails or is full.
    OSError
        If the disk has no space for the values.
    """
    with writing_hdf5(path):
        _create_file(path, identifier, stimulus_set_identifier or identifier, presentations, neuroids)
        with h5py.File(path, "r") as created:
            n_presentations, n_neuroids, _ = created[VARIABLE_NAME].shape
            offset = created[VARIABLE_NAME].id.get_offset()
    descriptor = os.open(path, os.O_RDWR)
    try:
        with naming(path):
            _reserve(descriptor, offset, 4 * n_presentations * n_neuroids)
        yield AssemblyFile(path, descriptor, offset, n_neuroids)
    finally:
        with naming(path):
            os.close(descriptor)


def _reserve(descriptor: int, offset: int, n_bytes: int) -> None:
    """Reserve space for values, so that the disk cannot fill up later. Some disks cannot reserve any."""
    try:
        os.posix_fallocate(descriptor, offset, n_bytes)
    except OSError as error:
        if error.errno in ADVICE:
            raise


def _create_file(
    path: Path,
    identifier: str,
    stimulus_set_identifier: str,
    presentations: pd.DataFrame,
    neuroids: Iterable[tuple[str, AnyArray]],
) -> None:
    """Write everything but the values."""
    coordinates = [(name, "presentation", values) for name, values in encode_columns(presentations)]
    coordinates += [(name, "neuroid", values) for name, values in neuroids]
    coordinates += [(name, "time_bin", np.array(times)) for name, times in TIME_BIN.items()]
    sizes = {dimension: len(values) for _, dimension, values in coordinates}
    with netCDF4.Dataset(path, "w", format="NETCDF4") as file:
        for dimension in DIMENSIONS:
            file.createDimension(dimension, sizes[dimension])
        for name, dimension, values in coordinates:
            _write_coordinate(file, name, dimension, values)
        # A fill value would make the library write the whole file twice.
        variable = file.createVariable(VARIABLE_NAME, np.float32, DIMENSIONS, contiguous=True, fill_value=False)
        variable.coordinates = " ".join(name for name, _, _ in coordinates)
        variable.identifier = identifier
        variable.stimulus_set_identifier = stimulus_set_identifier
        variable[-1, -1, -1] = 0  # so that the library gives the values their place in the file


def _write_coordinate(file: netCDF4.Dataset, name: str, dimension: str, values: AnyArray) -> None:
    if values.dtype.kind != "S":
        dtype = np.float64 if values.dtype.kind == "f" else np.int64
        variable = file.createVariable(name, dtype, (dimension,), compression="zlib", complevel=4, fill_value=False)
        variable[:] = values
        return
    width = values.dtype.itemsize
    length = f"string{width}"
    if length not in file.dimensions:
        file.createDimension(length, width)
    variable = file.createVariable(name, "S1", (dimension, length), compression="zlib", complevel=4, fill_value=False)
    variable.set_auto_chartostring(False)
    variable[:] = values.view("S1").reshape(len(values), width)
    # The last step: with this attribute netCDF4 would take the characters for strings, and xarray needs it to read them.
    variable.setncattr("_Encoding", "utf-8")
