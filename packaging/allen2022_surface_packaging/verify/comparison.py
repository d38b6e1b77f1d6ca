"""A release compared with another one, or with a published object.

"Here" is the release that is verified, and "there" is the release or object with which it is compared.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import PackagingError, one_line
from ..plugin import import_plugin
from ..release import DIMENSIONS, SPLITS
from .contents import Side, list_blocks, open_release, read_neuroids
from .differences import Difference, align, compare_images, compare_tables, group_values, measure_values

FILE_NAMES = ["image_file_name", "filename"]  # two releases may name the files of equal images differently


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
        here = open_release(release_path, files)
        if Path(other).is_dir():
            there = open_release(Path(other), files)
        else:
            region, split, there_side = _load_object(other)
            there = {split: there_side}
            if region is not None:
                assembly = here[split].assembly
                columns = np.flatnonzero(np.asarray(assembly.coords.get("region", [])) == region)
                here[split] = replace(here[split], assembly=assembly.isel(neuroid=columns))
        for split, side in there.items():
            differences += _compare_sides(split, here[split], side)
    return differences


def _load_object(identifier: str) -> tuple[str | None, str, Side]:
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
    # The plugin adds the columns of the stimulus set to the presentations, and makes one index of all coordinates.
    added = [column for column in stimuli if column not in ("stimulus_id", "nsd_id")]
    assembly = assembly.reset_index(list(assembly.indexes)).drop_vars(added)
    return region, split, Side(assembly, pd.DataFrame(stimuli), stimuli.stimulus_paths)


def _compare_sides(split: str, here: Side, there: Side) -> Iterator[Difference]:
    """Compare kind, coordinates, values, stimulus columns and images."""
    kinds = [
        f"{side.assembly.dtype} of {', '.join(map(str, side.assembly.dims))}, {side.assembly.sizes['time_bin']} time bins"
        for side in (here, there)
    ]
    if kinds[0] != kinds[1]:
        yield Difference(split, "kind of assembly", 1, 1, 1, f"{kinds[0]} here, {kinds[1]} there")
        return
    for dimension in DIMENSIONS:
        yield from compare_tables(split, f"{dimension}s", here.coordinates(dimension), there.coordinates(dimension))
    yield from _compare_values(split, here, there)
    columns = [column for column in here.stimuli if column in there.stimuli and column not in FILE_NAMES]
    yield from compare_tables(split, "stimuli", here.stimuli[columns], there.stimuli[columns])
    common = [i for i in here.image_paths if i in there.image_paths]
    yield from compare_images(split, ((i, here.image_paths[i], there.image_paths[i]) for i in common))


def _compare_values(split: str, here: Side, there: Side) -> Iterator[Difference]:
    """Compare the values that both assemblies have, by subject and region."""
    presentations, neuroids = here.coordinates("presentation"), here.coordinates("neuroid")
    rows_here, rows_there = align(presentations, there.coordinates("presentation"))
    columns_here, columns_there = align(neuroids, there.coordinates("neuroid"))
    if not (len(rows_here) and len(columns_here)):
        return
    measured = []
    for block in list_blocks(len(columns_here)):
        found = read_neuroids(here.assembly, columns_here[block])[rows_here]
        expected = read_neuroids(there.assembly, columns_there[block])[rows_there]
        part = neuroids.iloc[columns_here[block]]
        measured.append(measure_values(split, found, expected, presentations.iloc[rows_here], part))
    table = pd.concat(measured, ignore_index=True)
    yield from (difference for difference in group_values(table).values() if difference.differ)
    n_nan = int(table["n_nan_on_one_side"].sum())
    if n_nan:
        n = int(table["n_values"].sum())
        yield Difference(split, "values that are NaN on one side only", n_nan, 0, n, "NaN counts as 0")
