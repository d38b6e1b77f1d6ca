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
import uuid
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from zipfile import BadZipFile, ZipFile, ZipInfo

from .artifacts import StoredObject
from .downloading import download

BLOCK_BYTES = 2**20
ABANDONED_SECONDS = 24 * 3600


def local_file(file: Path | StoredObject) -> Path:
    """Return the path of a file on this machine. An S3 object is fetched first.

    Raises
    ------
    ConnectionError, ValueError
        As `fetch`.
    """
    return file if isinstance(file, Path) else fetch(file)


def local_folder(folder: Path | StoredObject) -> Path:
    """Return the path of a folder on this machine. An S3 object is a ZIP file, which is fetched and extracted first.

    Raises
    ------
    ConnectionError, ValueError
        As `fetch_folder`.
    """
    return folder if isinstance(folder, Path) else fetch_folder(folder)


def is_cached(stored: StoredObject) -> bool:
    """Return whether the cache holds the whole object with the right SHA-1, so that `fetch` needs no network."""
    path = _path_of(stored)
    return path.is_file() and _is_sound(path, [path], lambda: _sha1_of(path) == stored.sha1)


def fetch(stored: StoredObject) -> Path:
    """Return the path of an object in the cache. A missing or damaged file is downloaded first.

    The SHA-1 of a file is computed after its download, and again only if the size or a time of the file has changed since:
    hashing a whole assembly takes several times as long as reading one region of it.

    Raises
    ------
    ConnectionError
        If the download fails.
    ValueError
        If the content has the wrong SHA-1, also after a second attempt.
    """
    path = _path_of(stored)
    if is_cached(stored):
        return path
    was_cached = path.is_file()
    path.parent.mkdir(parents=True, exist_ok=True)
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
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            for entry in entries:
                _refuse_outside(stored, entry)
            if not folder.exists():
                _extract_folder(archive, entries, folder)
            _restore_files(archive, entries, folder)
    except BadZipFile as error:
        raise ValueError(f"{stored} is not a sound ZIP file ({error}). Someone must upload it again.") from error
    return folder


def _path_of(stored: StoredObject) -> Path:
    return _cache_path() / stored.sha1 / PurePosixPath(stored.key).name


def _cache_path() -> Path:
    return Path(os.environ.get("BRAINIO_HOME") or "~/.brainio").expanduser()


def _download_checked(stored: StoredObject, path: Path) -> str:
    """Download an object to `path`, if its content has the right SHA-1, and return the actual SHA-1."""
    with _temporary_file(path) as temporary_path:
        download(stored, temporary_path)
        actual_sha1 = _sha1_of(temporary_path)
        if actual_sha1 == stored.sha1:
            temporary_path.replace(path)
            _write_stamp(path, _state([path]))
    return actual_sha1


def _temporary_path(path: Path) -> Path:
    """Return a new hidden path beside `path`: on the same disk, from which a file can be renamed to `path` in one step."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}")


@contextlib.contextmanager
def _temporary_file(path: Path) -> Iterator[Path]:
    """Yield a new hidden path beside `path`. A file that is still there at the end is removed."""
    temporary_path = _temporary_path(path)
    try:
        yield temporary_path
    finally:
        temporary_path.unlink(missing_ok=True)


def _remove_abandoned(path: Path) -> None:
    """Remove the temporary files of downloads that were killed. A file younger than a day may still grow, and stays."""
    for neighbour in path.parent.glob(f".{path.name}.*"):
        with contextlib.suppress(OSError):  # another process may remove it at the same time
            if time.time() - neighbour.stat().st_mtime > ABANDONED_SECONDS:
                neighbour.unlink()


def _is_sound(target: Path, paths: list[Path], check: Callable[[], bool]) -> bool:
    """Return whether the files of `target` pass a check. It runs only if they have changed since they last passed."""
    try:
        state = _state(paths)
    except OSError:
        return False
    stamp_path = _stamp_path(target)
    if stamp_path.is_file() and stamp_path.read_text(encoding="utf-8") == state:
        return True
    if not check():
        return False
    _write_stamp(target, state)
    return True


def _stamp_path(target: Path) -> Path:
    return target.with_name(f".{target.name}.checked")


def _write_stamp(target: Path, state: str) -> None:
    """Record the state in which the files of `target` passed their check."""
    with contextlib.suppress(OSError):  # a cache may be read-only; then every load runs the check
        _stamp_path(target).write_text(state, encoding="utf-8")


def _state(paths: list[Path]) -> str:
    """Return a hash of the names, sizes and times of files."""
    digest = hashlib.sha1()
    for path in paths:
        status = path.stat()
        digest.update(f"{path.name} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}\n".encode())
    return digest.hexdigest()


def _sha1_of(path: Path) -> str:
    digest = hashlib.sha1()
    with path.open("rb", buffering=0) as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _refuse_outside(stored: StoredObject, entry: ZipInfo) -> None:
    path = PurePosixPath(entry.filename.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in entry.filename:
        raise ValueError(
            f"{stored} has the entry {entry.filename!r}, which points outside its folder. Nothing is extracted. "
            "Someone must upload a safe ZIP file."
        )


def _extract_folder(archive: ZipFile, entries: list[ZipInfo], folder: Path) -> None:
    temporary_folder = _temporary_path(folder)
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
    if _is_sound(folder, paths, lambda: all(_is_extracted(folder, entry) for entry in entries)):
        return
    for entry in entries:
        if not _is_extracted(folder, entry):
            _restore(archive, entry, folder)


def _restore(archive: ZipFile, entry: ZipInfo, folder: Path) -> None:
    """Replace a file in one step, so that no other process finds it missing."""
    path = folder / entry.filename
    with _temporary_file(folder) as temporary_path:
        _extract(archive, entry, temporary_path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary_path.replace(path)


def _extract(archive: ZipFile, entry: ZipInfo, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(entry) as source, path.open("wb") as target:
        shutil.copyfileobj(source, target)


def _is_extracted(folder: Path, entry: ZipInfo) -> bool:
    path = folder / entry.filename
    try:
        return path.stat().st_size == entry.file_size and zlib.crc32(path.read_bytes()) == entry.CRC
    except OSError:
        return False
