"""Downloads from S3, with credentials or without."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

import boto3
import botocore.session
from boto3.exceptions import Boto3Error
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    FlexibleChecksumError,
    HTTPClientError,
)
from botocore.exceptions import ConnectionError as NoConnectionError
from botocore.parsers import ResponseParserError
from s3transfer.exceptions import S3DownloadFailedError, S3ValidationError
from tqdm import tqdm

from .artifacts import StoredObject
from .environment import RELEASE_VARIABLE
from .secrecy import quiet_requests, without_secrets

CONNECT_SECONDS = 10
READ_SECONDS = 20  # without a byte; then the request is repeated
N_ATTEMPTS = 6  # with the pauses between them, S3 may fail for half a minute
FOREIGN_ANSWERS = (KeyError, ResponseParserError, S3DownloadFailedError, S3ValidationError)  # not those of S3
FAILURES = (BotoCoreError, ClientError, Boto3Error, ValueError, *FOREIGN_ANSWERS)


def download(stored: StoredObject, path: Path) -> None:
    """Download an object to `path`, with the credentials of this machine or else without, as brainscore_core does.

    Raises
    ------
    ConnectionError
        If the download fails both ways.
    OSError
        If the file cannot be written.
    """
    reasons = []
    for signature in ({}, {"signature_version": UNSIGNED}):
        try:
            with quiet_requests():
                return _download(stored, path, signature)
        except FAILURES as error:
            reasons.append(_reason(error))
            is_elsewhere = isinstance(error, HTTPClientError | NoConnectionError | FlexibleChecksumError)
            if is_elsewhere and not _shows_credentials(error):
                break  # without a network, and for wrong bytes, credentials make no difference
    # Raised here, so that the exception does not lead to those of boto3, which hold the address of the server.
    raise ConnectionError(
        f"{stored} could not be downloaded: {'; without credentials: '.join(reasons)}. Check the network and your AWS "
        f"credentials, or set {RELEASE_VARIABLE} to a release on disk."
    )


def _download(stored: StoredObject, path: Path, signature: dict[str, Any]) -> None:
    configured = botocore.session.get_session()
    # boto3's own default gives up after a few seconds; what the user configured has priority.
    attempts = configured.get_config_variable("max_attempts") or N_ATTEMPTS
    config = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        retries={"mode": "standard", "total_max_attempts": attempts},
        **signature,
    )
    try:
        client = boto3.client("s3", config=config)
    except OSError as error:  # The program that the configuration names for credentials is not there, for instance.
        raise ValueError(f"the AWS configuration cannot be used: {error.filename}: {error.strerror}") from None
    title = PurePosixPath(stored.key).name
    with tqdm(total=stored.size, desc=title, unit="B", unit_scale=True, disable=None) as bar:
        version = {"VersionId": stored.version_id}
        try:
            try:
                client.download_file(stored.bucket, stored.key, str(path), ExtraArgs=version, Callback=bar.update)
            except (
                FlexibleChecksumError
            ):  # some bytes were wrong, by a checksum that S3 keeps; so the cache cannot try again
                client.download_file(stored.bucket, stored.key, str(path), ExtraArgs=version)
        except OSError as error:  # as without space; boto3 does not name the file
            if isinstance(error, BotoCoreError):  # some of them are
                raise
            raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    path.touch()  # boto3 writes nothing if the answer holds nothing


def _reason(error: Exception) -> str:
    """Return the message of an error in one line, without credentials."""
    if _shows_credentials(error):
        return "the credentials hold a character that is not allowed in credentials, such as a line end"
    if isinstance(error, CredentialRetrievalError):  # it quotes whatever that program printed
        return "the program or service that the AWS configuration names gave no credentials"
    if isinstance(error, FOREIGN_ANSWERS):
        return f"the answer is not that of S3 ({type(error).__name__}: {without_secrets(str(error))})"
    return without_secrets(str(error))


def _shows_credentials(error: Exception) -> bool:
    """Return whether an error complains about the value of a header, which it quotes and which holds the credentials."""
    return "header value" in " ".join(str(error).split())
