"""Where a dataset is loaded from: a release on disk, a folder of releases, or S3 objects that an artifacts file lists."""

from __future__ import annotations

import json
import os
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from .artifacts import SHIPPED_PATH, StoredDataset, StoredObject, read_artifacts

RELEASE_VARIABLE = "BRAINSCORE_ALLEN2022_SURFACE_DIR"
ARTIFACTS_VARIABLE = "BRAINSCORE_ALLEN2022_SURFACE_ARTIFACTS"
MANIFEST_NAME = "release.json"

Source: TypeAlias = str | os.PathLike[str]  # a release, a folder of releases, or an artifacts file


class SimulatedDataWarning(UserWarning):
    """Warns that a release was built from simulated files, and not from NSD's."""


@dataclass(frozen=True)
class DatasetFiles:
    """The files of one split of a dataset. Each is a path on this machine or an S3 object.

    Attributes
    ----------
    assembly : NetCDF file
    stimulus_table : CSV file
        The column `filename`, or in a release `image_file_name`, holds the file name of each image.
    stimuli : folder of images, or an S3 object that is a ZIP file of images
    region_assemblies : NetCDF files of single regions, by region; empty for a release
    has_shipped_stimuli : whether the stimulus table and the images are those that the shipped artifacts file lists
    """

    assembly: Path | StoredObject
    stimulus_table: Path | StoredObject
    stimuli: Path | StoredObject
    region_assemblies: dict[str, StoredObject] = field(default_factory=dict)
    has_shipped_stimuli: bool = False


def default_source() -> Path:
    """Return the source that the environment variables name: a folder of releases, or else an artifacts file.

    Raises
    ------
    FileNotFoundError
        If the folder or file does not exist.
    """
    setting = os.environ.get(RELEASE_VARIABLE)
    if not setting:
        return default_artifacts_path()
    path = Path(setting).expanduser()
    if not path.is_dir():
        raise FileNotFoundError(
            f"{RELEASE_VARIABLE} is {setting}, which is not a folder. Set it to a release, or unset it to load from S3."
        )
    return path


def default_artifacts_path() -> Path:
    """Return the artifacts file that the environment variable names, or the file that ships with this plugin.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    """
    setting = os.environ.get(ARTIFACTS_VARIABLE)
    if not setting:
        return SHIPPED_PATH
    path = Path(setting).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f"{ARTIFACTS_VARIABLE} is {setting}, which is not a file. Set it to a file that `allen2022-surface upload` "
            "wrote, or unset it to load the published data."
        )
    return path


def find_files(name: str, split: str, source: Source) -> DatasetFiles:
    """Find the files of one split of a dataset.

    Only small JSON files are read, and nothing is downloaded. A release of simulated data gives a `SimulatedDataWarning`.

    Parameters
    ----------
    name : of the release, such as "Allen2022_fmri_surface"
    split : "train" or "test"
    source : a release, a folder of releases, or an artifacts file

    Raises
    ------
    FileNotFoundError
        If the source does not exist, or does not hold the dataset, or if a file of the release is missing.
    ValueError
        If the source holds two releases of that name, or is damaged.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        release = _find_release(name, path)
        if release.is_simulated:
            _warn_of_simulation(release.path)
        return release.files(split)
    if path.is_file():
        files = _find_objects(f"{name}.{split}", path)
        if isinstance(files.assembly, StoredObject) and files.assembly.simulated:
            _warn_of_simulation(files.assembly)
        return files
    raise FileNotFoundError(f"{path} does not exist, expected a release, a folder of releases or an artifacts file.")


def _warn_of_simulation(place: object) -> None:
    message = f"{place} holds simulated data, not the responses of people. Use it only to try the code."
    warnings.warn(message, SimulatedDataWarning, stacklevel=4)  # where the loader was called


@dataclass(frozen=True)
class _Release:
    """A release and the parts of its manifest that loading needs."""

    path: Path
    name: str
    sizes: dict[str, int]  # in bytes, by file name
    is_simulated: bool

    def files(self, split: str) -> DatasetFiles:
        """Return the files of a split, after a check of the sizes of its assembly and its stimulus table."""
        return DatasetFiles(
            assembly=self._checked_path(f"{self.name}_{split}.nc"),
            stimulus_table=self._checked_path(f"stimulus_metadata_{split}.csv"),
            stimuli=self.path / f"stimuli_{split}",
        )

    def _checked_path(self, file_name: str) -> Path:
        path = self.path / file_name
        if file_name not in self.sizes:
            raise ValueError(f"{self.path / MANIFEST_NAME} does not list {file_name}. Build the release again.")
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing. Build the release again.")
        actual, expected = path.stat().st_size, self.sizes[file_name]
        if actual != expected:
            raise ValueError(f"{path} has {actual:,} bytes, expected {expected:,}. Build the release again.")
        return path


def _find_release(name: str, folder: Path) -> _Release:
    """Find the only release of a name: the folder itself or one of its subfolders."""
    visible_folders = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    release_paths = [path for path in (folder, *visible_folders) if (path / MANIFEST_NAME).is_file()]
    releases = [_read_release(path) for path in release_paths]
    matches = [release for release in releases if release.name == name]
    if not matches:
        names = sorted({release.name for release in releases})
        raise FileNotFoundError(
            f"{folder} holds {', '.join(names) or 'no release'}, expected {name}. Build it (allen2022-surface build), set "
            f"{RELEASE_VARIABLE} to another folder, or unset it to load from S3."
        )
    if len(matches) > 1:
        paths = ", ".join(str(release.path) for release in matches)
        raise ValueError(f"{folder} holds {name} more than once: {paths}. Load from one of these folders.")
    return matches[0]


def _read_release(path: Path) -> _Release:
    manifest_path = path / MANIFEST_NAME
    try:
        match json.loads(manifest_path.read_text(encoding="utf-8")):
            case {"name": str(name), "files": dict(records), **others}:
                sizes = {file_name: _size(record) for file_name, record in records.items()}
                return _Release(path, name, sizes, _flag(others.get("simulated", False)))
        raise ValueError("it must have a name and files")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{manifest_path} is damaged ({error}). Build the release again.") from error


def _size(record: object) -> int:
    match record:
        case {"size": int(size)}:
            return size
    raise ValueError(f"each of its files must have a size in bytes, but got {record!r}")


def _flag(simulated: object) -> bool:
    if not isinstance(simulated, bool):
        raise ValueError(f"simulated must be true or false, but got {simulated!r}")
    return simulated


def _find_objects(identifier: str, artifacts_path: Path) -> DatasetFiles:
    """Find the S3 objects of a dataset in an artifacts file."""
    artifacts = read_artifacts(artifacts_path)
    if identifier not in artifacts:
        raise FileNotFoundError(
            f"{artifacts_path} lists {', '.join(sorted(artifacts)) or 'nothing'}, expected {identifier}. "
            f"Upload it (allen2022-surface upload), or set {RELEASE_VARIABLE} to a release."
        )
    dataset = artifacts[identifier]
    return DatasetFiles(
        dataset.assembly,
        dataset.stimulus_csv,
        dataset.stimulus_zip,
        dataset.region_assemblies,
        has_shipped_stimuli=_has_stimuli_of(dataset, read_artifacts(SHIPPED_PATH).get(identifier)),
    )


def _has_stimuli_of(dataset: StoredDataset, shipped: StoredDataset | None) -> bool:
    """Return whether two datasets have the same stimulus table and the same images."""
    return shipped is not None and (dataset.stimulus_csv.sha1, dataset.stimulus_zip.sha1) == (
        shipped.stimulus_csv.sha1,
        shipped.stimulus_zip.sha1,
    )
