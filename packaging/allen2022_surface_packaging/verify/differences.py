"""Differences between two sets of arrays: which values differ, the largest difference, and how to say it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import pandas as pd

from ..arrays import AnyArray, BoolArray, DoubleArray, IntArray

TOLERANCE = 1e-5  # unitless; of responses, and of coordinates that are not whole numbers
# From 64 on, single precision has steps of 8e-6 and more. Two programs may round such a response to neighbouring ones.
STEPS_OF_SINGLE_PRECISION = 2
# Two programs that compute the same coordinate in double precision may round it differently.
RELATIVE_ROUNDING, ABSOLUTE_ROUNDING = 1e-6, 1e-9
N_LISTED = 3

Cell: TypeAlias = str | int | float | None


@dataclass(frozen=True)
class Difference:
    """One way in which two releases differ.

    Attributes
    ----------
    kind : what differs, such as "coordinate nsd_id" or "values of subj01 V1"
    n_differing, n_beyond, n_compared : how many differ, how many of these by more than the tolerance, and of how many
    description : the largest difference or the first one, with its location
    largest : the largest difference, unitless; None if the values are not numbers
    """

    split: str
    kind: str
    n_differing: int
    n_beyond: int
    n_compared: int
    description: str
    largest: float | None = None

    def __str__(self) -> str:
        return f"{self.split} {self.kind}: {self.n_beyond:,} of {self.n_compared:,} differ. {self.description}."

    def row(self) -> dict[str, Cell]:
        """Return the difference as a row of a table for people."""
        return {
            "split": self.split,
            "what": self.kind,
            "differ": self.n_differing,
            "beyond tolerance": self.n_beyond,
            "of": self.n_compared,
            "largest": self.largest,
            "where": self.description,
        }


@dataclass(frozen=True)
class CellDifferences:
    """The cells (presentation x neuroid) of one or more blocks that differ.

    Attributes
    ----------
    n_cells, n_differing, n_beyond : how many cells there are, differ, and differ by more than the tolerance
    largest : the largest difference, unitless; infinite if one of the two values is NaN
    location : the presentation and the neuroid with the largest difference
    actual, expected : the two values with the largest difference
    presentations, neuroids : those with a difference beyond the tolerance; if there are none, those with any difference
    """

    n_cells: int = 0
    n_differing: int = 0
    n_beyond: int = 0
    largest: float = 0.0
    location: str = ""
    actual: float = np.nan
    expected: float = np.nan
    presentations: frozenset[str] = frozenset()
    neuroids: frozenset[str] = frozenset()

    def describe_extent(self) -> str:
        """Say in which neuroids and presentations the differences lie."""
        return f"in {list_some(self.neuroids, 'neuroid')} and {list_some(self.presentations, 'presentation')}"


def compare_cells(
    actual: AnyArray,
    expected: AnyArray,
    *,
    differing: BoolArray,
    presentations: Sequence[str] | AnyArray,
    neuroids: Sequence[str] | AnyArray,
) -> CellDifferences:
    """Compare two blocks of values.

    Parameters
    ----------
    actual, expected : arrays of shape (n_presentations, n_neuroids)
    differing : array of the same shape
        The cells that count as different.
    presentations, neuroids : sequences of length n_presentations and n_neuroids
        The names of the rows and columns.
    """
    if not actual.size:
        return CellDifferences()
    actual, expected = actual.astype(np.float64), expected.astype(np.float64)
    sizes = np.where(differing, np.abs(actual - expected), 0)
    sizes[np.isnan(sizes)] = np.inf
    beyond = sizes > _allowed(expected)
    listed = beyond if beyond.any() else differing
    row, column = (int(i) for i in np.unravel_index(sizes.argmax(), sizes.shape))
    return CellDifferences(
        n_cells=actual.size,
        n_differing=int(np.count_nonzero(differing)),
        n_beyond=int(np.count_nonzero(beyond)),
        largest=float(sizes[row, column]),
        location=f"{presentations[row]}, {neuroids[column]}",
        actual=float(actual[row, column]),
        expected=float(expected[row, column]),
        presentations=frozenset(np.asarray(presentations)[listed.any(axis=1)].tolist()),
        neuroids=frozenset(np.asarray(neuroids)[listed.any(axis=0)].tolist()),
    )


def _allowed(expected: DoubleArray) -> DoubleArray:
    """Return how much a response may differ from each of these; `TOLERANCE` where that is not finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        steps = np.spacing(np.abs(expected).astype(np.float32)).astype(np.float64)
    allowed: DoubleArray = np.fmax(TOLERANCE, STEPS_OF_SINGLE_PRECISION * steps)
    return allowed


def merge_cells(blocks: Iterable[CellDifferences]) -> CellDifferences:
    """Merge the differences of several blocks."""
    blocks = [block for block in blocks if block.n_cells]
    if not blocks:
        return CellDifferences()
    worst = max(blocks, key=lambda block: block.largest)
    listed = [block for block in blocks if block.n_beyond] or blocks
    return CellDifferences(
        n_cells=sum(block.n_cells for block in blocks),
        n_differing=sum(block.n_differing for block in blocks),
        n_beyond=sum(block.n_beyond for block in blocks),
        largest=worst.largest,
        location=worst.location,
        actual=worst.actual,
        expected=worst.expected,
        presentations=frozenset().union(*(block.presentations for block in listed)),
        neuroids=frozenset().union(*(block.neuroids for block in listed)),
    )


def differing_rows(actual: AnyArray, expected: AnyArray) -> IntArray:
    """Return the indices at which two arrays of the same length differ. NaN equals NaN."""
    differ = np.asarray(actual != expected) & ~(pd.isna(actual) & pd.isna(expected))
    return np.flatnonzero(differ)


def first_difference(
    name: str, actual: AnyArray, expected: AnyArray, *, source: str = "expected", may_round: bool = False
) -> list[str]:
    """Describe the first difference between two arrays.

    Parameters
    ----------
    name : what a value is, such as "nsd_id of presentation"; the index follows it
    source : the words before the expected value
    may_round : bool
        Whether floating-point numbers may be rounded differently.

    Returns
    -------
    a list of one line, or an empty list if the arrays are equal
    """
    if len(actual) != len(expected):
        return [f"{name}: {len(actual):,} values, {source} {len(expected):,}."]
    if may_round and expected.dtype.kind == "f":
        is_close = np.isclose(
            actual.astype(np.float64), expected, rtol=RELATIVE_ROUNDING, atol=ABSOLUTE_ROUNDING, equal_nan=True
        )
        rows = np.flatnonzero(~is_close)
    else:
        rows = differing_rows(actual, expected)
    if not len(rows):
        return []
    first = rows[0]
    return [f"{name} {first} is {actual[first]}, {source} {expected[first]} ({len(rows):,} of {len(actual):,} differ)."]


def name_rows(table: pd.DataFrame) -> list[str]:
    """Name each row of a table of neuroids, presentations or time bins."""
    if "neuroid_id" in table:
        return [str(neuroid_id) for neuroid_id in table["neuroid_id"]]
    if "stimulus_id" in table and "repetition" in table:
        pairs = zip(table["stimulus_id"], table["repetition"], strict=True)
        return [f"{stimulus_id} repetition {repetition}" for stimulus_id, repetition in pairs]
    if "stimulus_id" in table:
        return [str(stimulus_id) for stimulus_id in table["stimulus_id"]]
    return [f"number {row}" for row in range(len(table))]


def list_some(names: Iterable[str], noun: str) -> str:
    """Count names, and list the first of them: ``4 neuroids (a, b, c, ...)``."""
    ordered = sorted(names)
    listed = ", ".join(ordered[:N_LISTED]) + (", ..." if len(ordered) > N_LISTED else "")
    return f"{len(ordered):,} {noun}{'s' * (len(ordered) != 1)} ({listed})"
