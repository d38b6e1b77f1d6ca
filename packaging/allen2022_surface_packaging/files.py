"""Files and folders that appear whole or not at all, and the hashes that identify them."""

from __future__ import annotations

import fcntl
import functools
import glob
import hashlib
import logging
import math
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeAlias

from .errors import PackagingError

ABANDONED_SECONDS = 60 * 60  # since the last change of a half-written file; a single file is written in seconds

Bytes: TypeAlias = bytes | bytearray | memoryview

logger = logging.getLogger(__name__)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a folder to write into. It becomes `path` if the block succeeds, and is removed if the block fails.

    A folder that exists at `path` is replaced, so check for one before. It stays until the new one is whole. A link at `path`
    stays, and the folder to which it points is replaced.

    Raises
    ------
    PackagingError
        If another process is writing `path`, or something has appeared there during the block.
    """
    path = path.resolve()
    was_there = path.exists()
    partial = path.with_name(f".{path.name}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    with _only_writer(partial, path):
        try:
            for left in partial.iterdir():  # by a killed process
                _remove(left)
            yield partial
            if path.exists() and not was_there:
                raise PackagingError(
                    f"{path} has appeared while it was written. Move it to another place, and start again."
                )
            _replace(path, partial)
        finally:
            _remove(partial)


def _replace(old: Path, new: Path) -> None:
    """Give a file or folder the name of an old one, which is removed if it is there."""
    replaced = _replaced_path(old)
    _remove(replaced)
    if replaced.exists():  # on a network disk, a file that is open stays as `.nfs*`
        replaced.rename(replaced.with_name(f"{replaced.name}.{uuid.uuid4().hex}"))
    try:
        if old.exists():
            old.rename(replaced)
        new.rename(old)
    finally:
        end_replacement(old)


def end_replacement(path: Path) -> None:
    """End what a process began that failed or was killed while it replaced `path`.

    The old folder gets its name back if `path` is missing, and is removed if the new folder is at `path`.
    """
    path = path.resolve()
    replaced = _replaced_path(path)
    if replaced.exists() and not path.exists():
        replaced.rename(path)
    for left in path.parent.glob(f"{glob.escape(replaced.name)}*"):
        _remove(left)


def _replaced_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.replaced")


@contextmanager
def _only_writer(partial: Path, path: Path) -> Iterator[None]:
    """Hold a lock on a folder during the block. The kernel releases it, however this process ends."""
    descriptor = None
    try:
        try:
            descriptor = os.open(partial, os.O_RDONLY)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if isinstance(error, BlockingIOError) and _has_locks(path.parent):
                raise PackagingError(
                    f"Another process is writing {path}. Wait for it, or choose another folder."
                ) from error
            _warn_without_locks(path.parent, str(error.strerror))
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _has_locks(folder: Path) -> bool:
    """Return whether a new file can be locked: some disks without locks say that every file is locked."""
    with tempfile.TemporaryFile(dir=folder) as file, suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


@functools.cache
def _warn_without_locks(folder: Path, reason: str) -> None:
    """Warn once, however many releases are written there."""
    message = "The file system of %s has no locks (%s): do not write the same folder twice at the same time."
    logger.warning(message, folder, reason)


def _remove(path: Path) -> None:
    """Remove a file or folder as far as possible: an `._*` file of macOS goes together with the file that it belongs to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def copy_folder(source: Path, target: Path, left_out: Callable[[str, list[str]], Iterable[str]]) -> None:
    """Copy the content of a folder. Modes and times are copied where the disk keeps them.

    Parameters
    ----------
    left_out : as `shutil.ignore_patterns` returns it
    """
    try:
        shutil.copytree(source, target, ignore=left_out, copy_function=shutil.copyfile, dirs_exist_ok=True)
    except shutil.Error as error:  # of each file that was not copied, and of each folder whose mode or time was not
        if not all(Path(copy).is_dir() for _, copy, _ in error.args[0]):
            raise


def write_whole(path: Path, contents: Iterable[Bytes]) -> None:
    """Write the contents one after the other to `path`, which keeps its mode if it exists."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):  # by killed processes
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > ABANDONED_SECONDS:
                left.unlink()
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")  # two builds may write one file of a cache
    try:
        with naming(path), partial.open("xb") as file:
            for content in contents:
                file.write(content)
        with suppress(OSError):  # `path` does not exist, or the file system has no modes
            partial.chmod(path.stat().st_mode)
        try:
            partial.replace(path)
        except OSError:  # some disks do not give a file the name of another one
            if not path.is_file():
                raise
            _replace(path, partial)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add `path` to an `OSError` of the block that names no file: those of reads, writes and closes do not.

    SciPy and nibabel raise one that does not even say what failed; the one that they caught takes its place.
    """
    try:
        yield
    except OSError as error:
        caught = error.__context__
        told = caught if error.errno is None and isinstance(caught, OSError) else error
        if told.errno is not None and told.filename is None:
            told.filename = str(path)
        if told is error:
            raise
        raise told from None


def read_file(path: Path) -> bytes:
    """Return the content of a file. An `OSError` names the file."""
    with naming(path):
        return path.read_bytes()


def free_bytes(folder: Path) -> float:
    """Return how many bytes are free on the disk of a folder; infinitely many where the disk does not tell."""
    with suppress(OSError):
        usage = shutil.disk_usage(folder)
        if usage.total:
            return usage.free
    return math.inf


def sha1_of(path: Path) -> str:
    """Return the SHA-1 of a file, in hexadecimal."""
    with naming(path), path.open("rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha1").hexdigest()
