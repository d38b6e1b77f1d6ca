"""The stimulus tables and images of a release, compared with the raw files or with another release."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from PIL import Image

from ..arrays import PixelArray
from ..nsd.tree import NSDTree
from ..release import ReleaseFolder
from .differences import Difference, first_difference
from .expectation import RAW_FILES_GIVE, Expectation
from .pairs import compare_columns
from .raw import read_coco_ids
from .sides import Side

JPEG_QUALITY = 95
FILE_NAME_COLUMNS = ("image_file_name", "filename")  # two releases may name the files of equal images differently


@dataclass(frozen=True)
class PixelDifference:
    """The pixel with the largest difference of two images of the same shape.

    Attributes
    ----------
    actual, expected : the two colours, each from 0 to 255
    largest : the largest difference of the red, green and blue values
    n_pixels : how many pixels differ
    """

    row: int
    column: int
    actual: list[int]
    expected: list[int]
    largest: int
    n_pixels: int

    def __str__(self) -> str:
        return f"pixel (row {self.row}, column {self.column}) is {self.actual}"


def compare_pixels(actual: PixelArray, expected: PixelArray) -> PixelDifference | None:
    """Compare two images of the same shape (height, width, 3); return None if they are equal."""
    sizes = np.abs(actual.astype(int) - expected.astype(int)).max(axis=-1)
    if not sizes.any():
        return None
    row, column = (int(i) for i in np.unravel_index(sizes.argmax(), sizes.shape))
    colours = actual[row, column].tolist(), expected[row, column].tolist()
    return PixelDifference(row, column, *colours, int(sizes[row, column]), int(np.count_nonzero(sizes)))


def read_pixels(path: Path) -> PixelArray:
    """Read an image, of shape (height, width, 3)."""
    with Image.open(path) as image:
        return np.asarray(image)


def find_stimulus_problems(folder: ReleaseFolder, expected: Expectation) -> list[str]:
    """Compare the stimulus tables of a release, and all images in them, with the raw files."""
    problems = []
    coco_ids = read_coco_ids(expected.tree.stimulus_info)
    for split, nsd_ids in expected.splits.items():
        table_path = folder.stimulus_table_path(split)
        table = pd.read_csv(table_path)
        table_problems = _compare_column(table_path, table["nsd_id"], pd.Series(nsd_ids))
        if table_problems:
            problems += table_problems
            continue
        if "coco_id" in table and coco_ids is not None:
            problems += _compare_column(table_path, table["coco_id"], coco_ids.reindex(nsd_ids))
        paths = [folder.stimuli_path(split) / name for name in table["image_file_name"]]
        problems += _find_image_problems(expected.tree, dict(zip(nsd_ids, paths, strict=True)))
    return problems


def _compare_column(table_path: Path, column: pd.Series[Any], expected: pd.Series[Any]) -> list[str]:
    name = f"{table_path.name}: {column.name} of row"
    return first_difference(name, column.to_numpy(), expected.to_numpy(), source=RAW_FILES_GIVE, may_round=True)


def _find_image_problems(tree: NSDTree, paths: dict[int, Path]) -> list[str]:
    """Compare images with those that an earlier packaging extracted, or else with the pixels of imgBrick."""
    problems = []
    extracted = tree.extracted_images()
    with _open_images(tree) as images:
        for nsd_id, path in paths.items():
            file = extracted.get(path.name) or extracted.get(f"stimulus_{path.name}")
            if file is not None and file.read() == path.read_bytes():
                continue
            if images is None:
                problems.append(f"{path} equals no extracted image of {tree}, and {tree.images} does not exist.")
            else:
                problems += _compare_with_raw_image(path, nsd_id, images[nsd_id])
    return problems


@contextmanager
def _open_images(tree: NSDTree) -> Iterator[Any]:
    """Yield imgBrick, of shape (n_images, height, width, 3), or None if the tree has no images."""
    if not tree.images.exists():
        yield None
        return
    with tree.images.open() as file, h5py.File(file, "r") as opened:
        yield opened["imgBrick"]


def _compare_with_raw_image(path: Path, nsd_id: int, expected: PixelArray) -> list[str]:
    actual = read_pixels(path)
    if path.suffix == ".jpg":
        expected = _compress(expected)
    if actual.shape != expected.shape:
        return [f"{path} has the shape {actual.shape}, but image {nsd_id} of imgBrick has {expected.shape}."]
    difference = compare_pixels(actual, expected)
    if difference is None:
        return []
    return [
        f"{path}: {difference}, but image {nsd_id} of imgBrick has {difference.expected} "
        f"({difference.n_pixels:,} pixels differ)."
    ]


def _compress(pixels: PixelArray) -> PixelArray:
    """Return the pixels after JPEG compression."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=JPEG_QUALITY)
    with Image.open(buffer) as image:
        return np.asarray(image)


def compare_stimuli(split: str, here: Side, there: Side) -> list[Difference]:
    """Compare the stimulus tables of two sides, and the images that both have.

    Images that only one side has are among its presentations, whose comparison reports them.
    """
    table_here, table_there = (side.stimuli.set_index("stimulus_id") for side in (here, there))
    common = [stimulus_id for stimulus_id in table_here.index if stimulus_id in table_there.index]
    differences = []
    for name in [name for name in table_here if name in table_there and name not in FILE_NAME_COLUMNS]:
        column_here, column_there = (table.loc[common][name].to_numpy() for table in (table_here, table_there))
        differences += compare_columns(split, f"stimulus column {name}", column_here, column_there, row_names=common)
    return differences + _compare_images(split, here, there, common)


@dataclass(frozen=True)
class _ImageDifference:
    """The largest difference of a pixel (infinite if pixels cannot be compared), and what differs."""

    largest: float
    description: str


def _compare_images(split: str, here: Side, there: Side, stimulus_ids: list[str]) -> list[Difference]:
    compared = {
        stimulus_id: _compare_image(here.image_paths[stimulus_id], there.image_paths[stimulus_id])
        for stimulus_id in stimulus_ids
    }
    differing = {stimulus_id: difference for stimulus_id, difference in compared.items() if difference is not None}
    if not differing:
        return []
    worst = max(differing, key=lambda stimulus_id: differing[stimulus_id].largest)
    description, n = f"{worst}: {differing[worst].description}", len(differing)
    return [Difference(split, "images (0 to 255)", n, n, len(stimulus_ids), description, differing[worst].largest)]


def _compare_image(path_here: Path, path_there: Path) -> _ImageDifference | None:
    """Compare two image files; return None if they show the same."""
    for path in (path_here, path_there):
        if not path.is_file():
            return _ImageDifference(math.inf, f"{path} is missing")
    if path_here.read_bytes() == path_there.read_bytes():
        return None
    try:
        pixels_here, pixels_there = read_pixels(path_here), read_pixels(path_there)
    except OSError as error:
        return _ImageDifference(math.inf, f"an image cannot be read ({error})")
    if pixels_here.shape != pixels_there.shape:
        return _ImageDifference(math.inf, f"shape {pixels_here.shape} here, {pixels_there.shape} there")
    difference = compare_pixels(pixels_here, pixels_there)
    if difference is None:
        return None
    n_pixels = f"{difference.n_pixels:,} pixels differ"
    return _ImageDifference(difference.largest, f"{difference} here, {difference.expected} there; {n_pixels}")
