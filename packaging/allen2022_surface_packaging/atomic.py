"""Folders and files that appear whole or not at all, and the hashes that identify them."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from .errors import PackagingError

HASH_BLOCK_BYTES = 2**20

Bytes: TypeAlias = bytes | bytearray | memoryview


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a folder to write into. It becomes `path` if the block succeeds, and is removed if the block fails.

    A folder that exists at `path` is replaced, so check for one before.

    Raises
    ------
    PackagingError
        If another process is writing `path`.
    """
    path = path.absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial, replaced = (path.with_name(f".{path.name}.{state}") for state in ("partial", "replaced"))
    partial.mkdir(exist_ok=True)
    descriptor = os.open(partial, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the kernel releases it, however this process ends
    except OSError as error:
        os.close(descriptor)
        raise PackagingError(f"Another process is writing {path}. Wait for it, or choose another folder.") from error
    try:
        _empty(partial)  # a killed process may have left files
        yield partial
        shutil.rmtree(replaced, ignore_errors=True)
        if path.exists():
            path.rename(replaced)
        partial.rename(path)
        shutil.rmtree(replaced, ignore_errors=True)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    finally:
        os.close(descriptor)


@contextmanager
def scratch_folder(parent: Path, name: str) -> Iterator[Path]:
    """Yield an empty hidden folder in `parent`, and remove it at the end. A folder that a killed process left is reused."""
    path = parent / f".{name}"
    parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def write_whole(path: Path, contents: Iterable[Bytes], *, sync: bool = True) -> None:
    """Write the contents one after the other to `path`, which keeps its mode if it exists.

    Parameters
    ----------
    sync : bool
        Wait until the disk holds the contents, so that they survive a power failure.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with partial.open("xb") as file:
            for content in contents:
                file.write(content)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        if path.exists():
            partial.chmod(path.stat().st_mode)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Wait until no other process holds the lock of `folder`, and hold it during the block."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def sha1_of(path: Path) -> str:
    """Return the SHA-1 of a file, in hexadecimal."""
    digest = hashlib.sha1()
    with path.open("rb", buffering=0) as file:
        while block := file.read(HASH_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
