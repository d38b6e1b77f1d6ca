"""Assemblies: their coordinates, and the brainio NetCDF files that hold them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pandas as pd

from ..nsd.regions import REGIONS
from ..nsd.trials import N_REPETITIONS, stimulus_name

DIMENSIONS = ("presentation", "neuroid", "time_bin")
NEUROID_COORDINATES = ("neuroid_id", "subject", "hemisphere", "vertex_index", "region", "nc_testset")
TIME_BIN = {"time_bin_start": [70], "time_bin_end": [170]}  # ms, Brain-Score's convention; a placeholder for fMRI
VARIABLE = "data"  # as brainio's own writer calls it


def presentations(split: str, nsd_ids: np.ndarray) -> pd.DataFrame:
    """List the presentations of a split: an image each for train, an image's three repetitions each for test.

    Nothing else may become a presentation coordinate: Brain-Score averages and computes ceilings over groups of all.
    """
    n = N_REPETITIONS if split == "test" else 1
    table = pd.DataFrame(
        {
            "stimulus_id": [stimulus_name(nsd_id) for nsd_id in nsd_ids for _ in range(n)],
            "nsd_id": np.repeat(nsd_ids, n),
        }
    )
    if split == "test":
        table["repetition"] = np.tile(np.arange(N_REPETITIONS), len(nsd_ids))
    return table


def order_neuroids(subject_tables: dict[int, pd.DataFrame]) -> tuple[pd.DataFrame, dict[tuple[int, str], slice]]:
    """Put the neuroids of all subjects in the order of the assembly: region, then subject, then as they come.

    Returns
    -------
    table of all neuroids, and for every subject and region the slice of neuroids that is its own
    """
    parts, places, start = [], {}, 0
    for region in REGIONS:
        for subject, neuroids in subject_tables.items():
            part = neuroids[neuroids.region == region.name]
            places[subject, region.name] = slice(start, start + len(part))
            start += len(part)
            parts.append(part)
    return pd.concat(parts, ignore_index=True), places


@contextmanager
def create_assembly(
    path: Path, *, identifier: str, presentation: pd.DataFrame, neuroids: pd.DataFrame
) -> Iterator[netCDF4.Variable]:
    """Create an assembly file with all its coordinates, and yield the variable to write the values into.

    The values, float32 of shape (n_presentations, n_neuroids, 1), are stored as they are in one piece: compression wins
    a hundredth of noise, and costs a minute in writing and as much again whenever a region is read. Strings are of fixed
    width, which reads several times faster than strings of any length.
    """
    sizes = dict(zip(DIMENSIONS, (len(presentation), len(neuroids), len(TIME_BIN["time_bin_start"])), strict=True))
    coordinates = {name: ("presentation", presentation[name].to_numpy()) for name in presentation}
    coordinates |= {name: ("neuroid", neuroids[name].to_numpy()) for name in NEUROID_COORDINATES}
    coordinates |= {name: ("time_bin", np.array(values)) for name, values in TIME_BIN.items()}
    with netCDF4.Dataset(path, "w", format="NETCDF4") as file:
        for dimension, size in sizes.items():
            file.createDimension(dimension, size)
        for name, (dimension, values) in coordinates.items():
            _write_coordinate(file, name, dimension, values)
        # Without a fill value, or the whole file would be written twice.
        variable = file.createVariable(VARIABLE, "f4", DIMENSIONS, contiguous=True, fill_value=False)
        variable.coordinates = " ".join(coordinates)
        variable.identifier = identifier
        variable.stimulus_set_identifier = identifier
        yield variable


def _write_coordinate(file: netCDF4.Dataset, name: str, dimension: str, values: np.ndarray) -> None:
    compressed: dict[str, Any] = {"compression": "zlib", "complevel": 4, "fill_value": False}
    if values.dtype.kind != "O":
        kind = "f8" if values.dtype.kind == "f" else "i8"
        file.createVariable(name, kind, (dimension,), **compressed)[:] = values
        return
    characters = np.array([value.encode("ascii") for value in values])
    width = characters.dtype.itemsize
    length = f"string{width}"
    if length not in file.dimensions:
        file.createDimension(length, width)
    variable = file.createVariable(name, "S1", (dimension, length), **compressed)
    variable.set_auto_chartostring(False)
    variable[:] = characters.view("S1").reshape(len(values), width)
    # Written last: netCDF4 would take the characters for strings, xarray reads them as such only with it.
    variable.setncattr("_Encoding", "utf-8")
