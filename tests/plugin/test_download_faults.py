"""Downloads over a network and a server that fail: the right data, or one line, after a time that has an end."""

import http.client
import json
import os
import time
from pathlib import Path

import boto3
import pytest

from brainscore_allen2022_surface import downloading
from brainscore_allen2022_surface.loaders import load_assembly, load_stimulus_set
from publish.proxy import Cut, Proxy, refuse

NAME = "Allen2022_fmri_surface"

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture
def proxy(s3, moto_port, monkeypatch):
    """The way to the S3 server. It records requests, and fails when a test says so."""
    proxy = Proxy(moto_port)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    yield proxy
    proxy.server.shutdown()


@pytest.fixture
def assert_loads(load_locally, assert_same_assembly):
    """A function that loads a region, and compares it with the release on disk."""

    def load():
        assert_same_assembly(load_assembly(NAME, "test", region="V4"), load_locally(load_assembly, NAME, "test", "V4"))

    return load


def gets(request, name="assy_"):
    return request.method == "GET" and name in request.name


def count(proxy, method, name="assy_"):
    return sum(request.method == method and name in request.name for request in proxy.requests)


def list_cached(cache_path):
    return [path.name for path in cache_path.rglob("*") if path.is_file() and not path.name.endswith(".checked")]


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_burst_of_503_is_survived(proxy, assert_loads, method):
    failures = iter([refuse(503, "SlowDown"), refuse(500, "InternalError"), refuse(503, "ServiceUnavailable")])
    proxy.fault = lambda request: next(failures, None) if request.method == method and "assy_" in request.name else None

    assert_loads()

    assert next(failures, None) is None
    assert count(proxy, method) == 4


def test_connection_that_is_cut_inside_the_content_is_survived(proxy, assert_loads):
    cuts = []

    def shorten(request, content):
        if gets(request) and len(cuts) < 3:
            cuts.append(len(content))
            return content[: len(content) // 2]
        return None

    proxy.shorten = shorten

    assert_loads()

    assert len(cuts) == 3


def test_connection_that_is_cut_before_the_answer_is_survived(proxy, assert_loads):
    cuts = []

    def fault(request):
        if gets(request) and len(cuts) < 3:
            cuts.append(request)
            raise Cut

    proxy.fault = fault

    assert_loads()

    assert len(cuts) == 3


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("GET", refuse(412, "PreconditionFailed")),
        ("GET", (204, {}, b"")),
        ("GET", (200, {"Content-Type": "text/html"}, b"<html>Log in first</html>")),
        ("HEAD", (200, {"Content-Length": "100000000", "ETag": '"another"'}, b"")),
    ],
)
def test_server_that_does_not_answer_as_s3_is_named_in_one_line(proxy, cache_path, method, answer):
    proxy.fault = lambda request: answer if request.method == method and "assy_" in request.name else None

    with pytest.raises(
        (ConnectionError, ValueError), match=r"^s3://brain/\S+ .*(answer is not that of S3|412|SHA-1)"
    ) as caught:
        load_assembly(NAME, "test", region="V4")

    assert "\n" not in str(caught.value)
    assert not [name for name in list_cached(cache_path) if "assy_" in name]


@pytest.mark.parametrize("n_bytes", [0, 10])
def test_content_counts_when_the_server_announces_another_size(proxy, assert_loads, n_bytes):
    proxy.fault = lambda r: (200, {"Content-Length": str(n_bytes)}, b"") if r.method == "HEAD" else None

    assert_loads()


def test_stalled_connection_is_given_up_and_opened_again(proxy, assert_loads, monkeypatch):
    monkeypatch.setattr(downloading, "READ_SECONDS", 0.5)
    stalled = []

    def fault(request):
        if gets(request) and len(stalled) < 2:
            stalled.append(request)
            time.sleep(3)

    proxy.fault = fault

    assert_loads()

    assert len(stalled) == 2


def test_server_that_never_answers_is_one_line(proxy, objects, cache_path, monkeypatch):
    monkeypatch.setattr(downloading, "READ_SECONDS", 0.2)
    monkeypatch.setattr(downloading, "N_ATTEMPTS", 2)
    proxy.fault = lambda request: time.sleep(2)
    start = time.monotonic()

    with pytest.raises(
        ConnectionError, match="could not be downloaded: Read timeout on endpoint URL.*Check the network"
    ) as error:
        load_stimulus_set(NAME, "test")

    assert time.monotonic() - start < 20
    assert f"s3://brain/{objects.stimulus_csv.key}" in str(error.value)
    assert "\n" not in str(error.value)
    assert list_cached(cache_path) == []


@pytest.mark.parametrize("answer", [refuse(503, "SlowDown"), refuse(500, "InternalError")], ids=["503", "500"])
def test_server_that_fails_for_good_is_one_line(proxy, cache_path, monkeypatch, answer):
    monkeypatch.setattr(downloading, "N_ATTEMPTS", 2)
    proxy.fault = lambda request: answer

    with pytest.raises(ConnectionError, match="could not be downloaded: .*; without credentials: ") as error:
        load_stimulus_set(NAME, "test")

    assert "\n" not in str(error.value)
    assert list_cached(cache_path) == []


def test_attempts_that_the_user_configured_have_priority(proxy, monkeypatch):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    proxy.fault = lambda request: refuse(503, "SlowDown")

    with pytest.raises(ConnectionError):
        load_stimulus_set(NAME, "test")

    assert count(proxy, "HEAD", "stimulus_") == 2  # with credentials and without


@pytest.mark.parametrize("n_times", [1, 2])
def test_wrong_bytes_of_the_right_length_are_downloaded_once_more(proxy, assert_loads, cache_path, n_times):
    wrong = []

    def fault(request):
        if gets(request) and len(wrong) < n_times:
            wrong.append(request)
            status, headers, content = pass_on(proxy, request)
            return status, headers, bytes(len(content))
        return None

    proxy.fault = fault

    if n_times == 1:
        assert_loads()
        return
    with pytest.raises(
        ConnectionError, match=f"assy_{NAME}_V4_test.nc .* could not be downloaded: Expected checksum .*match"
    ):
        load_assembly(NAME, "test", region="V4")
    assert len(wrong) == 2
    assert not [name for name in list_cached(cache_path) if "assy_" in name]


def pass_on(proxy, request):
    """Ask S3 for the same, and return its answer."""
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port)
    query = "&".join(f"{name}={value[0]}" for name, value in request.query.items())
    connection.request(request.method, f"{request.path}?{query}", headers=request.headers)
    response = connection.getresponse()
    content = response.read()
    return response.status, dict(response.headers), content


def test_version_that_is_gone_is_named(s3, proxy, objects, cache_path):
    stored = objects.stimulus_csv
    copy = s3.get_object(Bucket="brain", Key=stored.key, VersionId=stored.version_id)["Body"].read()
    s3.put_object(Bucket="brain", Key=stored.key, Body=copy)  # the same content in another version
    proxy.fault = lambda request: (
        refuse(404, "NoSuchVersion") if request.query.get("versionId") == [stored.version_id] else None
    )

    with pytest.raises(
        ConnectionError, match=rf"{stored.key} \(version {stored.version_id}\) could not be downloaded: .*404"
    ):
        load_stimulus_set(NAME, "test")
    assert list_cached(cache_path) == []


def test_full_disk_names_the_file(proxy, cache_path, monkeypatch):
    """`/dev/full` takes no byte, as a disk without space does."""
    monkeypatch.setattr("brainscore_allen2022_surface.cache.temporary_path", lambda path: Path("/dev/full"))
    monkeypatch.setattr(Path, "unlink", lambda path, missing_ok=False: None)
    monkeypatch.setattr(os, "rename", lambda source, target: None)

    with pytest.raises(ValueError, match=r"^/dev/full cannot be read or written \(No space left on device\)"):
        load_stimulus_set(NAME, "test")


def test_interrupted_download_leaves_nothing(proxy, cache_path, published):
    """A process that is killed inside a download leaves a hidden file, which is removed after a day; one that fails, nothing."""
    artifacts = json.loads(published.read_text())
    proxy.shorten = lambda request, content: content[:10] if gets(request) else None

    with pytest.raises(ConnectionError, match="could not be downloaded"):
        load_assembly(NAME, "test", region="V4")

    key = artifacts[f"{NAME}.V4.test"]["assembly"]["sha1"]
    assert list((cache_path / key).iterdir()) == []
