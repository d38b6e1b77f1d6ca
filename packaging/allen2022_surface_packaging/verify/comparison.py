"""Two releases, or a release and a published object: what is the same, and what differs.

"Here" is the release that is verified, and "there" is the release or object with which it is compared.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import xarray

from ..arrays import AnyArray, IntArray
from ..errors import PackagingError, one_line, raise_if_of_machine
from ..files import read_file
from ..images import load_image
from ..plugin import import_plugin
from ..release import DIMENSIONS, SPLITS, Manifest, ReleaseFolder
from .assemblies import (
    LARGEST_NUMBER,
    NEUROIDS_AT_A_TIME,
    TOLERANCE,
    ValueDifferences,
    name_rows,
    opened_assembly,
    read_neuroids,
)
from .soundness import read_stimulus_table

IDENTICAL, WITHIN_TOLERANCE, DIFFERENT = "identical", "the same within tolerance", "different"
# The coordinates by which a presentation or a neuroid is the same one on both sides.
KEYS = {
    "presentation": ("stimulus_id", "repetition"),
    "neuroid": ("subject", "region", "hemisphere", "vertex_index"),
    "time_bin": (),
}
FILE_NAMES = ("image_file_name", "filename")  # two releases may name the files of equal images differently


@dataclass(frozen=True)
class Difference:
    """One way in which two releases differ: a line for people, and a row of ``verify.json``.

    Attributes
    ----------
    what : what differs, such as "coordinate nsd_id" or "values of subj01 V1"
    differ, beyond, of : how many differ, how many of these by more than the tolerance, and of how many
    where : the largest difference or the first one, with its place
    largest : the largest difference, unitless; None if what differs is no number
    """

    split: str
    what: str
    differ: int
    beyond: int
    of: int
    where: str
    largest: float | None = None

    def __str__(self) -> str:
        return f"{self.split} {self.what}: {self.differ:,} of {self.of:,} differ. {self.where}."


@dataclass(frozen=True, eq=False)
class _Side:
    """One split of a release, or of a published object.

    Attributes
    ----------
    merged_columns : the stimulus columns that the plugin added to the presentations
    """

    assembly: xarray.DataArray
    stimuli: pd.DataFrame
    image_paths: dict[str, Path]
    merged_columns: frozenset[str] = frozenset()

    def coordinates(self, dimension: str) -> pd.DataFrame:
        """Return the coordinates of a dimension as columns."""
        from brainscore_core.supported_data_standards.brainio.assemblies import walk_coords  # here: it takes a second

        columns = {
            name: values
            for name, dimensions, values in walk_coords(self.assembly)
            if dimensions == (dimension,) and name not in self.merged_columns
        }
        return pd.DataFrame(columns, index=range(self.assembly.sizes[dimension]))


def compare_release(release_path: Path, other: str) -> list[Difference]:
    """Compare a release with another one, or one of its assemblies with a published object.

    Parameters
    ----------
    other : path of a release, or identifier such as "Allen2022_fmri_surface.train" or "Allen2022_fmri_surface.V1.train"

    Raises
    ------
    PackagingError
        If one of the two is missing or cannot be read.
    """
    differences: list[Difference] = []
    with ExitStack() as files:
        here = _open_release(release_path, files)
        if Path(other).is_dir():
            there = _open_release(Path(other), files)
        else:
            region, split, side = _load_object(other)
            there = {split: side}
            if region is not None:
                assembly = here[split].assembly
                columns = np.flatnonzero(np.asarray(assembly.coords.get("region", [])) == region)
                here[split] = replace(here[split], assembly=assembly.isel(neuroid=columns))
        for split, side in there.items():
            differences += _compare_sides(split, here[split], side)
    return differences


def judge(differences: list[Difference]) -> str:
    """Return the verdict in up to four words."""
    if not differences:
        return IDENTICAL
    return DIFFERENT if any(difference.beyond for difference in differences) else WITHIN_TOLERANCE


def _open_release(path: Path, files: ExitStack) -> dict[str, _Side]:
    folder = ReleaseFolder(path)
    name = Manifest.read(folder).name
    sides = {}
    for split in SPLITS:
        stimuli = read_stimulus_table(folder, split)
        paths = [folder.stimuli_path(split) / file_name for file_name in stimuli["image_file_name"]]
        assembly = files.enter_context(opened_assembly(folder.assembly_path(name, split)))
        sides[split] = _Side(assembly, stimuli, dict(zip(stimuli["stimulus_id"], paths, strict=True)))
    return sides


def _load_object(identifier: str) -> tuple[str | None, str, _Side]:
    """Load one assembly and its stimulus set with the plugin, always from S3. Return its region and its split with it."""
    name, *regions = identifier.split(".")
    split = regions.pop() if regions else ""
    if split not in SPLITS or len(regions) > 1:
        raise PackagingError(
            f"{identifier} is neither the folder of a release nor an identifier such as Allen2022_fmri_surface.train."
        )
    region = regions[0] if regions else None
    loaders = import_plugin("loaders")
    source = os.environ.get(loaders.ARTIFACTS_VARIABLE) or loaders.SHIPPED_ARTIFACTS_PATH
    try:
        assembly = loaders.load_assembly(name, split, region=region, source=source)
    except (OSError, ValueError, KeyError) as error:
        raise PackagingError(f"{identifier} cannot be loaded: {one_line(error)}") from error
    stimuli = assembly.attrs["stimulus_set"]
    table = pd.DataFrame(stimuli)
    merged = frozenset(map(str, table)) - {"stimulus_id", "nsd_id"}
    return region, split, _Side(assembly, table, stimuli.stimulus_paths, merged)


def _compare_sides(split: str, here: _Side, there: _Side) -> Iterator[Difference]:
    """Compare kind, coordinates, values, stimulus columns and images."""
    kinds = [
        f"{side.assembly.dtype} of {', '.join(map(str, side.assembly.dims))}, {side.assembly.sizes['time_bin']} time bins"
        for side in (here, there)
    ]
    if kinds[0] != kinds[1]:
        yield Difference(split, "kind of assembly", 1, 1, 1, f"{kinds[0]} here, {kinds[1]} there")
        return
    pairs = {}
    for dimension in DIMENSIONS:
        pairs[dimension] = _align(dimension, here.coordinates(dimension), there.coordinates(dimension))
        yield from _compare_coordinates(split, dimension, pairs[dimension])
    yield from _compare_values(split, here, there, pairs["presentation"], pairs["neuroid"])
    stimuli_here, stimuli_there = (
        side.stimuli.drop_duplicates("stimulus_id").set_index("stimulus_id") for side in (here, there)
    )
    common = [i for i in stimuli_here.index if i in stimuli_there.index]
    for column in [c for c in stimuli_here if c in stimuli_there and c not in FILE_NAMES]:
        values = stimuli_here[column].loc[common].to_numpy(), stimuli_there[column].loc[common].to_numpy()
        yield from _compare_columns(split, f"stimulus column {column}", *values, common)
    yield from _compare_images(split, {i: (here.image_paths[i], there.image_paths[i]) for i in common})


@dataclass(frozen=True, eq=False)
class _Pairs:
    """The coordinates of one dimension on both sides, and which of their rows belong together."""

    here: pd.DataFrame
    there: pd.DataFrame
    rows_here: IntArray
    rows_there: IntArray

    @property
    def names(self) -> list[str]:
        return name_rows(self.here.iloc[self.rows_here])


def _align(dimension: str, here: pd.DataFrame, there: pd.DataFrame) -> _Pairs:
    """Pair the rows of two tables of coordinates by their key, or by their number without one."""
    key = [name for name in KEYS[dimension] if name in here and name in there]
    if not key or here.duplicated(key).any() or there.duplicated(key).any():
        rows = np.arange(min(len(here), len(there)))
        return _Pairs(here, there, rows, rows)
    partners = pd.MultiIndex.from_frame(there[key]).get_indexer(pd.MultiIndex.from_frame(here[key]))
    return _Pairs(here, there, np.flatnonzero(partners >= 0), partners[partners >= 0])


def _compare_coordinates(split: str, dimension: str, pairs: _Pairs) -> Iterator[Difference]:
    here, there, rows_here, rows_there = pairs.here, pairs.there, pairs.rows_here, pairs.rows_there
    n, names = len(rows_here), pairs.names
    for side, table, rows in (("here", here, rows_here), ("there", there, rows_there)):
        alone = np.setdiff1d(np.arange(len(table)), rows)
        if len(alone):
            where = f"The first one is {name_rows(table)[alone[0]]}"
            yield Difference(split, f"{dimension}s only {side}", len(alone), len(alone), len(table), where)
    moved = np.flatnonzero(np.argsort(np.argsort(rows_there)) != np.arange(n))
    if len(moved):
        first = moved[0]
        where = f"{names[first]} is number {rows_here[first]} here, {rows_there[first]} there"
        yield Difference(split, f"order of {dimension}s", len(moved), len(moved), n, where)
    for name in dict.fromkeys([*here, *there]):
        if name in here and name in there:
            values = here[name].to_numpy()[rows_here], there[name].to_numpy()[rows_there]
            yield from _compare_columns(split, f"coordinate {name}", *values, names)
        else:
            yield Difference(split, f"coordinate {name}", n, n, n, f"It is only {'here' if name in here else 'there'}")


def _compare_columns(split: str, what: str, here: AnyArray, there: AnyArray, names: list[str]) -> Iterator[Difference]:
    """Compare two columns of the same length. NaN equals NaN."""
    rows = np.flatnonzero(np.asarray(here != there) & ~(pd.isna(here) & pd.isna(there)))
    if not len(rows):
        return
    first, n_beyond, largest = rows[0], len(rows), None
    if here.dtype.kind in "iuf" and there.dtype.kind in "iuf":
        sizes = np.nan_to_num(np.abs(here[rows].astype(np.float64) - there[rows]), nan=LARGEST_NUMBER)
        first, n_beyond, largest = rows[sizes.argmax()], int((sizes > TOLERANCE).sum()), float(sizes.max())
    where = f"{names[first]} has {here[first]} here, {there[first]} there"
    yield Difference(split, what, len(rows), n_beyond, len(here), where, largest)


def _compare_values(
    split: str, here: _Side, there: _Side, presentations: _Pairs, neuroids: _Pairs
) -> Iterator[Difference]:
    """Compare the values that both assemblies have, by region and subject. NaN counts as 0, but is named."""
    rows_here, rows_there, names = presentations.rows_here, presentations.rows_there, presentations.names
    columns_here, columns_there = neuroids.rows_here, neuroids.rows_there
    neuroid_names = np.array(neuroids.names, dtype=object)
    table = neuroids.here.iloc[columns_here]
    groups = pd.Series("all neuroids", table.index)
    if {"subject", "region"} <= {*table}:
        groups = table["subject"] + " " + table["region"]
    n_nan = 0
    for title, part in groups.groupby(groups, sort=False).indices.items():
        d = ValueDifferences()
        for start in range(0, len(part), NEUROIDS_AT_A_TIME):
            columns = part[start : start + NEUROIDS_AT_A_TIME]
            values_here = read_neuroids(here.assembly, columns_here[columns])[rows_here]
            values_there = read_neuroids(there.assembly, columns_there[columns])[rows_there]
            n_nan += int((np.isnan(values_here) != np.isnan(values_there)).sum())
            found, expected = np.nan_to_num(values_here), np.nan_to_num(values_there)
            d.add(found, expected, names, neuroid_names[columns].tolist())
        if d.n_differing:
            where = (
                f"They differ by {d.total / d.n_differing:.2g} on average and by {d.largest:.2g} at most: {d.where} is "
                f"{d.found:.6g} here, {d.expected:.6g} there"
            )
            yield Difference(split, f"values of {title}", d.n_differing, d.n_beyond, d.n_values, where, d.largest)
    if n_nan:
        n = len(rows_here) * len(columns_here)
        yield Difference(split, "values that are NaN on one side only", n_nan, 0, n, "NaN counts as 0")


def _compare_images(split: str, paths: dict[str, tuple[Path, Path]]) -> Iterator[Difference]:
    """Compare the images that both sides have: the bytes of the files, or else their pixels."""
    differing = []
    for stimulus_id, (here, there) in paths.items():
        try:
            if read_file(here) == read_file(there):
                continue
            pixels_here, pixels_there = (np.asarray(load_image(path)) for path in (here, there))
        except (OSError, ValueError) as error:
            raise_if_of_machine(error, here)
            differing.append((stimulus_id, one_line(error).rstrip(".")))
            continue
        if pixels_here.shape != pixels_there.shape:
            differing.append((stimulus_id, f"shape {pixels_here.shape} here, {pixels_there.shape} there"))
        elif (pixels_here != pixels_there).any():
            sizes = np.abs(pixels_here.astype(int) - pixels_there)
            differing.append(
                (stimulus_id, f"{np.count_nonzero(sizes.max(axis=-1)):,} pixels differ by up to {sizes.max()} of 255")
            )
    if differing:
        where = f"{differing[0][0]}: {differing[0][1]}"
        yield Difference(split, "images", len(differing), len(differing), len(paths), where)
