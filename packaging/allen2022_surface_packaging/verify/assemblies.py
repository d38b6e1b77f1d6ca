"""The assemblies of a release, read some neuroids at a time, and how their values and coordinates differ from others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import xarray

from ..arrays import AnyArray, DoubleArray, IntArray
from ..errors import PackagingError, one_line, raise_if_of_machine
from ..release import DIMENSIONS, UNREADABLE

TOLERANCE = 1e-5  # unitless
# From 64 on, single precision has steps of 8e-6 and more. Two programs may round such a response to neighbouring ones.
STEPS_OF_SINGLE_PRECISION = 2
LARGEST_NUMBER = float(np.finfo(np.float64).max)
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
    with _reading(path):
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
    with _reading(assembly.encoding.get("source", "The assembly")):
        values: DoubleArray = block.transpose("presentation", "neuroid").values[:, columns - first].astype(np.float64)
    return values


@contextmanager
def _reading(path: object) -> Iterator[None]:
    """Name the file if the block cannot read it. An error of the system, such as too many open files, stays."""
    try:
        yield
    except UNREADABLE as error:
        raise_if_of_machine(error, path)
        raise PackagingError(
            f"{path} cannot be read as an assembly ({one_line(error)}). Build the release again."
        ) from error


@dataclass
class ValueDifferences:
    """How the values of some neuroids differ, filled block by block.

    Attributes
    ----------
    n_values, n_differing, n_beyond : how many were compared, differ, and differ by more than is allowed
    total, largest : the sum of all differences, and the largest one; unitless
    where, found, expected : the presentation and the neuroid of the largest difference, and both values
    """

    n_values: int = 0
    n_differing: int = 0
    n_beyond: int = 0
    total: float = 0.0
    largest: float = 0.0
    where: str = ""
    found: float = 0.0
    expected: float = 0.0

    def add(self, found: DoubleArray, expected: DoubleArray, presentations: list[str], neuroids: list[str]) -> None:
        """Compare two arrays of shape (n_presentations, n_neuroids). A NaN on one side differs by the largest number."""
        if not found.size:
            return
        sizes = np.nan_to_num(np.abs(found - expected), nan=LARGEST_NUMBER)
        allowed = np.maximum(TOLERANCE, STEPS_OF_SINGLE_PRECISION * np.spacing(np.abs(expected).astype(np.float32)))
        self.n_values += sizes.size
        self.n_differing += int(np.count_nonzero(sizes))
        self.n_beyond += int(np.count_nonzero(sizes > allowed))
        self.total += float(sizes.sum())
        row, column = np.unravel_index(sizes.argmax(), sizes.shape)
        if sizes[row, column] > self.largest or not self.where:
            self.largest = float(sizes[row, column])
            self.where = f"{presentations[row]}, {neuroids[column]}"
            self.found, self.expected = float(found[row, column]), float(expected[row, column])


def name_rows(table: pd.DataFrame) -> list[str]:
    """Name each row of a table of neuroids or presentations, such as ``nsd_03049 repetition 1``."""
    for name in ("neuroid_id", "stimulus_id"):
        if name in table:
            names = table[name].astype(str)
            return (
                names + " repetition " + table["repetition"].astype(str) if "repetition" in table else names
            ).tolist()
    return [f"number {row}" for row in range(len(table))]


def first_difference(title: str, actual: AnyArray, expected: AnyArray, source: str = "expected") -> list[str]:
    """Describe the first difference between two columns. NaN equals NaN, and numbers with a fraction may be rounded.

    Parameters
    ----------
    title : what a value is, such as "nsd_id of presentation"; the row follows it
    source : the words before the expected value

    Returns
    -------
    a list of one line, or an empty list if the columns are equal
    """
    if len(actual) != len(expected):
        return [f"{title}: {len(actual):,} values, {source} {len(expected):,}."]
    if actual.dtype.kind == expected.dtype.kind == "f":
        is_equal = np.isclose(actual, expected, rtol=1e-6, atol=1e-9, equal_nan=True)
    else:
        is_equal = np.asarray(actual == expected)
    rows = np.flatnonzero(~is_equal)
    if not len(rows):
        return []
    first = rows[0]
    return [
        f"{title} {first} is {actual[first]}, {source} {expected[first]} ({len(rows):,} of {len(actual):,} differ)."
    ]
