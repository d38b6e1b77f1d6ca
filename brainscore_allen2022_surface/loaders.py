"""Assemblies and stimulus sets as Brain-Score uses them, from a release on disk or from S3."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from ast import literal_eval
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias
from zipfile import BadZipFile, ZipFile

import netCDF4
import numpy as np
import pandas as pd
import xarray as xr
from brainscore_core.supported_data_standards.brainio.assemblies import BRAINIO_CHUNKS, NeuroidAssembly
from brainscore_core.supported_data_standards.brainio.fetch import fetch_file, get_local_data_path
from brainscore_core.supported_data_standards.brainio.stimuli import StimulusSet

RELEASE_VARIABLE = "BRAINSCORE_ALLEN2022_SURFACE_DIR"
ARTIFACTS_VARIABLE = "BRAINSCORE_ALLEN2022_SURFACE_ARTIFACTS"
SHIPPED_ARTIFACTS_PATH = Path(__file__).with_name("artifacts.json")
SPLITS = ("train", "test")
KINDS = ("assembly", "stimulus_csv", "stimulus_zip")  # of the objects of a split
SEPARATOR = "--"  # Brain-Score's own, between a registered identifier and what is added to it
N_MARKER_DIGITS = 8
ADVICE = "Build the release again, or upload it again."
SYSTEM_ADVICE = "Look at its permissions and the disk."
# What pandas, xarray, netCDF4 and zipfile raise for damaged files.
READ_ERRORS = (AttributeError, BadZipFile, LookupError, OSError, RuntimeError, TypeError, ValueError)

Source: TypeAlias = str | os.PathLike[str]  # a release, a folder of releases, or an artifacts file


class SimulatedDataWarning(UserWarning):
    """Warns that a release was built from simulated files, and not from NSD's."""


@dataclass(frozen=True)
class StoredObject:
    """One version of an S3 object, as `artifacts.json` lists it. The size is in bytes, the SHA-1 in hexadecimal."""

    bucket: str
    key: str
    version_id: str
    sha1: str
    size: int | None = None
    shape: list[int] | None = None
    simulated: bool = False

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key} (version {self.version_id})"

    @property
    def cached_path(self) -> Path:
        """Where brainscore_core keeps the object once it is downloaded."""
        return Path(get_local_data_path(), self.sha1, PurePosixPath(self.key).name)


@dataclass(frozen=True)
class Dataset:
    """The files of one split, each on this machine or an S3 object.

    Attributes
    ----------
    assembly : NetCDF file of the whole split, or of one region
    stimulus_table : CSV file
    stimuli : folder of images on this machine, or an S3 object that is a ZIP file of images
    is_shipped : whether the stimuli are those that the shipped artifacts file lists
    """

    assembly: Path | StoredObject
    stimulus_table: Path | StoredObject
    stimuli: Path | StoredObject
    is_shipped: bool
    is_simulated: bool


def load_assembly(name: str, split: str, region: str | None = None, *, source: Source | None = None) -> NeuroidAssembly:
    """Load the responses of a split, with their stimulus set attached.

    Parameters
    ----------
    name : "Allen2022_fmri_surface", "Allen2022_fmri_surface_4subj", or the name of another release
    split : "train" or "test"
    region : "V1", "V2", "V4" or "IT", optional
        Only this region is read. From S3, only this region is downloaded if it has an object of its own.
    source : path, optional
        A release, a folder of releases, or an artifacts file. By default, the source that the environment variables
        ``BRAINSCORE_ALLEN2022_SURFACE_DIR`` and ``BRAINSCORE_ALLEN2022_SURFACE_ARTIFACTS`` name, or else the published data.

    Returns
    -------
    NeuroidAssembly of shape (n_presentations, n_neuroids, 1)
        float32, unitless: z-scored per session and then per vertex over images. Values that were NaN are 0. Loaded
        eagerly, because Brain-Score's ceilings take minutes on lazy arrays. If ``BRAINIO_CHUNKS`` is set, the assembly is
        lazy, with these chunks.

    Raises
    ------
    FileNotFoundError
        If the source or a file in it does not exist, or the source does not hold the dataset.
    ConnectionError
        If a download fails.
    ValueError
        If there is no such split, the assembly has no such region, or a file is damaged.
    """
    dataset = find_dataset(name, split, region, source)
    stimulus_set = _read_stimulus_set(dataset, f"{name}.{split}")
    path = _local_path(dataset.assembly)
    chunks = literal_eval(os.environ.get(BRAINIO_CHUNKS) or "None")
    with _explained(path):
        responses = _open_assembly(path, chunks)
        regions = responses["region"].values
    if region and region not in regions:
        others = ", ".join(sorted(set(regions)))
        raise ValueError(f"{path} has no neuroid of region {region}, only of {others}. Choose one of these.")
    with _explained(path):
        if region:
            responses = responses[:, np.flatnonzero(regions == region)]
        if chunks is None:
            responses.load().close()
        # Brain-Score merges the columns of the stimulus set into every assembly that it loads.
        rows = pd.DataFrame(stimulus_set).set_index("stimulus_id").loc[responses["stimulus_id"].values]
        columns = {
            column: ("presentation", rows[column].to_numpy()) for column in rows if column not in responses.coords
        }
        assembly = NeuroidAssembly(responses.assign_coords(columns))
    assembly.attrs["identifier"] = f"{name}.{region}.{split}" if region else f"{name}.{split}"
    assembly.attrs["stimulus_set_identifier"] = stimulus_set.identifier
    assembly.attrs["stimulus_set"] = stimulus_set
    return assembly


def load_stimulus_set(name: str, split: str, *, source: Source | None = None) -> StimulusSet:
    """Load the stimulus set of a split. The assembly is not downloaded.

    Parameters
    ----------
    name, split, source
        As in `load_assembly`.

    Returns
    -------
    StimulusSet
        One row per image. `get_stimulus(stimulus_id)` returns the path of an image. The identifier is ``NAME.SPLIT`` for the
        images that the shipped artifacts file lists, and ``NAME.SPLIT--MARKER`` for any others. The marker is a hash of
        the image files: Brain-Score caches converted images and activations by the identifier.

    Raises
    ------
    FileNotFoundError, ConnectionError, ValueError
        As `load_assembly`.
    """
    return _read_stimulus_set(find_dataset(name, split, source=source), f"{name}.{split}")


def find_dataset(name: str, split: str, region: str | None = None, source: Source | None = None) -> Dataset:
    """Find the files of a split. Only small JSON files are read, and nothing is downloaded.

    Parameters and errors are those of `load_assembly`. Simulated data gives a `SimulatedDataWarning`.
    """
    if split not in SPLITS:
        raise ValueError(f"The split is {split!r}, expected one of {', '.join(SPLITS)}.")
    path = default_source() if source is None else Path(source).expanduser()
    if not path.exists():
        raise FileNotFoundError(
            f"{path} does not exist, expected a release, a folder of releases or an artifacts file. Is {RELEASE_VARIABLE} or "
            f"{ARTIFACTS_VARIABLE} set to it?"
        )
    dataset = _find_in_folder(name, split, path) if path.is_dir() else _find_objects(name, split, region, path)
    if dataset.is_simulated:
        message = f"{path} holds simulated data, not the responses of people. Use it only to try the code."
        warnings.warn(message, SimulatedDataWarning, stacklevel=3)  # where the loader was called
    return dataset


def default_source() -> Path:
    """Return the folder or the artifacts file that an environment variable names, or else the shipped artifacts file."""
    named = os.environ.get(RELEASE_VARIABLE) or os.environ.get(ARTIFACTS_VARIABLE)
    return Path(named).expanduser() if named else SHIPPED_ARTIFACTS_PATH


def read_artifacts(path: Path) -> dict[str, dict[str, StoredObject]]:
    """Return the objects of each identifier in an artifacts file: `assembly`, and of a whole split the table and images."""
    with _explained(path):
        entries = json.loads(path.read_bytes()).items()
        return {name: {kind: StoredObject(**stored) for kind, stored in entry.items()} for name, entry in entries}


def _find_in_folder(name: str, split: str, folder: Path) -> Dataset:
    """Find a split in a release, or in one of the releases in a folder."""
    manifests: dict[str, list[tuple[Path, Any]]] = {}
    for path in (folder / "release.json", *sorted(folder.glob("[!.]*/release.json"))):
        if path.is_file():
            with _explained(path):
                manifest = json.loads(path.read_bytes())
                manifests.setdefault(manifest["name"], []).append((path.parent, manifest))
    if len(manifests.get(name, [])) != 1:
        found = ", ".join(f"{other} ({len(releases)})" for other, releases in sorted(manifests.items()))
        raise FileNotFoundError(
            f"{folder} holds {found or 'no release'}, expected {name} once. Build it (allen2022-surface build), set "
            f"{RELEASE_VARIABLE} to another folder, or unset it to load from S3."
        )
    ((release, manifest),) = manifests[name]
    assembly, table = release / f"{name}_{split}.nc", release / f"stimulus_metadata_{split}.csv"
    for path in (assembly, table):
        with _explained(path):  # `verify` compares the SHA-1 of every file
            n_bytes, n_expected_bytes = path.stat().st_size, manifest["files"][path.name]["size"]
            if n_bytes != n_expected_bytes:
                raise ValueError(f"it has {n_bytes:,} bytes, expected {n_expected_bytes:,} as in release.json")
    return Dataset(assembly, table, release / f"stimuli_{split}", False, manifest.get("simulated", False))


def _find_objects(name: str, split: str, region: str | None, path: Path) -> Dataset:
    """Find the S3 objects of a split, or of a region of it, in an artifacts file."""
    artifacts, identifier = read_artifacts(path), f"{name}.{split}"
    if identifier not in artifacts:
        raise FileNotFoundError(
            f"{path} lists {', '.join(sorted(artifacts)) or 'nothing'}, expected {identifier}. "
            f"Upload it (allen2022-surface upload), or set {RELEASE_VARIABLE} to a release."
        )
    with _explained(path):
        whole, table, images = (artifacts[identifier][kind] for kind in KINDS)
    assembly = artifacts.get(f"{name}.{region}.{split}", {}).get("assembly", whole)
    if whole.cached_path.is_file() and not assembly.cached_path.is_file():
        assembly = whole  # nothing has to be downloaded
    shipped = read_artifacts(SHIPPED_ARTIFACTS_PATH).get(identifier, {})
    is_shipped = [table.sha1, images.sha1] == [shipped[kind].sha1 for kind in KINDS[1:] if kind in shipped]
    return Dataset(assembly, table, images, is_shipped, whole.simulated)


def _local_path(file: Path | StoredObject) -> Path:
    """Return the path of a file on this machine. An object is downloaded first, and once more if its SHA-1 is wrong."""
    if isinstance(file, Path):
        return file
    address = f"https://{file.bucket}.s3.amazonaws.com/{file.key}"
    try:
        with suppress(ValueError):
            return Path(fetch_file("S3", address, sha1=file.sha1, version_id=file.version_id))
        file.cached_path.unlink(missing_ok=True)
        return Path(fetch_file("S3", address, sha1=file.sha1, version_id=file.version_id))
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} cannot be kept as {file.cached_path}: {error}. {ADVICE}") from error
    except Exception as error:  # brainscore_core raises this class, with the errors of both attempts
        raise ConnectionError(
            f"{file} could not be downloaded: {' '.join(str(error).split())}. Check the network and your AWS credentials, or "
            f"set {RELEASE_VARIABLE} to a release on disk."
        ) from None  # the line holds both errors, whose tracebacks fill pages


def _extracted(zip_path: Path) -> Path:
    """Return the folder of the files of a ZIP file, where brainscore_core has it. Other processes may do the same."""
    folder = zip_path.with_suffix("")
    with ZipFile(zip_path) as archive:
        for entry in archive.infolist():
            path = folder / entry.filename
            if not path.exists() or (path.is_file() and path.stat().st_size != entry.file_size):
                with TemporaryDirectory(dir=zip_path.parent, prefix=".") as temporary:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Path(archive.extract(entry, temporary)).replace(path)
    return folder


def _read_stimulus_set(dataset: Dataset, key: str) -> StimulusSet:
    """Read a stimulus set, and give its identifier a marker unless its images are those that ship."""
    table_path, folder = _local_path(dataset.stimulus_table), _local_path(dataset.stimuli)
    with _explained(folder):
        folder = _extracted(folder) if isinstance(dataset.stimuli, StoredObject) else folder
    with _explained(table_path):
        table = pd.read_csv(table_path)
        if "filename" not in table:  # brainio needs it; the table of a release has only image_file_name
            table.insert(1, "filename", table["image_file_name"])
        if table.isna().any(axis=None):  # Brain-Score groups presentations by all columns, and NaN differs from itself
            raise ValueError("it has empty cells")
        stimulus_set = StimulusSet(table)
        paths = map(folder.joinpath, table["filename"])
        stimulus_set.stimulus_paths = dict(zip(table["stimulus_id"], paths, strict=True))
    missing = [path for path in stimulus_set.stimulus_paths.values() if not path.is_file()]
    if missing:
        raise FileNotFoundError(f"{missing[0]} and {len(missing) - 1} more images of {key} are missing. {ADVICE}")
    stimulus_set.identifier = key
    if not dataset.is_shipped:
        digest = hashlib.sha1()
        for stimulus_id, path in sorted(stimulus_set.stimulus_paths.items()):
            digest.update(f"{stimulus_id} {hashlib.sha1(path.read_bytes()).hexdigest()}\n".encode())
        stimulus_set.identifier += f"{SEPARATOR}{digest.hexdigest()[:N_MARKER_DIGITS]}"
    return stimulus_set


def _open_assembly(path: Path, chunks: dict[str, int] | None) -> xr.DataArray:
    """Open an assembly. A file is read whole where the HDF5 library opens none: without locks, or if a path is not in UTF-8."""
    try:
        assembly: xr.DataArray = xr.open_dataarray(path, chunks=chunks)
    except (OSError, UnicodeEncodeError):
        file = netCDF4.Dataset(path.name, memory=path.read_bytes())
        assembly = xr.open_dataarray(xr.backends.NetCDF4DataStore(file), chunks=chunks)
    return assembly


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn what a damaged file raises into a ValueError of one line that names the file."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error.filename or path} is missing. {ADVICE}") from error
    except READ_ERRORS as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        is_of_system = isinstance(error, OSError) and (error.errno or 0) > 0  # those of NetCDF are negative
        raise ValueError(f"{path} cannot be read: {reason}. {SYSTEM_ADVICE if is_of_system else ADVICE}") from error
