"""Downloads without a network, without credentials, and with credentials that the server refuses."""

import hashlib
import json
from io import BytesIO

import boto3
import pytest
from botocore.awsrequest import AWSResponse

from brainscore_allen2022_surface.artifacts import StoredObject
from brainscore_allen2022_surface.cache import fetch
from brainscore_allen2022_surface.loaders import load_assembly, load_stimulus_set

NAME = "Allen2022_fmri_surface"


@pytest.fixture
def without_credentials(s3, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)


@pytest.fixture
def public_object(s3) -> StoredObject:
    """An object that everyone may read."""
    version_id = s3.put_object(Bucket="brain", Key="public.csv", Body=b"x", ACL="public-read")["VersionId"]
    return StoredObject("brain", "public.csv", version_id, hashlib.sha1(b"x").hexdigest())


@pytest.fixture
def missing_object(published, tmp_path, monkeypatch):
    """An artifacts file whose test table does not exist in S3."""
    artifacts = json.loads(published.read_text())
    artifacts[f"{NAME}.test"]["stimulus_csv"]["key"] = "missing.csv"
    (tmp_path / "artifacts.json").write_text(json.dumps(artifacts))
    monkeypatch.setenv("BRAINSCORE_ALLEN2022_SURFACE_ARTIFACTS", str(tmp_path / "artifacts.json"))


def test_error_without_network_says_what_to_do(s3, objects, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")

    with pytest.raises(ConnectionError) as error:
        load_stimulus_set(NAME, "test")

    message = str(error.value)
    assert f"s3://brain/{objects.stimulus_csv.key}" in message
    assert "set BRAINSCORE_ALLEN2022_SURFACE_DIR to a release" in message
    assert "\n" not in message
    assert "without credentials" not in message


def test_cached_data_loads_without_network(s3, load_locally, assert_same_assembly, monkeypatch):
    load_assembly(NAME, "test")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")

    actual = load_assembly(NAME, "test")

    assert_same_assembly(actual, load_locally(load_assembly, NAME, "test"))


def test_public_object_is_downloaded_without_credentials(public_object, without_credentials):
    assert fetch(public_object).read_bytes() == b"x"


class EmptyBody(BytesIO):
    """The body of a response without content."""

    def stream(self):
        return iter(())


def test_public_object_is_downloaded_when_credentials_are_refused(public_object, monkeypatch):
    """A public bucket refuses the signatures of credentials that it does not know."""
    make_client = boto3.client
    refused_urls = []

    def refuse_signature(request, **_):
        if "Authorization" not in request.headers:
            return None
        refused_urls.append(request.url)
        return AWSResponse(request.url, 403, {}, EmptyBody())

    def make_strict_client(*arguments, **options):
        client = make_client(*arguments, **options)
        client.meta.events.register("before-send.s3", refuse_signature)
        return client

    monkeypatch.setattr(boto3, "client", make_strict_client)

    assert fetch(public_object).read_bytes() == b"x"
    assert refused_urls


def test_error_names_both_reasons_when_access_is_refused(without_credentials):
    with pytest.raises(ConnectionError, match="Unable to locate credentials; without credentials: .*403"):
        load_stimulus_set(NAME, "test")


def test_error_hides_credentials_with_a_line_end(s3, missing_object, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAQUITESECRET00000\n")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)

    with pytest.raises(ConnectionError, match="the credentials hold a character") as error:
        load_stimulus_set(NAME, "test")
    assert "QUITESECRET" not in str(error.value)


def test_error_names_an_object_that_does_not_exist(s3, missing_object):
    with pytest.raises(
        ConnectionError, match="s3://brain/missing.csv .* could not be downloaded: .*404.*without credentials"
    ):
        load_stimulus_set(NAME, "test")
