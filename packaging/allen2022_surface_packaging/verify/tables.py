"""The tables of a release, read strictly: a cell is a whole number, a number or a file name exactly as `build` writes it."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import PackagingError, one_line
from ..files import read_file
from ..release import require_regular_file

WHOLE_NUMBER = re.compile(r"0|[1-9][0-9]{0,17}")
NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?(e[-+]?[0-9]+)?")
WHOLE_NUMBER_COLUMNS = ("nsd_id", "coco_id")
NUMBER_COLUMNS = ("crop_top", "crop_bottom", "crop_left", "crop_right")
FILE_NAME_COLUMN = "image_file_name"
SPLIT_COLUMNS = ("nsd_id", "stimulus_id", "split")
STIMULUS_COLUMNS = ("stimulus_id", "nsd_id", FILE_NAME_COLUMN)  # `coco_id` follows if all are known
LONGEST_CELL = 60  # in a message


def read_table(path: Path) -> pd.DataFrame:
    """Read a table of a release.

    Returns
    -------
    table
        The columns in `WHOLE_NUMBER_COLUMNS` are whole numbers, those in `NUMBER_COLUMNS` are numbers, and all others are
        text. No cell is missing.

    Raises
    ------
    PackagingError
        If the file is missing, is no CSV table in UTF-8, or a cell is empty or malformed.
    """
    require_regular_file(path)
    try:
        rows = list(csv.reader(io.StringIO(read_file(path).decode()), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise PackagingError(
            f"{path} is not a CSV table in UTF-8 ({one_line(error)}). Build the release again."
        ) from error
    header = rows[0] if rows else []
    if not header or len(set(header)) < len(header):
        raise PackagingError(f"{path} has the columns {header}, expected names, each once. Build the release again.")
    for number, row in enumerate(rows[1:]):
        if len(row) != len(header):
            raise PackagingError(
                f"{path}: row {number} has {len(row)} cells, expected {len(header)}. Build the release again."
            )
    columns = dict(zip(header, zip(*rows[1:], strict=True) if rows[1:] else [()] * len(header), strict=True))
    return pd.DataFrame({name: _convert(path, name, cells) for name, cells in columns.items()})


def read_split_table(path: Path) -> pd.DataFrame:
    """Read the table that says in which split each image is.

    Raises
    ------
    PackagingError
        As `read_table`, or if the columns are not `SPLIT_COLUMNS`.
    """
    table = read_table(path)
    if tuple(table) != SPLIT_COLUMNS:
        raise PackagingError(
            f"{path} has the columns {list(table)}, expected {list(SPLIT_COLUMNS)}. Build the release again."
        )
    return table


def read_stimulus_table(path: Path) -> pd.DataFrame:
    """Read a stimulus table, whose images can be found by their names.

    Raises
    ------
    PackagingError
        As `read_table`, or if a column is missing, or a stimulus or an image stands in two rows.
    """
    table = read_table(path)
    missing = [name for name in STIMULUS_COLUMNS if name not in table]
    if missing:
        raise PackagingError(f"{path} lacks the column {', '.join(missing)}. Build the release again.")
    for name in STIMULUS_COLUMNS:
        repeated = table[name][table[name].duplicated()]
        if len(repeated):
            raise PackagingError(
                f"{path}: {name} {_show(repeated.iloc[0])} stands in two rows. Build the release again."
            )
    return table


def _convert(path: Path, name: str, cells: tuple[str, ...]) -> object:
    """Convert the cells of a column, or raise at the first that is malformed."""
    for number, cell in enumerate(cells):
        expected = _expected_cell(name, cell)
        if expected:
            raise PackagingError(
                f"{path}: {name} of row {number} is {_show(cell)}, expected {expected}. Build the release again."
            )
    if name in WHOLE_NUMBER_COLUMNS:
        return np.array(cells, dtype=np.int64)
    return np.array(cells, dtype=np.float64 if name in NUMBER_COLUMNS else object)


def _expected_cell(name: str, cell: str) -> str:
    """Return what is expected in place of a malformed cell, or an empty text."""
    if name in WHOLE_NUMBER_COLUMNS:
        return "" if WHOLE_NUMBER.fullmatch(cell) else "a whole number"
    if name in NUMBER_COLUMNS:
        return "" if NUMBER.fullmatch(cell) else "a number"
    if name == FILE_NAME_COLUMN and (not cell.isprintable() or cell in ("", ".", "..") or {"/", "\\"} & set(cell)):
        return "the name of a file in the folder of the images"
    return "" if cell.strip() else "a text, because Brain-Score reads an empty cell as NaN, and NaN differs from itself"


def _show(cell: object) -> str:
    text = repr(cell)
    return text if len(text) <= LONGEST_CELL else f"{text[:LONGEST_CELL]}..."
