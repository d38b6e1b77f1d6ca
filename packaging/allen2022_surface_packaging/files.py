"""Folders and files that appear whole or not at all, and the hashes that identify them."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import glob
import hashlib
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TypeAlias

from .errors import PackagingError, one_line
from .signals import postponed_signals

HASH_BLOCK_BYTES = 2**20
LARGEST_FILE_BYTES = 2**30  # of those that are read as a whole; in NSD and its releases, they have some megabytes
PARTIAL_SUFFIX = ".partial"
OLD_SECONDS = 24 * 60 * 60
RENAME_NOREPLACE, RENAME_EXCHANGE, WORKING_FOLDER = 1, 2, -100  # of Linux's renameat2
RENAME_UNSUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)  # some network disks, and old kernels
# Without reading, and without waiting for the writer of a named pipe. Only Linux has O_PATH, which needs no permission to read.
OPEN_ONLY_TO_COMPARE = os.O_NOFOLLOW | getattr(os, "O_PATH", os.O_RDONLY | os.O_NONBLOCK)
REMOVAL_ATTEMPTS = 3  # an interrupted or failed system call may succeed when it is made again

Bytes: TypeAlias = bytes | bytearray | memoryview


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a folder to write into. It becomes `path` if the block succeeds, and is removed if the block fails.

    A folder that exists at `path` is replaced, so check for one before. It stays until the new one is whole, and then both
    exchange their names. Where the file system cannot do that in one step, the old one comes back if the new one cannot get
    its name. If this process is killed in between, `restore_folder` brings it back, so call that before you check. A link at
    `path` stays, and the folder to which it points is replaced. Whatever else is at `path` when the block ends stays.

    Raises
    ------
    PackagingError
        If another process is writing `path`, or was killed while it replaced `path`. What was at `path` is back then. Also if
        something else has appeared at `path` since the block began.
    """
    path = path.resolve()
    replaced = _replaced_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _held_open(path) as before, _writing(path) as partial:
        if _restore(path):
            raise PackagingError(
                f"{path} has its name back: a process was killed while it replaced the folder. Start again, or remove it."
            )
        remove_folder(replaced)  # a killed process left it after its new folder was at `path`
        if replaced.exists():
            raise PackagingError(f"{replaced} is left of an earlier run and cannot be removed. Remove it.")
        is_free = before is None or (path.is_dir() and not any(path.iterdir()))
        _empty(partial)  # a killed process may have left files
        _require_same(path, before)  # another process may have finished before this one held the lock
        yield partial
        if not is_free:
            _sync(partial)
        with postponed_signals():  # in between, something would be left behind
            _require_same(path, before)
            if is_free:
                _rename_to_free(partial, path)
            elif not _exchange_and_remove(partial, path):
                _replace(partial, path)


@contextmanager
def unreplaced(path: Path) -> Iterator[Callable[[], None]]:
    """Refuse what a block has read from a folder if another folder has taken its place meanwhile.

    Yields a function that looks, for use before something is kept. At the end of the block, one more look is taken. If the block
    fails because the files of two folders do not fit, the message says why.

    Raises
    ------
    PackagingError
        If the folder was replaced.
    """
    real_path = path.resolve()
    with _held_open(real_path) as before:

        def require() -> None:
            if not _is_same(real_path, before):
                raise PackagingError(f"{path} was replaced while it was read. Start again.")

        try:
            yield require
        except Exception:
            require()  # its error says why this one came
            raise
        require()


def restore_folder(path: Path) -> None:
    """Give a folder its name back if a process was killed while it replaced the folder.

    Raises
    ------
    PackagingError
        If another process is writing `path`.
    """
    path = path.resolve()
    if not path.exists() and _replaced_path(path).exists():
        with _writing(path) as partial:
            _restore(path)
            remove_folder(partial)


@contextmanager
def scratch_folder(parent: Path, name: str) -> Iterator[Path]:
    """Yield an empty hidden folder in `parent`, and remove it at the end. A folder that a killed process left is reused."""
    path = parent / f".{name}"
    try:
        path.mkdir(parents=True, exist_ok=True)
        _empty(path)
        yield path
    finally:
        remove_folder(path)


def write_whole(path: Path, contents: Iterable[Bytes], *, sync: bool = True) -> None:
    """Write the contents one after the other to `path`, which keeps its mode if it exists.

    Parameters
    ----------
    sync : bool
        Wait until the disk holds the contents, so that they survive a power failure.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path)
    with naming(path):
        partial, file = _create_locked(path)
    try:
        with naming(path), file:
            for content in contents:
                file.write(content)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        if path.exists():
            partial.chmod(path.stat().st_mode)
        partial.replace(path)
    except BaseException:
        _unlink(partial)
        raise


def is_partial_of(path: Path, name: str) -> bool:
    """Return whether a path is that of a file of this name which is half-written, by this process or by a killed one."""
    return re.fullmatch(rf"\.{re.escape(name)}\.[0-9a-f]{{32}}{re.escape(PARTIAL_SUFFIX)}", path.name) is not None


def _create_locked(path: Path) -> tuple[Path, BinaryIO]:
    """Create a hidden file that is to become `path`, locked, so that no other process takes it for abandoned."""
    while True:
        partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}{PARTIAL_SUFFIX}")
        file = partial.open("xb")
        with suppress(OSError):  # where there are no locks, no file is taken for abandoned
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if partial.exists():  # another process may have removed it just before it was locked
            return partial, file
        file.close()


def _remove_abandoned(path: Path) -> None:
    """Remove what killed processes left half-written of a file. A process that still writes holds a lock."""
    for partial in path.parent.glob(f".{glob.escape(path.name)}.*{PARTIAL_SUFFIX}"):
        with suppress(OSError):
            if is_partial_of(partial, path.name):
                with partial.open("rb") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    partial.unlink()


def remove_old_partials(folder: Path) -> None:
    """Remove files that a killed process left half-written more than a day ago. Younger ones may still be written."""
    for path in folder.glob(f".*{PARTIAL_SUFFIX}"):
        with suppress(OSError):
            if path.is_file() and time.time() - path.stat().st_mtime > OLD_SECONDS:
                path.unlink()


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


@contextmanager
def locked(folder: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock of `folder` during the block. If another process holds it, wait for that, or raise a `BlockingIOError`."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)  # a FIFO in its place would wait for a writer
    try:
        with naming(folder):
            fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        _close(descriptor)


def _close(descriptor: int) -> None:
    """Close a descriptor that holds a lock. The lock is gone in any case, and an error would hide that of a block."""
    with suppress(OSError):
        os.close(descriptor)


def read_file(path: Path) -> bytes:
    """Return the content of a file. An `OSError` names the file, whether it cannot be opened, read or closed.

    Raises
    ------
    PackagingError
        If the file is far too large to be what is read as a whole: a table, an image, a text.
    """
    with naming(path), path.open("rb") as file:
        n_bytes = os.fstat(file.fileno()).st_size
        if n_bytes > LARGEST_FILE_BYTES:
            raise PackagingError(
                f"{path} has {n_bytes:,} bytes, expected at most {LARGEST_FILE_BYTES:,}. Is it the right file?"
            )
        return file.read()


def sha1_of(path: Path) -> str:
    """Return the SHA-1 of a file, in hexadecimal."""
    digest = hashlib.sha1()
    with naming(path), path.open("rb", buffering=0) as file:
        while block := file.read(HASH_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _sync(folder: Path) -> None:
    """Wait until the disk holds every file of a folder: after that, a power failure may come while the old one is removed."""
    for directory, _, files in os.walk(folder):
        for path in (*(Path(directory, name) for name in files), Path(directory)):
            with naming(path):
                descriptor = os.open(path, os.O_RDONLY)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)


@contextmanager
def _held_open(path: Path) -> Iterator[int | None]:
    """Yield a descriptor of whatever is at `path`, or None if nothing is.

    It stays open, because the file system gives the number of a folder that was removed to the next one.
    """
    try:
        descriptor = os.open(path, OPEN_ONLY_TO_COMPARE)
    except FileNotFoundError:
        yield None
        return
    try:
        yield descriptor
    finally:
        _close(descriptor)


def _is_same(path: Path, before: int | None) -> bool:
    """Return whether `path` is still what a descriptor was opened for; nothing if it is None."""
    if before is None:
        return not (path.exists() or path.is_symlink())
    return _is_open_as(before, path, follow_links=False)


def _require_same(path: Path, before: int | None) -> None:
    if not _is_same(path, before):
        raise _changed(path)


def _changed(path: Path) -> PackagingError:
    return PackagingError(
        f"{path} was made, replaced or removed by someone else meanwhile, so nothing is changed there. Choose another folder, "
        "or move it away, and start again."
    )


def _rename_to_free(new: Path, path: Path) -> None:
    """Rename a folder to a path where nothing is, or an empty folder, but not if something has appeared there."""
    try:
        if path.exists() or not _rename(new, path, RENAME_NOREPLACE):
            new.rename(path)  # takes the place of an empty folder only
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
            raise _changed(path) from error
        raise


def _exchange_and_remove(new: Path, old: Path) -> bool:
    """Let two folders exchange their names, and remove the old one. Return False where the file system cannot do that."""
    with locked(old, wait=False):  # so that no other process takes it for the one that it is to write
        if not _rename(new, old, RENAME_EXCHANGE):
            return False
        remove_folder(new)  # which has the files of the old one now
        return True


def _rename(first: Path, second: Path, flag: int) -> bool:
    """Rename in a way for which Python has no function. Return False where it cannot be done."""
    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if function is None:  # not Linux
        return False
    if not function(WORKING_FOLDER, os.fsencode(first), WORKING_FOLDER, os.fsencode(second), flag):
        return True
    number = ctypes.get_errno()
    if number in RENAME_UNSUPPORTED:
        return False
    raise OSError(number, os.strerror(number), str(first), None, str(second))


def _replace(new: Path, old: Path) -> None:
    """Put a folder in the place of an old one, in two steps, and remove the old one.

    Raises
    ------
    PackagingError
        If neither of them can get the name.
    """
    replaced = _replaced_path(old)
    try:
        old.rename(replaced)
        new.rename(old)
    except BaseException as error:
        try:
            _restore(old)
        except OSError:
            raise PackagingError(
                f"{old} could not be replaced ({one_line(error)}). What was there is now in {replaced}: rename it back."
            ) from error
        raise
    remove_folder(replaced)


def _replaced_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.replaced")


@contextmanager
def _writing(path: Path) -> Iterator[Path]:
    """Yield the folder that is to become `path`, as the only process. What is left of it at the end is removed."""
    partial = path.with_name(f".{path.name}.partial")
    descriptor = _lock(partial, path)
    spare: int | None = None
    try:
        spare = os.dup(descriptor)  # a descriptor for the removal, which opens folders
        yield partial
    except BaseException:
        if spare is not None:
            _close(spare)
            spare = None
        with suppress(OSError):
            if _is_open_as(descriptor, partial):  # and is not `path` already
                remove_folder(partial)
        raise
    finally:
        for opened in (spare, descriptor):
            if opened is not None:
                _close(opened)


def _lock(partial: Path, path: Path) -> int:
    """Create and lock a folder, and return its descriptor. The kernel releases the lock, however this process ends."""
    while True:
        partial.mkdir(exist_ok=True)
        try:
            descriptor = os.open(partial, os.O_RDONLY)
        except BaseException:
            _remove_empty(partial)
            raise
        try:
            with naming(partial):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_open_as(descriptor, partial):
                return descriptor
            _close(descriptor)  # another process has just finished: the folder has become `path`
        except BlockingIOError as error:
            _close(descriptor)
            raise PackagingError(
                f"Another process is writing {path}. Wait for it, or choose another folder."
            ) from error
        except BaseException:
            _close(descriptor)
            _remove_empty(partial)
            raise


def _is_open_as(descriptor: int, path: Path, *, follow_links: bool = True) -> bool:
    """Return whether a descriptor is that of what has this name now."""
    try:
        with naming(path):
            return os.path.samestat(os.fstat(descriptor), path.stat(follow_symlinks=follow_links))
    except FileNotFoundError:
        return False


def _restore(path: Path) -> bool:
    """Rename a replaced folder back and return True, unless there is a folder at `path`. The caller holds the lock."""
    replaced = _replaced_path(path)
    is_lost = replaced.exists() and not path.exists()
    if is_lost:
        replaced.rename(path)
    return is_lost


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def remove_folder(folder: Path) -> None:
    """Remove a folder as far as the file system allows. An entry that fails, or a signal, does not keep the others.

    If it is a link, only the link is removed.
    """
    with postponed_signals():
        for _ in range(REMOVAL_ATTEMPTS):
            for directory, folders, files in () if _is_link(folder) else os.walk(folder, topdown=False):
                for name in files:
                    _unlink(Path(directory, name))
                for name in folders:  # a link to a folder is among them
                    _remove_empty(Path(directory, name))
            _remove_empty(folder)
            with suppress(OSError):
                if not folder.exists():
                    return


def _is_link(path: Path) -> bool:
    """Return whether a path is known to be a link."""
    with suppress(OSError):
        return path.is_symlink()
    return False


def _unlink(path: Path) -> None:
    with suppress(OSError):
        path.unlink()


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.unlink() if folder.is_symlink() else folder.rmdir()
