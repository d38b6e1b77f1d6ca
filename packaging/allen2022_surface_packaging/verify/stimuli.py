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
from ..errors import PackagingError
from ..files import read_file
from ..images import load_image
from ..nsd.tree import NSDTree
from ..release import ReleaseFolder, require_regular_file
from .differences import Difference, first_difference
from .expectation import RAW_FILES_GIVE, Expectation
from .pairs import compare_columns
from .raw import read_stimulus_info, reading
from .sides import Side
from .tables import FILE_NAME_COLUMN, read_stimulus_table, read_table

JPEG_QUALITY = 95
FILE_NAME_COLUMNS = (FILE_NAME_COLUMN, "filename")  # two releases may name the files of equal images differently


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
    """Read an image, of shape (height, width, 3).

    Raises
    ------
    PackagingError
        If there is no regular file, or it is not an image of three colours.
    """
    require_regular_file(path)
    try:
        image = load_image(path)
    except ValueError as error:
        raise PackagingError(str(error)) from error
    if image.mode != "RGB":
        raise PackagingError(f"{path} is {image.mode}, expected RGB.")
    return np.asarray(image)


def find_stimulus_problems(folder: ReleaseFolder, expected: Expectation) -> list[str]:
    """Compare the tables of stimuli, split and origins, and all images, with the raw files."""
    problems = []
    information = read_stimulus_info(expected.tree.stimulus_info)
    tables = _expect_tables(folder, expected, information)
    for path, table in tables.items():
        problems += _compare_table(path, table)
    if folder.origin_path.exists() and folder.origin_path not in tables:
        problems.append(f"{folder.origin_path.name} is there, {RAW_FILES_GIVE} none.")
    for split, nsd_ids in expected.splits.items():
        table = read_stimulus_table(folder.stimulus_table_path(split))
        names = dict(zip(table["nsd_id"].tolist(), table[FILE_NAME_COLUMN], strict=True))
        paths = {nsd_id: folder.stimuli_path(split) / names[nsd_id] for nsd_id in nsd_ids if nsd_id in names}
        problems += _find_image_problems(expected.tree, paths)
    return problems


def _expect_tables(
    folder: ReleaseFolder, expected: Expectation, information: pd.DataFrame | None
) -> dict[Path, pd.DataFrame]:
    """Return the tables that the raw files give, by their paths in the release; without the names of image files."""
    is_train = set(expected.splits["train"])
    images = _name_images(expected.images)
    tables = {folder.split_path: images.assign(split=["train" if i in is_train else "test" for i in images["nsd_id"]])}
    tables |= {folder.stimulus_table_path(split): _name_images(nsd_ids) for split, nsd_ids in expected.splits.items()}
    rows = None if information is None else information.reindex(expected.images, fill_value="")
    if rows is None or (rows["cocoId"] == "").any():
        return tables
    with reading(expected.tree.stimulus_info, "NSD's table of images"):
        coco_ids = rows["cocoId"].astype(np.int64)
        for split, nsd_ids in expected.splits.items():
            path = folder.stimulus_table_path(split)
            tables[path] = tables[path].assign(coco_id=coco_ids.loc[nsd_ids].to_numpy())
        if {"cocoSplit", "cropBox"} <= set(rows) and not (rows[["cocoSplit", "cropBox"]] == "").any(axis=None):
            origins = images.assign(coco_id=coco_ids.to_numpy(), coco_split=rows["cocoSplit"].to_numpy())
            boxes = np.array([box.strip().strip("()").split(",") for box in rows["cropBox"]], dtype=np.float64)
            for side, shares in zip(("top", "bottom", "left", "right"), boxes.T, strict=True):
                origins[f"crop_{side}"] = shares
            tables[folder.origin_path] = origins
    return tables


def _name_images(nsd_ids: list[int]) -> pd.DataFrame:
    return pd.DataFrame({"stimulus_id": [f"nsd_{nsd_id:05d}" for nsd_id in nsd_ids], "nsd_id": nsd_ids})


def _compare_table(path: Path, expected: pd.DataFrame) -> list[str]:
    if not path.is_file():
        return [f"{path.name} is missing, {RAW_FILES_GIVE} it."]
    table = read_table(path)
    columns = [str(name) for name in table if name != FILE_NAME_COLUMN]
    if sorted(columns) != sorted(map(str, expected)):
        return [f"{path.name} has the columns {columns}, {RAW_FILES_GIVE} {[*expected]}."]
    problems = []
    for name in columns:
        title = f"{path.name}: {name} of row"
        actual, given = table[name].to_numpy(), expected[name].to_numpy()
        problems += first_difference(title, actual, given, source=RAW_FILES_GIVE, may_round=True)
    return problems


def _find_image_problems(tree: NSDTree, paths: dict[int, Path]) -> list[str]:
    """Compare images with those that an earlier packaging extracted, or else with the pixels of imgBrick."""
    problems = []
    extracted = tree.extracted_images()
    with _open_images(tree) as images:
        for nsd_id, path in paths.items():
            require_regular_file(path)
            file = extracted.get(path.name) or extracted.get(f"stimulus_{path.name}")
            if file is not None and file.read() == read_file(path):
                continue
            if images is None:
                problems.append(f"{path} equals no extracted image of {tree}, and {tree.images} does not exist.")
            else:
                with reading(tree.images, "NSD's images"):
                    pixels = images[nsd_id]
                problems += _compare_with_raw_image(path, nsd_id, pixels)
    return problems


@contextmanager
def _open_images(tree: NSDTree) -> Iterator[Any]:
    """Yield imgBrick, of shape (n_images, height, width, 3), or None if the tree has no images."""
    if not tree.images.exists():
        yield None
        return
    with tree.images.open() as file:
        with reading(tree.images, "NSD's images"):
            opened = h5py.File(file, "r")
            brick = opened["imgBrick"]
        with opened:
            yield brick


def _compare_with_raw_image(path: Path, nsd_id: int, expected: PixelArray) -> list[str]:
    try:
        actual = read_pixels(path)
    except PackagingError as error:
        return [str(error)]
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
            return _ImageDifference(math.inf, f"{path} is missing, or not a regular file")
    if read_file(path_here) == read_file(path_there):
        return None
    try:
        pixels_here, pixels_there = read_pixels(path_here), read_pixels(path_there)
    except PackagingError as error:
        return _ImageDifference(math.inf, str(error).rstrip("."))
    if pixels_here.shape != pixels_there.shape:
        return _ImageDifference(math.inf, f"shape {pixels_here.shape} here, {pixels_there.shape} there")
    difference = compare_pixels(pixels_here, pixels_there)
    if difference is None:
        return None
    n_pixels = f"{difference.n_pixels:,} pixels differ"
    return _ImageDifference(difference.largest, f"{difference} here, {difference.expected} there; {n_pixels}")
