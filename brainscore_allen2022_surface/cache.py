"""A cache of S3 objects, under `BRAINIO_HOME`. A file appears there whole or not at all, and its content is checked.

The cache has the layout of brainscore_core, `<BRAINIO_HOME>/<SHA-1>/<file name>`, so that each package finds the files that
the other has downloaded. The download function of brainscore_core is not used here, because it has three faults: a download
that was cut off stays in its cache for good, so does a ZIP file that was extracted in part, and two processes write into
the same file.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from zipfile import ZipFile, ZipInfo

from .archives import ARCHIVE_ERRORS, list_entries
from .artifacts import StoredObject
from .downloading import download
from .environment import CACHE_VARIABLE, cache_path
from .files import LocalFile, LocalFolder, naming, passes, require_file, sha1_of, stamp, temporary_path

ABANDONED_SECONDS = 24 * 3600
RELEASE_STAMPS = ".allen2022_surface"  # stamps of files outside of the cache
REMOVE = f"Remove it, or set {CACHE_VARIABLE} to another folder."


def local_file(file: LocalFile | StoredObject) -> Path:
    """Return the path of a file on this machine. An S3 object is fetched first.

    The SHA-1 of a file of a release is computed once, and again only if the file has changed since.

    Raises
    ------
    FileNotFoundError
        If a file of a release is missing.
    ConnectionError, ValueError
        As `fetch`. ValueError also if a file of a release has another SHA-1 than `release.json` lists.
    """
    if isinstance(file, StoredObject):
        return fetch(file)
    path = file.path
    require_file(path, "Build the release again.")
    stamp_name = hashlib.sha1(os.fsencode(path.resolve()) + f" {file.sha1}".encode()).hexdigest()
    if not passes([path], cache_path() / RELEASE_STAMPS / stamp_name, lambda: sha1_of(path) == file.sha1):
        raise ValueError(
            f"{path} is damaged: its SHA-1 is {sha1_of(path)}, expected {file.sha1} as in release.json. "
            "Build the release again."
        )
    return path


def local_folder(folder: LocalFolder | StoredObject) -> Path:
    """Return the path of a folder on this machine. An S3 object is a ZIP file, which is fetched and extracted first.

    Raises
    ------
    ConnectionError, ValueError
        As `fetch_folder`.
    """
    return folder.path if isinstance(folder, LocalFolder) else fetch_folder(folder)


def is_cached(stored: StoredObject) -> bool:
    """Return whether the cache holds the whole object with the right SHA-1, so that `fetch` needs no network."""
    path = _path_of(stored)
    return path.is_file() and passes([path], _stamp_path(path), lambda: sha1_of(path) == stored.sha1)


def fetch(stored: StoredObject) -> Path:
    """Return the path of an object in the cache. A missing or damaged file is downloaded first.

    The SHA-1 of a file is computed after its download, and again only if the size or a time of the file has changed since:
    hashing a whole assembly takes several times as long as reading one region of it.

    Raises
    ------
    ConnectionError
        If the download fails.
    ValueError
        If the content has the wrong SHA-1, also after a second attempt, or something that is not a file is in its place.
    """
    path = _path_of(stored)
    if is_cached(stored):
        return path
    was_cached = path.exists() or path.is_symlink()
    if was_cached:
        require_file(path, REMOVE)
    _make_folder(path.parent)
    _remove_abandoned(path)
    # A damaged file is downloaded once more, no matter whether it was in the cache or has just been downloaded.
    n_attempts = 1 if was_cached else 2
    for _ in range(n_attempts):
        actual_sha1 = _download_checked(stored, path)
        if actual_sha1 == stored.sha1:
            return path
    raise ValueError(
        f"{stored} was downloaded once more, but has the SHA-1 {actual_sha1} again, expected {stored.sha1}. "
        "Someone must upload it again."
    )


def fetch_folder(stored: StoredObject) -> Path:
    """Return the folder into which a ZIP object is extracted, beside it in the cache.

    Files that are missing or damaged are extracted again.

    Raises
    ------
    ConnectionError, ValueError
        As `fetch`. ValueError also if the object is not a sound ZIP file, or has an entry that points outside its folder.
    """
    zip_path = fetch(stored)
    folder = zip_path.with_suffix("")
    try:
        with ZipFile(zip_path) as archive:
            entries = list_entries(archive, zip_path.stat().st_size)
            if not folder.exists():
                _extract_folder(archive, entries, folder)
            elif not folder.is_dir():
                raise ValueError(f"{folder} is not a folder. {REMOVE}")
            _restore_files(archive, entries, folder)
    except ARCHIVE_ERRORS as error:
        raise ValueError(f"{stored} is not a sound ZIP file: {error}. Someone must upload a sound one.") from error
    return folder


def _path_of(stored: StoredObject) -> Path:
    return cache_path() / stored.sha1 / PurePosixPath(stored.key).name


def _stamp_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.checked")


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ValueError(f"{path} cannot be created, because a file is in the place of a folder. {REMOVE}") from error


def _download_checked(stored: StoredObject, path: Path) -> str:
    """Download an object to `path`, if its content has the right SHA-1, and return the actual SHA-1."""
    with _temporary_file(path) as partial_path:
        download(stored, partial_path)
        actual_sha1 = sha1_of(partial_path)
        if actual_sha1 == stored.sha1:
            partial_path.replace(path)
            stamp([path], _stamp_path(path))
    return actual_sha1


@contextlib.contextmanager
def _temporary_file(path: Path) -> Iterator[Path]:
    """Yield a new hidden path beside `path`. A file that is still there at the end is removed."""
    partial_path = temporary_path(path)
    try:
        yield partial_path
    finally:
        partial_path.unlink(missing_ok=True)


def _remove_abandoned(path: Path) -> None:
    """Remove the temporary files of downloads that were killed. A file younger than a day may still grow, and stays."""
    for neighbour in path.parent.glob(f".{path.name}.*"):
        with contextlib.suppress(OSError):  # another process may remove it at the same time
            if time.time() - neighbour.stat().st_mtime > ABANDONED_SECONDS:
                neighbour.unlink()


def _extract_folder(archive: ZipFile, entries: list[ZipInfo], folder: Path) -> None:
    temporary_folder = temporary_path(folder)
    try:
        for entry in entries:
            _extract(archive, entry, temporary_folder / entry.filename)
        with contextlib.suppress(OSError):  # another process may have created the folder first
            temporary_folder.rename(folder)
    finally:
        shutil.rmtree(temporary_folder, ignore_errors=True)


def _restore_files(archive: ZipFile, entries: list[ZipInfo], folder: Path) -> None:
    """Extract the files again that are missing or damaged."""
    paths = [folder / entry.filename for entry in entries]
    if passes(paths, _stamp_path(folder), lambda: all(_is_extracted(folder, entry) for entry in entries)):
        return
    for entry in entries:
        if not _is_extracted(folder, entry):
            _restore(archive, entry, folder)


def _restore(archive: ZipFile, entry: ZipInfo, folder: Path) -> None:
    """Replace a file in one step, so that no other process finds it missing."""
    path = folder / entry.filename
    if path.exists() or path.is_symlink():
        require_file(path, REMOVE)
    with _temporary_file(folder) as partial_path:
        _extract(archive, entry, partial_path)
        _make_folder(path.parent)
        partial_path.replace(path)


def _extract(archive: ZipFile, entry: ZipInfo, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with naming(Path(str(archive.filename))), archive.open(entry) as source:
        content = source.read()
    with naming(path):
        path.write_bytes(content)


def _is_extracted(folder: Path, entry: ZipInfo) -> bool:
    path = folder / entry.filename
    try:
        if not path.is_file() or path.stat().st_size != entry.file_size:
            return False
        return zlib.crc32(path.read_bytes()) == entry.CRC
    except OSError:
        return False
