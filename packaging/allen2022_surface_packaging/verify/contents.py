"""The files of a release: its tables, and its assemblies, some neuroids at a time."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray

from ..arrays import DoubleArray, IntArray
from ..errors import PackagingError, reading
from ..release import DIMENSIONS, ORIGIN_COLUMNS, SPLITS, Manifest, ReleaseFolder

AGAIN = "Build the release again."
NEUROIDS_AT_A_TIME = 4096  # of one slice of a file
VALUES_AT_A_TIME = 2**22  # bounds the memory
SPLIT_COLUMNS = ("nsd_id", "stimulus_id", "split")
STIMULUS_COLUMNS = ("stimulus_id", "nsd_id", "image_file_name")  # `coco_id` follows if all are known


def read_tables(folder: ReleaseFolder) -> dict[str, pd.DataFrame]:
    """Read the tables of a release, by the names of their files.

    Raises
    ------
    PackagingError
        If one is missing, is no table, has other columns, or a cell is empty or malformed. Brain-Score reads an empty cell
        as NaN, which differs from itself, so that repetitions would no longer be averaged.
    """
    columns: dict[Path, list[tuple[str, ...]]] = {folder.split_path: [SPLIT_COLUMNS]}
    columns |= {folder.stimulus_table_path(s): [STIMULUS_COLUMNS, (*STIMULUS_COLUMNS, "coco_id")] for s in SPLITS}
    if folder.origin_path.exists():
        columns[folder.origin_path] = [ORIGIN_COLUMNS]
    tables = {}
    for path, choices in columns.items():
        with reading(path, "a table", AGAIN):
            table = pd.read_csv(path, dtype={"nsd_id": np.int64, "coco_id": np.int64})
        if tuple(table) not in choices:
            raise PackagingError(f"{path} has the columns {list(table)}, expected {list(choices[0])}. {AGAIN}")
        if table.isna().any(axis=None):
            raise PackagingError(f"{path} has an empty cell. {AGAIN}")
        tables[path.name] = table
    return tables


class Side(NamedTuple):
    """One split of a release, or of a published object.

    Attributes
    ----------
    assembly : its values are read when they are needed, by `read_neuroids`
    stimuli : the stimulus table; the column ``path`` is that of the image
    """

    assembly: xarray.DataArray
    stimuli: pd.DataFrame

    def coordinates(self, dimension: str) -> pd.DataFrame:
        """Return the coordinates of a dimension as columns."""
        with reading(self.assembly.encoding.get("source", "The assembly"), "an assembly", AGAIN):
            columns = {name: c.values for name, c in self.assembly.coords.items() if c.dims == (dimension,)}
        return pd.DataFrame(columns, index=range(self.assembly.sizes[dimension]))


def open_release(path: Path, files: ExitStack) -> dict[str, Side]:
    """Open both splits of a release, until `files` are closed.

    Raises
    ------
    PackagingError
        If a file is missing, or cannot be read.
    """
    folder = ReleaseFolder(path)
    name, tables = Manifest.read(folder).name, read_tables(folder)
    sides = {}
    for split in SPLITS:
        stimuli, path = tables[folder.stimulus_table_path(split).name], folder.assembly_path(name, split)
        with reading(path, "an assembly", AGAIN):
            assembly = files.enter_context(xarray.open_dataarray(path))
            if set(assembly.dims) != set(DIMENSIONS):
                raise ValueError(f"it has the dimensions {assembly.dims}, expected {DIMENSIONS}")
        assembly.encoding["source"] = str(path)
        paths = [folder.stimuli_path(split) / file_name for file_name in stimuli["image_file_name"]]
        sides[split] = Side(assembly, stimuli.assign(path=paths))
    return sides


def list_blocks(n_presentations: int, n_neuroids: int) -> list[IntArray]:
    """Cut the columns of an assembly into blocks whose values fit into memory. There is none without presentations."""
    n_at_a_time = max(1, VALUES_AT_A_TIME // max(1, n_presentations))
    blocks = np.array_split(np.arange(n_neuroids), range(n_at_a_time, n_neuroids, n_at_a_time))
    return blocks if n_presentations * n_neuroids else []


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
    # Slices are read, and then the columns are chosen from them: the file would be read column by column otherwise.
    parts = []
    with reading(assembly.encoding.get("source", "The assembly"), "an assembly", AGAIN):
        for part in np.split(columns, np.flatnonzero(np.diff(columns // NEUROIDS_AT_A_TIME)) + 1):
            first = int(part.min())
            block = assembly.variable.isel(neuroid=slice(first, int(part.max()) + 1), time_bin=0)
            parts.append(block.transpose("presentation", "neuroid").values[:, part - first])
    return np.hstack(parts).astype(np.float64)
