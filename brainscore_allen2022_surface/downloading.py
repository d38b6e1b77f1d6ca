"""Downloads from S3, with credentials or without."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import boto3
from boto3.exceptions import Boto3Error
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from botocore.exceptions import ConnectionError as NoConnectionError
from tqdm import tqdm

from .artifacts import StoredObject
from .environment import RELEASE_VARIABLE

CONNECT_SECONDS = 10
SIGNED = Config(connect_timeout=CONNECT_SECONDS)
ANONYMOUS = Config(connect_timeout=CONNECT_SECONDS, signature_version=UNSIGNED)


def download(stored: StoredObject, path: Path) -> None:
    """Download an object to `path`, with the credentials of this machine or else without, as brainscore_core does.

    Raises
    ------
    ConnectionError
        If the download fails both ways.
    """
    reasons = []
    for config in (SIGNED, ANONYMOUS):
        try:
            return _download(stored, path, config)
        except (BotoCoreError, ClientError, Boto3Error, ValueError) as error:
            reasons.append(_reason(error))
            if isinstance(error, HTTPClientError | NoConnectionError) and not _shows_credentials(error):
                break  # without a network, credentials make no difference
    raise ConnectionError(
        f"{stored} could not be downloaded: {'; without credentials: '.join(reasons)}. Check the network and your AWS "
        f"credentials, or set {RELEASE_VARIABLE} to a release on disk."
    )


def _download(stored: StoredObject, path: Path, config: Config) -> None:
    client = boto3.client("s3", config=config)
    title = PurePosixPath(stored.key).name
    with tqdm(total=stored.size, desc=title, unit="B", unit_scale=True, disable=None) as bar:
        version = {"VersionId": stored.version_id}
        client.download_file(stored.bucket, stored.key, str(path), ExtraArgs=version, Callback=bar.update)


def _reason(error: Exception) -> str:
    """Return the message of an error in one line, without credentials."""
    if _shows_credentials(error):
        return "the credentials hold a character that is not allowed in credentials, such as a line end"
    return " ".join(str(error).split())


def _shows_credentials(error: Exception) -> bool:
    """Return whether an error complains about the value of a header, which it quotes and which holds the credentials."""
    return "header value" in " ".join(str(error).split())
