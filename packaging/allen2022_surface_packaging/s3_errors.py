"""The errors of S3 in one line that says what to do. This is the only place that translates them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .errors import PackagingError, one_line

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

AGAIN = "Run the same command again"
REFUSED = "AWS refuses your credentials. Check them, and renew them if they have expired (after SSO: aws sso login)."
ABSENT = "Set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
SETTINGS = "Correct AWS_PROFILE, the other AWS_ variables or ~/.aws/config. After SSO, log in again: aws sso login."
REGION = "The bucket is in another region. Set AWS_REGION to that region."
CLOCK = "The clock of this machine is wrong. Set it, and run the same command again."
ADVICE = {
    **dict.fromkeys(("ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch"), REFUSED),
    **dict.fromkeys(("ExpiredTokenException", "InvalidClientTokenId", "TokenRefreshRequired"), REFUSED),
    **dict.fromkeys(("PermanentRedirect", "AuthorizationHeaderMalformed", "301"), REGION),
    **dict.fromkeys(("RequestTimeTooSkewed", "RequestExpired"), CLOCK),
    **dict.fromkeys(("412", "PreconditionFailed"), "It changed while it was read: start again."),
    "AccessControlListNotSupported": "The bucket has no ACLs: leave --acl out.",
    "NotImplemented": "This server lacks a part of S3 that is needed here. Choose a bucket of another one.",
    "NoSuchKey": "It was removed meanwhile: start again.",
    "NoSuchBucket": "There is no such bucket. Check its name, and that the profile belongs to the right account.",
}
# By the names of botocore's exceptions. Those of the network and those of settings are two kinds of their own.
OF_LIBRARY = {
    **dict.fromkeys(("NoCredentialsError", "PartialCredentialsError"), ABSENT),
    "NoRegionError": "Set AWS_REGION.",
    "ParamValidationError": "Correct the name of the bucket.",
}


@contextmanager
def explained(location: str, action: str, permissions: str, *, again: str = AGAIN) -> Iterator[None]:
    """Turn the errors of boto3 into a `PackagingError` of one line.

    Parameters
    ----------
    location : the address of the bucket or object
    action : what was tried, such as "to read the object"
    permissions : the permissions that the action needs, such as "s3:GetObject"
    again : the advice to try it again
    """
    from botocore import exceptions
    from botocore.exceptions import BotoCoreError, ClientError

    of_network = exceptions.ConnectionError, exceptions.HTTPClientError, exceptions.IncompleteReadError
    try:
        yield
    # A KeyError comes of an answer that is not of S3.
    except (BotoCoreError, ClientError, ValueError, KeyError, OSError) as error:
        reason = one_line(error)
        if isinstance(error, ClientError):
            reason = f"{error_code(error)}: {error.response['Error'].get('Message', '')}"
            advice = _advise(error, permissions, again)
        elif type(error).__name__ in OF_LIBRARY:
            advice = OF_LIBRARY[type(error).__name__]
        elif "header value" in reason:  # it quotes the credentials
            reason, advice = "invalid header", "Do the AWS credentials hold a line break? Set them again."
        elif isinstance(error, BotoCoreError) and not isinstance(error, of_network):
            advice = SETTINGS
        else:
            advice = f"Is the network up, and AWS_ENDPOINT_URL right? If so: {again.lower()}."
        raise PackagingError(f"{location}: failed {action} ({reason}). {advice}") from error


def _advise(error: ClientError, permissions: str, again: str) -> str:
    """Return what to do about an error that S3 answered."""
    code = error_code(error)
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in ADVICE:
        return ADVICE[code]
    if status == 403:
        return f"Your credentials do not allow it. It needs {permissions}: ask the owner of the bucket."
    return f"S3 keeps failing. {again} later." if status >= 500 else f"{again} when the cause is removed."


def error_code(error: ClientError) -> str:
    """Return the code of an error that S3 answered, such as ``NoSuchKey``."""
    return str(error.response.get("Error", {}).get("Code", ""))
