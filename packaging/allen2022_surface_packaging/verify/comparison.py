"""Two releases, or a release and a published object: what is the same, and what differs.

"Here" is the release that is verified, and "there" is the release or object with which it is compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ..arrays import AnyArray, DoubleArray, IntArray
from ..errors import PackagingError, one_line, raise_if_of_machine
from ..release import DIMENSIONS, UNREADABLE
from .assemblies import NEUROIDS_AT_A_TIME, read_neuroids
from .differences import TOLERANCE, CellDifferences, Difference, compare_cells, merge_cells, name_rows
from .pairs import Pairs, compare_coordinates, find_pairs
from .sides import Side, load_object, open_release
from .stimuli import compare_stimuli

IDENTICAL, WITHIN_TOLERANCE, DIFFERENT = "identical", "the same within tolerance", "different"
TWO_WAYS_TO_FILL = ("zero here, NaN there", "NaN here, zero there")
FILLED_KINDS = ("both", *TWO_WAYS_TO_FILL, "here only", "there only")


@dataclass(frozen=True)
class Comparison:
    """How a release ("here") differs from another one ("there").

    Attributes
    ----------
    differences : one for each kind of difference
    filled : for each split, how many cells are zero or NaN, by `FILLED_KINDS`
        Zero on one side and NaN on the other are two ways to fill, and no difference beyond the tolerance.
    """

    differences: list[Difference]
    filled: dict[str, dict[str, int]]

    @property
    def verdict(self) -> str:
        """The result in up to four words."""
        if not self.differences:
            return IDENTICAL
        return DIFFERENT if self.problems else WITHIN_TOLERANCE

    @property
    def problems(self) -> list[str]:
        """The differences beyond the tolerance, a line each."""
        return [str(difference) for difference in self.differences if difference.n_beyond]

    @property
    def within_tolerance(self) -> pd.DataFrame:
        """The differences within the tolerance as a table for people, with a row each."""
        return pd.DataFrame([difference.row() for difference in self.differences if not difference.n_beyond])


def compare_release(release_path: Path, other: str) -> Comparison:
    """Compare a release with another one, or one of its assemblies with a published object.

    Parameters
    ----------
    other : path of a release, or identifier such as "Allen2022_fmri_surface.train" or "Allen2022_fmri_surface.V1.train"
        The plugin loads an object from S3, even if an environment variable names a local release.

    Raises
    ------
    PackagingError
        If one of the two is missing or cannot be read.
    """
    sides_here = open_release(release_path)
    sides_there = open_release(Path(other)) if Path(other).is_dir() else load_object(other)
    differences, filled = [], {}
    try:
        for split, there in sides_there.items():
            here = sides_here[split].select_region(there.region)
            split_differences, filled[split] = _compare_assemblies(split, here, there)
            differences += split_differences + compare_stimuli(split, here, there)
    except UNREADABLE as error:
        raise_if_of_machine(error, release_path)
        raise PackagingError(
            f"{release_path} and {other} cannot be compared ({one_line(error)}). `allen2022-surface verify` says what is "
            "wrong with each."
        ) from error
    finally:
        for side in (*sides_here.values(), *sides_there.values()):
            side.assembly.close()
    return Comparison(differences, filled)


def _compare_assemblies(split: str, here: Side, there: Side) -> tuple[list[Difference], dict[str, int]]:
    """Compare coordinates and values; count the filled cells."""
    differences = _compare_kinds(split, here, there)
    if not (_is_comparable(here) and _is_comparable(there)):
        if not differences:
            raise PackagingError(
                f"The values of {split} cannot be compared: both assemblies hold {_describe_kind(here)}, expected numbers "
                f"of {', '.join(DIMENSIONS)} and one time bin."
            )
        return differences, dict.fromkeys(FILLED_KINDS, 0)
    pairs = {
        dimension: find_pairs(dimension, here.coordinates(dimension), there.coordinates(dimension))
        for dimension in DIMENSIONS
    }
    for dimension in DIMENSIONS:
        differences += compare_coordinates(split, pairs[dimension])
    groups = _compare_values(here, there, pairs["presentation"], pairs["neuroid"])
    filled = {kind: sum(group.filled[kind] for group in groups.values()) for kind in FILLED_KINDS}
    differences += _describe_values(split, groups)
    n_cells = sum(group.unlike.n_cells for group in groups.values())
    differences += [
        Difference(split, f"cells filled with {kind}", filled[kind], 0, n_cells, "everywhere")
        for kind in TWO_WAYS_TO_FILL
        if filled[kind]
    ]
    return differences, filled


def _compare_kinds(split: str, here: Side, there: Side) -> list[Difference]:
    """Compare dimensions, data types and numbers of time bins."""
    kind_here, kind_there = _describe_kind(here), _describe_kind(there)
    if kind_here == kind_there:
        return []
    return [Difference(split, "kind of assembly", 1, 1, 1, f"{kind_here} here, {kind_there} there")]


def _describe_kind(side: Side) -> str:
    n_time_bins = side.assembly.sizes.get("time_bin", 0)
    return f"{side.assembly.dtype} of {', '.join(map(str, side.assembly.dims))} ({n_time_bins} time bins)"


def _is_comparable(side: Side) -> bool:
    has_dimensions = set(side.assembly.dims) == set(DIMENSIONS) and side.assembly.sizes["time_bin"] == 1
    return has_dimensions and side.assembly.dtype.kind in "iuf"


@dataclass(frozen=True, eq=False)
class _Values:
    """The compared values of some neuroids of one subject and region.

    Attributes
    ----------
    unlike : the cells with different values
    filled_in_one : the cells that are zero or NaN on one side only
    filled : how many cells are filled, by `FILLED_KINDS`
    """

    unlike: CellDifferences
    filled_in_one: CellDifferences
    filled: dict[str, int]


def _compare_values(here: Side, there: Side, presentations: Pairs, neuroids: Pairs) -> dict[str, _Values]:
    """Compare the values that both assemblies have, a block of neuroids at a time, by subject and region."""
    values_there = there.assembly.variable.transpose(*DIMENSIONS).values
    presentation_names = np.array(name_rows(presentations.here))[presentations.rows_here]
    neuroid_names = np.array(name_rows(neuroids.here))
    groups = {}
    for title, rows_here, rows_there in _group_by_region(neuroids):
        blocks = []
        for start in range(0, len(rows_here), NEUROIDS_AT_A_TIME):
            block = slice(start, start + NEUROIDS_AT_A_TIME)
            blocks.append(
                _compare_block(
                    read_neuroids(here.assembly, rows_here[block])[presentations.rows_here],
                    values_there[presentations.rows_there[:, None], rows_there[block], 0],
                    presentation_names,
                    neuroid_names[rows_here[block]],
                )
            )
        groups[title] = _Values(
            merge_cells(block.unlike for block in blocks),
            merge_cells(block.filled_in_one for block in blocks),
            {kind: sum(block.filled[kind] for block in blocks) for kind in FILLED_KINDS},
        )
    return groups


def _group_by_region(neuroids: Pairs) -> Iterator[tuple[str, IntArray, IntArray]]:
    """Yield for each subject and region its name and the rows of its neuroids here and there."""
    names = [name for name in ("region", "subject") if name in neuroids.here]
    table = neuroids.here.iloc[neuroids.rows_here][names]
    table = table.assign(here=neuroids.rows_here, there=neuroids.rows_there)
    for key, rows in table.groupby(names, sort=False) if names else [(("all neuroids",), table)]:
        values = key if isinstance(key, tuple) else (key,)
        yield " ".join(map(str, reversed(values))), rows["here"].to_numpy(), rows["there"].to_numpy()


def _compare_block(
    here: DoubleArray, there: AnyArray, presentation_names: AnyArray, neuroid_names: AnyArray
) -> _Values:
    """Compare two arrays of shape (n_presentations, n_neuroids). A cell that is zero or NaN may have been filled."""
    nan_here, nan_there = np.isnan(here), np.isnan(there)
    filled_here, filled_there = nan_here | (here == 0), nan_there | (there == 0)
    # A constant vertex can be exactly zero on one side, and rounded to almost zero on the other.
    in_one = (filled_here ^ filled_there) & ~(np.abs(here - there) <= TOLERANCE)
    in_both = filled_here & filled_there
    unlike, filled_in_one = (
        compare_cells(here, there, differing=differing, presentations=presentation_names, neuroids=neuroid_names)
        for differing in ((here != there) & ~in_one & ~in_both, in_one)
    )
    masks = (in_both, (here == 0) & nan_there, nan_here & (there == 0), in_one & filled_here, in_one & filled_there)
    filled = {kind: int(np.count_nonzero(mask)) for kind, mask in zip(FILLED_KINDS, masks, strict=True)}
    return _Values(unlike, filled_in_one, filled)


def _describe_values(split: str, groups: dict[str, _Values]) -> list[Difference]:
    return [
        Difference(
            split,
            f"{kind} of {title}",
            cells.n_differing,
            cells.n_beyond,
            cells.n_cells,
            f"{cells.location}: {cells.actual:.6g} here, {cells.expected:.6g} there; {cells.describe_extent()}",
            cells.largest,
        )
        for title, group in groups.items()
        for kind, cells in (("values", group.unlike), ("cells filled in one only", group.filled_in_one))
        if cells.n_differing
    ]
