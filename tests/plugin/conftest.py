"""Both releases of the small tree, published to an S3 server (moto) on this machine::

    s3://brain/benchmarks/Allen2022/surface/
        assy_Allen2022_fmri_surface_train.nc               likewise test, and Allen2022_fmri_surface_4subj
        stimulus_Allen2022_fmri_surface_train.csv
        stimulus_Allen2022_fmri_surface_train.zip

A test that asks for `s3` loads from there, into an empty cache. Its results are compared with those of the releases on disk.
"""

import os
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from brainscore_core.supported_data_standards.brainio import fetch as core_fetch

from allen2022_surface_packaging.publish.upload import publish_release
from brainscore_allen2022_surface.loaders import ARTIFACTS_VARIABLE, RELEASE_VARIABLE, StoredObject, read_artifacts
from publish.proxy import Proxy
from support import create_versioned_bucket, use_s3_server

BUCKET = "brain"
PREFIX = "benchmarks/Allen2022/surface"


@pytest.fixture
def load_locally(releases_path, monkeypatch) -> Callable[..., Any]:
    """A function that calls another function while the environment names the releases on disk."""

    def load(function, *arguments):
        with monkeypatch.context() as context:
            context.setenv(RELEASE_VARIABLE, str(releases_path))
            return function(*arguments)

    return load


@pytest.fixture(scope="module")
def published(release, four_subject_release, moto_port, tmp_path_factory) -> Path:
    """The artifacts file of both releases, which are published to a versioned bucket on an empty server."""
    path = tmp_path_factory.mktemp("artifacts") / "artifacts.json"
    with pytest.MonkeyPatch.context() as monkeypatch:
        use_s3_server(monkeypatch, moto_port)
        urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{moto_port}/moto-api/reset", method="POST"))
        create_versioned_bucket(boto3.client("s3"), BUCKET)
        for folder in (release, four_subject_release):
            publish_release(folder, f"{BUCKET}/{PREFIX}", artifacts_path=path, allow_simulated=True)
    return path


@pytest.fixture
def s3(published, moto_port, monkeypatch) -> Any:
    """A client of the server. The test loads from the server into an empty cache."""
    use_s3_server(monkeypatch, moto_port)
    monkeypatch.setenv(ARTIFACTS_VARIABLE, str(published))
    monkeypatch.setattr(
        core_fetch, "_local_data_path", None
    )  # brainscore_core keeps the first BRAINIO_HOME that it reads
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # boto3 keeps the first credentials that it reads
    return boto3.client("s3", aws_access_key_id="testing", aws_secret_access_key="testing")


@pytest.fixture
def objects(published) -> dict[str, StoredObject]:
    """The S3 objects of the test split of eight subjects."""
    return read_artifacts(published)["Allen2022_fmri_surface.test"]


@pytest.fixture
def cache_path() -> Path:
    return Path(os.environ["BRAINIO_HOME"])


@pytest.fixture
def proxy(s3, moto_port, monkeypatch) -> Iterator[Proxy]:
    """The way to the S3 server. It records requests, and fails when a test says so."""
    proxy = Proxy(moto_port)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    yield proxy
    proxy.close()
