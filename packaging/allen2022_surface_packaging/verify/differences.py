"""How tables, values and images differ from others of the same meaning: aligned, subtracted and grouped.

"Here" is the release that is verified. The other side is another release, a published object, what the raw files give, or what
is expected.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from ..arrays import AnyArray, DoubleArray, IntArray, PixelArray
from ..errors import one_line, raise_if_of_machine
from ..files import read_file
from ..images import load_image

TOLERANCE = 1e-5  # unitless
# From 64 on, single precision has steps of 8e-6 and more. Two programs may round such a response to neighbouring ones.
STEPS_OF_SINGLE_PRECISION = 2
JPEG_QUALITY = 95
JPEG_ALLOWANCE = 1.25  # of the mean and of the largest loss
LARGEST_NUMBER = float(np.finfo(np.float64).max)  # JSON has no infinity
# By these a presentation, a neuroid or an image is the same one on both sides.
KEYS = ("stimulus_id", "repetition", "subject", "region", "hemisphere", "vertex_index")


@dataclass(frozen=True)
class Difference:
    """One way in which two sides differ: a line for people, and a row of ``verify.json``.

    Attributes
    ----------
    split : or the name of a table of both splits
    what : what differs, such as "nsd_id of presentations" or "values of subj01 V1"
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


def align(here: pd.DataFrame, there: pd.DataFrame) -> tuple[IntArray, IntArray]:
    """Return which rows of two tables belong together: by the keys that both have, or by their numbers without one."""
    key = [name for name in KEYS if name in here and name in there]
    if not key or here.duplicated(key).any() or there.duplicated(key).any():
        rows = np.arange(min(len(here), len(there)))
        return rows, rows
    partners = pd.MultiIndex.from_frame(there[key]).get_indexer(pd.MultiIndex.from_frame(here[key]))
    return np.flatnonzero(partners >= 0), partners[partners >= 0]


def _name_rows(table: pd.DataFrame) -> list[str]:
    """Name each row of a table of neuroids or presentations, such as ``nsd_03049 repetition 1``."""
    for name in ("neuroid_id", "stimulus_id"):
        if name in table:
            names = table[name].astype(str)
            return list(names + " repetition " + table["repetition"].astype(str) if "repetition" in table else names)
    return [f"number {row}" for row in range(len(table))]


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
    for place, table, paired in (("here", here, rows_here), (other, there, rows_there)):
        alone = np.setdiff1d(np.arange(len(table)), paired)
        if len(alone):
            where = f"The first one is {_name_rows(table)[alone[0]]}"
            yield Difference(part, f"{rows} only {place}", len(alone), len(alone), len(table), where)
    moved = np.flatnonzero(np.argsort(np.argsort(rows_there)) != np.arange(n))
    if len(moved):
        first = moved[0]
        where = f"{names[first]} is number {rows_here[first]} here, {rows_there[first]} {other}"
        yield Difference(part, f"order of {rows}", len(moved), len(moved), n, where)
    for name in dict.fromkeys([*here, *there]):
        what = f"{name} of {rows}"
        if name in here and name in there:
            columns = here[name].to_numpy()[rows_here], there[name].to_numpy()[rows_there]
            yield from _compare_columns(part, what, *columns, names, other)
        else:
            yield Difference(part, what, n, n, n, f"It is only {'here' if name in here else other}")


def _compare_columns(
    part: str, what: str, here: AnyArray, there: AnyArray, names: list[str], other: str
) -> Iterator[Difference]:
    rows = np.flatnonzero(np.asarray(here != there) & ~(pd.isna(here) & pd.isna(there)))
    if not len(rows):
        return
    first, n_beyond, largest = rows[0], len(rows), None
    if here.dtype.kind in "iuf" and there.dtype.kind in "iuf":
        sizes = np.nan_to_num(np.abs(here[rows].astype(np.float64) - there[rows]), nan=LARGEST_NUMBER)
        first, n_beyond, largest = rows[sizes.argmax()], int((sizes > TOLERANCE).sum()), float(sizes.max())
    where = f"{names[first]} has {here[first]} here, {there[first]} {other}"
    yield Difference(part, what, len(rows), n_beyond, len(here), where, largest)


def measure_values(
    split: str, found: DoubleArray, expected: DoubleArray, presentations: pd.DataFrame, neuroids: pd.DataFrame
) -> pd.DataFrame:
    """Measure how the values of some neuroids differ. NaN counts as 0.

    Parameters
    ----------
    found, expected : arrays of shape (n_presentations, n_neuroids)
        Unitless. There is at least one presentation.
    presentations, neuroids : their coordinates

    Returns
    -------
    table with a row for each neuroid: how many values differ, by how much in sum and at most, and where
    """
    is_nan = np.isnan(expected)
    is_nan_on_one_side = np.isnan(found) != is_nan
    found, expected = (np.where(np.isnan(values), 0, values) for values in (found, expected))
    with np.errstate(invalid="ignore"):
        sizes = np.where(found == expected, 0, np.nan_to_num(np.abs(found - expected), nan=LARGEST_NUMBER))
        steps = STEPS_OF_SINGLE_PRECISION * np.spacing(np.abs(expected).astype(np.float32))
    rows, columns = sizes.argmax(axis=0), np.arange(len(neuroids))
    named = neuroids.reindex(columns=["subject", "region"], fill_value="any")
    return named.assign(
        split=split,
        neuroid=_name_rows(neuroids),
        n_values=len(sizes),
        n_differing=np.count_nonzero(sizes, axis=0),
        n_beyond=np.count_nonzero(sizes > np.fmax(TOLERANCE, steps), axis=0),
        n_nan=np.count_nonzero(is_nan, axis=0),
        n_nan_on_one_side=np.count_nonzero(is_nan_on_one_side, axis=0),
        total=sizes.sum(axis=0),
        largest=sizes.max(axis=0),
        presentation=np.array(_name_rows(presentations), dtype=object)[rows],
        found=found[rows, columns],
        expected=expected[rows, columns],
    )


def group_values(measured: pd.DataFrame, other: str = "there") -> dict[tuple[str, str, str], Difference]:
    """Sum what `measure_values` returned, by split, subject and region. A group without a difference is there as well."""
    groups = measured.groupby(["split", "subject", "region"], sort=False)
    sums = groups[["n_values", "n_differing", "n_beyond", "total"]].sum()
    worst = measured.loc[groups["largest"].idxmax()][["largest", "presentation", "neuroid", "found", "expected"]]
    differences = {}
    for row in sums.join(worst.set_index(sums.index)).reset_index().to_dict("records"):
        where = (
            f"They differ by {row['total'] / max(row['n_differing'], 1):.2g} on average and by {row['largest']:.2g} at most: "
            f"{row['presentation']}, {row['neuroid']} is {row['found']:.6g} here, {row['expected']:.6g} {other}"
        )
        counts = row["n_differing"], row["n_beyond"], row["n_values"]
        key = str(row["split"]), str(row["subject"]), str(row["region"])
        differences[key] = Difference(key[0], f"values of {key[1]} {key[2]}", *counts, where, row["largest"])
    return differences


def compare_images(split: str, images: Iterable[tuple[str, Path, Path | bytes | PixelArray]]) -> Iterator[Difference]:
    """Compare images: the bytes of the files, or else their pixels.

    Parameters
    ----------
    images : the stimulus id, the file here, and what is there: a file, its content, or the pixels of NSD's own image
        A JPEG file may differ from NSD's own image by as much as the format loses.
    """
    n_images, differing = 0, []
    for stimulus_id, path, there in images:
        n_images += 1
        try:
            given = read_file(there) if isinstance(there, Path) else there
            if isinstance(given, bytes) and read_file(path) == given:
                continue
            image = load_image(path)
            found = np.asarray(image).astype(int)
            expected = np.asarray(load_image(io.BytesIO(given)) if isinstance(given, bytes) else given).astype(int)
        except (OSError, ValueError) as error:
            raise_if_of_machine(error, path)
            differing.append(f"{stimulus_id}: {one_line(error).rstrip('.')}")
            continue
        if found.shape != expected.shape:
            differing.append(f"{stimulus_id} has the shape {found.shape} here, not {expected.shape}")
            continue
        sizes = np.abs(found - expected)
        if sizes.any() and (isinstance(given, bytes) or image.format != "JPEG" or not _is_loss_of_jpeg(sizes, given)):
            n_pixels = np.count_nonzero(sizes.max(axis=-1))
            differing.append(f"{stimulus_id}: {n_pixels:,} pixels differ by up to {sizes.max()} of 255")
    if differing:
        yield Difference(split, "images", len(differing), len(differing), n_images, differing[0])


def _is_loss_of_jpeg(sizes: IntArray, pixels: PixelArray) -> bool:
    """Return whether a file lost about as much as `JPEG_QUALITY` loses of these pixels. Programs that write JPEG differ a little."""
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, format="JPEG", quality=JPEG_QUALITY)
    losses = np.abs(np.asarray(Image.open(content)).astype(int) - pixels)
    return bool(sizes.mean() <= JPEG_ALLOWANCE * losses.mean() and sizes.max() <= JPEG_ALLOWANCE * losses.max())
