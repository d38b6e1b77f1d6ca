"""The regions of an assembly as files of their own, so that a loader fetches a region and not the whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import netCDF4
import numpy as np
import pandas as pd

from ..assemble.assembly import VARIABLE_NAME, create_assembly, encode_columns
from ..errors import PackagingError, one_line, raise_if_of_machine
from ..release import DIMENSIONS, UNREADABLE

BLOCK_VALUES = 4 * 2**20  # 16 MiB of float32: it bounds the memory


@dataclass(frozen=True)
class RegionSlice:
    """The neuroids of one region in the assembly file of a split, which are contiguous."""

    assembly_path: Path
    name: str
    rows: slice

    @property
    def n_neuroids(self) -> int:
        """The number of neuroids of the region."""
        return int(self.rows.stop - self.rows.start)


def list_regions(assembly_path: Path) -> list[RegionSlice]:
    """List the regions of an assembly, in its order.

    Raises
    ------
    PackagingError
        If the neuroids of a region are not contiguous, or the file is damaged.
    """
    with _opened(assembly_path) as file:
        names = file["region"][:]
        starts = [0, *(np.flatnonzero(names[1:] != names[:-1]) + 1).tolist(), len(names)]
    slices = [
        RegionSlice(assembly_path, str(names[start]), slice(start, stop))
        for start, stop in zip(starts[:-1], starts[1:], strict=True)
    ]
    if len({region.name for region in slices}) < len(slices):
        raise PackagingError(f"{assembly_path}: the neuroids of a region are not contiguous. Build the release again.")
    return slices


def write_region(region: RegionSlice, path: Path, *, identifier: str, stimulus_set_identifier: str) -> None:
    """Write a region as an assembly file in the layout of the whole. The same release gives the same bytes.

    Raises
    ------
    PackagingError
        If the file of the whole is damaged.
    """
    with _opened(region.assembly_path) as file:
        whole = file[VARIABLE_NAME]
        presentations, neuroids = (_read_coordinates(file, dimension, region.rows) for dimension in DIMENSIONS[:2])
        with create_assembly(
            path,
            identifier=identifier,
            stimulus_set_identifier=stimulus_set_identifier,
            presentations=presentations,
            neuroids=encode_columns(neuroids),
        ) as assembly:
            n_at_a_time = max(1, BLOCK_VALUES // region.n_neuroids)
            for start in range(0, len(presentations), n_at_a_time):
                block = slice(start, min(start + n_at_a_time, len(presentations)))
                assembly.write(start, 0, whole[block, region.rows, 0])


def _read_coordinates(file: netCDF4.Dataset, dimension: str, rows: slice) -> pd.DataFrame:
    """Read the coordinates of a dimension, of neuroids only those in `rows`."""
    selected = rows if dimension == "neuroid" else slice(None)
    names = [name for name in file[VARIABLE_NAME].coordinates.split() if file[name].dimensions[0] == dimension]
    values = {name: file[name][selected] for name in names}
    return pd.DataFrame({name: v.astype(object) if v.dtype.kind == "U" else v for name, v in values.items()})


@contextmanager
def _opened(path: Path) -> Iterator[netCDF4.Dataset]:
    try:
        with netCDF4.Dataset(path) as file:
            file.set_auto_mask(False)
            yield file
    except (FileNotFoundError, PackagingError):
        raise
    except UNREADABLE as error:
        if isinstance(error, OSError) and error.filename not in (None, str(path)):  # the file of a region fails
            raise
        raise_if_of_machine(error, path)
        raise PackagingError(f"{path} cannot be read ({one_line(error)}). Build the release again.") from error
