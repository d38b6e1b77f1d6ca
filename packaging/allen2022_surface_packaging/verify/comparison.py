"""How tables, values, images and whole releases differ from others of the same meaning.

"Here" is the release that is verified. "There" is another release, a published object, what the raw files give, or what is
expected.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pandas as pd
from PIL import Image

from ..arrays import AnyArray, DoubleArray, IntArray, PixelArray
from ..errors import PackagingError, one_line, raise_if_of_machine
from ..files import read_file
from ..images import load_image
from ..plugin import import_plugin
from ..release import DIMENSIONS, SPLITS
from .contents import Side, list_blocks, open_release, read_neuroids
from .findings import STEPS_OF_SINGLE_PRECISION, TOLERANCE, Answer, Difference

CHECKED = "coordinates and stimulus tables, and the values and images that both have"
JPEG_QUALITY = 95
JPEG_ALLOWANCE = 1.25  # of the mean and of the largest loss
LARGEST_NUMBER = float(np.finfo(np.float64).max)  # JSON has no infinity
# By these a presentation, a neuroid or an image is the same one on both sides.
KEYS = ("stimulus_id", "repetition", "subject", "region", "hemisphere", "vertex_index")
FILE_COLUMNS = ("image_file_name", "filename", "path")  # two releases may name the files of equal images differently
ValueDifferences: TypeAlias = dict[tuple[str, str, str], Difference]  # by split, subject and region


def align(here: pd.DataFrame, there: pd.DataFrame) -> tuple[IntArray, IntArray]:
    """Return which rows of two tables belong together: by the keys that both have, or by their numbers without one."""
    key = [name for name in KEYS if name in here and name in there]
    if not key or here.duplicated(key).any() or there.duplicated(key).any():
        rows = np.arange(min(len(here), len(there)))
        return rows, rows
    partners = pd.MultiIndex.from_frame(there[key]).get_indexer(pd.MultiIndex.from_frame(here[key]))
    return np.flatnonzero(partners >= 0), partners[partners >= 0]


def _name_rows(table: pd.DataFrame) -> AnyArray:
    """Name each row of a table of neuroids or presentations, such as ``nsd_03049 repetition 1``."""
    names = pd.Series([f"number {row}" for row in range(len(table))], table.index, dtype=object)
    names = table.get("neuroid_id", table.get("stimulus_id", names)).astype(str)
    if "repetition" in table:
        names += " repetition " + table["repetition"].astype(str)
    return names.to_numpy()


def _compare_arrays(
    part: str, what: str, here: AnyArray, there: AnyArray, names: Sequence[AnyArray], other: str
) -> Difference:
    """Compare two arrays of one shape, which are not empty, element by element. NaN equals NaN.

    Parameters
    ----------
    names : of the elements of each axis
    """
    is_same = np.asarray(here == there) | (pd.isna(here) & pd.isna(there))
    is_number = here.dtype.kind in "biuf" and there.dtype.kind in "biuf"
    sizes, allowed = (~is_same).astype(np.float64), np.zeros(1)
    if is_number:
        with np.errstate(all="ignore"):
            sizes = np.where(is_same, 0, np.nan_to_num(np.abs(here - there.astype(np.float64)), nan=LARGEST_NUMBER))
            steps = STEPS_OF_SINGLE_PRECISION * np.spacing(np.abs(there).astype(np.float32))
            allowed = np.fmax(TOLERANCE, steps)
    differ, index = np.count_nonzero(sizes), np.unravel_index(sizes.argmax(), sizes.shape)
    found, given = (f"{side[index]:.6g}" if side.dtype.kind == "f" else side[index] for side in (here, there))
    return Difference(
        part,
        what,
        differ,
        np.count_nonzero(sizes > allowed),
        sizes.size,
        f"{', '.join(axis[i] for axis, i in zip(names, index, strict=True))} has {found} here, {given} {other}",
        float(sizes[index]) if is_number else None,
        float(sizes.sum() / max(differ, 1)) if is_number else None,
    )


def compare_tables(
    part: str, rows: str, here: pd.DataFrame, there: pd.DataFrame, other: str = "there"
) -> Iterator[Difference]:
    """Compare the rows of two tables, their order, and the columns of the rows that both have. NaN equals NaN.

    Parameters
    ----------
    part, rows : what is compared, such as "train" and "neuroids"
    other : where the second table comes from
    """
    rows_here, rows_there = align(here, there)
    n, names = len(rows_here), _name_rows(here.iloc[rows_here])
    for side, table, paired in (("here", here, rows_here), (other, there, rows_there)):
        alone = np.setdiff1d(np.arange(len(table)), paired)
        if len(alone):
            where = f"The first one is {_name_rows(table)[alone[0]]}"
            yield Difference(part, f"{rows} only {side}", len(alone), len(alone), len(table), where)
    moved = np.flatnonzero(np.argsort(np.argsort(rows_there)) != np.arange(n))
    if len(moved):
        first = moved[0]
        where = f"{names[first]} is number {rows_here[first]} here, {rows_there[first]} {other}"
        yield Difference(part, f"order of {rows}", len(moved), len(moved), n, where)
    for name in dict.fromkeys([*here, *there]) if n else ():
        what = f"{name} of {rows}"
        if name not in here or name not in there:
            yield Difference(part, what, n, n, n, f"It is only {'here' if name in here else other}")
        else:
            columns = here[name].to_numpy()[rows_here], there[name].to_numpy()[rows_there]
            difference = _compare_arrays(part, what, *columns, [names], other)
            if difference.differ:
                yield difference


def add_values(
    differences: ValueDifferences,
    split: str,
    presentations: pd.DataFrame,
    neuroids: pd.DataFrame,
    *values: DoubleArray,
    other: str = "there",
) -> None:
    """Add how the values of some neuroids differ to what was found of others, by split, subject and region. NaN counts as 0.

    Parameters
    ----------
    differences : what was found; groups without a difference are there as well
    values : arrays of shape (n_presentations, n_neuroids), here and there
        Unitless. There is at least one presentation.
    """
    here, there = (np.where(np.isnan(side), 0, side) for side in values)
    rows, columns = _name_rows(presentations), _name_rows(neuroids)
    groups = neuroids.reindex(columns=["subject", "region"], fill_value="any").reset_index(drop=True)
    for (subject, region), group in groups.groupby(["subject", "region"], sort=False):
        key, names, chosen = (split, str(subject), str(region)), [rows, columns[group.index]], np.s_[:, group.index]
        found = _compare_arrays(split, f"values of {subject} {region}", here[chosen], there[chosen], names, other)
        differences[key] = differences[key] + found if key in differences else found


def compare_images(split: str, images: Iterable[tuple[str, Path, Path | bytes | PixelArray]]) -> Iterator[Difference]:
    """Compare images: the bytes of the files, or else their pixels.

    Parameters
    ----------
    images : the stimulus id, the file here, and what is there: a file, its content, or the pixels of NSD's own image
        A JPEG file may differ from NSD's own image by as much as the format loses.
    """
    n_images, faults = 0, []
    for stimulus_id, path, there in images:
        n_images += 1
        try:
            given = read_file(there) if isinstance(there, Path) else there
            fault = "" if isinstance(given, bytes) and read_file(path) == given else _compare_pixels(path, given)
        except (OSError, ValueError) as error:
            raise_if_of_machine(error, path)
            fault = one_line(error).rstrip(".")
        faults += [f"{stimulus_id}: {fault}"] if fault else []
    if faults:
        yield Difference(split, "images", len(faults), len(faults), n_images, faults[0])


def _compare_pixels(path: Path, there: bytes | PixelArray) -> str:
    """Return how the pixels of an image differ, or an empty text."""
    image = load_image(path)
    here = np.asarray(image).astype(int)
    pixels = np.asarray(load_image(io.BytesIO(there))) if isinstance(there, bytes) else there
    if here.shape != pixels.shape:
        return f"it has the shape {here.shape} here, not {pixels.shape}"
    sizes = np.abs(here - pixels)
    if not sizes.any() or (image.format == "JPEG" and not isinstance(there, bytes) and _is_loss_of_jpeg(sizes, there)):
        return ""
    return f"{np.count_nonzero(sizes.max(axis=-1)):,} pixels differ by up to {sizes.max()} of 255"


def _is_loss_of_jpeg(sizes: IntArray, pixels: PixelArray) -> bool:
    """Return whether a file lost about as much as `JPEG_QUALITY` loses of these pixels. Programs that write JPEG differ a little."""
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, format="JPEG", quality=JPEG_QUALITY)
    losses = np.abs(np.asarray(Image.open(content)).astype(int) - pixels)
    return bool(sizes.mean() <= JPEG_ALLOWANCE * losses.mean() and sizes.max() <= JPEG_ALLOWANCE * losses.max())


def compare_release(release_path: Path, other: str) -> Answer:
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
    is_release = Path(other).is_dir()
    with ExitStack() as files:
        here = open_release(release_path, files)
        region, others = (None, open_release(Path(other), files)) if is_release else _load_object(other)
        for split, there in others.items():
            assembly, stimuli = here[split]
            if region is not None:
                regions = np.asarray(assembly.coords.get("region", []))
                assembly = assembly.isel(neuroid=np.flatnonzero(regions == region))
            differences += _compare_sides(split, Side(assembly, stimuli), there)
    problems = [str(difference) for difference in differences if difference.beyond]
    judgement = "different" if problems else "the same within tolerance" if differences else "identical"
    details = f"{len(differences)} differences, {len(problems)} of them by more than {TOLERANCE:.0e}"
    values = [difference for difference in differences if difference.what.startswith("values of")]
    if values:
        of_all = sum(values[1:], values[0])
        details += (
            f"; values differ by {of_all.mean:.1e} standard deviations on average and by {of_all.largest:.1e} at most"
        )
    if values == differences:
        details += ", and all else is the same"
    verdict = f"{'differs from' if problems else 'is the same as'} {other}"
    name = str(Path(other).absolute()) if is_release else other
    return Answer(
        f"{verdict}: {details if differences else judgement}",
        problems,
        notes=[str(difference) for difference in differences if not difference.beyond],
        checked=[CHECKED],
        findings={name: {"verdict": judgement, "differences": [asdict(difference) for difference in differences]}},
    )


def _load_object(identifier: str) -> tuple[str | None, dict[str, Side]]:
    """Load one assembly and its stimulus set with the plugin, always from S3. Return its region, and both by their split."""
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
    paths = stimuli["stimulus_id"].map(stimuli.stimulus_paths)
    assembly = assembly.reset_index(list(assembly.indexes)).drop_vars(added)
    return region, {split: Side(assembly, pd.DataFrame(stimuli).assign(path=paths))}


def _compare_sides(split: str, here: Side, there: Side) -> Iterator[Difference]:
    """Compare kind, coordinates, values, stimulus columns and images."""
    kind, other_kind = (
        pd.DataFrame({"type": [side.assembly.dtype.name], "dimensions": [" ".join(map(str, side.assembly.dims))]})
        for side in (here, there)
    )
    yield from compare_tables(split, "assembly", kind, other_kind)
    for dimension in DIMENSIONS:
        yield from compare_tables(split, f"{dimension}s", here.coordinates(dimension), there.coordinates(dimension))
    yield from _compare_values(split, here, there)
    columns = [column for column in here.stimuli if column in there.stimuli and column not in FILE_COLUMNS]
    yield from compare_tables(split, "stimuli", here.stimuli[columns], there.stimuli[columns])
    rows_here, rows_there = align(here.stimuli, there.stimuli)
    images, paths = here.stimuli.iloc[rows_here], there.stimuli["path"].iloc[rows_there]
    yield from compare_images(split, zip(images["stimulus_id"], images["path"], paths, strict=True))


def _compare_values(split: str, here: Side, there: Side) -> Iterator[Difference]:
    """Compare the values that both assemblies have, by subject and region."""
    presentations, neuroids = here.coordinates("presentation"), here.coordinates("neuroid")
    rows_here, rows_there = align(presentations, there.coordinates("presentation"))
    columns_here, columns_there = align(neuroids, there.coordinates("neuroid"))
    differences: ValueDifferences = {}
    n_nan = 0
    for block in list_blocks(len(rows_here), len(columns_here)):
        found = read_neuroids(here.assembly, columns_here[block])[rows_here]
        given = read_neuroids(there.assembly, columns_there[block])[rows_there]
        n_nan += np.count_nonzero(np.isnan(found) != np.isnan(given))
        part = neuroids.iloc[columns_here[block]]
        add_values(differences, split, presentations.iloc[rows_here], part, found, given)
    yield from (difference for difference in differences.values() if difference.differ)
    if n_nan:
        n_values = len(rows_here) * len(columns_here)
        yield Difference(split, "values that are NaN on one side only", n_nan, 0, n_values, "NaN counts as 0")
