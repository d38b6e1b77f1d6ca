"""The way through Brain-Score's website: a release as files for its upload form, and the version ids that come back."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from ..errors import PackagingError, one_line
from ..facts import TERMS_URL
from ..files import naming, new_folder, read_file, unreplaced
from ..release import Manifest, ReleaseFolder
from .artifacts import ObjectRecord, announce_artifacts, describe_datasets, record_release
from .objects import BrainioObject, make_objects, read_manifest, require_sound
from .temporary import temporary_folder

TEMPLATE = files(__package__) / "templates" / "upload_form.md"
PAGE_NAME, TABLE_NAME = "README.md", "version_ids.csv"
COLUMNS = ("file_name", "size", "sha1", "bucket", "version_id")
QUOTA_BYTES = 5 * 10**9  # of the website, for all files of a user together


@dataclass(frozen=True)
class ReturnedVersion:
    """What the website returned for a file: a row of the table of version ids.

    Attributes
    ----------
    bucket : BUCKET or BUCKET/PREFIX
    """

    file_name: str
    size: str
    sha1: str
    bucket: str
    version_id: str


def pack_release(release_path: Path, folder: Path, *, allow_simulated: bool = False) -> None:
    """Write the objects of a release as files, with a page about the upload form and a table for the version ids.

    Parameters
    ----------
    allow_simulated : pack a simulated release as well; for tests

    Raises
    ------
    PackagingError
        If the folder exists already, or the release is simulated, not sound, or replaced meanwhile.
    """
    with unreplaced(release_path) as require_unreplaced:
        release = ReleaseFolder(release_path)
        manifest = read_manifest(release, allow_simulated=allow_simulated)
        if folder.exists():
            raise PackagingError(f"{folder} exists already. Remove it, or choose another folder.")
        require_sound(release)
        with new_folder(folder) as partial:
            objects = make_objects(release, manifest, partial)
            for item in objects:
                if item.path.parent != partial:  # a file of the release
                    with naming(partial / item.name):
                        shutil.copyfile(item.path, partial / item.name)
            _write_table(partial / TABLE_NAME, objects)
            with naming(partial / PAGE_NAME):
                (partial / PAGE_NAME).write_text(_describe_upload(manifest, objects), encoding="utf-8")
            require_unreplaced()


def record_versions(
    release_path: Path,
    table_path: Path,
    *,
    artifacts_path: Path | None = None,
    allow_simulated: bool = False,
    tell: Callable[[str], object],
) -> None:
    """Record files that were uploaded through the website in an artifacts file.

    Parameters
    ----------
    table_path : the table that `pack_release` wrote, with buckets and version ids filled in
    artifacts_path : path, optional
        By default the plugin's `artifacts.json`.
    allow_simulated : record a simulated release as well, marked as such; for tests
    tell : called with each line for the user

    Raises
    ------
    PackagingError
        If the release is simulated or not sound, or the table is not complete or is of other files.
    """
    release = ReleaseFolder(release_path)
    manifest = read_manifest(release, allow_simulated=allow_simulated)
    returned = read_table(table_path)
    artifacts_path = announce_artifacts(artifacts_path, tell)
    require_sound(release)
    with temporary_folder() as folder:
        objects = make_objects(release, manifest, folder)
    _refuse_other_files(table_path, returned, objects)
    datasets = describe_datasets(
        (item, _make_record(table_path, item, returned[item.name], simulated=manifest.simulated)) for item in objects
    )
    record_release(artifacts_path, manifest.name, datasets)
    tell(f"{artifacts_path} now lists {', '.join(datasets)}")


def read_table(path: Path) -> dict[str, ReturnedVersion]:
    """Read a table of version ids. An empty bucket is that of the row above.

    Returns
    -------
    the rows by file name

    Raises
    ------
    PackagingError
        If the file is missing or not such a table, or names a file twice.
    """
    if path.exists() and not path.is_file():
        raise PackagingError(f"{path} is not a regular file, expected the {TABLE_NAME} of `pack`.")
    try:
        text = read_file(path).decode("utf-8-sig")  # a spreadsheet may write a byte order mark
        reader = csv.DictReader(io.StringIO(text, newline=""))
        rows, columns = list(reader), reader.fieldnames or ()
    except (FileNotFoundError, UnicodeDecodeError, csv.Error) as error:
        raise PackagingError(
            f"{path} cannot be read ({one_line(error)}), expected the {TABLE_NAME} of `pack`."
        ) from error
    if set(columns) != set(COLUMNS):
        raise PackagingError(f"{path} has the columns {', '.join(columns)}, expected {', '.join(COLUMNS)}.")
    returned: dict[str, ReturnedVersion] = {}
    bucket = ""
    for row in rows:
        cells = {column: (row[column] or "").strip() for column in COLUMNS}
        bucket = cells["bucket"].removeprefix("s3://").strip("/") or bucket
        if cells["file_name"] in returned:
            raise PackagingError(f"{path} names {cells['file_name']} twice. Remove one of the rows.")
        returned[cells["file_name"]] = ReturnedVersion(**cells | {"bucket": bucket})
    return returned


def _refuse_other_files(
    table_path: Path, returned: dict[str, ReturnedVersion], objects: Sequence[BrainioObject]
) -> None:
    expected = {item.name for item in objects}
    missing, unknown = sorted(expected - set(returned)), sorted(set(returned) - expected)
    if missing:
        raise PackagingError(f"{table_path} lacks {missing[0]} ({len(missing)} files in all). Add a row for each.")
    if unknown:
        raise PackagingError(
            f"{table_path} names {unknown[0]}, which is no object of the release. Is it of another one?"
        )


def _make_record(table_path: Path, item: BrainioObject, row: ReturnedVersion, *, simulated: bool) -> ObjectRecord:
    """Check a row of the table against the release, and return the record of the object."""
    if (row.sha1.lower(), row.size) != (item.sha1, str(item.size)):
        raise PackagingError(
            f"{table_path}: {item.name} has SHA-1 {row.sha1} and {row.size} bytes, but the release gives {item.sha1} and "
            f"{item.size} bytes. Pack the release again, and upload that."
        )
    if row.version_id in ("", "null"):
        raise PackagingError(f"{table_path}: {item.name} has no version id. Fill in what the website shows.")
    bucket, _, prefix = row.bucket.partition("/")
    if not bucket:
        raise PackagingError(f"{table_path}: {item.name} has no bucket. Fill in BUCKET/PREFIX as the website shows it.")
    return ObjectRecord(
        bucket=bucket,
        key=f"{prefix}/{item.name}" if prefix else item.name,
        version_id=row.version_id,
        sha1=item.sha1,
        size=item.size,
        shape=item.shape,
        simulated=simulated and item.kind == "assembly",
    )


def _write_table(path: Path, objects: Sequence[BrainioObject]) -> None:
    with naming(path), path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows([item.name, item.size, item.sha1, "", ""] for item in objects)


def _describe_upload(manifest: Manifest, objects: Sequence[BrainioObject]) -> str:
    rows = "\n".join(f"| `{item.name}` | {item.size:,} | `{item.sha1}` |" for item in objects)
    n_bytes = sum(item.size for item in objects)
    return TEMPLATE.read_text(encoding="utf-8").format(
        name=manifest.name,
        terms_url=TERMS_URL,
        files=rows,
        gigabytes=f"{n_bytes / 1e9:.2f}",
        quota=f"{QUOTA_BYTES / 1e9:.0f}",
        fits="That fits." if n_bytes <= QUOTA_BYTES else "That does not fit: ask for more in the same request.",
        table=TABLE_NAME,
    )
