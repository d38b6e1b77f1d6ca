"""The errors of S3 in one line that says what to do. This is the only place that translates them."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .errors import PackagingError, one_line

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

AGAIN = "Run the same command again"
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
SECRETS = (
    # User and password in the address of a server. They may hold what an address may not, such as a space, a slash or an @.
    (re.compile(r"//[^\s/:@]*:[^\"'`]*@(?=[\w.\[-])"), "//"),
    (re.compile(r"//[^\s/:@]+@(?=[\w.\[-])"), "//"),
    (re.compile(r"(?<![\w:/.-])(?!arn:)[\w.+-]+:[^\s/]+@(?=[\w.-]+:[0-9])"), ""),  # without a scheme
    (re.compile(r"\?[^\s=?]+=\S+"), "?..."),  # tokens and signatures in an address
    (
        re.compile(r"\b(X-Amz-[\w-]+|AWSAccessKeyId|Signature|Credential)\s*[=:]\s*[^&\s,\"']+", re.IGNORECASE),
        r"\1=...",
    ),
    (re.compile(r"\b(AKIA|ASIA)[A-Z0-9]{12,}"), r"\1..."),  # ids of access keys: AWS IAM User Guide, "IAM identifiers"
)
UNRETRIEVED = "the program or service that the AWS configuration names gave no credentials"
LOGGERS = ("botocore", "boto3", "s3transfer", "urllib3")

_lock = threading.Lock()
_levels: list[list[int]] = []  # of these loggers before each request that is under way


@contextmanager
def explained(location: str, action: str, permissions: str, *, again: str = AGAIN) -> Iterator[None]:
    """Turn the errors of boto3 into a `PackagingError` of one line. Neither it nor its causes show a credential.

    Parameters
    ----------
    location : the address of the bucket or object
    action : what was tried, such as "to read the object"
    permissions : the permissions that the action needs, such as "s3:GetObject"
    again : the advice to try it again
    """
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError
    from botocore.parsers import ResponseParserError

    try:
        with quiet_requests():
            yield
    except ClientError as error:
        _strip(error)
        message = error.response["Error"]["Message"]
        reason = f"{error_code(error)}: {message}"
        raise PackagingError(f"{location}: failed {action} ({reason}). {_advise(error, permissions, again)}") from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise PackagingError(
            f"{location}: failed {action}, because the AWS credentials are missing or incomplete. Set AWS_PROFILE, or "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
        ) from error
    except (KeyError, ResponseParserError) as error:
        _strip(error)
        raise PackagingError(
            f"{location}: failed {action}, because the answer is not that of S3 ({type(error).__name__}: {one_line(error)}). Is "
            "AWS_ENDPOINT_URL right, or is there a proxy in between?"
        ) from error
    except (BotoCoreError, ValueError, OSError) as error:
        _strip(error)
        if "header value" in one_line(error):  # the message quotes the credentials
            error.args = ("Invalid header value",)
            raise PackagingError(
                f"{location}: failed {action}, because the AWS credentials contain a forbidden character, such as a line "
                "break. Set them again."
            ) from error
        raise PackagingError(
            f"{location}: failed {action} ({one_line(error)}). Is the network up, and AWS_ENDPOINT_URL right? If so, run the "
            "same command again."
        ) from error


def without_secrets(text: str) -> str:
    """Return a text in one line, without passwords, signatures and ids of access keys."""
    line = " ".join(text.split())
    for pattern, replacement in SECRETS:
        line = pattern.sub(replacement, line)
    return line


def _strip(error: BaseException) -> None:
    """Remove secrets from an exception, and the exceptions behind it: a traceback shows them all."""
    from botocore.exceptions import CredentialRetrievalError

    if isinstance(error, CredentialRetrievalError):  # it quotes whatever that program printed
        error.args = (UNRETRIEVED,)
    error.args = tuple(without_secrets(part) if isinstance(part, str) else part for part in error.args)
    error.__cause__ = error.__context__ = None
    if hasattr(error, "kwargs"):  # of botocore's exceptions: what the message was made of
        error.kwargs = {}
    answer = getattr(error, "response", None)
    if isinstance(answer, dict):  # S3 may quote the request, with its token and signature
        content = answer.get("Error", {})
        answer["Error"] = {key: without_secrets(str(content.get(key, ""))) for key in ("Code", "Message")}


@contextmanager
def quiet_requests() -> Iterator[None]:
    """Keep boto3 from logging its requests, even if the root logger is at DEBUG: they hold session tokens and passwords."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    with _lock:
        _levels.append([logger.level for logger in loggers])
        for logger in loggers:
            logger.setLevel(max(logger.getEffectiveLevel(), logging.INFO))
    try:
        yield
    finally:
        with _lock:
            levels = _levels.pop(0)
            if _levels:  # another thread still waits for an answer, and then restores the levels
                _levels[0] = levels
            else:
                for logger, level in zip(loggers, levels, strict=True):
                    logger.setLevel(level)


def error_code(error: ClientError) -> str:
    """Return the code of an error that S3 answered, such as ``NoSuchKey``."""
    return str(error.response.get("Error", {}).get("Code", ""))


def _advise(error: ClientError, permissions: str, again: str) -> str:
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
        return f"S3 keeps failing. {again} later."
    return f"{again} when the cause is removed."
