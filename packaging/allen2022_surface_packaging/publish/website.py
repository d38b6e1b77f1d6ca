"""The way through Brain-Score's website: a release as files for its upload form, and the version ids that come back."""

from __future__ import annotations

import shutil
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd

from ..errors import PackagingError, one_line
from ..facts import TERMS_URL
from ..files import naming, new_folder
from ..progress import format_bytes
from .artifacts import ObjectRecord, choose_artifacts, record_release
from .objects import list_objects, open_release, write_objects

TEMPLATE = files(__package__) / "templates" / "upload_form.md"
PAGE_NAME, TABLE_NAME = "README.md", "version_ids.csv"
COLUMNS = ("file_name", "size", "sha1", "bucket", "version_id")
QUOTA_BYTES = 5 * 10**9  # of the website, for all files of a user together


def pack_release(release_path: Path, folder: Path) -> None:
    """Write the objects of a release as files, with a page about the upload form and a table for the version ids.

    Raises
    ------
    PackagingError
        If the folder exists already, or the release is simulated or not sound.
    """
    if folder.exists():
        raise PackagingError(f"{folder} exists already. Remove it, or choose another folder.")
    release, manifest = open_release(release_path)
    with new_folder(folder) as partial, naming(folder):
        packed = write_objects(release, manifest, partial)
        for file in packed:
            if file.path.parent != partial:  # a file of the release
                shutil.copyfile(file.path, partial / file.item.name)
        rows = [(file.item.name, file.size, file.sha1, "", "") for file in packed]
        pd.DataFrame(rows, columns=COLUMNS).to_csv(partial / TABLE_NAME, index=False, lineterminator="\n")
        n_bytes = sum(file.size for file in packed)
        page = TEMPLATE.read_text(encoding="utf-8").format(
            name=manifest.name,
            terms_url=TERMS_URL,
            files="\n".join(f"| `{file.item.name}` | {file.size:,} | `{file.sha1}` |" for file in packed),
            size=format_bytes(n_bytes),
            quota=format_bytes(QUOTA_BYTES),
            fits="That fits." if n_bytes <= QUOTA_BYTES else "That does not fit: ask for more in the same request.",
            table=TABLE_NAME,
        )
        (partial / PAGE_NAME).write_text(page, encoding="utf-8")


def record_versions(release_path: Path, table_path: Path, *, artifacts_path: Path | None = None) -> str:
    """Record files that were uploaded through the website in an artifacts file.

    Parameters
    ----------
    table_path : the table that `pack_release` wrote, with buckets and version ids filled in
    artifacts_path : path, optional
        By default the plugin's `artifacts.json`.

    Returns
    -------
    one sentence for the user, which says what was done

    Raises
    ------
    PackagingError
        If the release is simulated or not sound, or the table is not complete or is of another release.
    """
    rows = _read_table(table_path)
    artifacts_path = choose_artifacts(artifacts_path)
    release, manifest = open_release(release_path)
    records = []
    for item in list_objects(release, manifest):
        row = rows.get(item.name)
        if row is None:
            raise PackagingError(f"{table_path} lacks {item.name}. Add its row of the table that `pack` wrote.")
        if row["version_id"] in ("", "null") or not row["bucket"]:
            raise PackagingError(
                f"{table_path}: {item.name} has no bucket or no version id. Fill in what the website shows."
            )
        sha1 = manifest.files[release.assembly_path(manifest.name, item.split).name].sha1
        if item.shape == manifest.shapes[item.split] and row["sha1"] != sha1:  # a file of the release
            raise PackagingError(
                f"{table_path}: {item.name} has SHA-1 {row['sha1']}, but that of the release has {sha1}. Pack the release "
                "again, and upload that."
            )
        bucket, _, key = f"{row['bucket']}/{item.name}".partition("/")
        records.append((item, ObjectRecord(bucket, key, row["version_id"], row["sha1"], row["size"], item.shape)))
    return record_release(artifacts_path, manifest.name, records)


def _read_table(path: Path) -> dict[str, dict[str, Any]]:
    """Read the rows of a table of version ids by file name. An empty bucket is that of the row above."""
    try:  # a spreadsheet writes a byte order mark, and semicolons where numbers have a decimal comma
        table = pd.read_csv(
            path, sep="[,;]", engine="python", dtype=str, keep_default_na=False, encoding="utf-8-sig", usecols=COLUMNS
        ).apply(lambda column: column.str.strip())
        buckets = table["bucket"].str.removeprefix("s3://").str.strip("/")
        table["bucket"] = buckets.where(buckets != "").ffill().fillna("")
        table["size"] = table["size"].astype(int)
        rows: dict[str, dict[str, Any]] = table.set_index("file_name").to_dict("index")
        return rows
    except (FileNotFoundError, ValueError) as error:
        raise PackagingError(
            f"{path} cannot be read ({one_line(error)}), expected the {TABLE_NAME} of `pack` with its columns "
            f"{', '.join(COLUMNS)}."
        ) from error
