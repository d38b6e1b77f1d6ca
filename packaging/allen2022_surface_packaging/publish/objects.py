"""The brainio objects of a release, as S3 holds them.

Each split has an assembly, a stimulus table and a ZIP of images. A release of several regions also has an assembly of each
region of each split, so that a loader fetches only what it needs; the only region of a release is the whole.

The same release gives the same bytes, on any day and under any hash seed.
"""

from __future__ import annotations

import csv
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from ..errors import PackagingError, one_line
from ..files import naming, read_file, sha1_of
from ..release import SPLITS, Manifest, ReleaseFolder
from ..verify.soundness import verify_release
from .regions import RegionSlice, list_regions, write_region

Kind: TypeAlias = Literal["assembly", "stimulus_csv", "stimulus_zip"]

NAME_PARTS: dict[Kind, tuple[str, str]] = {
    "assembly": ("assy", "nc"),
    "stimulus_csv": ("stimulus", "csv"),
    "stimulus_zip": ("stimulus", "zip"),
}
EARLIEST_ZIP_TIME = (1980, 1, 1, 0, 0, 0)
REGULAR_FILE = 0o100644 << 16
UNIX = 3


@dataclass(frozen=True)
class BrainioObject:
    """A file that becomes an S3 object.

    Attributes
    ----------
    identifier : of the dataset, such as "Allen2022_fmri_surface.train" or "Allen2022_fmri_surface.V4.train"
    name : of the object, without the prefix
    path : of the file
    sha1 : of the file, in hexadecimal
    shape : of an assembly
    """

    identifier: str
    kind: Kind
    name: str
    path: Path
    size: int
    sha1: str
    shape: tuple[int, int, int] | None = None


def read_manifest(release: ReleaseFolder, *, allow_simulated: bool = False) -> Manifest:
    """Read the manifest of a release that is to be published.

    Raises
    ------
    PackagingError
        If the folder is not a release, holds anything but files and folders, or its data is simulated.
    """
    _refuse_special_files(release)
    manifest = Manifest.read(release)
    if manifest.simulated and not allow_simulated:
        raise PackagingError(
            f"{release} was built from a simulated tree, so it is not published. Build a release from NSD's files."
        )
    return manifest


def _refuse_special_files(release: ReleaseFolder) -> None:
    """Raise a `PackagingError` for a FIFO, socket or device: whoever opens it may wait for it for good."""
    for path in release.path.rglob("*"):
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise PackagingError(
                f"{path} is neither a regular file nor a folder. Remove it, or build the release again."
            )


def require_sound(release: ReleaseFolder) -> None:
    """Raise a `PackagingError` if `verify` finds a problem. What reads the release afterwards need not check its files."""
    problems = verify_release(release.path)
    if problems:
        raise PackagingError(f"{release} is not sound, so it is not published: {problems[0]}")


def make_objects(release: ReleaseFolder, manifest: Manifest, folder: Path) -> list[BrainioObject]:
    """List the objects of a release: stimulus sets, then assemblies, then regions.

    Tables, ZIPs and regions are written to `folder`, and assemblies are those of the release. The regions together are as
    large as the assemblies.

    Raises
    ------
    PackagingError
        If a file of the release is missing or damaged.
    """
    stimuli, assemblies, regions = [], [], []
    try:
        for split in SPLITS:
            identifier = f"{manifest.name}.{split}"
            stimuli += _make_stimulus_objects(release, split, identifier, folder)
            path = release.assembly_path(manifest.name, split)
            sha1, shape = manifest.files[release.file_name(path)].sha1, manifest.shapes[split]
            assemblies.append(_describe(identifier, "assembly", path, sha1, shape))
            slices = list_regions(path)
            if len(slices) > 1:
                regions += [_make_region(region, manifest.name, split, shape, folder) for region in slices]
    except (FileNotFoundError, KeyError) as error:
        missing = getattr(error, "filename", None) or error
        raise PackagingError(f"{release} is incomplete: {missing} is missing. Build it again.") from error
    return stimuli + assemblies + regions


def object_name(identifier: str, kind: Kind) -> str:
    """Return the name of an object under which brainio's loaders look for it."""
    prefix, suffix = NAME_PARTS[kind]
    return f"{prefix}_{identifier.replace('.', '_')}.{suffix}"


def write_stimulus_table(table_path: Path, path: Path) -> list[str]:
    """Write a release's stimulus table with brainio's column `filename` after `stimulus_id`.

    Returns
    -------
    the file names, in order

    Raises
    ------
    PackagingError
        If the table is damaged.
    """
    try:
        reader = csv.DictReader(io.StringIO(read_file(table_path).decode(), newline=""), strict=True)
        rows, columns = list(reader), list(reader.fieldnames or ())
    except (UnicodeDecodeError, csv.Error) as error:
        raise PackagingError(f"{table_path} is damaged ({one_line(error)}). Build the release again.") from error
    names = [str(row.get("image_file_name") or "") for row in rows]
    faults = [name for name in names if Path(name).name != name or name in ("", "..")]
    if faults or not names or len(set(names)) < len(names) or any(None in row for row in rows):
        raise PackagingError(
            f"{table_path} is damaged, expected one image file in each row, in the column image_file_name. "
            "Build the release again."
        )
    with naming(path), path.open("w", newline="", encoding="utf-8") as target:
        writer = csv.DictWriter(target, [columns[0], "filename", *columns[1:]], lineterminator="\n")
        writer.writeheader()
        writer.writerows(row | {"filename": name} for row, name in zip(rows, names, strict=True))
    return names


def write_stimulus_zip(stimuli_path: Path, names: list[str], path: Path) -> None:
    """Write a flat ZIP of images in the order of `names`, without times, owners or compression.

    The images are compressed already.
    """
    with naming(path), zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name in names:
            entry = zipfile.ZipInfo(name, EARLIEST_ZIP_TIME)
            entry.create_system = UNIX
            entry.external_attr = REGULAR_FILE
            archive.writestr(entry, read_file(stimuli_path / name))


def _make_stimulus_objects(release: ReleaseFolder, split: str, identifier: str, folder: Path) -> list[BrainioObject]:
    table_path = folder / object_name(identifier, "stimulus_csv")
    zip_path = folder / object_name(identifier, "stimulus_zip")
    names = write_stimulus_table(release.stimulus_table_path(split), table_path)
    write_stimulus_zip(release.stimuli_path(split), names, zip_path)
    return [
        _describe(identifier, "stimulus_csv", table_path, sha1_of(table_path)),
        _describe(identifier, "stimulus_zip", zip_path, sha1_of(zip_path)),
    ]


def _make_region(
    region: RegionSlice, name: str, split: str, whole_shape: tuple[int, int, int], folder: Path
) -> BrainioObject:
    identifier = f"{name}.{region.name}.{split}"
    path = folder / object_name(identifier, "assembly")
    write_region(region, path, identifier=identifier, stimulus_set_identifier=f"{name}.{split}")
    shape = (whole_shape[0], region.n_neuroids, whole_shape[2])
    return _describe(identifier, "assembly", path, sha1_of(path), shape)


def _describe(
    identifier: str, kind: Kind, path: Path, sha1: str, shape: tuple[int, int, int] | None = None
) -> BrainioObject:
    size = path.stat().st_size
    return BrainioObject(identifier, kind, object_name(identifier, kind), path, size, sha1, shape)
