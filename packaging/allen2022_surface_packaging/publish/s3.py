"""A versioned S3 bucket to write to: what it holds, and files sent whole, checked, and never over unknown content."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
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

SENT_AGAIN = "What has been sent is kept: run the same command again"
LARGEST_OBJECT_BYTES = 5 * 2**30  # of one PutObject: Amazon S3 User Guide, "Uploading objects"
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
    """Where objects are put: a bucket and a prefix, which has no slashes at its ends and may be empty.

    All methods raise a `PackagingError` if S3 does not answer or refuses.

    Attributes
    ----------
    anonymous : a client of the same server that sends no credentials
    put_settings : what the bucket requires of each PutObject beside the content, such as ``ServerSideEncryption``
    """

    client: S3Client
    anonymous: S3Client
    bucket: str
    prefix: str
    put_settings: Mapping[str, str]

    def key(self, file: ObjectFile) -> str:
        """Return the key of the object that a file becomes."""
        return f"{self.prefix}/{file.item.name}" if self.prefix else file.item.name

    def url(self, file: ObjectFile) -> str:
        """Return the address of the object that a file becomes, for messages."""
        return f"s3://{self.bucket}/{self.key(file)}"

    def look_up(self, file: ObjectFile) -> ExistingObject | None:
        """Return the object under the key of a file, or None. It is read only if S3's checksum does not tell its content."""
        address: dict[str, Any] = {"Bucket": self.bucket, "Key": self.key(file)}
        address |= {name: value for name, value in self.put_settings.items() if name == "RequestPayer"}
        permissions = "s3:GetObject, s3:GetObjectVersion and s3:ListBucket, and in some buckets --request-payer"
        with explained(self.url(file), "to look at the object", permissions, again=SENT_AGAIN):
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
        settings: dict[str, Any] = {**self.put_settings, **condition}
        permissions = "s3:PutObject, and in some buckets --sse, --acl or --request-payer"
        with (
            file.path.open("rb") as body,
            explained(self.url(file), "to put the object", permissions, again=SENT_AGAIN),
        ):
            try:
                answer = self.client.put_object(
                    Bucket=self.bucket,
                    Key=self.key(file),
                    Body=body,
                    ContentLength=file.size,
                    ChecksumAlgorithm="SHA1",
                    ChecksumSHA1=_checksum_of(file),
                    **settings,
                )
                return answer["VersionId"]
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
        with explained(self.url(file), "to ask for the object without credentials", "no permission", again=SENT_AGAIN):
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


def open_target(destination: str, put_settings: Mapping[str, str]) -> UploadTarget:
    """Open BUCKET or BUCKET/PREFIX with the configuration of boto3, and check that the bucket keeps versions.

    Raises
    ------
    PackagingError
        If the credentials, the bucket or the network do not work, or the bucket keeps no versions.
    """
    bucket, _, prefix = destination.removeprefix("s3://").strip("/").partition("/")
    if not re.fullmatch(r"[\w.-]+(/[\w.!*'()-]+)*", f"{bucket}/{prefix}".rstrip("/")):
        raise PackagingError(
            f"The bucket is {destination!r}, expected BUCKET or BUCKET/PREFIX, the prefix without empty parts or spaces."
        )
    with explained(f"s3://{bucket}", "to look at the bucket", "s3:GetBucketVersioning"):
        session = boto3.Session()
        client = session.client("s3")
        anonymous = session.client("s3", config=Config(signature_version=UNSIGNED))
        status = client.get_bucket_versioning(Bucket=bucket).get("Status", "never switched on")
    if status != "Enabled":
        raise PackagingError(
            f"s3://{bucket} keeps no versions (versioning is {status.lower()}), but loaders need the version of each "
            "object. Switch versioning on, or choose another bucket."
        )
    return UploadTarget(client, anonymous, bucket, prefix, put_settings)


def _checksum_of(file: ObjectFile) -> str:
    """Return the SHA-1 of a file as S3 reports it: in base64."""
    return base64.b64encode(bytes.fromhex(file.sha1)).decode("ascii")
