"""Which presentations or neuroids of two assemblies belong together, and how their coordinates differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..arrays import AnyArray, IntArray
from .differences import TOLERANCE, Difference, differing_rows, name_rows

# The coordinates that identify a presentation or a neuroid. If those in the first tuple are wrong, the next may be right.
KEYS: dict[str, tuple[tuple[str, ...], ...]] = {
    "presentation": (("stimulus_id", "repetition"), ("nsd_id", "repetition")),
    "neuroid": (("neuroid_id",), ("subject", "region", "hemisphere", "vertex_index")),
    "time_bin": (),
}


@dataclass(frozen=True, eq=False)
class Pairs:
    """The coordinates of one dimension in both assemblies, and which of their rows belong together.

    Attributes
    ----------
    here, there : tables with the coordinates as columns
    rows_here, rows_there : arrays of shape (n_pairs,)
        The rows of the two tables that belong together; `rows_here` is ascending.
    """

    dimension: str
    here: pd.DataFrame
    there: pd.DataFrame
    rows_here: IntArray
    rows_there: IntArray


def find_pairs(dimension: str, here: pd.DataFrame, there: pd.DataFrame) -> Pairs:
    """Pair the rows of two tables by the key that leaves the fewest rows without a partner."""
    partners = [partner for key in KEYS[dimension] if (partner := _find_partners(here, there, key)) is not None] or [
        _pair_by_number(here, there)
    ]
    partner = min(partners, key=lambda partner: int(np.count_nonzero(partner < 0)))
    rows_here = np.flatnonzero(partner >= 0)
    return Pairs(dimension, here, there, rows_here, partner[rows_here])


def _find_partners(here: pd.DataFrame, there: pd.DataFrame, key: Sequence[str]) -> IntArray | None:
    """Return for each row here the row there, or -1; None if the key does not identify the rows."""
    names = [name for name in key if name in here and name in there]
    if not names:
        return None
    keys_here, keys_there = (pd.MultiIndex.from_frame(table[names]) for table in (here, there))
    if not keys_here.is_unique or not keys_there.is_unique:
        return None
    return keys_there.get_indexer(keys_here).astype(np.int64)


def _pair_by_number(here: pd.DataFrame, there: pd.DataFrame) -> IntArray:
    rows = np.arange(len(here))
    return np.where(rows < len(there), rows, -1)


def compare_coordinates(split: str, pairs: Pairs) -> list[Difference]:
    """Compare the coordinates of one dimension: missing rows, their order, missing coordinates and their values."""
    return [
        *_find_unpaired(split, pairs),
        *_compare_order(split, pairs),
        *_find_missing_coordinates(split, pairs),
        *_compare_common_coordinates(split, pairs),
    ]


def _find_unpaired(split: str, pairs: Pairs) -> Iterator[Difference]:
    sides = (("here", pairs.here, pairs.rows_here), ("there", pairs.there, pairs.rows_there))
    for side, table, paired_rows in sides:
        unpaired = np.setdiff1d(np.arange(len(table)), paired_rows)
        if len(unpaired):
            n, name = len(unpaired), name_rows(table)[unpaired[0]]
            yield Difference(split, f"{pairs.dimension}s only {side}", n, n, len(table), name)


def _compare_order(split: str, pairs: Pairs) -> Iterator[Difference]:
    ranks = np.argsort(np.argsort(pairs.rows_there))
    moved = np.flatnonzero(ranks != np.arange(len(ranks)))
    if len(moved):
        row_here, row_there = pairs.rows_here[moved[0]], pairs.rows_there[moved[0]]
        description = f"{name_rows(pairs.here)[row_here]} is number {row_here} here, {row_there} there"
        yield Difference(split, f"order of {pairs.dimension}s", len(moved), len(moved), len(ranks), description)


def _find_missing_coordinates(split: str, pairs: Pairs) -> Iterator[Difference]:
    n = len(pairs.here)
    for side, table, opposite in (("here", pairs.here, pairs.there), ("there", pairs.there, pairs.here)):
        for name in [name for name in table if name not in opposite]:
            yield Difference(split, f"coordinate {name}", n, n, n, f"only {side}")


def _compare_common_coordinates(split: str, pairs: Pairs) -> Iterator[Difference]:
    here, there = pairs.here.iloc[pairs.rows_here], pairs.there.iloc[pairs.rows_there]
    for name in [name for name in here if name in there]:
        values_here, values_there = here[name].to_numpy(), there[name].to_numpy()
        yield from compare_columns(split, f"coordinate {name}", values_here, values_there, row_names=name_rows(here))


def compare_columns(
    split: str, kind: str, here: AnyArray, there: AnyArray, *, row_names: Sequence[str]
) -> list[Difference]:
    """Compare two columns of the same length.

    Returns
    -------
    a list of one difference, or an empty list if the columns are equal
    """
    rows = differing_rows(here, there)
    if not len(rows):
        return []
    first, n_beyond, largest = int(rows[0]), len(rows), None
    if {here.dtype.kind, there.dtype.kind} <= set("iuf"):
        sizes = np.abs(here[rows].astype(np.float64) - there[rows].astype(np.float64))
        sizes[np.isnan(sizes)] = np.inf
        first, n_beyond, largest = int(rows[sizes.argmax()]), int((sizes > TOLERANCE).sum()), float(sizes.max())
    description = f"{row_names[first]}: {here[first]} here, {there[first]} there"
    return [Difference(split, kind, len(rows), n_beyond, len(here), description, largest)]
