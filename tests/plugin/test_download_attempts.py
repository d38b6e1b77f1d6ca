"""How often, and with which settings, an object is asked for. A client in memory takes the place of boto3's."""

import logging
import sys

import boto3
import pytest
from boto3.exceptions import S3UploadFailedError
from botocore import UNSIGNED
from botocore.exceptions import (
    ClientError,
    EndpointConnectionError,
    FlexibleChecksumError,
    HTTPClientError,
    NoCredentialsError,
    ReadTimeoutError,
)

from brainscore_allen2022_surface import downloading
from brainscore_allen2022_surface.artifacts import StoredObject
from brainscore_allen2022_surface.downloading import download

STORED = StoredObject("brain", "some/where/a.nc", "v1", "0" * 40, size=7)
ADVICE = "Check the network and your AWS credentials, or set BRAINSCORE_ALLEN2022_SURFACE_DIR to a release on disk."
REFUSED = ClientError({"Error": {"Code": "403", "Message": "Forbidden"}}, "HeadObject")
UNREACHABLE = EndpointConnectionError(endpoint_url="https://user:password@server")


@pytest.fixture
def client(monkeypatch):
    """The settings of all clients, what was asked of them, and what each request raises, in order."""

    class Client:
        configs, requests, errors = [], [], []

        def download_file(self, bucket, key, path, ExtraArgs, Callback=None):
            self.requests.append((bucket, key, path, ExtraArgs))
            assert logging.getLogger("botocore").level >= logging.INFO
            error = self.errors.pop(0) if self.errors else None
            if error:
                raise error
            if Callback:
                Callback(7)

    def make(service, config):
        assert service == "s3"
        Client.configs.append(config)
        return Client()

    monkeypatch.setattr(boto3, "client", make)
    monkeypatch.delenv("AWS_MAX_ATTEMPTS", raising=False)
    return Client


def test_object_is_asked_for_once_in_its_version(client, tmp_path):
    download(STORED, tmp_path / "a")

    assert client.requests == [("brain", "some/where/a.nc", str(tmp_path / "a"), {"VersionId": "v1"})]
    (config,) = client.configs
    assert (config.connect_timeout, config.read_timeout) == (10, 20)
    assert config.retries == {"mode": "standard", "total_max_attempts": 6}
    assert config.signature_version is None


def test_attempts_that_the_user_configured_have_priority(client, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")

    download(STORED, tmp_path / "a")

    assert client.configs[0].retries["total_max_attempts"] == 2


@pytest.mark.parametrize("error", [REFUSED, NoCredentialsError(), S3UploadFailedError("refused"), ValueError("key")])
def test_second_request_has_no_signature(client, tmp_path, error):
    client.errors[:] = [error]

    download(STORED, tmp_path / "a")

    assert [config.signature_version for config in client.configs] == [None, UNSIGNED]
    assert len(client.requests) == 2


def test_both_reasons_are_named(client, tmp_path):
    client.errors[:] = [NoCredentialsError(), REFUSED]

    with pytest.raises(ConnectionError) as raised:
        download(STORED, tmp_path / "a")
    assert str(raised.value) == (
        f"{STORED} could not be downloaded: Unable to locate credentials; without credentials: {REFUSED}. {ADVICE}"
    )
    assert raised.value.__cause__ is None and raised.value.__context__ is None  # those of boto3 name the server


@pytest.mark.parametrize(
    "error",
    [
        UNREACHABLE,
        HTTPClientError(error="cut off"),
        ReadTimeoutError(endpoint_url="https://server", error=None),
        FlexibleChecksumError(error_msg="wrong bytes"),
    ],
)
def test_request_is_not_repeated_where_credentials_make_no_difference(client, tmp_path, error):
    client.errors[:] = [error, error, error]

    with pytest.raises(ConnectionError) as raised:
        download(STORED, tmp_path / "a")

    assert len(client.configs) == 1
    assert "without credentials" not in str(raised.value)
    assert "password" not in str(raised.value)


def test_wrong_bytes_are_asked_for_once_more_without_the_bar(client, tmp_path):
    client.errors[:] = [FlexibleChecksumError(error_msg="wrong bytes")]

    download(STORED, tmp_path / "a")

    assert len(client.configs) == 1 and len(client.requests) == 2
    assert client.requests[0] == client.requests[1]


def test_credentials_in_a_header_are_not_shown(client, tmp_path):
    error = HTTPClientError(error="Invalid header\nvalue b'AKIAQUITESECRET00000'")
    client.errors[:] = [error, error]

    with pytest.raises(ConnectionError) as raised:
        download(STORED, tmp_path / "a")

    assert len(client.configs) == 2  # it may succeed without them
    assert "SECRET" not in str(raised.value)
    assert (
        str(raised.value).count(
            "the credentials hold a character that is not allowed in credentials, such as a line end"
        )
        == 2
    )


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), OSError("strange")])
def test_error_of_the_disk_names_the_file(client, tmp_path, error):
    client.errors[:] = [error]

    with pytest.raises(OSError) as raised:
        download(STORED, tmp_path / "a")

    assert raised.value.filename == str(tmp_path / "a")
    assert raised.value.errno == error.errno
    assert raised.value.strerror == (error.strerror or "strange")
    assert len(client.requests) == 1


@pytest.mark.parametrize("is_terminal", [True, False])
def test_bar_counts_bytes_in_a_terminal_only(client, tmp_path, monkeypatch, capsys, is_terminal):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal, raising=False)

    download(STORED, tmp_path / "a")

    printed = capsys.readouterr().err
    if is_terminal:
        assert "a.nc: 100%" in printed and "7.00/7.00" in printed and "B/s" in printed
    else:
        assert printed == ""


def test_levels_of_loggers_are_those_of_before(client, tmp_path):
    logging.getLogger("botocore").setLevel(logging.DEBUG)
    try:
        download(STORED, tmp_path / "a")
        assert logging.getLogger("botocore").level == logging.DEBUG
    finally:
        logging.getLogger("botocore").setLevel(logging.NOTSET)


def test_server_may_fail_for_half_a_minute():
    """The pauses of boto3's standard mode double from one second, at most, until 20 seconds."""
    pauses = [min(2**n, 20) for n in range(downloading.N_ATTEMPTS - 1)]

    assert 30 <= sum(pauses) <= 40
