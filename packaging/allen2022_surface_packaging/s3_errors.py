"""The errors of S3 in one line that says what to do. This is the only place that translates them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .errors import PackagingError, one_line

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

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
WRONG_CLOCK = {"RequestTimeTooSkewed", "RequestExpired", "RequestInTheFuture"}
OTHER_REGION = {"PermanentRedirect", "AuthorizationHeaderMalformed", "301"}


@contextmanager
def explained(location: str, action: str, permissions: str) -> Iterator[None]:
    """Turn the errors of boto3 into a `PackagingError` of one line. It never shows a credential.

    Parameters
    ----------
    location : the address of the bucket or object
    action : what was tried, such as "to read the object"
    permissions : the permissions that the action needs, such as "s3:GetObject"
    """
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

    try:
        yield
    except ClientError as error:
        message = one_line(Exception(error.response.get("Error", {}).get("Message", "")))
        reason = f"{error_code(error)}: {message}"
        raise PackagingError(f"{location}: failed {action} ({reason}). {_advise(error, permissions)}") from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise PackagingError(
            f"{location}: failed {action}, because the AWS credentials are missing or incomplete. Set AWS_PROFILE, or "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
        ) from error
    except (BotoCoreError, ValueError, OSError) as error:
        reason = one_line(error)
        if "header value" in reason:  # the message and the exception would show the credentials
            raise PackagingError(
                f"{location}: failed {action}, because the AWS credentials contain a forbidden character, such as a line "
                "break. Set them again."
            ) from None
        reason = re.sub(r"//[^/@\s]*@", "//", reason)
        raise PackagingError(
            f"{location}: failed {action} ({reason}). Is the network up, and AWS_ENDPOINT_URL right? If so, run the same command again."
        ) from error


def error_code(error: ClientError) -> str:
    """Return the code of an error that S3 answered, such as ``NoSuchKey``."""
    return str(error.response.get("Error", {}).get("Code", ""))


def _advise(error: ClientError, permissions: str) -> str:
    """Return what to do about an error that S3 answered."""
    code = error_code(error)
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in REFUSED_CREDENTIALS:
        return "AWS refuses your credentials. Check them, and renew them if they have expired."
    if code in WRONG_CLOCK:
        return "The clock of this machine is wrong. Set it, and run the same command again."
    if code == "NoSuchBucket":
        return "There is no such bucket. Check its name, and that the profile belongs to the right account."
    if code in OTHER_REGION:
        return "The bucket is in another region. Set AWS_REGION to that region."
    if code in ("412", "PreconditionFailed"):
        return "It changed while it was read: start again."
    if code == "NoSuchKey":
        return "It was removed meanwhile: start again."
    if status == 403:
        return f"Your credentials do not allow it. It needs {permissions}: ask the owner of the bucket, or try without credentials."
    if status >= 500 or code in ("SlowDown", "RequestTimeout"):
        return f"S3 keeps failing. {AGAIN} later."
    return f"{AGAIN} when the cause is removed."
