"""A release computed again from the raw files, by independent code.

No arithmetic of the builder is used here: see `expectation` and `values`. From `nsd` come only the paths of the raw files and
their bytes, and the release says by which recipe it was made.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import xarray

from ..arrays import BoolArray, IntArray
from ..errors import PackagingError, one_line, raise_if_of_machine
from ..nsd.tree import open_tree
from ..progress import follow
from ..release import SPLITS, Manifest, ReleaseFolder
from .assemblies import opened_assembly, read_neuroids, require_coordinates
from .differences import TOLERANCE, CellDifferences, compare_cells, merge_cells, name_rows
from .expectation import (
    Expectation,
    find_coordinate_problems,
    find_published_problems,
    find_region_problems,
    read_expectation,
)
from .provenance import find_extent_problems, find_input_problems
from .raw import DAMAGES, read_design
from .stimuli import find_stimulus_problems
from .values import Block, RegionValues, recompute_values

N_SAMPLED = 5  # neuroids of each subject, region and hemisphere; with all their presentations
# More than the published regions have vertices in a hemisphere, so that no betas file is read twice.
NEUROIDS_AT_A_TIME = 16_384
RESPONSES_AT_A_TIME = 2**26  # bounds the memory if there are many images
NOT_IN_RELEASE = -1


@dataclass(frozen=True, eq=False)
class Recomputation:
    """How a release differs from what the raw files give.

    Attributes
    ----------
    differences : table with a row per subject and region
        How many vertices and values were recomputed, and the largest difference (unitless) with its location. The table
        is empty if the coordinates differ, because values cannot be compared then.
    problems : a line each; empty if the raw files give the release
    """

    differences: pd.DataFrame
    problems: list[str]


def recompute_release(
    release_path: Path, nsd_root: str | Path, *, every_vertex: bool = False, seed: int = 0
) -> Recomputation:
    """Recompute a release from an NSD tree: all coordinates and images, and the values of some or all neuroids.

    Parameters
    ----------
    every_vertex : bool
        Recompute every value. Otherwise, recompute some random neuroids of each subject, region and hemisphere, and every
        neuroid with a zero: all values that were NaN are zero.
    seed : int
        Seed of the random choice.

    Raises
    ------
    PackagingError
        If the folder is not a readable release, or the tree lacks a file from which it was made.
    """
    folder = ReleaseFolder(release_path)
    manifest = Manifest.read(folder)
    tree = open_tree(nsd_root)
    try:
        design = read_design(tree.design)
        problems = [*find_published_problems(manifest), *find_extent_problems(tree, manifest, design)]
        if problems:  # of the manifest, which says what to recompute
            return Recomputation(pd.DataFrame(), problems)
        expected = read_expectation(tree, manifest, design)
        results = []
        with _open_assemblies(folder, expected) as assemblies:
            problems += find_region_problems(expected)
            for split, assembly in assemblies.items():
                problems += find_coordinate_problems(expected, split, assembly)
            if not problems:  # otherwise rows and columns have another meaning in the release
                neuroids = _choose_neuroids(expected, assemblies, None if every_vertex else seed)
                results = _compare_values(expected, neuroids, assemblies)
        problems += [problem for result in results for problem in result.problems(manifest)]
        problems += [*find_input_problems(expected), *find_stimulus_problems(folder, expected)]
        return Recomputation(pd.DataFrame([result.row() for result in results]), problems)
    except MemoryError:
        raise
    except DAMAGES as error:
        raise_if_of_machine(error, release_path)
        raise PackagingError(
            f"{release_path} cannot be recomputed from {nsd_root} ({one_line(error)}). Do they belong together, and are both "
            "whole?"
        ) from error


@contextmanager
def _open_assemblies(folder: ReleaseFolder, expected: Expectation) -> Iterator[dict[str, xarray.DataArray]]:
    paths = {split: folder.assembly_path(expected.manifest.name, split) for split in SPLITS}
    with ExitStack() as files:
        assemblies = {split: files.enter_context(opened_assembly(path)) for split, path in paths.items()}
        for split, assembly in assemblies.items():
            require_coordinates(paths[split], assembly, [str(name) for name in expected.presentations(split)])
        yield assemblies


def _choose_neuroids(expected: Expectation, assemblies: dict[str, xarray.DataArray], seed: int | None) -> pd.DataFrame:
    """Choose the neuroids to recompute: a sample, or all without a seed; and all that the release dropped.

    Returns
    -------
    table of neuroids; the column ``column`` says where a neuroid is in the release, or `NOT_IN_RELEASE`
    """
    is_present = expected.neuroids["neuroid_id"].isin(assemblies["train"]["neuroid_id"].values)
    present, dropped = expected.neuroids[is_present], expected.neuroids[~is_present]
    present = present.assign(column=np.arange(len(present)))
    if seed is not None:
        present = present[_sample(present, assemblies, seed)]
    return pd.concat([present, dropped.assign(column=NOT_IN_RELEASE)])


def _sample(neuroids: pd.DataFrame, assemblies: dict[str, xarray.DataArray], seed: int) -> BoolArray:
    """Choose some neuroids of every subject, region and hemisphere, and all that hold a zero."""
    random = np.random.default_rng(seed)
    is_chosen = np.zeros(len(neuroids), dtype=np.bool_)
    for rows in neuroids.groupby(["subject", "region", "hemisphere"]).indices.values():
        is_chosen[random.choice(rows, min(N_SAMPLED, len(rows)), replace=False)] = True
    for assembly in assemblies.values():
        for columns in _cut(np.arange(len(neuroids)), NEUROIDS_AT_A_TIME):
            is_chosen[columns] |= (read_neuroids(assembly, columns) == 0).any(axis=0)
    return is_chosen


def _cut(values: IntArray, n: int) -> Iterator[IntArray]:
    for start in range(0, len(values), n):
        yield values[start : start + n]


@dataclass(frozen=True)
class _RegionResult:
    """What the comparison of one subject's region gave.

    Attributes
    ----------
    n_nan : how many recomputed values of each split are NaN, and in how many ``neuroids``
    policy_problems : neuroids that the release should have dropped, or should not
    """

    subject: str
    region: str
    n_neuroids: int
    n_nan: dict[str, int]
    cells: CellDifferences
    policy_problems: list[str]

    def row(self) -> dict[str, str | int | float]:
        """Return the result as a row of a table for people."""
        return {
            "subject": self.subject,
            "region": self.region,
            "vertices": self.n_neuroids,
            "values": self.cells.n_cells,
            "largest difference": self.cells.largest,
            "where": self.cells.location,
        }

    def problems(self, manifest: Manifest) -> list[str]:
        """Return the problems, a line each."""
        cells = self.cells
        if cells.n_beyond:
            return [
                *self.policy_problems,
                f"{cells.location} is {cells.actual:.6g}, but the raw files give {cells.expected:.6g}: "
                f"{cells.n_beyond:,} of {cells.n_cells:,} values of {self.subject} {self.region} differ by more than "
                f"{TOLERANCE:g}, {cells.describe_extent()}.",
            ]
        counts = manifest.nan_counts[self.subject][self.region]
        recorded = {"train": counts.train, "test": counts.test, "neuroids": counts.neuroids}
        # A sample holds every value that was NaN as well, because the release holds a zero there.
        if recorded == self.n_nan:
            return self.policy_problems
        return [
            *self.policy_problems,
            f"The manifest counts {_describe_counts(recorded)} of {self.subject} {self.region}, but the raw files give "
            f"{_describe_counts(self.n_nan)}.",
        ]


def _describe_counts(counts: dict[str, int]) -> str:
    return f"{counts['train']} (train) and {counts['test']} (test) filled values in {counts['neuroids']} neuroids"


def _compare_values(
    expected: Expectation, neuroids: pd.DataFrame, assemblies: dict[str, xarray.DataArray]
) -> list[_RegionResult]:
    """Recompute neuroids, a block of vertices at a time, and return a result per subject and region."""
    blocks = _list_blocks(neuroids, min(NEUROIDS_AT_A_TIME, RESPONSES_AT_A_TIME // (3 * len(expected.images))))
    results: dict[tuple[str, str], list[_RegionResult]] = {
        (f"subj{subject:02d}", region.name): []
        for subject in expected.manifest.recipe.subjects
        for region in expected.manifest.regions
    }
    for block in follow(blocks, n_items=len(blocks), title="vertices recomputed", unit="block"):
        for values in recompute_values(expected, block):
            results[values.subject, values.region].append(_compare_region(expected, values, assemblies))
    return [_merge_results(parts) for parts in results.values() if parts]


def _list_blocks(neuroids: pd.DataFrame, n_vertices: int) -> list[Block]:
    return [
        Block(str(subject), str(hemisphere), rows[rows["vertex_index"].isin(vertices)])
        for (subject, hemisphere), rows in neuroids.groupby(["subject", "hemisphere"])
        for vertices in _cut(np.unique(rows["vertex_index"].to_numpy()), n_vertices)
    ]


def _compare_region(
    expected: Expectation, values: RegionValues, assemblies: dict[str, xarray.DataArray]
) -> _RegionResult:
    is_present = values.neuroids["column"].to_numpy() != NOT_IN_RELEASE
    neuroids = values.neuroids[is_present]
    n_nan, cells = {}, []
    has_nan = np.zeros(len(neuroids), dtype=np.bool_)
    for split, assembly in assemblies.items():
        recomputed = values.by_split[split][:, is_present]
        filled = np.where(np.isnan(recomputed), 0, recomputed)
        actual = read_neuroids(assembly, neuroids["column"].to_numpy())
        presentations = [f"{split} {name}" for name in name_rows(expected.presentations(split))]
        n_nan[split] = int(np.isnan(recomputed).sum())
        has_nan |= np.isnan(recomputed).any(axis=0)
        cells.append(
            compare_cells(
                actual,
                filled,
                differing=actual != filled,
                presentations=presentations,
                neuroids=name_rows(neuroids),
            )
        )
    n_nan["neuroids"] = int(has_nan.sum())
    problems = _find_policy_problems(values, is_present) if expected.manifest.recipe.nan_policy == "drop" else []
    return _RegionResult(values.subject, values.region, len(neuroids), n_nan, merge_cells(cells), problems)


def _find_policy_problems(values: RegionValues, is_present: BoolArray) -> list[str]:
    """Find neuroids that are present with an invalid trial, or were dropped without one."""
    ids = values.neuroids["neuroid_id"]
    wrongly_present = ids[is_present & values.has_invalid_trial]
    wrongly_dropped = ids[~is_present & ~values.has_invalid_trial]
    problems = [f"{name} is in the release, but one of its needed trials is NaN." for name in wrongly_present]
    return problems + [f"{name} was dropped, but all its needed trials are valid." for name in wrongly_dropped]


def _merge_results(parts: list[_RegionResult]) -> _RegionResult:
    """Merge the results of several blocks of the same subject and region."""
    return _RegionResult(
        parts[0].subject,
        parts[0].region,
        sum(part.n_neuroids for part in parts),
        {name: sum(part.n_nan[name] for part in parts) for name in parts[0].n_nan},
        merge_cells(part.cells for part in parts),
        [problem for part in parts for problem in part.policy_problems],
    )
