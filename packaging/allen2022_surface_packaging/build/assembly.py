"""The assembly files of a release: their neuroids, and the brainio NetCDF files with the values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import netCDF4
import numpy as np
import pandas as pd

from ..arrays import AnyArray
from ..recipe import Region
from ..release import DIMENSIONS, NEUROID_COORDINATES, TIME_BIN

if TYPE_CHECKING:
    FloatVariable = netCDF4.Variable[np.float32]

VARIABLE_NAME = "data"  # as in brainio's files


@dataclass(frozen=True, eq=False)
class NeuroidTable:
    """The neuroids of all subjects in the order of the assembly: by region, then subject.

    Attributes
    ----------
    neuroids : table with a row per neuroid
    slices : the rows of each subject and region
    """

    neuroids: pd.DataFrame
    slices: dict[tuple[int, str], slice]


def order_neuroids(subject_tables: dict[int, pd.DataFrame], regions: Sequence[Region]) -> NeuroidTable:
    """Put the neuroids of all subjects in the order of the assembly."""
    tables, slices, start = [], {}, 0
    for region in regions:
        for subject, neuroids in subject_tables.items():
            table = neuroids[neuroids["region"] == region.name]
            slices[subject, region.name] = slice(start, start + len(table))
            start += len(table)
            tables.append(table)
    return NeuroidTable(pd.concat(tables, ignore_index=True), slices)


@contextmanager
def create_assembly(
    path: Path,
    *,
    identifier: str,
    stimulus_set_identifier: str | None = None,
    presentations: pd.DataFrame,
    neuroids: pd.DataFrame,
) -> Iterator[FloatVariable]:
    """Create an assembly file with all its coordinates, and yield the variable to write the values into.

    The values, float32 of shape (n_presentations, n_neuroids, 1), are contiguous and not compressed: compression saves
    one percent, but takes a minute to write and slows down each reading of a region. Strings have a fixed width, which
    reads several times faster than strings of variable length.
    """
    sizes = dict(zip(DIMENSIONS, (len(presentations), len(neuroids), len(TIME_BIN["time_bin_start"])), strict=True))
    coordinates = {name: ("presentation", presentations[name].to_numpy()) for name in presentations}
    coordinates |= {name: ("neuroid", neuroids[name].to_numpy()) for name in NEUROID_COORDINATES}
    coordinates |= {name: ("time_bin", np.array(values)) for name, values in TIME_BIN.items()}
    with netCDF4.Dataset(path, "w", format="NETCDF4") as file:
        for dimension, size in sizes.items():
            file.createDimension(dimension, size)
        for name, (dimension, values) in coordinates.items():
            _write_coordinate(file, str(name), dimension, values)
        # A fill value would make the library write the whole file twice.
        variable = file.createVariable(VARIABLE_NAME, np.float32, DIMENSIONS, contiguous=True, fill_value=False)
        variable.coordinates = " ".join(str(name) for name in coordinates)
        variable.identifier = identifier
        variable.stimulus_set_identifier = stimulus_set_identifier or identifier
        yield variable


def _write_coordinate(file: netCDF4.Dataset, name: str, dimension: str, values: AnyArray) -> None:
    if values.dtype.kind == "O":
        _write_strings(file, name, dimension, values)
        return
    dtype = np.float64 if values.dtype.kind == "f" else np.int64
    variable = file.createVariable(name, dtype, (dimension,), compression="zlib", complevel=4, fill_value=False)
    variable[:] = values


def _write_strings(file: netCDF4.Dataset, name: str, dimension: str, values: AnyArray) -> None:
    characters = np.array([value.encode("ascii") for value in values])
    width = characters.dtype.itemsize
    length = f"string{width}"
    if length not in file.dimensions:
        file.createDimension(length, width)
    variable = file.createVariable(name, "S1", (dimension, length), compression="zlib", complevel=4, fill_value=False)
    variable.set_auto_chartostring(False)
    variable[:] = characters.view("S1").reshape(len(values), width)
    # The last step: with this attribute netCDF4 would take the characters for strings, and xarray needs it to read them.
    variable.setncattr("_Encoding", "utf-8")
