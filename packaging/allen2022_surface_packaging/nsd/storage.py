"""Where the files of an NSD tree lie: a folder or an S3 bucket, read through one small set of methods."""

from __future__ import annotations

import io
import os
import re
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import PackagingError

N_CONNECTIONS = 4  # a file, and two files are read at a time; one connection to S3 carries 50 to 100 MB/s
N_ATTEMPTS = 8  # in a row without a byte; the last waits half a minute
PAGE_BYTES = 64 * 2**10  # small reads of a bucket's file, such as HDF5's, are widened to this
N_PAGES = 64
PIECE_BYTES = 2**20  # what is received at a time, and so the most that a broken connection loses


class FolderFile(io.FileIO):
    """A file on a disk."""

    # Read by whoever asks: the kernel reads ahead, and a block that another core has read costs more to gather from than
    # it cost to read.
    n_readers = 0
    block_bytes = 2 * 2**20  # large enough for a network disk, small enough for a core's cache

    def read_at(self, start: int, buffer: memoryview) -> int:
        """Fill `buffer` from byte `start` on, and return how many bytes there were."""
        n_read = 0
        while n_read < len(buffer):
            n = os.preadv(self.fileno(), [buffer[n_read:]], start + n_read)
            if not n:
                break
            n_read += n
        return n_read


@dataclass(frozen=True)
class Folder:
    """A folder on a local or network disk."""

    root: Path

    def __str__(self) -> str:
        return str(self.root)

    def locate(self, path: str) -> str:
        """Return where `path` lies, for messages."""
        return str(self.root / path)

    def exists(self, path: str) -> bool:
        """Tell whether there is a file at `path`."""
        return (self.root / path).is_file()

    def names(self, folder: str) -> list[str]:
        """Return the names of the files in `folder`, sorted; none where there is no such folder."""
        directory = self.root / folder
        return sorted(entry.name for entry in directory.iterdir()) if directory.is_dir() else []

    def size(self, path: str) -> int:
        """Return the size of the file at `path`, in bytes."""
        return (self.root / path).stat().st_size

    def stamp(self, path: str) -> str:
        """Return what changes when the file at `path` does: its place, size and modification time."""
        status = (self.root / path).stat()
        return f"{(self.root / path).resolve()}:{status.st_size}:{status.st_mtime_ns}"

    def open(self, path: str) -> FolderFile:
        """Open the file at `path` for reading, unbuffered: every reader here asks for whole blocks."""
        return FolderFile(self.root / path)


@dataclass(frozen=True)
class StoredObject:
    """One object of a bucket, as its listing gives it."""

    size: int
    etag: str


@dataclass(frozen=True)
class Bucket:
    """A bucket of S3, or of a server that speaks its protocol (`AWS_ENDPOINT_URL`), and the prefix of a tree in it.

    Nothing is kept on disk. Sizes and ETags come from one listing a folder, kept as long as the storage, so that every
    part of a build sees the same objects; one that changes meanwhile is noticed when it is read.
    """

    name: str
    prefix: str = ""

    def __str__(self) -> str:
        return "/".join(["s3:/", self.name, *([self.prefix] if self.prefix else [])])

    def __reduce__(self) -> tuple[type[Bucket], tuple[str, str]]:
        return Bucket, (self.name, self.prefix)  # a connection stays in the process that made it

    def locate(self, path: str) -> str:
        """Return where `path` lies, for messages."""
        return f"{self}/{path}"

    def exists(self, path: str) -> bool:
        """Tell whether there is an object at `path`."""
        folder, _, name = path.rpartition("/")
        return name in self._list(folder)

    def names(self, folder: str) -> list[str]:
        """Return the names of the objects in `folder`, sorted; none where there are none."""
        return sorted(self._list(folder))

    def size(self, path: str) -> int:
        """Return the size of the object at `path`, in bytes."""
        return self._find(path).size

    def stamp(self, path: str) -> str:
        """Return what changes when the object at `path` does: its place, size and ETag."""
        found = self._find(path)
        return f"{self.locate(path)}:{found.size}:{found.etag}"

    def open(self, path: str) -> BucketFile:
        """Open the object at `path` for reading; nothing is fetched before it is asked for."""
        return BucketFile(self, path, self._find(path))

    def key(self, path: str) -> str:
        """Return the S3 key of `path`."""
        return f"{self.prefix}/{path}" if self.prefix else path

    @cached_property
    def client(self) -> Any:
        """The S3 client: anonymous where there are no credentials, as NSD's own bucket allows."""
        import boto3  # here, because its import takes a while that a tree in a folder need not spend
        import botocore

        session = boto3.Session()
        settings: dict[str, Any] = {
            "retries": {"mode": "standard", "max_attempts": 5},
            "connect_timeout": 10,
            "read_timeout": 30,
            "max_pool_connections": 4 * N_CONNECTIONS,
        }
        if session.get_credentials() is None:
            settings["signature_version"] = botocore.UNSIGNED
        return session.client("s3", config=botocore.config.Config(**settings))

    @cached_property
    def _listings(self) -> dict[str, dict[str, StoredObject]]:
        return {}

    def _list(self, folder: str) -> dict[str, StoredObject]:
        if folder not in self._listings:
            prefix = self.key(f"{folder}/" if folder else "")
            found: dict[str, StoredObject] = {}
            with _one_line_errors(self.locate(folder)):
                pages = self.client.get_paginator("list_objects_v2").paginate(
                    Bucket=self.name, Prefix=prefix, Delimiter="/"
                )
                for page in pages:
                    for entry in page.get("Contents", []):
                        found[entry["Key"][len(prefix) :]] = StoredObject(entry["Size"], entry["ETag"])
            self._listings[folder] = found
        return self._listings[folder]

    def _find(self, path: str) -> StoredObject:
        folder, _, name = path.rpartition("/")
        found = self._list(folder).get(name)
        if found is None:
            raise PackagingError(f"{self.locate(path)} is missing.")
        return found


class BucketFile(io.RawIOBase):
    """An object of a bucket as a file to read and seek in, which fetches only the bytes that are asked for."""

    n_readers = N_CONNECTIONS
    # What Amazon's "Best practices design patterns: optimizing Amazon S3 performance" gives as a typical range.
    block_bytes = 8 * 2**20

    def __init__(self, bucket: Bucket, path: str, found: StoredObject) -> None:
        self._bucket = bucket
        self._path = path
        self._found = found
        self._position = 0
        self._pages: OrderedDict[int, bytes] = OrderedDict()

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def seekable(self) -> bool:
        """Tell that it can be sought in."""
        return True

    def tell(self) -> int:
        """Return the position, in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to another position, which costs nothing."""
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._found.size}[whence]
        self._position = origin + offset
        return self._position

    def readall(self) -> bytes:
        """Read all that is left, in one request."""
        content = bytearray(max(0, self._found.size - self._position))
        self._position += self.read_at(self._position, memoryview(content))
        return bytes(content)

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer, up to the end; small reads are served from pages that were fetched before.

        Never less than what is there, as a pipe may give: h5py asks once, and takes what it gets for the whole.
        """
        target = memoryview(buffer).cast("B")
        if len(target) >= PAGE_BYTES:
            n_read = self.read_at(self._position, target)
        else:
            first, last = self._position // PAGE_BYTES, (self._position + len(target)) // PAGE_BYTES
            start = self._position - first * PAGE_BYTES
            piece = b"".join(self._page(number) for number in range(first, last + 1))[start : start + len(target)]
            n_read = len(piece)
            target[:n_read] = piece
        self._position += n_read
        return n_read

    def read_at(self, start: int, buffer: memoryview) -> int:
        """Fill `buffer` from byte `start` on, and return how many bytes there were.

        A connection that breaks is taken up again at the byte where it broke.

        Raises
        ------
        PackagingError
            If the object has changed or gone, may not be read, or the server stays away.
        """
        buffer = buffer[: max(0, self._found.size - start)]
        n_read = n_failures = 0
        while n_read < len(buffer):
            n_before = n_read
            with _one_line_errors(self._bucket.locate(self._path)):
                try:
                    for n in self._receive(start + n_read, buffer[n_read:]):
                        n_read += n
                except _connection_errors():
                    n_failures = 1 if n_read > n_before else n_failures + 1
                    if n_failures == N_ATTEMPTS:
                        raise
                    time.sleep(0.25 * 2 ** (n_failures - 1))
        return n_read

    def _receive(self, start: int, buffer: memoryview) -> Iterator[int]:
        """Ask for one range and receive it in pieces, yielding the bytes that came with each."""
        response = self._bucket.client.get_object(
            Bucket=self._bucket.name,
            Key=self._bucket.key(self._path),
            Range=f"bytes={start}-{start + len(buffer) - 1}",
            IfMatch=self._found.etag,
        )
        body, n_read = response["Body"], 0
        try:
            while n_read < len(buffer):
                n = body.readinto(buffer[n_read : n_read + PIECE_BYTES])
                if not n:
                    raise ConnectionResetError(f"the connection ended {len(buffer) - n_read:,} bytes early")
                n_read += n
                yield n
        finally:
            body.close()

    def _page(self, number: int) -> bytes:
        if number not in self._pages:
            content = bytearray(PAGE_BYTES)
            n_read = self.read_at(number * PAGE_BYTES, memoryview(content))
            self._pages[number] = bytes(content[:n_read])
            if len(self._pages) > N_PAGES:
                self._pages.popitem(last=False)
        self._pages.move_to_end(number)
        return self._pages[number]


Storage = Folder | Bucket


def open_storage(root: str | Path) -> Storage:
    """Return the storage at `root`: a folder, or ``s3://bucket[/prefix]``.

    Raises
    ------
    PackagingError
        If there is no folder at `root`, or the address is not one of a bucket.
    """
    address = re.fullmatch(r"s3:/+([^/]+)/*(.*)", str(root))  # a Path has lost one of the two slashes
    if address:
        return Bucket(address[1], address[2].strip("/"))
    if re.match(r"[a-z0-9]+:/", str(root)):
        raise PackagingError(f"{root} is not an NSD tree. Expected a folder, or s3://bucket or s3://bucket/prefix.")
    folder = Path(root)
    if not folder.is_dir():
        raise PackagingError(f"{root} is not a folder. Expected an NSD tree: a folder in the official or flat layout.")
    return Folder(folder)


def _connection_errors() -> tuple[type[BaseException], ...]:
    from botocore import exceptions

    # HTTPClientError covers connections that could not be made, broke or stood still, each by its own subclass.
    return (exceptions.HTTPClientError, exceptions.IncompleteReadError, exceptions.ResponseStreamingError, OSError)


@contextmanager
def _one_line_errors(place: str) -> Iterator[None]:
    """Turn what boto3 raises into a `PackagingError` that says what to do."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        advice = {
            "412": "It changed while it was read: start again.",
            "PreconditionFailed": "It changed while it was read: start again.",
            "NoSuchKey": "It is there no more: start again.",
            "NoSuchBucket": "There is no such bucket: is its name right?",
            "AccessDenied": "Reading it is not allowed: do the credentials fit? Without any, it is read anonymously.",
            "403": "Reading it is not allowed: do the credentials fit? Without any, it is read anonymously.",
        }.get(code, "Is it there, and may it be read?")
        raise PackagingError(f"{place} cannot be read ({' '.join(str(error).split())}). {advice}") from error
    except (BotoCoreError, OSError) as error:
        raise PackagingError(
            f"{place} cannot be read ({' '.join(str(error).split())}). Is the network up, and AWS_ENDPOINT_URL right?"
        ) from error
