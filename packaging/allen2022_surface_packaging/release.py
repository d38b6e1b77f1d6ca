"""A release on disk: where each of its files lies, what its assemblies look like, and its manifest `release.json`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Self, TypeAlias

import msgspec
import numpy as np
import pandas as pd

from . import __version__
from .arrays import IntArray
from .errors import PackagingError, one_line
from .facts import N_REPETITIONS, stimulus_name, subject_name
from .files import end_replacement, read_file, sha1_of
from .recipe import REGION_NAME_PATTERN, Recipe, find_fault

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
FORMAT_NAMES = {"png": "PNG", "jpg": "JPEG"}  # the image formats of a release, as Pillow names them
LARGEST_NUMBER = 2**63 - 1  # of NumPy
LONGEST_TEXT = 300  # of a part of a message

Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=LARGEST_NUMBER)]
PositiveCount: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=LARGEST_NUMBER)]
Sha1: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{40}\Z")]
ImageFormat: TypeAlias = Annotated[str, msgspec.Meta(pattern=rf"\A({'|'.join(FORMAT_NAMES)})\Z")]
RegionName: TypeAlias = Annotated[str, msgspec.Meta(pattern=REGION_NAME_PATTERN)]


class ReleaseFolder:
    """The folder of a release. Every path in a release comes from here.

    Attributes
    ----------
    split_path : the table of all images with their split
    origin_path : the table of where the images come from; a release may lack it
    verification_path, report_path : what `verify` and `report` write; they are not part of the release
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest_path = path / "release.json"
        self.split_path = path / "train_test_split.csv"
        self.origin_path = path / "stimulus_origin.csv"
        self.verification_path = path / "verify.json"
        self.report_path = path / "report.html"

    def __str__(self) -> str:
        return str(self.path)

    def assembly_path(self, name: str, split: str) -> Path:
        """Return the assembly of a split; `name` is that of the release."""
        return self.path / f"{name}_{split}.nc"

    def stimulus_table_path(self, split: str) -> Path:
        """Return the stimulus table of a split."""
        return self.path / f"stimulus_metadata_{split}.csv"

    def stimuli_path(self, split: str) -> Path:
        """Return the folder of the images of a split."""
        return self.path / f"stimuli_{split}"

    def last_written(self, names: Iterable[str]) -> int:
        """Return when the last of some files was written, in nanoseconds; files that are missing are left out."""
        paths = [self.path / name for name in names]
        return max((path.stat().st_mtime_ns for path in paths if path.is_file()), default=0)


@dataclass(frozen=True)
class FileRecord:
    """Size in bytes and SHA-1 in hexadecimal of a file."""

    size: Count
    sha1: Sha1


@dataclass(frozen=True)
class FilledCounts:
    """How many values of one region of one subject were NaN, per split, and in how many neuroids."""

    train: Count
    test: Count
    neuroids: Count


@dataclass(frozen=True)
class ReleasedRegion:
    """A region as it is in a release: the recipe's names of labels and `each` are resolved.

    Attributes
    ----------
    labels : numbers, ascending; empty for the whole cortex
    n_vertices : in both hemispheres of each subject, by its name, before invalid ones are dropped; 0 if it lacks the region
    """

    name: RegionName
    atlas: str
    labels: tuple[int, ...]
    n_vertices: dict[str, Count]


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
    image_format: ImageFormat
    from_region_assemblies: bool
    n_vertices: PositiveCount
    n_trials_per_session: PositiveCount
    sessions: dict[str, PositiveCount]
    shapes: dict[str, tuple[PositiveCount, PositiveCount, PositiveCount]]
    nan_counts: dict[str, dict[str, FilledCounts]]
    inputs: dict[str, Count]
    versions: dict[str, str]
    files: dict[str, FileRecord]
    simulated: bool = False

    @classmethod
    def read(cls, folder: ReleaseFolder) -> Self:
        """Read the manifest of a release.

        Raises
        ------
        PackagingError
            If the folder holds no manifest, or one that is damaged or contradicts itself.
        """
        path = folder.manifest_path
        if not path.exists():
            raise PackagingError(f"{folder} is not a release: it holds no {path.name}. Build one first.")
        content = read_file(path)
        try:
            manifest = msgspec.json.decode(content.decode(), type=cls)
            for key, found, is_right, expected in _checks(manifest):
                if not is_right:
                    raise ValueError(f"{key} is {found!r:.{LONGEST_TEXT}}, expected {expected:.{LONGEST_TEXT}}")
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:  # a UnicodeDecodeError is a ValueError
            advice = "Build the release again."
            writer = re.search(rb'"brainscore_allen2022_surface": *"([\w.+-]+)"', content)
            if writer and writer[1] != __version__.encode():
                advice = f"It was built by version {writer[1].decode()} of this package, and this is {__version__}: install that."
            raise PackagingError(f"{path} is damaged ({one_line(error)}). {advice}") from error
        return manifest

    def write(self, folder: ReleaseFolder) -> None:
        """Write the manifest into a release."""
        content = asdict(self)
        for key in ("description", "source"):  # not needed to make the release again, and a path of this machine
            del content["recipe"][key]
        text = json.dumps(content, indent=1)
        folder.manifest_path.write_text(f"{text}\n", encoding="utf-8")


def _checks(manifest: Manifest) -> Iterator[tuple[str, object, bool, str]]:
    """Yield the parts of a manifest that could contradict others: the key, the value, whether it is right, what is expected.

    Nothing here looks at other files: `verify` compares the manifest with them.
    """
    recipe, regions = manifest.recipe, [region.name for region in manifest.regions]
    yield "name", manifest.name, manifest.name == recipe.name, f"{recipe.name!r}, the name of the recipe"
    yield "recipe", find_fault(recipe), find_fault(recipe) is None, "one that can be built"
    yield "regions", regions, 0 < len(regions) == len(set(regions)), "every name once"
    subjects = list(map(subject_name, recipe.subjects))
    for table, found, expected in (
        ("sessions", list(manifest.sessions), subjects),
        ("shapes", list(manifest.shapes), list(SPLITS)),
        ("nan_counts", list(manifest.nan_counts), subjects),
        *((f"n_vertices of {region.name}", list(region.n_vertices), subjects) for region in manifest.regions),
        *((f"nan_counts of {subject}", list(counts), regions) for subject, counts in manifest.nan_counts.items()),
    ):
        yield f"the keys of {table}", found, sorted(found) == sorted(expected), str(expected)
    train, test = (manifest.shapes[split] for split in SPLITS)
    is_right = train[1:] == test[1:] and test[2] == 1 and test[0] % N_REPETITIONS == 0
    expected_shapes = f"equal neuroids, one time bin, {N_REPETITIONS} presentations of each test image"
    yield "shapes", manifest.shapes, is_right, expected_shapes
    folder = ReleaseFolder(Path())
    required = [folder.split_path, *map(folder.stimulus_table_path, SPLITS)]
    required += [folder.assembly_path(manifest.name, split) for split in SPLITS]
    missing = [str(path) for path in required if str(path) not in manifest.files]
    yield "files", f"without {', '.join(missing)}", not missing, "the size and SHA-1 of every file"


def refuse_existing(path: Path, *, overwrite: bool) -> None:
    """Raise a `PackagingError` if writing a release to `path` would lose something.

    A release that lost its name to a killed process gets it back first.
    """
    end_replacement(path)
    if not path.exists():
        return
    if not overwrite:
        raise PackagingError(f"{path} exists already. Remove it, choose another folder, or add --overwrite.")
    manifest_path = ReleaseFolder(path).manifest_path
    if not manifest_path.is_file():
        raise PackagingError(
            f"{path} is not a release: --overwrite replaces only a folder that holds a {manifest_path.name}."
        )


def record_files(folder: ReleaseFolder, paths: Iterable[Path]) -> dict[str, FileRecord]:
    """Return size and SHA-1 of some files of a release, by their paths in the release, sorted."""
    return {
        str(path.relative_to(folder.path)): FileRecord(path.stat().st_size, sha1_of(path)) for path in sorted(paths)
    }


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
