"""A release on disk: where each of its files lies, what its assemblies look like, and its manifest `release.json`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Self

import msgspec
import numpy as np
import pandas as pd

from . import __version__
from .arrays import IntArray
from .atomic import sha1_of
from .errors import PackagingError, one_line
from .nsd.facts import N_REPETITIONS, stimulus_name
from .recipe import Recipe

SPLITS = ("train", "test")
DIMENSIONS = ("presentation", "neuroid", "time_bin")
NEUROID_COORDINATES = ("neuroid_id", "subject", "hemisphere", "vertex_index", "region", "nc_testset")
TIME_BIN = {"time_bin_start": [70], "time_bin_end": [170]}  # ms, Brain-Score's convention; a placeholder for fMRI
# Crop: what NSD cut off COCO's image, as fractions of its height and width.
ORIGIN_COLUMNS = (
    *("stimulus_id", "nsd_id", "coco_id", "coco_split"),
    *("crop_top", "crop_bottom", "crop_left", "crop_right"),
)
VERSIONED = ("numpy", "scipy", "nibabel", "h5py", "netCDF4", "pandas", "Pillow")  # their versions could change a byte


@dataclass(frozen=True)
class ReleaseFolder:
    """The folder of a release. Every path in a release comes from here."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    @property
    def manifest_path(self) -> Path:
        """The manifest."""
        return self.path / "release.json"

    @property
    def split_path(self) -> Path:
        """The table of all images with their split."""
        return self.path / "train_test_split.csv"

    @property
    def origin_path(self) -> Path:
        """The table of where the images come from. A release may lack it."""
        return self.path / "stimulus_origin.csv"

    @property
    def verification_path(self) -> Path:
        """What `verify` writes. It is not part of the release."""
        return self.path / "verify.json"

    @property
    def report_path(self) -> Path:
        """What `report` writes. It is not part of the release."""
        return self.path / "report.html"

    def assembly_path(self, name: str, split: str) -> Path:
        """Return the assembly of a split; `name` is that of the release."""
        return self.path / f"{name}_{split}.nc"

    def stimulus_table_path(self, split: str) -> Path:
        """Return the stimulus table of a split."""
        return self.path / f"stimulus_metadata_{split}.csv"

    def stimuli_path(self, split: str) -> Path:
        """Return the folder of the images of a split."""
        return self.path / f"stimuli_{split}"

    def files(self) -> list[Path]:
        """Return the files that belong to the release, sorted, without the manifest."""
        others = {self.manifest_path, self.verification_path, self.report_path}
        return sorted(path for path in self.path.rglob("*") if path.is_file() and path not in others)

    def file_name(self, path: Path) -> str:
        """Return the name by which the manifest lists a file."""
        return str(path.relative_to(self.path))


@dataclass(frozen=True)
class FileRecord:
    """Size in bytes and SHA-1 in hexadecimal of a file."""

    size: int
    sha1: str


@dataclass(frozen=True)
class FilledCounts:
    """How many values of one region of one subject were NaN, per split, and in how many neuroids."""

    train: int
    test: int
    neuroids: int


@dataclass(frozen=True)
class ReleasedRegion:
    """A region as it is in a release: the recipe's names of labels and `each` are resolved.

    Attributes
    ----------
    labels : numbers, ascending; empty for the whole cortex
    n_vertices : in both hemispheres of one subject, before invalid ones are dropped
    """

    name: str
    atlas: str
    labels: tuple[int, ...]
    n_vertices: int


@dataclass(frozen=True)
class Manifest:
    """`release.json`: what a release is, how it was made, and from which files.

    Attributes
    ----------
    name : of the release, as in `recipe`
    regions : in the order of the assembly
    image_format : "png" or "jpg"
    from_region_assemblies : whether the averages come from prepared region assemblies
    n_vertices : of one hemisphere
    sessions : the number of sessions of each subject, by the subject's name
    shapes : the shape of each assembly, by split
    nan_counts : by the subject's name and region
    inputs : the size in bytes of every raw file that was read, by its path in NSD's public bucket
    versions : of the packages that could change a byte
    files : every file of the release but the manifest, by its path in the release
    simulated : whether the raw files were simulated; a manifest that does not say so is of measurements
    """

    name: str
    recipe: Recipe
    regions: tuple[ReleasedRegion, ...]
    image_format: str
    from_region_assemblies: bool
    n_vertices: int
    n_trials_per_session: int
    sessions: dict[str, int]
    shapes: dict[str, tuple[int, int, int]]
    nan_counts: dict[str, dict[str, FilledCounts]]
    inputs: dict[str, int]
    versions: dict[str, str]
    files: dict[str, FileRecord]
    simulated: bool = False

    @classmethod
    def read(cls, folder: ReleaseFolder) -> Self:
        """Read the manifest of a release.

        Raises
        ------
        PackagingError
            If the folder holds no manifest, or a damaged one.
        """
        path = folder.manifest_path
        try:
            return msgspec.json.decode(path.read_bytes(), type=cls)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise PackagingError(f"{folder} is not a release: it holds no {path.name}. Build one first.") from error
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise PackagingError(f"{path} is damaged ({one_line(error)}). Build the release again.") from error

    def write(self, folder: ReleaseFolder) -> None:
        """Write the manifest into a release."""
        content = msgspec.to_builtins(self)
        for key in ("description", "source"):  # not needed to make the release again, and a path of this machine
            content["recipe"].pop(key, None)
        text = json.dumps(content, indent=1)
        folder.manifest_path.write_text(f"{text}\n", encoding="utf-8")


def refuse_existing(path: Path, *, overwrite: bool) -> None:
    """Raise a `PackagingError` if writing a release to `path` would lose something."""
    if not path.exists():
        return
    if not overwrite:
        raise PackagingError(f"{path} exists already. Remove it, choose another folder, or add --overwrite.")
    manifest_path = ReleaseFolder(path).manifest_path
    if not manifest_path.is_file():
        raise PackagingError(
            f"{path} is not a release: --overwrite replaces only a folder that holds a {manifest_path.name}."
        )


def record_files(folder: ReleaseFolder) -> dict[str, FileRecord]:
    """Return size and SHA-1 of every file of a release, by its path in the release."""
    return {folder.file_name(path): FileRecord(path.stat().st_size, sha1_of(path)) for path in folder.files()}


def installed_versions() -> dict[str, str]:
    """Return the versions of this package and of those that could change a byte of a release."""
    return {"brainscore_allen2022_surface": __version__} | {package: version(package) for package in VERSIONED}


def list_presentations(split: str, nsd_ids: IntArray) -> pd.DataFrame:
    """List the presentations of a split: one of each image for train, the three repetitions of each image for test.

    Brain-Score averages repetitions and computes ceilings over groups of all presentation coordinates, so no other
    coordinate may be added.

    Returns
    -------
    table with the presentation coordinates as columns
    """
    n_rows = N_REPETITIONS if split == "test" else 1
    table = pd.DataFrame(
        {
            "stimulus_id": [stimulus_name(nsd_id) for nsd_id in nsd_ids for _ in range(n_rows)],
            "nsd_id": np.repeat(nsd_ids, n_rows),
        }
    )
    if split == "test":
        table["repetition"] = np.tile(np.arange(N_REPETITIONS), len(nsd_ids))
    return table
