"""Where the files of an NSD tree lie: a folder or an S3 bucket, read through one small set of methods."""

from __future__ import annotations

import io
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from ..errors import PackagingError
from ..files import LARGEST_FILE_BYTES, naming
from .bucket import Bucket, BucketFile


class FolderFile(io.FileIO):
    """A file on a disk. Every read gives all bytes that the file has for it, even if the system gives them in parts.

    Attributes
    ----------
    n_readers : how many threads should read ahead; 0 if the thread that uses the data should read it
    block_bytes : how many bytes to read at a time
    """

    # The thread that uses the data reads it: the kernel reads ahead, and gathering from a block in another core's cache
    # costs more than reading it.
    n_readers = 0
    block_bytes = 2 * 2**20  # large enough for a network disk, small enough for a core's cache

    def read(self, size: int | None = -1) -> bytes:
        """Read up to `size` bytes, or everything that is left."""
        if size is None or size < 0:
            return self.readall()
        content = bytearray(size)
        n_read = self.readinto(content)
        return bytes(content[:n_read])

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer, up to the end of the file. HDF5 asks once and does not check how many bytes it gets."""
        n_read = self.read_at(self.tell(), memoryview(buffer).cast("B"))
        self.seek(n_read, os.SEEK_CUR)
        return n_read

    def readall(self) -> bytes:
        """Read everything that is left."""
        content = bytearray(max(0, os.fstat(self.fileno()).st_size - self.tell()))
        n_read = self.readinto(content)
        return bytes(content[:n_read])

    def read_at(self, start: int, buffer: memoryview) -> int:
        """Fill `buffer` from byte `start` on, and return how many bytes the file had for it."""
        n_read = 0
        with naming(Path(os.fsdecode(self.name))):
            while n_read < len(buffer):
                n = os.preadv(self.fileno(), [buffer[n_read:]], start + n_read)
                if not n:
                    break
                n_read += n
        return n_read

    def close(self) -> None:
        """Close the file. An error is ignored: what was read is in memory, and nothing was written."""
        with suppress(OSError):
            super().close()


@dataclass(frozen=True)
class Folder:
    """A folder on a local or network disk."""

    root: Path

    def __str__(self) -> str:
        return str(self.root)

    def locate(self, path: str) -> str:
        """Return the full path of `path`, for messages."""
        return str(self.root / path)

    def exists(self, path: str) -> bool:
        """Return whether there is a file at `path`."""
        return (self.root / path).is_file()

    def names(self, folder: str) -> list[str]:
        """Return the sorted names of the files in `folder`; an empty list if there is no such folder."""
        directory = self.root / folder
        return sorted(entry.name for entry in directory.iterdir()) if directory.is_dir() else []

    def size(self, path: str) -> int:
        """Return the size of the file at `path`, in bytes."""
        return self._status(path).st_size

    def stamp(self, path: str) -> str:
        """Return a text that changes when the file changes: its full path, size and modification time."""
        status = self._status(path)
        return f"{(self.root / path).resolve()}:{status.st_size}:{status.st_mtime_ns}"

    def open(self, path: str) -> FolderFile:
        """Open the file at `path` for reading, without a buffer: every reader here asks for whole blocks."""
        return FolderFile(self.root / path)

    def _status(self, path: str) -> os.stat_result:
        try:
            return (self.root / path).stat()
        except FileNotFoundError as error:
            raise PackagingError(f"{self.locate(path)} is missing.") from error


Storage: TypeAlias = Folder | Bucket
OpenFile: TypeAlias = FolderFile | BucketFile


@dataclass(frozen=True)
class RawFile:
    """A raw file of NSD, which may be missing.

    Attributes
    ----------
    path : below the root of the storage
    official_path : the path of the same file in NSD's public bucket, under which a release records it
    """

    storage: Storage
    path: str
    official_path: str

    def __str__(self) -> str:
        return self.storage.locate(self.path)

    def exists(self) -> bool:
        """Return whether the file is there."""
        return self.storage.exists(self.path)

    def size(self) -> int:
        """Return the size of the file, in bytes."""
        return self.storage.size(self.path)

    def stamp(self) -> str:
        """Return a text that changes when the file changes."""
        return self.storage.stamp(self.path)

    def open(self) -> OpenFile:
        """Open the file for reading.

        Raises
        ------
        PackagingError
            If the file is missing.
        """
        if not self.exists():
            raise PackagingError(f"{self} is missing. Download it ({self.official_path}).")
        return self.storage.open(self.path)

    def read(self) -> bytes:
        """Read the whole file.

        Raises
        ------
        PackagingError
            If the file is missing, or far too large to be read as a whole.
        """
        if self.exists() and self.size() > LARGEST_FILE_BYTES:
            raise PackagingError(
                f"{self} has {self.size():,} bytes, expected at most {LARGEST_FILE_BYTES:,}. Download it again."
            )
        with self.open() as file:
            return file.read()


def open_storage(root: str | Path) -> Storage:
    """Return the storage at `root`: a folder, or ``s3://bucket[/prefix]``.

    Raises
    ------
    PackagingError
        If there is no folder at `root`, or the address does not name a bucket.
    """
    address = re.fullmatch(r"s3:/+([^/]+)/*(.*)", str(root))  # a Path has lost one of the two slashes
    if address and re.fullmatch(r"[\w.-]+|arn:[\w.:-]+", address[1]):
        return Bucket(address[1], address[2].strip("/"))
    if re.match(r"[a-z0-9]+:/", str(root)):
        raise PackagingError(f"{root} is not an NSD tree. Expected a folder, or s3://bucket or s3://bucket/prefix.")
    folder = Path(root)
    if not folder.is_dir():
        raise PackagingError(f"{root} is not a folder. Expected an NSD tree: a folder in the official or flat layout.")
    return Folder(folder)
