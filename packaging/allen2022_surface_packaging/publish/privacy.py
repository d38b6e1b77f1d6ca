"""Whether an object is private. NSD's terms forbid that anybody reads its data without having accepted the terms."""

from __future__ import annotations

from typing import Any

from botocore.exceptions import ClientError

from ..errors import PackagingError
from ..s3_errors import explained
from .s3 import ObjectVersion, UploadTarget

# What S3 answers to somebody who may not read an object; 404 if the existence of the object is hidden as well.
REFUSED = {401, 403, 404}


def require_private(target: UploadTarget, key: str, version: ObjectVersion, *, sent: str) -> None:
    """Ask for an object without credentials, and raise a `PackagingError` if S3 gives it.

    Permissions may differ between the newest version and a version that is named, so that both are asked for.

    Parameters
    ----------
    sent : a sentence about what this upload has sent so far

    Raises
    ------
    PackagingError
        If anybody can read the object, or S3 does not answer.
    """
    for version_id in (None, version.version_id):
        if not _is_refused(target, key, version_id, sent):
            raise PackagingError(
                f"{target.url(key)} can be read by anybody without credentials, which NSD's terms forbid. {sent} Remove "
                f"it, switch on Block Public Access for s3://{target.bucket}, and start again."
            )


def _is_refused(target: UploadTarget, key: str, version_id: str | None, sent: str) -> bool:
    """Return whether S3 refuses the first byte of an object to a reader without credentials."""
    version: dict[str, Any] = {"VersionId": version_id} if version_id else {}
    try:
        with explained(target.url(key), "to ask for the object without credentials", "no permission"):
            body = target.anonymous.get_object(Bucket=target.bucket, Key=key, Range="bytes=0-0", **version)["Body"]
    except PackagingError as error:
        cause = error.__cause__
        if isinstance(cause, ClientError) and cause.response["ResponseMetadata"]["HTTPStatusCode"] in REFUSED:
            return True
        raise PackagingError(f"It is unknown whether {target.url(key)} is private. {sent} {error}") from error
    body.close()
    return False
