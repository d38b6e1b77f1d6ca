"""The shape of an assembly on S3: recorded, known, or read from its header."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import boto3
import h5py

from ..errors import PackagingError
from ..s3_errors import explained
from .artifacts import ObjectRecord

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

N_DIMENSIONS = 3
BUFFER_BYTES = 2**16
# The assemblies that Brain-Score's maintainers published, by their SHA-1: shapes that data/allen2022_fmri_surface/test.py of
# brain-score/vision 2.4.2 expects.
PUBLISHED_SHAPES = {
    "67241ed5a84d8e7ae77f8c8d72e7219508fb9d7e": (412, 221168, 1),
    "8b4fcc132b5c1e81bb61e38ca51875a98619066b": (309, 221168, 1),
    "5c1e7ab2d1444c140028599f8a30aeae34297c87": (800, 110584, 1),
    "1f8524de28ad6cd3a89feddcfb82d9ab67dd9656": (600, 110584, 1),
}


def find_shape(record: ObjectRecord) -> tuple[int, int, int]:
    """Return the shape of an assembly. If it is neither recorded nor known, the header of the object is read from S3.

    Raises
    ------
    PackagingError
        If the object has to be read and cannot be, or is no assembly.
    """
    return record.shape or PUBLISHED_SHAPES.get(record.sha1) or read_shape(record)


def read_shape(record: ObjectRecord) -> tuple[int, int, int]:
    """Read the shape of an assembly from its header on S3. A few kilobytes are downloaded.

    Raises
    ------
    PackagingError
        If S3 does not give the object, or it is no assembly.
    """
    with explained(record.url, "to read the shape of the assembly", "s3:GetObjectVersion"):
        reader = io.BufferedReader(_ObjectReader(boto3.client("s3"), record), BUFFER_BYTES)
        with h5py.File(reader, "r") as file:
            shapes = [item.shape for item in file.values() if len(getattr(item, "shape", ())) == N_DIMENSIONS]
    if len(shapes) != 1:
        raise PackagingError(
            f"{record.url} is no assembly: {len(shapes)} of its arrays have {N_DIMENSIONS} dimensions."
        )
    n_presentations, n_neuroids, n_time_bins = shapes[0]
    return n_presentations, n_neuroids, n_time_bins


class _ObjectReader(io.RawIOBase):
    """A version of an S3 object as a file, of which only what is read is downloaded."""

    def __init__(self, client: S3Client, record: ObjectRecord) -> None:
        self.client = client
        self.version: dict[str, Any] = {"Bucket": record.bucket, "Key": record.key, "VersionId": record.version_id}
        self.size = client.head_object(**self.version)["ContentLength"]
        self.position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.size}[whence]
        return self.position

    def readinto(self, buffer: Any) -> int:
        stop = min(self.position + len(buffer), self.size)
        if stop <= self.position:
            return 0
        content = self.client.get_object(**self.version, Range=f"bytes={self.position}-{stop - 1}")["Body"].read()
        buffer[: len(content)] = content
        self.position += len(content)
        return len(content)
