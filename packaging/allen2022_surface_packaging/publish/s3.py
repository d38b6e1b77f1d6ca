"""A versioned S3 bucket to write to: what it holds, and files sent whole, checked, and never over unknown content."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import boto3
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError

from ..errors import PackagingError
from ..s3_errors import error_code, explained
from .objects import ObjectFile

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

# What S3 answers to somebody who may not read an object; 400 without a signature if it is encrypted by KMS, 404 if the
# existence of the object is hidden as well
REFUSED = {400, 401, 403, 404}
# What S3 answers if the condition of a PutObject does not hold (any more)
WRITTEN_MEANWHILE = {"PreconditionFailed", "ConditionalRequestConflict"}


@dataclass(frozen=True)
class ExistingObject:
    """The newest version of an object in S3, and whether it has the content that is to be there."""

    etag: str
    version_id: str
    is_same: bool


@dataclass(frozen=True)
class UploadTarget:
    """BUCKET or BUCKET/PREFIX, where objects are put with the configuration of boto3.

    All methods raise a `PackagingError` if the configuration does not work, or S3 does not answer or refuses.

    Attributes
    ----------
    destination : without slashes at its ends
    put_settings : what the bucket requires of each PutObject beside the content, such as ``ServerSideEncryption``
    """

    destination: str
    put_settings: Mapping[str, str]

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.-]+(/[\w.!*'()-]+)*", self.destination):
            raise PackagingError(
                f"The bucket is {self.destination!r}, expected BUCKET or BUCKET/PREFIX, the prefix without empty parts or spaces."
            )

    @property
    def bucket(self) -> str:
        """The name of the bucket."""
        return self.destination.partition("/")[0]

    @cached_property
    def client(self) -> S3Client:
        """A client that signs its requests."""
        return boto3.Session().client("s3")

    @cached_property
    def anonymous(self) -> S3Client:
        """A client of the same server that sends no credentials."""
        return boto3.Session().client("s3", config=Config(signature_version=UNSIGNED))

    def key(self, file: ObjectFile) -> str:
        """Return the key of the object that a file becomes."""
        return f"{self.destination.partition('/')[2]}/{file.item.name}".lstrip("/")

    def url(self, file: ObjectFile) -> str:
        """Return the address of the object that a file becomes, for messages."""
        return f"s3://{self.destination}/{file.item.name}"

    def require_versions(self) -> None:
        """Raise a `PackagingError` if the bucket keeps no versions, or cannot be asked."""
        with explained(f"s3://{self.bucket}", "to look at the bucket", "s3:GetBucketVersioning"):
            status = self.client.get_bucket_versioning(Bucket=self.bucket).get("Status", "never switched on")
        if status != "Enabled":
            raise PackagingError(
                f"s3://{self.bucket} keeps no versions (versioning is {status.lower()}), but loaders need the version of each "
                "object. Switch versioning on, or choose another bucket."
            )

    def look_up(self, file: ObjectFile) -> ExistingObject | None:
        """Return the object under the key of a file, or None. It is read only if S3's checksum does not tell its content."""
        address: dict[str, Any] = {"Bucket": self.bucket, "Key": self.key(file)}
        address |= {name: value for name, value in self.put_settings.items() if name == "RequestPayer"}
        permissions = "s3:GetObject, s3:GetObjectVersion and s3:ListBucket, and in some buckets --request-payer"
        with explained(self.url(file), "to look at the object", permissions):
            try:
                head = self.client.head_object(**address, ChecksumMode="ENABLED")
            except ClientError as error:
                if error_code(error) in ("404", "NoSuchKey"):
                    return None
                raise
            version_id = head.get("VersionId", "null")  # of an object from before the bucket kept versions
            is_same = version_id != "null" and head["ContentLength"] == file.size
            if is_same and head.get("ChecksumSHA1") != _checksum_of(file):
                body = self.client.get_object(**address, VersionId=version_id)["Body"]
                is_same = hashlib.file_digest(body, "sha1").hexdigest() == file.sha1  # type: ignore[arg-type]
            return ExistingObject(head["ETag"], version_id, is_same)

    def put(self, file: ObjectFile, replaced: ExistingObject | None) -> str:
        """Send a file in one request, whose content S3 compares with its SHA-1, and return the version of the object.

        Parameters
        ----------
        replaced : the object that the file may replace; if None, there must be no object
        """
        condition = {"IfMatch": replaced.etag} if replaced else {"IfNoneMatch": "*"}
        settings: dict[str, Any] = {"Bucket": self.bucket, "Key": self.key(file), **self.put_settings, **condition}
        permissions = "s3:PutObject, and in some buckets --sse, --acl or --request-payer"
        with file.path.open("rb") as body, explained(self.url(file), "to put the object", permissions):
            try:
                return self.client.put_object(
                    Body=body,
                    ContentLength=file.size,
                    ChecksumAlgorithm="SHA1",
                    ChecksumSHA1=_checksum_of(file),
                    **settings,
                )["VersionId"]
            except ClientError as error:
                if error_code(error) not in WRITTEN_MEANWHILE:
                    raise
        # By someone else, or by this very request: its answer was lost, and botocore repeated it.
        existing = self.look_up(file)
        if existing is None or not existing.is_same:
            raise PackagingError(
                f"{self.url(file)} was changed by someone else after the upload was planned. Look at it; then run the same "
                "command again."
            )
        return existing.version_id

    def require_private(self, file: ObjectFile, sent: str) -> None:
        """Ask for the first byte of an object without credentials, and raise a `PackagingError` if S3 gives it.

        Parameters
        ----------
        sent : a sentence about what was sent so far
        """
        with explained(self.url(file), "to ask for the object without credentials", "no permission"):
            try:
                self.anonymous.get_object(Bucket=self.bucket, Key=self.key(file), Range="bytes=0-0")["Body"].close()
            except ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] in REFUSED:
                    return
                raise
        raise PackagingError(
            f"{self.url(file)} can be read by anybody without credentials, which NSD's terms forbid. {sent} Remove it, switch "
            f"on Block Public Access for s3://{self.bucket}, and start again."
        )


def _checksum_of(file: ObjectFile) -> str:
    """Return the SHA-1 of a file as S3 reports it: in base64."""
    return base64.b64encode(bytes.fromhex(file.sha1)).decode("ascii")
