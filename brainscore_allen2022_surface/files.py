"""Files on this machine: never opened unless they are regular, and checked by their SHA-1."""

from __future__ import annotations

import contextlib
import hashlib
import stat
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

BLOCK_BYTES = 2**20
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


def sha1_of(path: Path) -> str:
    """Return the SHA-1 of a file, in hexadecimal."""
    digest = hashlib.sha1()
    with path.open("rb", buffering=0) as file:
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
        digest.update(f"{path.name} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}\n".encode())
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
