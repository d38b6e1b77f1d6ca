"""An NSD tree in an S3 bucket: ranged reads that continue where a connection broke. Nothing is kept on disk."""

from __future__ import annotations

import io
import os
import time
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from ..errors import PackagingError
from ..s3_errors import explained

if TYPE_CHECKING:
    from botocore.session import Session
    from types_boto3_s3 import S3Client
    from types_boto3_s3.type_defs import ObjectTypeDef

READ_SECONDS = 30.0  # without a byte; then the rest is requested again
N_ATTEMPTS = 8  # without a single byte in between; the pause before the last is half a minute
PIECE_BYTES = 2**20  # received at a time, and so the most that a broken connection loses


class FileStatus(NamedTuple):
    """What changes when a file changes: its size in bytes, its time of modification on a disk, its ETag in a bucket."""

    size: int
    time_ns: int = 0
    etag: str = ""


@dataclass(unsafe_hash=True)
class Bucket:
    """A bucket of S3, or of a server that speaks its protocol (`AWS_ENDPOINT_URL`), and the prefix of a tree in it.

    Sizes and ETags come from one listing per folder, kept as long as this object, so that every part of a build sees the
    same objects. An object that changes meanwhile is noticed when it is read.
    """

    name: str
    prefix: str = ""
    _is_refused: bool = field(default=False, init=False, compare=False, repr=False)  # without a signature

    def __str__(self) -> str:
        return f"s3://{self.name}/{self.prefix}".rstrip("/")

    def __reduce__(self) -> tuple[type[Bucket], tuple[str, str]]:
        return Bucket, (self.name, self.prefix)  # another process opens its own connections

    def find(self, path: str) -> FileStatus | None:
        """Return the size and ETag of the object at `path`; None if there is none."""
        found = self._list(path).get(path)
        return FileStatus(found["Size"], etag=found["ETag"]) if found else None

    def names(self, folder: str) -> list[str]:
        """Return the sorted names of the objects in `folder`; an empty list if there are none."""
        return sorted(path.rpartition("/")[2] for path in self._list(f"{folder}/"))

    def near(self) -> list[Bucket]:
        """List the prefixes above this one."""
        parts = self.prefix.split("/") if self.prefix else []
        return [Bucket(self.name, "/".join(parts[:n])) for n in reversed(range(len(parts)))]

    def open(self, path: str) -> BucketFile:
        """Open an object that is there; nothing is fetched before a read."""
        return BucketFile(self, path, self._list(path)[path])

    def request(self, operation: str, **parameters: Any) -> Any:
        """Send a request to the bucket: without a signature, as NSD's own bucket allows, and signed since one was refused.

        Credentials that have expired or cannot be read therefore do not matter where none are needed.
        """
        from botocore.exceptions import ClientError  # here and below, because a tree in a folder needs no slow import

        client = self._signing if self._is_refused and self._signing else self._unsigned
        try:
            return getattr(client, operation)(Bucket=self.name, **parameters)
        except ClientError as error:
            is_refused = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") in (400, 401, 403)
            if not is_refused or client is self._signing or not self._signing:
                raise
        self._is_refused = True
        return self.request(operation, **parameters)

    @cached_property
    def _unsigned(self) -> S3Client:
        """A client that does not sign. It reads no credentials, and no settings if they are broken."""
        from botocore import UNSIGNED
        from botocore.credentials import CredentialResolver
        from botocore.exceptions import BotoCoreError
        from botocore.session import Session

        def connect(**settings: tuple[None, None, str | None, None]) -> S3Client:
            session = Session(settings)
            session.register_component("credential_provider", CredentialResolver([]))  # others may fail or ask a server
            return _connect(session, UNSIGNED)

        try:
            return connect()
        except BotoCoreError:  # a profile that is not there, or a file that is broken
            nothing, no_file = (None, None, None, None), (None, None, os.devnull, None)
            return connect(profile=nothing, region=nothing, config_file=no_file, credentials_file=no_file)

    @cached_property
    def _signing(self) -> S3Client | None:
        """A client that signs; None if there are no credentials."""
        from botocore.session import Session

        session = Session()
        return _connect(session, None) if session.get_credentials() else None

    @cached_property
    def _listings(self) -> dict[str, dict[str, ObjectTypeDef]]:
        return {}

    def _list(self, path: str) -> dict[str, ObjectTypeDef]:
        """Return the objects in the folder of `path`, by their paths."""
        folder = path[: path.rfind("/") + 1]
        if folder not in self._listings:
            root = f"{self.prefix}/" if self.prefix else ""
            with explained(f"{self}/{folder}", "to list the folder", "s3:ListBucket"):
                objects: list[ObjectTypeDef] = []
                more: dict[str, str] | None = {}
                while more is not None:
                    page = self.request("list_objects_v2", Prefix=root + folder, Delimiter="/", **more)
                    objects += page.get("Contents", ())
                    more = {"ContinuationToken": page["NextContinuationToken"]} if page["IsTruncated"] else None
            self._listings[folder] = {found["Key"].removeprefix(root): found for found in objects}
        return self._listings[folder]


def _connect(session: Session, signature: Any) -> S3Client:
    from botocore.config import Config

    config = Config(
        retries={"mode": "standard", "max_attempts": 5},
        read_timeout=READ_SECONDS,
        max_pool_connections=4 * BucketFile.n_readers,
        signature_version=signature,
    )
    return cast("S3Client", session.create_client("s3", config=config))


class BucketFile(io.RawIOBase):
    """An object of a bucket as a file without a buffer. Attributes as in `FolderFile`."""

    n_readers = 4  # and two files are read at the same time; one connection to S3 carries 50 to 100 MB/s
    # Amazon, "Best practices design patterns: optimizing Amazon S3 performance": 8 to 16 MB per request.
    block_bytes = 8 * 2**20

    def __init__(self, bucket: Bucket, path: str, listed: ObjectTypeDef) -> None:
        self._bucket, self._path, self._listed, self._position = bucket, path, listed, 0

    def readable(self) -> bool:
        """Return that the file can be read."""
        return True

    def seekable(self) -> bool:
        """Return that the position can be changed."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Change the position; this fetches nothing."""
        starts = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._listed["Size"]}
        self._position = starts[whence] + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer, up to the end of the object."""
        n_read = self.read_at(self._position, memoryview(buffer).cast("B"))
        self._position += n_read
        return n_read

    def read_at(self, start: int, buffer: memoryview) -> int:
        """Fill `buffer` from byte `start` on, and return how many bytes the object had for it.

        If the connection breaks or stalls, a new one continues at the byte where it broke.

        Raises
        ------
        PackagingError
            If the object has changed or is gone, may not be read, or the server does not answer.
        """
        from botocore.exceptions import HTTPClientError, IncompleteReadError  # every way in which a connection fails

        buffer = buffer[: max(0, self._listed["Size"] - start)]
        n_read = n_failures = 0
        with explained(f"{self._bucket}/{self._path}", "to read the object", "s3:GetObject"):
            while n_read < len(buffer):
                try:
                    body = self._request(start + n_read, len(buffer) - n_read)
                    while n := body.readinto(buffer[n_read : n_read + PIECE_BYTES]):
                        n_read, n_failures = n_read + n, 0
                except (HTTPClientError, IncompleteReadError, OSError):
                    n_failures += 1
                    if n_failures == N_ATTEMPTS:
                        raise
                    time.sleep(0.25 * 2 ** (n_failures - 1))
        return n_read

    def _request(self, start: int, n_bytes: int) -> Any:
        """Request a range of bytes, and refuse the answer of a proxy that ignores which bytes it was asked for."""
        key = f"{self._bucket.prefix}/{self._path}".lstrip("/")
        last, size, etag = start + n_bytes - 1, self._listed["Size"], self._listed["ETag"]
        answer = self._bucket.request("get_object", Key=key, Range=f"bytes={start}-{last}", IfMatch=etag)
        answered = answer.get("ContentLength"), answer.get("ContentRange")
        if answered != (n_bytes, f"bytes {start}-{last}/{size}"):
            raise PackagingError(
                f"{self._bucket}/{self._path}: the server was asked for the bytes {start}-{last} of {size}, but answered with "
                f"{answered[0]} bytes, {answered[1]}. Is there a proxy in between? Download the files."
            )
        return answer["Body"]
