"""A versioned S3 bucket: what lies there, and files put there whole, checked, and never over what another hand wrote."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import logging
import re
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
)
from botocore.exceptions import ConnectionError as NoConnectionError

from ..errors import PackagingError

logger = logging.getLogger(__name__)

PART_BYTES = 16 * 2**20  # S3 takes 5 MiB to 5 GiB, and 10,000 parts: 160 GB, far beyond any release
N_CONNECTIONS = 4
N_ATTEMPTS = 6  # with the pauses between them, S3 may fail for half a minute
AGAIN = "What has been sent is kept: run the same command again"

REFUSED_CREDENTIALS = {
    "AuthFailure",
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidToken",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
}
# S3's answers if an object has come to be meanwhile, or a multipart upload has ended
OVERTAKEN = {"PreconditionFailed", "ConditionalRequestConflict", "NoSuchUpload"}


@dataclass(frozen=True)
class Bucket:
    """A place in a bucket to put objects.

    Attributes
    ----------
    client : boto3's S3 client
    prefix : without slashes at its ends; may be empty
    tagging : the tags of whatever is put there, as S3 takes them; may be empty
    """

    client: Any
    name: str
    prefix: str
    tagging: str

    def key(self, name: str) -> str:
        """Return the key of the object of a name."""
        return f"{self.prefix}/{name}" if self.prefix else name

    def url(self, key: str) -> str:
        """Return where an object lies, for messages."""
        return f"s3://{self.name}/{key}"


@dataclass(frozen=True)
class RemoteObject:
    """What S3 reports of an object.

    Attributes
    ----------
    checksum : S3's SHA-1 in base64, with the number of parts if it was sent in parts; empty where S3 has none
    sha1 : the SHA-1 of the whole that whoever put it there wrote beside it; empty if none did
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


def open_bucket(destination: str) -> Bucket:
    """Open BUCKET or BUCKET/PREFIX with what boto3 is configured with, and see that it keeps versions.

    Raises
    ------
    PackagingError
        If the credentials, the bucket or the network are not as needed, or the bucket keeps no versions.
    """
    name, _, prefix = destination.removeprefix("s3://").strip("/").partition("/")
    if not name or not all(re.fullmatch(r"[\w.!*'()-]+", part) for part in prefix.split("/") if prefix):
        raise PackagingError(
            f"The bucket is {destination!r}, expected BUCKET or BUCKET/PREFIX, the prefix without empty parts or spaces."
        )
    place = f"s3://{name}"
    with explained(place, "to look at the bucket", "s3:GetBucketVersioning"):
        configured = botocore.session.get_session()
        session = boto3.Session(botocore_session=configured)
        # What the user configured goes first; boto3's own default gives up after a few seconds.
        attempts = configured.get_config_variable("max_attempts") or N_ATTEMPTS
        config = Config(
            retries={"mode": "standard", "total_max_attempts": attempts}, max_pool_connections=2 * N_CONNECTIONS
        )
        client = session.client("s3", config=config)
        status = client.get_bucket_versioning(Bucket=name).get("Status", "never switched on")
    if status != "Enabled":
        raise PackagingError(
            f"{place} keeps no versions (versioning is {status.lower()}), but loaders pin one. Switch versioning on, or "
            "choose another bucket."
        )
    return Bucket(client, name, prefix, _tagging(session, client.meta.region_name))


def _tagging(session: boto3.Session, region: str | None) -> str:
    """Return the tag of Brain-Score's own uploads, who uploads; none where AWS cannot be asked, as behind some firewalls."""
    try:
        config = Config(retries={"mode": "standard", "total_max_attempts": 2}, connect_timeout=10)
        sts = session.client("sts", region_name=region or "us-east-1", config=config)
        user = sts.get_caller_identity()["Arn"].split("/")[-1]
    except (BotoCoreError, ClientError) as error:
        reason = isinstance(error, ClientError) and _code(error) or type(error).__name__
        logger.warning("AWS does not say who uploads (%s), so the objects are not tagged with it.", reason)
        return ""
    return f"uploadedBy={quote(user, safe='')}"


def look_up(bucket: Bucket, key: str, version_id: str | None = None) -> RemoteObject | None:
    """Return what S3 reports of an object, of its newest version unless told otherwise; None if there is none.

    Raises
    ------
    PackagingError
        If S3 does not answer, or refuses to.
    """
    version = {"VersionId": version_id} if version_id else {}
    try:
        with explained(bucket.url(key), "to look at the object", "s3:GetObject, s3:GetObjectVersion and s3:ListBucket"):
            head = bucket.client.head_object(Bucket=bucket.name, Key=key, ChecksumMode="ENABLED", **version)
    except PackagingError as error:
        if isinstance(error.__cause__, ClientError) and _code(error.__cause__) in ("404", "NoSuchKey"):
            return None
        raise
    return RemoteObject(
        size=head["ContentLength"],
        etag=head["ETag"],
        version_id=head.get("VersionId", "null"),
        checksum=head.get("ChecksumSHA1", ""),
        sha1=head.get("Metadata", {}).get("sha1", ""),
    )


def holds(bucket: Bucket, key: str, found: RemoteObject, file: LocalFile, part_bytes: int = PART_BYTES) -> bool:
    """Tell whether an object holds the bytes of a file; it is read itself where S3's checksum does not say so."""
    if found.size != file.size or found.sha1 not in ("", file.sha1):
        return False
    # Without the number of parts, which not every S3 reports
    if found.checksum and found.checksum.partition("-")[0] == checksum_of(file.path, part_bytes).partition("-")[0]:
        return True
    digest = hashlib.sha1()
    with explained(bucket.url(key), "to read the object", "s3:GetObjectVersion"):
        body = bucket.client.get_object(Bucket=bucket.name, Key=key, VersionId=found.version_id)["Body"]
        for block in body.iter_chunks(2**20):
            digest.update(block)
    return digest.hexdigest() == file.sha1


def put(
    bucket: Bucket,
    key: str,
    file: LocalFile,
    *,
    replaces: RemoteObject | None,
    progress: Callable[[int], object],
    part_bytes: int = PART_BYTES,
) -> RemoteObject:
    """Put a file where nothing lies, or only what it is known to replace, and check what S3 then holds.

    A large file goes in parts; those that an earlier, interrupted attempt sent are not sent again.

    Parameters
    ----------
    progress : called with every number of bytes that are there

    Raises
    ------
    PackagingError
        If S3 or the network fails, something else lies there by now, or the file changes while it is read.
    """
    condition = {"IfMatch": replaces.etag} if replaces else {"IfNoneMatch": "*"}
    send = _put_whole if file.size <= part_bytes else _put_in_parts
    version_id = None
    try:
        with explained(bucket.url(key), "to put the object", "s3:PutObject and s3:PutObjectTagging"):
            version_id = send(bucket, key, file, condition, progress, part_bytes)
    except PackagingError as error:
        # S3 also refuses so if the object came to be by this very call, whose first answer was lost.
        if not isinstance(error.__cause__, ClientError) or _code(error.__cause__) not in OVERTAKEN:
            raise
        overtaken = True
    else:
        overtaken = False
    found = look_up(bucket, key, version_id)
    if found is not None and found.sha1 == file.sha1 and holds(bucket, key, found, file, part_bytes):
        return found
    if overtaken:
        raise PackagingError(
            f"{bucket.url(key)} was written by another hand since the plan was made. Look at it; then run the same "
            "command again."
        )
    raise PackagingError(
        f"{bucket.url(key)} is not what was sent: S3 reports {found}, expected {file.size:,} bytes of SHA-1 {file.sha1}. "
        "Run the same command again with --overwrite."
    )


def checksum_of(path: Path, part_bytes: int = PART_BYTES) -> str:
    """Return the checksum that S3 reports of a file sent by `put`: its SHA-1, or the SHA-1 of those of its parts."""
    digests = [hashlib.sha1(part).digest() for part in _read_parts(path, part_bytes)]
    if len(digests) == 1:
        return _base64(digests[0])
    return f"{_base64(hashlib.sha1(b''.join(digests)).digest())}-{len(digests)}"


@contextmanager
def explained(place: str, action: str, permissions: str) -> Iterator[None]:
    """Turn the errors of boto3 into a line that says what to do; no credential can be in it."""
    try:
        yield
    except ClientError as error:
        code = _code(error)
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if code in REFUSED_CREDENTIALS:
            advice = "AWS refuses your credentials. Check them, and renew them if they have expired."
        elif code in ("RequestTimeTooSkewed", "RequestExpired", "RequestInTheFuture"):
            advice = "The clock of this machine is wrong. Set it, and run the same command again."
        elif code == "NoSuchBucket":
            advice = "There is no such bucket. Check --bucket, and that the profile is of the right account."
        elif code in ("PermanentRedirect", "AuthorizationHeaderMalformed", "301"):
            advice = "The bucket lies in another region. Set AWS_REGION to it."
        elif status == 403:
            advice = f"Your credentials do not allow it. Ask the owner of the bucket for {permissions}."
        elif status >= 500 or code in ("SlowDown", "RequestTimeout"):
            advice = f"S3 keeps failing. {AGAIN} later."
        else:
            advice = f"{AGAIN} when that is mended."
        reason = " ".join(str(error.response.get("Error", {}).get("Message", "")).split())
        raise PackagingError(f"{place}: failed {action} ({code}{': ' if reason else ''}{reason}). {advice}") from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise PackagingError(
            f"{place}: failed {action}, as there are no whole AWS credentials. Set AWS_PROFILE, or AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY."
        ) from error
    except (BotoCoreError, ValueError) as error:
        reason = " ".join(str(error).split())
        if "header value" in reason:  # which would show the credentials, here and as the cause
            raise PackagingError(
                f"{place}: failed {action}, as your AWS credentials hold a character that they cannot hold, such as the "
                "end of a line. Set them again."
            ) from None
        reason = re.sub(r"//[^/@\s]*@", "//", reason)
        is_network = isinstance(error, HTTPClientError | NoConnectionError | IncompleteReadError)
        advice = f" Check the network. {AGAIN}." if is_network else ""
        raise PackagingError(f"{place}: failed {action} ({reason}).{advice}") from error


def _put_whole(
    bucket: Bucket,
    key: str,
    file: LocalFile,
    condition: dict[str, str],
    progress: Callable[[int], object],
    part_bytes: int,
) -> str | None:
    content = file.path.read_bytes()
    digest = hashlib.sha1(content)
    _refuse_changed(file, digest.hexdigest())
    response = bucket.client.put_object(
        Bucket=bucket.name,
        Key=key,
        Body=content,
        ChecksumAlgorithm="SHA1",
        ChecksumSHA1=_base64(digest.digest()),
        Metadata={"sha1": file.sha1},
        **({"Tagging": bucket.tagging} if bucket.tagging else {}),
        **condition,
    )
    progress(len(content))
    return response.get("VersionId")


def _put_in_parts(
    bucket: Bucket,
    key: str,
    file: LocalFile,
    condition: dict[str, str],
    progress: Callable[[int], object],
    part_bytes: int,
) -> str | None:
    place = {"Bucket": bucket.name, "Key": key}
    pending = _pending_uploads(bucket, key)
    upload_id, sent = _resumable(bucket, key, file, pending, part_bytes)
    if upload_id is None:
        upload_id = bucket.client.create_multipart_upload(
            **place,
            ChecksumAlgorithm="SHA1",
            Metadata={"sha1": file.sha1},
            **({"Tagging": bucket.tagging} if bucket.tagging else {}),
        )["UploadId"]
    whole = hashlib.sha1()
    parts: list[dict[str, Any]] = []
    under_way: deque[Future[dict[str, Any]]] = deque()

    def send(number: int, content: bytes) -> dict[str, Any]:
        checksum = _base64(hashlib.sha1(content).digest())
        response = bucket.client.upload_part(
            **place,
            UploadId=upload_id,
            PartNumber=number,
            Body=content,
            ChecksumAlgorithm="SHA1",
            ChecksumSHA1=checksum,
        )
        progress(len(content))
        return {"PartNumber": number, "ETag": response["ETag"], "ChecksumSHA1": checksum}

    with ThreadPoolExecutor(N_CONNECTIONS) as pool:
        try:
            for number, content in enumerate(_read_parts(file.path, part_bytes), start=1):
                whole.update(content)
                if number in sent:
                    parts.append(
                        sent[number] | {"PartNumber": number, "ChecksumSHA1": _base64(hashlib.sha1(content).digest())}
                    )
                    progress(len(content))
                    continue
                under_way.append(pool.submit(send, number, content))
                if len(under_way) > N_CONNECTIONS:  # so few parts are in memory
                    parts.append(under_way.popleft().result())
            parts += [future.result() for future in under_way]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    try:
        _refuse_changed(file, whole.hexdigest())
        response = bucket.client.complete_multipart_upload(
            **place,
            UploadId=upload_id,
            MultipartUpload={"Parts": sorted(parts, key=lambda part: part["PartNumber"])},
            **condition,
        )
    except (PackagingError, ClientError) as error:
        if isinstance(error, PackagingError) or _code(error) in OVERTAKEN:
            _abort(bucket, key, [upload_id])  # its parts are of no more use
        raise
    _abort(bucket, key, [upload["UploadId"] for upload in pending if upload["UploadId"] != upload_id])
    return response.get("VersionId")


def _pending_uploads(bucket: Bucket, key: str) -> list[dict[str, Any]]:
    """Return the multipart uploads of a key that were begun and not ended; none where S3 does not let us know."""
    try:
        pages = bucket.client.get_paginator("list_multipart_uploads").paginate(Bucket=bucket.name, Prefix=key)
        return [upload for page in pages for upload in page.get("Uploads", ()) if upload["Key"] == key]
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 403:
            raise
        return []


def _resumable(
    bucket: Bucket, key: str, file: LocalFile, pending: list[dict[str, Any]], part_bytes: int
) -> tuple[str | None, dict[int, dict[str, Any]]]:
    """Find the pending upload with most parts of this very file and none of another, and those parts by their number."""
    best: tuple[str | None, dict[int, dict[str, Any]]] = (None, {})
    if not pending:
        return best
    own = {
        number: (len(content), f'"{hashlib.md5(content).hexdigest()}"', _base64(hashlib.sha1(content).digest()))
        for number, content in enumerate(_read_parts(file.path, part_bytes), start=1)
    }
    for upload in pending:
        if upload.get("ChecksumAlgorithm") != "SHA1":
            continue
        pages = bucket.client.get_paginator("list_parts").paginate(
            Bucket=bucket.name, Key=key, UploadId=upload["UploadId"]
        )
        parts = {part["PartNumber"]: part for page in pages for part in page.get("Parts", ())}
        is_own = all(
            number in own
            and part["Size"] == own[number][0]
            and (part["ChecksumSHA1"] == own[number][2] if "ChecksumSHA1" in part else part["ETag"] == own[number][1])
            for number, part in parts.items()
        )
        if is_own and len(parts) > len(best[1]):
            best = upload["UploadId"], {number: {"ETag": part["ETag"]} for number, part in parts.items()}
    return best


def _abort(bucket: Bucket, key: str, upload_ids: list[str]) -> None:
    for upload_id in upload_ids:
        with contextlib.suppress(ClientError):  # it may have ended meanwhile, or not be ours to end
            bucket.client.abort_multipart_upload(Bucket=bucket.name, Key=key, UploadId=upload_id)


def _read_parts(path: Path, part_bytes: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield file.read(part_bytes)
        while content := file.read(part_bytes):
            yield content


def _refuse_changed(file: LocalFile, found: str) -> None:
    if found != file.sha1:
        raise PackagingError(
            f"{file.path} has the SHA-1 {found}, expected {file.sha1}: it changed while it was sent. Build the release again."
        )


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode("ascii")
