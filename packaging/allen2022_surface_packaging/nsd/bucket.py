"""An NSD tree in an S3 bucket: ranged reads that continue where a connection broke. Nothing is kept on disk."""

from __future__ import annotations

import io
import os
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from ..errors import PackagingError
from ..s3_errors import explained

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

N_CONNECTIONS = 4  # per file, and two files are read at the same time; one connection to S3 carries 50 to 100 MB/s
READ_SECONDS = 30.0  # without a byte; then the request is repeated
N_ATTEMPTS = 8  # without a single byte in between; the pause before the last is half a minute
PAGE_BYTES = 64 * 2**10  # small reads from a bucket, such as HDF5's, are widened to this
N_PAGES = 64
PIECE_BYTES = 2**20  # received at a time, and so the most that a broken connection loses


@dataclass(frozen=True)
class ListedObject:
    """An object of a bucket, as the listing of its folder describes it."""

    size: int
    etag: str


@dataclass(frozen=True)
class Bucket:
    """A bucket of S3, or of a server that speaks its protocol (`AWS_ENDPOINT_URL`), and the prefix of a tree in it.

    Nothing is kept on disk. Sizes and ETags come from one listing per folder, kept as long as this object, so that every
    part of a build sees the same objects. An object that changes meanwhile is noticed when it is read.
    """

    name: str
    prefix: str = ""

    def __str__(self) -> str:
        return "/".join(["s3:/", self.name, *([self.prefix] if self.prefix else [])])

    def __reduce__(self) -> tuple[type[Bucket], tuple[str, str]]:
        return Bucket, (self.name, self.prefix)  # another process opens its own connection

    def locate(self, path: str) -> str:
        """Return the full address of `path`, for messages."""
        return f"{self}/{path}"

    def exists(self, path: str) -> bool:
        """Return whether there is an object at `path`."""
        folder, _, name = path.rpartition("/")
        return name in self._list(folder)

    def names(self, folder: str) -> list[str]:
        """Return the sorted names of the objects in `folder`; an empty list if there are none."""
        return sorted(self._list(folder))

    def size(self, path: str) -> int:
        """Return the size of the object at `path`, in bytes."""
        return self._listed(path).size

    def stamp(self, path: str) -> str:
        """Return a text that changes when the object changes: its address, size and ETag."""
        listed = self._listed(path)
        return f"{self.locate(path)}:{listed.size}:{listed.etag}"

    def open(self, path: str) -> BucketFile:
        """Open the object at `path` for reading; nothing is fetched before a read."""
        return BucketFile(self, path, self._listed(path))

    def key(self, path: str) -> str:
        """Return the S3 key of `path`."""
        return f"{self.prefix}/{path}" if self.prefix else path

    @cached_property
    def client(self) -> S3Client:
        """The S3 client: anonymous if there are no credentials, as NSD's own bucket allows."""
        import boto3  # here, because the import is slow and a tree in a folder does not need it
        from botocore import UNSIGNED
        from botocore.config import Config

        session = boto3.Session()
        config = Config(
            retries={"mode": "standard", "max_attempts": 5},
            connect_timeout=10,
            read_timeout=READ_SECONDS,
            max_pool_connections=4 * N_CONNECTIONS,
        )
        if session.get_credentials() is None:
            config = config.merge(Config(signature_version=UNSIGNED))
        return session.client("s3", config=config)

    @cached_property
    def _listings(self) -> dict[str, dict[str, ListedObject]]:
        return {}

    def _list(self, folder: str) -> dict[str, ListedObject]:
        if folder not in self._listings:
            prefix = self.key(f"{folder}/" if folder else "")
            listing = {}
            with explained(self.locate(folder), "to list the folder", "s3:ListBucket"):
                pages = self.client.get_paginator("list_objects_v2").paginate(
                    Bucket=self.name, Prefix=prefix, Delimiter="/"
                )
                for page in pages:
                    for entry in page.get("Contents", []):
                        listing[entry["Key"][len(prefix) :]] = ListedObject(entry["Size"], entry["ETag"])
            self._listings[folder] = listing
        return self._listings[folder]

    def _listed(self, path: str) -> ListedObject:
        folder, _, name = path.rpartition("/")
        listed = self._list(folder).get(name)
        if listed is None:
            raise PackagingError(f"{self.locate(path)} is missing.")
        return listed


class BucketFile(io.RawIOBase):
    """An object of a bucket as a file. It fetches only the bytes that are read. Attributes as in `FolderFile`."""

    n_readers = N_CONNECTIONS
    # Amazon, "Best practices design patterns: optimizing Amazon S3 performance": 8 to 16 MB per request.
    block_bytes = 8 * 2**20

    def __init__(self, bucket: Bucket, path: str, listed: ListedObject) -> None:
        self._bucket = bucket
        self._path = path
        self._listed = listed
        self._position = 0
        self._pages: OrderedDict[int, bytes] = OrderedDict()

    def __enter__(self) -> BucketFile:
        return self

    def readable(self) -> bool:
        """Return that the file can be read."""
        return True

    def seekable(self) -> bool:
        """Return that the position can be changed."""
        return True

    def tell(self) -> int:
        """Return the position, in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Change the position; this fetches nothing."""
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._listed.size}[whence]
        self._position = origin + offset
        return self._position

    def readall(self) -> bytes:
        """Read everything that is left, in one request."""
        content = bytearray(max(0, self._listed.size - self._position))
        self._position += self.read_at(self._position, memoryview(content))
        return bytes(content)

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer, up to the end of the object. HDF5 asks once and does not check how many bytes it gets.

        Small reads come from pages that are kept in memory.
        """
        target = memoryview(buffer).cast("B")
        if len(target) >= PAGE_BYTES:
            n_read = self.read_at(self._position, target)
        else:
            first, last = self._position // PAGE_BYTES, (self._position + len(target)) // PAGE_BYTES
            start = self._position - first * PAGE_BYTES
            content = b"".join(self._page(number) for number in range(first, last + 1))[start : start + len(target)]
            n_read = len(content)
            target[:n_read] = content
        self._position += n_read
        return n_read

    def read_at(self, start: int, buffer: memoryview) -> int:
        """Fill `buffer` from byte `start` on, and return how many bytes the object had for it.

        If the connection breaks, a new one continues at the byte where it broke.

        Raises
        ------
        PackagingError
            If the object has changed or is gone, may not be read, or the server does not answer.
        """
        buffer = buffer[: max(0, self._listed.size - start)]
        n_read = n_failures = 0
        with explained(self._bucket.locate(self._path), "to read the object", "s3:GetObject"):
            while n_read < len(buffer):
                n_before = n_read
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
        """Request one range and receive it in pieces; yield the number of bytes of each piece."""
        response = self._bucket.client.get_object(
            Bucket=self._bucket.name,
            Key=self._bucket.key(self._path),
            Range=f"bytes={start}-{start + len(buffer) - 1}",
            IfMatch=self._listed.etag,
        )
        body, n_read = cast(Any, response["Body"]), 0  # its stubs ask for a file in place of a buffer
        try:
            self._require_range(response, start, start + len(buffer) - 1)
            while n_read < len(buffer):
                n = body.readinto(buffer[n_read : n_read + PIECE_BYTES])
                if not n:
                    raise ConnectionResetError(f"the connection ended {len(buffer) - n_read:,} bytes early")
                n_read += n
                yield n
        finally:
            body.close()

    def _require_range(self, response: Mapping[str, Any], first: int, last: int) -> None:
        """Refuse the answer of a server or a proxy that ignores which bytes of which object it was asked for."""
        size = self._listed.size
        whole = f"bytes 0-{size - 1}/{size}" if response.get("ContentLength") == size else "no range"
        asked, answered = f"bytes {first}-{last}/{size}", response.get("ContentRange", whole)
        if answered != asked or response.get("ETag", self._listed.etag) != self._listed.etag:
            raise PackagingError(
                f"{self._bucket.locate(self._path)}: the server was asked for {asked} of {self._listed.etag}, but answered with "
                f"{answered} of {response.get('ETag')}. Is there a proxy in between, or "
                "has the object changed? Start again, or download the files."
            )

    def _page(self, number: int) -> bytes:
        if number not in self._pages:
            content = bytearray(PAGE_BYTES)
            n_read = self.read_at(number * PAGE_BYTES, memoryview(content))
            self._pages[number] = bytes(content[:n_read])
            if len(self._pages) > N_PAGES:
                self._pages.popitem(last=False)
        self._pages.move_to_end(number)
        return self._pages[number]


def _connection_errors() -> tuple[type[BaseException], ...]:
    from botocore import exceptions

    # Every way in which a connection fails is a subclass of HTTPClientError.
    return (exceptions.HTTPClientError, exceptions.IncompleteReadError, exceptions.ResponseStreamingError, OSError)
