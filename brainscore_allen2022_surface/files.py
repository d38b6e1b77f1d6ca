"""Files on this machine: never opened unless they are regular, and checked by their SHA-1."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

# They say nothing about the file. HDF5's own errors have negative numbers.
SYSTEM_ERRORS = (
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.ENOSPC,
    errno.ESTALE,
)
BLOCK_BYTES = 2**20
LARGEST_SMALL_FILE_BYTES = 2**30  # those of the published data have less than a megabyte
STAMP_BYTES = 40  # a SHA-1 in hexadecimal
KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@dataclass(frozen=True)
class LocalFile:
    """A file of a release, and the SHA-1, in hexadecimal, that `release.json` lists."""

    path: Path
    sha1: str


@dataclass(frozen=True)
class LocalFolder:
    """A folder of a release, and the SHA-1 of each of its files, by file name."""

    path: Path
    sha1s: dict[str, str]


def require_file(path: Path, advice: str) -> None:
    """Check that there is a regular file at a path: whoever opens a FIFO or a device may wait for it for good.

    Parameters
    ----------
    advice : what to do if there is none

    Raises
    ------
    FileNotFoundError
        If there is nothing.
    ValueError
        If there is something else, or the path cannot be looked up.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(f"{path} is missing. {advice}") from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}). {advice}") from error
    if not stat.S_ISREG(mode):
        kind = KINDS.get(stat.S_IFMT(mode), "something else")
        raise ValueError(f"{path} is {kind}, expected a regular file. {advice}")


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add `path` to an error of the system that names no file: those of reads, writes and closes do not."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


@contextlib.contextmanager
def system_errors_explained() -> Iterator[None]:
    """Turn an error of the system into a ValueError of one line. What is missing, and connections, keep their classes.

    Raises
    ------
    ValueError
        If a file cannot be read or written, such as without permission, without space, or on a disk that fails.
    """
    try:
        yield
    except (FileNotFoundError, ConnectionError):
        raise
    except OSError as error:
        place = error.filename or "a file"
        raise ValueError(
            f"{place} cannot be read or written ({error.strerror or error}). Look at its permissions, the space that is left, and "
            "the disk; then load again."
        ) from error


def read_small_file(path: Path, advice: str) -> bytes:
    """Read a file that is read as a whole, such as a manifest.

    Parameters
    ----------
    advice : what to do if it cannot be read

    Raises
    ------
    FileNotFoundError, ValueError
        As `require_file`. ValueError also if the file is far too large.
    """
    require_file(path, advice)
    n_bytes = path.stat().st_size
    if n_bytes > LARGEST_SMALL_FILE_BYTES:
        raise ValueError(f"{path} has {n_bytes:,} bytes, expected at most {LARGEST_SMALL_FILE_BYTES:,}. {advice}")
    with naming(path):
        return path.read_bytes()


def sha1_of(path: Path) -> str:
    """Return the SHA-1 of a file, in hexadecimal."""
    digest = hashlib.sha1()
    with naming(path), path.open("rb", buffering=0) as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def passes(paths: Iterable[Path], stamp_path: Path, check: Callable[[], bool]) -> bool:
    """Return whether files pass a check. It runs only if they have changed since they last passed.

    Parameters
    ----------
    stamp_path : of a small file that records the state in which the files passed
    """
    try:
        state = _state(paths)
    except OSError:
        return False
    if _read_stamp(stamp_path) == state:
        return True
    if not check():
        return False
    _write_stamp(stamp_path, state)
    return True


def stamp(paths: Iterable[Path], stamp_path: Path) -> None:
    """Record that files have passed their check."""
    _write_stamp(stamp_path, _state(paths))


def temporary_path(path: Path) -> Path:
    """Return a new hidden path beside `path`: on the same disk, from which a file can be renamed to `path` in one step."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}")


def _state(paths: Iterable[Path]) -> str:
    """Return a hash of the names, sizes and times of files."""
    digest = hashlib.sha1()
    for path in paths:
        status = path.stat()
        state = f" {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}\n"
        digest.update(os.fsencode(path.name) + state.encode())
    return digest.hexdigest()


def _read_stamp(path: Path) -> str:
    with contextlib.suppress(OSError):
        if path.is_file():
            with path.open("rb") as file:
                return file.read(STAMP_BYTES).decode("ascii", errors="replace")
    return ""


def _write_stamp(path: Path, state: str) -> None:
    """Write a stamp in one step. A folder may be read-only; then every load runs the check."""
    partial_path = temporary_path(path)
    with contextlib.suppress(OSError):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial_path.write_text(state, encoding="ascii")
            partial_path.replace(path)
        finally:
            partial_path.unlink(missing_ok=True)
