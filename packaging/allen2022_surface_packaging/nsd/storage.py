"""Where the files of an NSD tree lie: a folder or an S3 bucket, read through one small set of methods."""

from __future__ import annotations

import io
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeAlias

from ..errors import PackagingError
from ..files import naming
from .bucket import Bucket, BucketFile, FileStatus


class FolderFile(io.FileIO):
    """An open file on a disk.

    Attributes
    ----------
    n_readers : how many threads should read ahead; 0 if the thread that uses the data should read it
    block_bytes : how many bytes to read at a time
    """

    # The thread that uses the data reads it: the kernel reads ahead, and gathering from a block in another core's cache
    # costs more than reading it.
    n_readers = 0
    block_bytes = 2 * 2**20  # large enough for a network disk, small enough for a core's cache

    def read_at(self, start: int, buffer: memoryview) -> int:
        """Fill `buffer` from byte `start` on, even if the system gives the bytes in parts; return how many there were."""
        n_read = 0
        with naming(Path(os.fsdecode(self.name))):
            while n_read < len(buffer) and (n := os.preadv(self.fileno(), [buffer[n_read:]], start + n_read)):
                n_read += n
        return n_read


@dataclass(frozen=True)
class Folder:
    """A folder on a local or network disk."""

    root: Path

    def __str__(self) -> str:
        return str(self.root)

    def find(self, path: str) -> FileStatus | None:
        """Return the size and time of the file at `path`; None if there is none."""
        full_path = self.root / path
        if not full_path.is_file():
            return None
        status = full_path.stat()
        return FileStatus(status.st_size, status.st_mtime_ns)

    def names(self, folder: str) -> list[str]:
        """Return the sorted names of the files in `folder`; an empty list if there is no such folder."""
        directory = self.root / folder
        return sorted(entry.name for entry in directory.iterdir()) if directory.is_dir() else []

    def near(self) -> list[Folder]:
        """List the folders above, and then inside, a folder that is not empty."""
        root = self.root.resolve()
        entries = sorted(root.iterdir()) if root.is_dir() else []
        inside = [entry for entry in entries if entry.is_dir() and os.access(entry, os.R_OK | os.X_OK)]
        return [Folder(path) for path in (*root.parents, *inside)] if entries else []

    def open(self, path: str) -> FolderFile:
        """Open the file at `path`, without a buffer: every reader here asks for whole blocks."""
        return FolderFile(self.root / path)


Storage: TypeAlias = Folder | Bucket


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
        return f"{self.storage}/{self.path}"

    def exists(self) -> bool:
        """Return whether the file is there."""
        return self.storage.find(self.path) is not None

    def size(self) -> int:
        """Return the size of the file, in bytes."""
        return self.stamp().size

    def stamp(self) -> FileStatus:
        """Return what changes when the file changes. A missing file is an error, here and below."""
        found = self.storage.find(self.path)
        if found is None:
            raise PackagingError(f"{self} is missing. Download it ({self.official_path}).")
        return found

    def open(self) -> FolderFile | BucketFile:
        """Open the file for reading."""
        self.stamp()
        return self.storage.open(self.path)

    def read(self, most: int | None = None) -> bytes:
        """Read the whole file, or its first bytes, at most `most`."""
        content = bytearray(self.size() if most is None else most)
        with self.open() as file:
            n_read = file.read_at(0, memoryview(content))
        return bytes(content[:n_read])

    def hdf5_source(self) -> str | BinaryIO:
        """Return what h5py opens: the path of a file in a folder, or an object that is read in pages of 64 KB at least."""
        file = self.open()
        return str(self) if isinstance(file, FolderFile) else io.BufferedReader(file, 2**16)


def open_storage(root: str | Path) -> Storage:
    """Return the storage at `root`: a folder, which may be missing, or ``s3://bucket[/prefix]``.

    Raises
    ------
    PackagingError
        If `root` is a file, or its address does not name a bucket.
    """
    address = re.fullmatch(r"s3:/+([\w.-]+)(/.*)?", str(root))  # a Path has lost one of the two slashes
    if address:
        return Bucket(address[1], (address[2] or "").strip("/"))
    if re.match(r"[a-z0-9]+:/", str(root)):
        scheme = str(root).partition(":")[0]  # the rest may hold a password
        raise PackagingError(f"{scheme}:... is not an NSD tree. Expected a folder, s3://bucket or s3://bucket/prefix.")
    if Path(root).exists() and not Path(root).is_dir():
        raise PackagingError(f"{root} is not a folder. Expected an NSD tree: a folder in the official or flat layout.")
    return Folder(Path(root))
