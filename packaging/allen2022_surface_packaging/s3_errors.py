"""The errors of S3 in one line that says what to do. This is the only place that translates them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .errors import PackagingError, one_line

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

AGAIN = "What is done is kept: run the same command again"
SETTINGS = "Correct AWS_PROFILE, the other AWS_ variables or ~/.aws/config. After SSO, log in again: aws sso login."
ADVICE = {  # by the codes that S3 answers, and the names of botocore's exceptions
    "ExpiredToken ExpiredTokenException InvalidAccessKeyId InvalidClientTokenId InvalidToken SignatureDoesNotMatch "
    "TokenRefreshRequired": "AWS refuses your credentials. Check them, and renew them if they have expired (after SSO: aws sso "
    "login).",
    "PermanentRedirect AuthorizationHeaderMalformed 301": "The bucket is in another region. Set AWS_REGION to that region.",
    "RequestTimeTooSkewed RequestExpired": "The clock of this machine is wrong. Set it, and run the same command again.",
    "412 PreconditionFailed": "It changed while it was read: start again.",
    "AccessControlListNotSupported": "The bucket has no ACLs: leave --acl out.",
    "NotImplemented": "This server lacks a part of S3 that is needed here. Choose a bucket of another one.",
    "NoSuchKey": "It was removed meanwhile: start again.",
    "NoSuchBucket": "There is no such bucket. Check its name, and that the profile belongs to the right account.",
    "NoCredentialsError PartialCredentialsError": "Set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
    "NoRegionError": "Set AWS_REGION.",
    "ParamValidationError": "Correct the name of the bucket.",
}
BY_NAME = {name: advice for names, advice in ADVICE.items() for name in names.split()}


@contextmanager
def explained(location: str, action: str, permissions: str) -> Iterator[None]:
    """Turn the errors of boto3 into a `PackagingError` of one line.

    Parameters
    ----------
    location : the address of the bucket or object
    action : what was tried, such as "to read the object"
    permissions : the permissions that the action needs, such as "s3:GetObject"
    """
    from botocore import exceptions

    of_network = exceptions.ConnectionError, exceptions.HTTPClientError, exceptions.IncompleteReadError
    try:
        yield
    # A KeyError comes of an answer that is not of S3.
    except (exceptions.BotoCoreError, exceptions.ClientError, ValueError, KeyError, OSError) as error:
        reason, name, status = one_line(error), type(error).__name__, 0
        if isinstance(error, exceptions.ClientError):
            name, status = error_code(error), error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            reason = f"{name}: {error.response['Error'].get('Message', '')}"
        if name in BY_NAME:
            advice = BY_NAME[name]
        elif status == 403:
            advice = f"Your credentials do not allow it. It needs {permissions}: ask the owner of the bucket."
        elif status:
            advice = f"S3 keeps failing. {AGAIN} later." if status >= 500 else f"{AGAIN} when the cause is removed."
        elif "header value" in reason:  # it quotes the credentials
            reason, advice = "invalid header", "Do the AWS credentials hold a line break? Set them again."
        elif isinstance(error, exceptions.BotoCoreError) and not isinstance(error, of_network):
            advice = SETTINGS
        else:
            advice = f"Is the network up, and AWS_ENDPOINT_URL right? If so: {AGAIN.lower()}."
        raise PackagingError(f"{location}: failed {action} ({reason}). {advice}") from error


def error_code(error: ClientError) -> str:
    """Return the code of an error that S3 answered, such as ``NoSuchKey``."""
    return str(error.response.get("Error", {}).get("Code", ""))
