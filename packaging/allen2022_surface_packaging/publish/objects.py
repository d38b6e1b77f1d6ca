"""The brainio objects of a release, as they lie on S3: an assembly, a stimulus table and a ZIP of images for each split.

All three are the same bytes from the same release, on any day and under any hash seed.
"""

from __future__ import annotations

import csv
import zipfile
from dataclasses import dataclass
from pathlib import Path

from ..errors import PackagingError
from ..release import SPLITS, assembly_file, read_manifest, sha1_of

EARLIEST = (1980, 1, 1, 0, 0, 0)  # the first time that a ZIP can hold
REGULAR_FILE = 0o100644 << 16
UNIX = 3


@dataclass(frozen=True)
class BrainioObject:
    """A file that becomes an S3 object.

    Attributes
    ----------
    identifier : of the dataset, such as "Allen2022_fmri_surface.train"
    kind : "stimulus_csv", "stimulus_zip" or "assembly"
    name : of the object, without the prefix
    sha1 : of the file, in hexadecimal
    """

    identifier: str
    kind: str
    name: str
    path: Path
    size: int
    sha1: str


def make_objects(release_path: Path, folder: Path) -> list[BrainioObject]:
    """List the objects of a release, stimulus sets first; tables and ZIPs are written to `folder`.

    Raises
    ------
    PackagingError
        If the folder is not a release, or misses a file.
    """
    manifest = read_manifest(release_path)
    name, files = manifest["name"], manifest["files"]
    stimuli, assemblies = [], []
    for split in SPLITS:
        identifier = f"{name}.{split}"
        table_path = folder / object_name(identifier, "stimulus_csv")
        zip_path = folder / object_name(identifier, "stimulus_zip")
        try:
            image_names = write_stimulus_table(release_path / f"stimulus_metadata_{split}.csv", table_path)
            write_stimulus_zip(release_path / f"stimuli_{split}", image_names, zip_path)
            for kind, path in (("stimulus_csv", table_path), ("stimulus_zip", zip_path)):
                stimuli.append(BrainioObject(identifier, kind, path.name, path, path.stat().st_size, sha1_of(path)))
            path = release_path / assembly_file(name, split)
            assemblies.append(
                BrainioObject(
                    identifier,
                    "assembly",
                    object_name(identifier, "assembly"),
                    path,
                    path.stat().st_size,
                    files[path.name]["sha1"],
                )
            )
        except (FileNotFoundError, KeyError) as error:
            missing = getattr(error, "filename", None) or error
            raise PackagingError(f"{release_path} is not whole: {missing} is missing. Build it again.") from error
    return stimuli + assemblies


def object_name(identifier: str, kind: str) -> str:
    """Return the name that brainio gives an object, which its loaders compose anew."""
    prefix, suffix = {
        "assembly": ("assy", "nc"),
        "stimulus_csv": ("stimulus", "csv"),
        "stimulus_zip": ("stimulus", "zip"),
    }[kind]
    return f"{prefix}_{identifier.replace('.', '_')}.{suffix}"


def write_stimulus_table(table_path: Path, path: Path) -> list[str]:
    """Write a release's stimulus table with brainio's `filename` after `stimulus_id`, the other columns in their order.

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
    """Write a flat ZIP of images, in the order given, which says nothing of when and where it was made.

    Images are compressed already, so they are stored as they are.
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name in names:
            entry = zipfile.ZipInfo(name, EARLIEST)
            entry.create_system = UNIX
            entry.external_attr = REGULAR_FILE
            archive.writestr(entry, (stimuli_path / name).read_bytes())
