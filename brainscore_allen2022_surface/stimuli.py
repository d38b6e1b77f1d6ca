"""Stimulus sets: the table of the images, and the path of each image."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pandas as pd
from brainscore_core.supported_data_standards.brainio.stimuli import StimulusSet

from .cache import local_file, local_folder
from .files import LocalFolder, naming, require_file
from .markers import SEPARATOR, hash_images, image_marker
from .sources import DatasetFiles

ID, FILE_NAME, RELEASED_FILE_NAME = "stimulus_id", "filename", "image_file_name"
DIMENSIONS = {"presentation", "neuroid", "time_bin"}
LONGEST_NAME_BYTES = 255
ADVICE = "Build the release again, or upload it again."


def read_stimulus_set(files: DatasetFiles, key: str) -> StimulusSet:
    """Read a stimulus set.

    Parameters
    ----------
    key : identifier of the dataset, such as "Allen2022_fmri_surface.train"

    Returns
    -------
    StimulusSet
        Its identifier is the key, with a marker unless the images are those that the shipped artifacts file lists.

    Raises
    ------
    FileNotFoundError, ConnectionError, ValueError
        As `load_stimulus_set`.
    """
    table = _read_table(local_file(files.stimulus_table))
    folder = local_folder(files.stimuli)
    image_paths = {
        stimulus_id: folder / file_name for stimulus_id, file_name in zip(table[ID], table[FILE_NAME], strict=True)
    }
    _require_images(image_paths, key)
    stimulus_set = StimulusSet(table)
    stimulus_set.stimulus_paths = image_paths
    stimulus_set.identifier = key
    if not files.has_shipped_stimuli:
        image_sha1s = hash_images(image_paths)
        if isinstance(files.stimuli, LocalFolder):
            _refuse_damaged(image_paths, image_sha1s, files.stimuli)
        stimulus_set.identifier = f"{key}{SEPARATOR}{image_marker(image_sha1s)}"
    return stimulus_set


def _read_table(path: Path) -> pd.DataFrame:
    """Read a stimulus table, and check what loading needs."""
    try:
        with naming(path):
            table = pd.read_csv(path)
        if FILE_NAME not in table and RELEASED_FILE_NAME in table:
            # brainio needs this column; the table of a release has only image_file_name
            table.insert(1, FILE_NAME, table[RELEASED_FILE_NAME])
        fault = _find_fault(table)
    except (ValueError, OverflowError) as error:
        fault = " ".join(str(error).split())
    if fault:
        raise ValueError(f"{path} is damaged ({fault}). {ADVICE}")
    return table


def _find_fault(table: pd.DataFrame) -> str:
    """Return what is wrong with a stimulus table; empty if nothing is."""
    missing = [column for column in (ID, FILE_NAME) if column not in table]
    if missing:
        return f"it has no column {missing[0]}"
    if not len(table):
        return "it lists no images"
    if DIMENSIONS & set(table):
        return f"a column has the name of a dimension, {min(DIMENSIONS & set(table))}"
    # Brain-Score groups presentations by all columns, and NaN differs from itself.
    with_nan = [str(column) for column in table if table[column].isna().any()]
    if with_nan:
        return f"the column {with_nan[0]!r} has empty cells"
    if not all(isinstance(stimulus_id, str) for stimulus_id in table[ID]):
        return f"the column {ID} must hold texts"
    twice = table[ID][table[ID].duplicated()]
    if len(twice):
        return f"the stimulus {twice.iloc[0]!r} is listed twice"
    names = [name for name in table[FILE_NAME] if not _is_file_name(name)]
    return f"{names[0]!r} is not the name of an image file" if names else ""


def _is_file_name(name: object) -> bool:
    """Return whether a cell names a file below the folder of the images."""
    if not isinstance(name, str) or not name.isprintable():
        return False
    path = PurePosixPath(name)
    parts = path.parts
    is_short = all(len(part.encode("utf-8")) <= LONGEST_NAME_BYTES for part in parts)
    return bool(parts) and not path.is_absolute() and ".." not in parts and is_short


def _require_images(image_paths: dict[str, Path], key: str) -> None:
    """Raise an exception if an image is missing or is not a file."""
    absent_paths = [path for path in image_paths.values() if not path.is_file()]
    for path in absent_paths:
        if path.exists():
            require_file(path, ADVICE)
    if absent_paths:
        raise FileNotFoundError(
            f"{absent_paths[0]} and {len(absent_paths) - 1} more images of {key} are missing. {ADVICE}"
        )


def _refuse_damaged(image_paths: dict[str, Path], image_sha1s: dict[str, str], folder: LocalFolder) -> None:
    """Raise a ValueError if an image of a release is not that which `release.json` lists."""
    for stimulus_id, path in image_paths.items():
        expected_sha1 = folder.sha1s.get(str(path.relative_to(folder.path)))
        if expected_sha1 is None:
            raise ValueError(f"{path} is not listed in release.json. Build the release again.")
        if image_sha1s[stimulus_id] != expected_sha1:
            raise ValueError(
                f"{path} is damaged: its SHA-1 is {image_sha1s[stimulus_id]}, expected {expected_sha1} as in release.json. "
                "Build the release again."
            )
