"""The brainio objects of a release, as S3 holds them: an assembly, a stimulus table and a ZIP of images for each split.

The same release gives the same bytes, on any day and under any hash seed.
"""

from __future__ import annotations

import csv
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from ..atomic import sha1_of
from ..errors import PackagingError
from ..release import SPLITS, Manifest, ReleaseFolder

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
    identifier : of the dataset, such as "Allen2022_fmri_surface.train"
    name : of the object, without the prefix
    sha1 : of the file, in hexadecimal
    """

    identifier: str
    kind: Kind
    name: str
    path: Path
    size: int
    sha1: str


def make_objects(release_path: Path, folder: Path) -> list[BrainioObject]:
    """List the objects of a release, stimulus sets first. Tables and ZIPs are written to `folder`.

    Raises
    ------
    PackagingError
        If `release_path` is not a release, or a file of it is missing.
    """
    release = ReleaseFolder(release_path)
    manifest = Manifest.read(release)
    stimuli, assemblies = [], []
    for split in SPLITS:
        identifier = f"{manifest.name}.{split}"
        try:
            stimuli += _make_stimulus_objects(release, split, identifier, folder)
            path = release.assembly_path(manifest.name, split)
            sha1 = manifest.files[release.file_name(path)].sha1
        except (FileNotFoundError, KeyError) as error:
            missing = getattr(error, "filename", None) or error
            raise PackagingError(f"{release} is incomplete: {missing} is missing. Build it again.") from error
        assemblies.append(_describe(identifier, "assembly", path, sha1))
    return stimuli + assemblies


def object_name(identifier: str, kind: Kind) -> str:
    """Return the name of an object under which brainio's loaders look for it."""
    prefix, suffix = NAME_PARTS[kind]
    return f"{prefix}_{identifier.replace('.', '_')}.{suffix}"


def write_stimulus_table(table_path: Path, path: Path) -> list[str]:
    """Write a release's stimulus table with brainio's column `filename` after `stimulus_id`.

    Returns
    -------
    the file names, in order
    """
    with (
        table_path.open(newline="", encoding="utf-8") as source,
        path.open("w", newline="", encoding="utf-8") as target,
    ):
        rows = csv.DictReader(source)
        columns = list(rows.fieldnames or ())
        writer = csv.DictWriter(target, [columns[0], "filename", *columns[1:]], lineterminator="\n")
        writer.writeheader()
        names = []
        for row in rows:
            names.append(row["image_file_name"])
            writer.writerow(row | {"filename": row["image_file_name"]})
    return names


def write_stimulus_zip(stimuli_path: Path, names: list[str], path: Path) -> None:
    """Write a flat ZIP of images in the order of `names`, without times, owners or compression.

    The images are compressed already.
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name in names:
            entry = zipfile.ZipInfo(name, EARLIEST_ZIP_TIME)
            entry.create_system = UNIX
            entry.external_attr = REGULAR_FILE
            archive.writestr(entry, (stimuli_path / name).read_bytes())


def _make_stimulus_objects(release: ReleaseFolder, split: str, identifier: str, folder: Path) -> list[BrainioObject]:
    table_path = folder / object_name(identifier, "stimulus_csv")
    zip_path = folder / object_name(identifier, "stimulus_zip")
    names = write_stimulus_table(release.stimulus_table_path(split), table_path)
    write_stimulus_zip(release.stimuli_path(split), names, zip_path)
    return [
        _describe(identifier, "stimulus_csv", table_path, sha1_of(table_path)),
        _describe(identifier, "stimulus_zip", zip_path, sha1_of(zip_path)),
    ]


def _describe(identifier: str, kind: Kind, path: Path, sha1: str) -> BrainioObject:
    return BrainioObject(identifier, kind, object_name(identifier, kind), path, path.stat().st_size, sha1)
