"""A versioned S3 bucket to write to: what it holds, and files sent whole, checked, and never over unknown content."""

from __future__ import annotations

import base64
import hashlib
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import boto3
import botocore.session
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from ..errors import PackagingError
from ..files import sha1_of
from ..s3_errors import error_code, explained, quiet_requests, without_secrets

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

logger = logging.getLogger(__name__)

SENT_AGAIN = "What has been sent is kept: run the same command again"

LARGEST_OBJECT_BYTES = 5 * 2**30  # of one PutObject: Amazon S3 User Guide, "Uploading objects"
READ_SECONDS = 60.0  # without a byte; then the request is repeated. S3 may need a while to check an object of 5 GB
N_ATTEMPTS = 6  # with the pauses between them, S3 may fail for half a minute
# S3's answers if an object was written meanwhile
OVERTAKEN = {"PreconditionFailed", "ConditionalRequestConflict"}


@dataclass(frozen=True)
class UploadTarget:
    """Where objects are put: a bucket and a prefix.

    Attributes
    ----------
    anonymous : a client of the same server that sends no credentials
    prefix : without slashes at its ends; may be empty
    tagging : the tags of every object that is put, as S3 expects them; may be empty
    """

    client: S3Client
    anonymous: S3Client
    bucket: str
    prefix: str
    tagging: str

    def key(self, name: str) -> str:
        """Return the key of the object of a name."""
        return f"{self.prefix}/{name}" if self.prefix else name

    def url(self, key: str) -> str:
        """Return the address of an object, for messages."""
        return f"s3://{self.bucket}/{key}"


@dataclass(frozen=True)
class ObjectVersion:
    """What S3 reports of one version of an object.

    Attributes
    ----------
    checksum : S3's SHA-1 in base64; empty if S3 has none
    sha1 : the SHA-1 in hexadecimal that the uploader stored with the object; empty if there is none
    """

    size: int
    etag: str
    version_id: str
    checksum: str
    sha1: str


@dataclass(frozen=True)
class LocalFile:
    """A file to send, and the SHA-1, in hexadecimal, that it must have when it is read."""

    path: Path
    size: int
    sha1: str

    @property
    def checksum(self) -> str:
        """The SHA-1 as S3 reports it: in base64."""
        return base64.b64encode(bytes.fromhex(self.sha1)).decode("ascii")


def open_target(destination: str) -> UploadTarget:
    """Open BUCKET or BUCKET/PREFIX with the configuration of boto3, and check that the bucket keeps versions.

    Raises
    ------
    PackagingError
        If the credentials, the bucket or the network do not work, or the bucket keeps no versions.
    """
    bucket, _, prefix = destination.removeprefix("s3://").strip("/").partition("/")
    if not re.fullmatch(r"[\w.-]+", bucket) or not all(
        re.fullmatch(r"[\w.!*'()-]+", part) for part in prefix.split("/") if prefix
    ):
        raise PackagingError(
            f"The bucket is {without_secrets(destination)!r}, expected BUCKET or BUCKET/PREFIX, the prefix without empty parts or spaces."
        )
    with explained(f"s3://{bucket}", "to look at the bucket", "s3:GetBucketVersioning"):
        configured = botocore.session.get_session()
        session = boto3.Session(botocore_session=configured)
        # boto3's own default gives up after a few seconds; what the user configured has priority.
        attempts = configured.get_config_variable("max_attempts") or N_ATTEMPTS
        retrying = Config(
            retries={"mode": "standard", "total_max_attempts": attempts}, connect_timeout=10, read_timeout=READ_SECONDS
        )
        client = session.client("s3", config=retrying)
        anonymous = session.client("s3", config=retrying.merge(Config(signature_version=UNSIGNED)))
        status = client.get_bucket_versioning(Bucket=bucket).get("Status", "never switched on")
    if status != "Enabled":
        raise PackagingError(
            f"s3://{bucket} keeps no versions (versioning is {status.lower()}), but loaders need the version of each "
            "object. Switch versioning on, or choose another bucket."
        )
    return UploadTarget(client, anonymous, bucket, prefix, _find_tagging(session, client.meta.region_name))


def look_up(target: UploadTarget, key: str, version_id: str | None = None) -> ObjectVersion | None:
    """Return what S3 reports of an object, or None if there is none.

    Parameters
    ----------
    version_id : the version to look at; the newest if None

    Raises
    ------
    PackagingError
        If S3 does not answer, or refuses.
    """
    version: dict[str, Any] = {"VersionId": version_id} if version_id else {}
    permissions = "s3:GetObject, s3:GetObjectVersion and s3:ListBucket"
    try:
        with explained(target.url(key), "to look at the object", permissions, again=SENT_AGAIN):
            head = target.client.head_object(Bucket=target.bucket, Key=key, ChecksumMode="ENABLED", **version)
            return ObjectVersion(
                size=head["ContentLength"],
                etag=head["ETag"],
                version_id=head.get("VersionId", "null"),
                checksum=head.get("ChecksumSHA1", ""),
                sha1=head.get("Metadata", {}).get("sha1", ""),
            )
    except PackagingError as error:
        if isinstance(error.__cause__, ClientError) and error_code(error.__cause__) in ("404", "NoSuchKey"):
            return None
        raise


def holds(target: UploadTarget, key: str, version: ObjectVersion, file: LocalFile) -> bool:
    """Return whether an object has the content of a file. It is read only if S3's checksum does not tell.

    Raises
    ------
    PackagingError
        If S3 does not answer, or refuses.
    """
    if version.size != file.size or version.sha1 not in ("", file.sha1):
        return False
    if version.checksum == file.checksum:
        return True
    digest = hashlib.sha1()
    with explained(target.url(key), "to read the object", "s3:GetObjectVersion", again=SENT_AGAIN):
        body = target.client.get_object(Bucket=target.bucket, Key=key, VersionId=version.version_id)["Body"]
        for block in body.iter_chunks(2**20):
            digest.update(block)
    return digest.hexdigest() == file.sha1


def put(
    target: UploadTarget,
    key: str,
    file: LocalFile,
    *,
    replaces: ObjectVersion | None,
    progress: Callable[[int], object],
) -> ObjectVersion:
    """Send a file in one request, and check what S3 then holds.

    Parameters
    ----------
    replaces : the object that the file may replace; if None, there must be no object
    progress : called with the number of bytes that were sent

    Raises
    ------
    PackagingError
        If S3 or the network fails, someone else wrote the object meanwhile, or the file changes while it is read.
    """
    _refuse_changed(file)  # later changes are refused by S3, which compares the content with the checksum
    version_id, is_overtaken = None, False
    try:
        with explained(target.url(key), "to put the object", "s3:PutObject and s3:PutObjectTagging", again=SENT_AGAIN):
            version_id = _send(target, key, file, replaces)
    except PackagingError as error:
        # S3 gives the same answer if this very request wrote the object and its first answer was lost.
        is_overtaken = isinstance(error.__cause__, ClientError) and error_code(error.__cause__) in OVERTAKEN
        if not is_overtaken:
            raise
    version = look_up(target, key, version_id)
    if version is not None and version.sha1 == file.sha1 and holds(target, key, version, file):
        progress(file.size)
        return version
    if is_overtaken:
        raise PackagingError(
            f"{target.url(key)} was changed by someone else after the upload was planned. Look at it; then run the same "
            "command again."
        )
    raise PackagingError(
        f"{target.url(key)} is not what was sent: S3 reports {version}, expected {file.size:,} bytes of SHA-1 {file.sha1}. "
        "Run the same command again with --overwrite."
    )


def _send(target: UploadTarget, key: str, file: LocalFile, replaces: ObjectVersion | None) -> str | None:
    """Send one conditional PutObject, and return the version that S3 reports."""
    condition: dict[str, Any] = {"IfMatch": replaces.etag} if replaces else {"IfNoneMatch": "*"}
    tagging: dict[str, Any] = {"Tagging": target.tagging} if target.tagging else {}
    with file.path.open("rb") as body:
        response = target.client.put_object(
            Bucket=target.bucket,
            Key=key,
            Body=body,
            ContentLength=file.size,
            ChecksumAlgorithm="SHA1",
            ChecksumSHA1=file.checksum,
            Metadata={"sha1": file.sha1},
            **tagging,
            **condition,
        )
    return response.get("VersionId")


def _refuse_changed(file: LocalFile) -> None:
    sha1 = sha1_of(file.path)
    if sha1 != file.sha1:
        raise PackagingError(
            f"{file.path} has the SHA-1 {sha1}, expected {file.sha1}: it changed before it was sent. Build the release again."
        )


def _find_tagging(session: boto3.Session, region: str | None) -> str:
    """Return the tag that Brain-Score's uploads have, the uploader; empty if AWS does not answer, as behind firewalls."""
    try:
        config = Config(retries={"mode": "standard", "total_max_attempts": 2}, connect_timeout=10)
        with quiet_requests():
            sts = session.client("sts", region_name=region or "us-east-1", config=config)
            user = sts.get_caller_identity()["Arn"].split("/")[-1]
    except (BotoCoreError, ClientError, KeyError, ResponseParserError) as error:
        reason = error_code(error) if isinstance(error, ClientError) else type(error).__name__
        logger.warning("AWS does not say who uploads (%s), so the objects get no tag with the uploader.", reason)
        return ""
    return f"uploadedBy={quote(user, safe='')}"
