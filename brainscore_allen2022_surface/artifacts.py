"""The S3 objects that `artifacts.json` lists: fetched whole or not at all, checked, and kept under `BRAINIO_HOME`.

The cache is that of brainscore_core, `<BRAINIO_HOME>/<SHA-1>/<file name>`, so that either finds what the other fetched.
brainscore_core's own fetching is not used: a download that was cut off stays in its cache for good, as does a ZIP that was
extracted half, and two processes write into the same file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
import uuid
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from zipfile import BadZipFile, ZipFile, ZipInfo

import boto3
from boto3.exceptions import Boto3Error
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from botocore.exceptions import ConnectionError as NoConnectionError
from tqdm import tqdm

from .releases import VARIABLE as RELEASE_VARIABLE

VARIABLE = "BRAINSCORE_ALLEN2022_SURFACE_ARTIFACTS"
PUBLISHED_PATH = Path(__file__).with_name("artifacts.json")
KINDS = ("assembly", "stimulus_csv", "stimulus_zip")
BLOCK_BYTES = 2**20
CONNECT_SECONDS = 10
ABANDONED_SECONDS = 24 * 3600


@dataclass(frozen=True)
class StoredObject:
    """One version of an S3 object, and the SHA-1 of what it must hold."""

    bucket: str
    key: str
    version_id: str
    sha1: str
    size: int | None = None

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key} (version {self.version_id})"


def stored_objects(identifier: str) -> dict[str, StoredObject]:
    """Return the objects of a dataset: its `assembly`, `stimulus_csv` and `stimulus_zip`.

    They are read from the file that `BRAINSCORE_ALLEN2022_SURFACE_ARTIFACTS` names, else from the plugin's `artifacts.json`.

    Raises
    ------
    FileNotFoundError, ValueError
        If that file is missing or damaged, or does not list the dataset.
    """
    path = Path(os.environ.get(VARIABLE) or PUBLISHED_PATH).expanduser()
    try:
        artifacts = json.loads(path.read_text(encoding="utf-8"))
        listed = ", ".join(sorted(artifacts.keys())) or "nothing"
        if identifier in artifacts:
            return {kind: StoredObject(**artifacts[identifier][kind]) for kind in KINDS}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({error!r}). Install the plugin again, or upload the release.") from error
    raise FileNotFoundError(
        f"{path} lists {listed}, expected {identifier}. Upload it (allen2022-surface upload), or set {RELEASE_VARIABLE} "
        "to a release."
    )


def fetch(stored: StoredObject) -> Path:
    """Return the path of an object in the cache, downloaded if it is not there or damaged.

    The SHA-1 of a file is taken when it comes, and again whenever its size or times are no longer those it had then: to
    hash a whole assembly takes several times as long as to read one region of it.

    Raises
    ------
    ConnectionError
        If the object cannot be had.
    ValueError
        If it is not what it should be, even when fetched once more.
    """
    path = _cache_path() / stored.sha1 / PurePosixPath(stored.key).name
    was_there = path.is_file()
    if was_there and _is_checked(path, [path], lambda: _sha1_of(path) == stored.sha1):
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path)
    found = ""
    for _ in range(1 if was_there else 2):  # one more than the copy that was damaged, cached or just downloaded
        temporary = _temporary(path)
        try:
            _download(stored, temporary)
            found = _sha1_of(temporary)
            if found == stored.sha1:
                temporary.replace(path)
                _is_checked(path, [path], lambda: True)
                return path
        finally:
            temporary.unlink(missing_ok=True)
    raise ValueError(
        f"{stored} was fetched once more, but has the SHA-1 {found} again, expected {stored.sha1}. "
        "Someone must upload it again."
    )


def fetch_folder(stored: StoredObject) -> Path:
    """Return the folder that a ZIP object is extracted into, beside it in the cache; what is missing or damaged is restored.

    Raises
    ------
    ConnectionError, ValueError
        As `fetch`, and if the ZIP is none, or has an entry that points outside its folder.
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
            paths = [folder / entry.filename for entry in entries]
            if not _is_checked(folder, paths, lambda: all(_is_extracted(folder, entry) for entry in entries)):
                for entry in entries:
                    if not _is_extracted(folder, entry):
                        _restore(archive, entry, folder)
    except BadZipFile as error:
        raise ValueError(f"{stored} is not a sound ZIP file ({error}). Someone must upload it again.") from error
    return folder


def _cache_path() -> Path:
    return Path(os.environ.get("BRAINIO_HOME") or "~/.brainio").expanduser()


def _temporary(path: Path) -> Path:
    """Name a new neighbour of `path`: of the same disk, so that it can take its place at once, and of the usual mode."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}")


def _remove_abandoned(path: Path) -> None:
    """Remove what a download left that was killed, a day ago or earlier: a younger one may still be under way."""
    for neighbour in path.parent.glob(f".{path.name}.*"):
        with contextlib.suppress(OSError):  # another process does the same
            if time.time() - neighbour.stat().st_mtime > ABANDONED_SECONDS:
                neighbour.unlink()


def _is_checked(place: Path, paths: list[Path], check: Callable[[], bool]) -> bool:
    """Tell whether the files of `place` pass a check, which is spared if they are as they were when they last did."""
    stamp = place.with_name(f".{place.name}.checked")
    try:
        state = _state(paths)
    except OSError:
        return False
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == state:
        return True
    if not check():
        return False
    with contextlib.suppress(OSError):  # a cache may be read-only; then every load checks
        stamp.write_text(state, encoding="utf-8")
    return True


def _state(paths: list[Path]) -> str:
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


def _download(stored: StoredObject, path: Path) -> None:
    """Download an object, with the credentials that are there, else without any, as brainscore_core does."""
    reasons = []
    for options in ({}, {"signature_version": UNSIGNED}):
        try:
            client = boto3.client("s3", config=Config(connect_timeout=CONNECT_SECONDS, **options))
            name = PurePosixPath(stored.key).name
            with tqdm(total=stored.size, desc=name, unit="B", unit_scale=True, disable=None) as bar:
                version = {"VersionId": stored.version_id}
                client.download_file(stored.bucket, stored.key, str(path), ExtraArgs=version, Callback=bar.update)
            return
        except (BotoCoreError, ClientError, Boto3Error, ValueError) as error:
            reason = " ".join(str(error).split())
            # The text of a header that cannot be would show the credentials.
            is_header = "header value" in reason
            reasons.append("the credentials hold a character that they cannot hold" if is_header else reason)
            if isinstance(error, HTTPClientError | NoConnectionError) and not is_header:
                break  # where there is no network, credentials make no difference
    raise ConnectionError(
        f"{stored} could not be downloaded: {'; without credentials: '.join(reasons)}. Check the network and your AWS "
        f"credentials, or set {RELEASE_VARIABLE} to a release on disk."
    )


def _refuse_outside(stored: StoredObject, entry: ZipInfo) -> None:
    name = PurePosixPath(entry.filename.replace("\\", "/"))
    if name.is_absolute() or ".." in name.parts or ":" in entry.filename:
        raise ValueError(f"{stored} has the entry {entry.filename!r}, which points outside its folder. It is refused.")


def _extract_folder(archive: ZipFile, entries: list[ZipInfo], folder: Path) -> None:
    temporary = _temporary(folder)
    try:
        for entry in entries:
            _extract(archive, entry, temporary / entry.filename)
        with contextlib.suppress(OSError):  # another process was first
            temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _restore(archive: ZipFile, entry: ZipInfo, folder: Path) -> None:
    """Put a single file right without a moment in which it is not there."""
    temporary = _temporary(folder)
    try:
        _extract(archive, entry, temporary)
        (folder / entry.filename).parent.mkdir(parents=True, exist_ok=True)
        temporary.replace(folder / entry.filename)
    finally:
        temporary.unlink(missing_ok=True)


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
