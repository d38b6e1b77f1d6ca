"""Where a dataset is loaded from: a release on disk, a folder of releases, or S3 objects that an artifacts file lists."""

from __future__ import annotations

import json
import os
import re
import reprlib
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from .artifacts import SHA1, SHIPPED_PATH, StoredDataset, StoredObject, read_artifacts
from .environment import ARTIFACTS_VARIABLE, RELEASE_VARIABLE, expanded, named_path
from .files import LocalFile, LocalFolder, read_small_file, require_file

MANIFEST_NAME = "release.json"
SPLITS = ("train", "test")
NAME = re.compile(r"\w+", re.ASCII)
REBUILD = "Build the release again."

Source: TypeAlias = str | os.PathLike[str]  # a release, a folder of releases, or an artifacts file


class SimulatedDataWarning(UserWarning):
    """Warns that a release was built from simulated files, and not from NSD's."""


@dataclass(frozen=True)
class DatasetFiles:
    """The files of one split of a dataset. Each is on this machine or an S3 object.

    Attributes
    ----------
    assembly : NetCDF file
    stimulus_table : CSV file
        The column `filename`, or in a release `image_file_name`, holds the file name of each image.
    stimuli : folder of images, or an S3 object that is a ZIP file of images
    region_assemblies : NetCDF files of single regions, by region; empty for a release
    has_shipped_stimuli : whether the stimulus table and the images are those that the shipped artifacts file lists
    """

    assembly: LocalFile | StoredObject
    stimulus_table: LocalFile | StoredObject
    stimuli: LocalFolder | StoredObject
    region_assemblies: dict[str, StoredObject] = field(default_factory=dict)
    has_shipped_stimuli: bool = False


def default_source() -> Path:
    """Return the source that the environment variables name: a folder of releases, or else an artifacts file.

    Raises
    ------
    FileNotFoundError
        If the folder or file does not exist.
    ValueError
        If a variable names the home folder of a user who does not exist.
    """
    path = named_path(RELEASE_VARIABLE)
    if path is None:
        return default_artifacts_path()
    if not path.is_dir():
        raise FileNotFoundError(
            f"{RELEASE_VARIABLE} is {path}, which is not a folder. Set it to a release, or unset it to load from S3."
        )
    return path


def default_artifacts_path() -> Path:
    """Return the artifacts file that the environment variable names, or the file that ships with this plugin.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If the variable names the home folder of a user who does not exist.
    """
    path = named_path(ARTIFACTS_VARIABLE)
    if path is None:
        return SHIPPED_PATH
    if not path.is_file():
        raise FileNotFoundError(
            f"{ARTIFACTS_VARIABLE} is {path}, which is not a file. Set it to a file that `allen2022-surface upload` "
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
        If there is no such split, or if the source holds two releases of that name, or is damaged.
    """
    if split not in SPLITS:
        raise ValueError(f"The split is {split!r}, expected one of {', '.join(SPLITS)}.")
    path = expanded(source, "The source")
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
    if path.exists():
        raise ValueError(f"{path} is neither a folder nor a regular file, expected a release or an artifacts file.")
    raise FileNotFoundError(f"{path} does not exist, expected a release, a folder of releases or an artifacts file.")


def _warn_of_simulation(place: object) -> None:
    message = f"{place} holds simulated data, not the responses of people. Use it only to try the code."
    warnings.warn(message, SimulatedDataWarning, stacklevel=4)  # where the loader was called


@dataclass(frozen=True)
class _FileRecord:
    """Size in bytes and SHA-1 in hexadecimal of a file of a release."""

    size: int
    sha1: str


@dataclass(frozen=True)
class _Release:
    """A release and the parts of its manifest that loading needs."""

    path: Path
    name: str
    records: dict[str, _FileRecord]  # by file name
    is_simulated: bool

    def files(self, split: str) -> DatasetFiles:
        """Return the files of a split, after a check of the sizes of its assembly and its stimulus table."""
        folder = f"stimuli_{split}"
        return DatasetFiles(
            assembly=self._sized_file(f"{self.name}_{split}.nc"),
            stimulus_table=self._sized_file(f"stimulus_metadata_{split}.csv"),
            stimuli=LocalFolder(
                self.path / folder,
                {
                    name.removeprefix(f"{folder}/"): record.sha1
                    for name, record in self.records.items()
                    if name.startswith(f"{folder}/")
                },
            ),
        )

    def _sized_file(self, file_name: str) -> LocalFile:
        path = self.path / file_name
        if file_name not in self.records:
            raise ValueError(f"{self.path / MANIFEST_NAME} does not list {file_name}. {REBUILD}")
        require_file(path, REBUILD)
        actual, expected = path.stat().st_size, self.records[file_name].size
        if actual != expected:
            raise ValueError(f"{path} has {actual:,} bytes, expected {expected:,}. {REBUILD}")
        return LocalFile(path, self.records[file_name].sha1)


def _find_release(name: str, folder: Path) -> _Release:
    """Find the only release of a name: the folder itself or one of its subfolders."""
    releases = [_read_release(path) for path in list_releases(folder)]
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


def list_releases(folder: Path) -> list[Path]:
    """List the releases in a folder: the folder itself, and those of its subfolders that are not hidden."""
    paths = sorted(path for path in folder.iterdir() if not path.name.startswith(".") and _holds_manifest(path))
    return [folder, *paths] if (folder / MANIFEST_NAME).exists() else paths


def _holds_manifest(path: Path) -> bool:
    """Return whether a path is that of a release. Some folders, such as lost+found, may not be looked into."""
    try:
        return path.is_dir() and (path / MANIFEST_NAME).exists()
    except PermissionError:
        return False


def describe_release(path: Path) -> tuple[str, bool]:
    """Return the name of a release, and whether it is simulated.

    Raises
    ------
    ValueError
        If its manifest is damaged.
    """
    release = _read_release(path)
    return release.name, release.is_simulated


def _read_release(path: Path) -> _Release:
    manifest_path = path / MANIFEST_NAME
    content = read_small_file(manifest_path, REBUILD)
    try:
        match json.loads(content.decode()):
            case {"name": str(name), "files": dict(files), **others}:
                records = {file_name: _record(record) for file_name, record in files.items()}
                return _Release(path, _name(name), records, _flag(others.get("simulated", False)))
        raise ValueError("it must have a name and files")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{manifest_path} is damaged ({error}). {REBUILD}") from error


def _name(name: str) -> str:
    if not NAME.fullmatch(name):
        raise ValueError(f"its name must have letters, digits and _ only, but is {reprlib.repr(name)}")
    return name


def _record(record: object) -> _FileRecord:
    match record:
        case {"size": int(size), "sha1": str(sha1)} if SHA1.fullmatch(sha1):
            return _FileRecord(size, sha1)
    raise ValueError(f"each of its files must have a size in bytes and a SHA-1, but got {reprlib.repr(record)}")


def _flag(simulated: object) -> bool:
    if not isinstance(simulated, bool):
        raise ValueError(f"simulated must be true or false, but got {reprlib.repr(simulated)}")
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
