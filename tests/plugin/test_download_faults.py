"""Downloads over a network and a server that fail: the right data, or one line."""

import os
import shutil

import boto3
import pytest

from brainscore_allen2022_surface.loaders import load_assembly, load_stimulus_set, read_artifacts
from plugin.comparing import assert_same_assembly, assert_same_stimuli
from publish.proxy import Cut, refuse

NAME = "Allen2022_fmri_surface"


@pytest.fixture
def assert_loads(load_locally):
    """A function that loads a region, and compares it with the release on disk."""

    def load():
        assert_same_assembly(load_assembly(NAME, "test", region="V4"), load_locally(load_assembly, NAME, "test", "V4"))

    return load


def test_object_is_downloaded_once(proxy, assert_loads):
    assert_loads()
    proxy.clear()

    assert_loads()

    assert proxy.requests == []


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_burst_of_503_is_survived(proxy, assert_loads, method):
    failures = iter([refuse(503, "SlowDown"), refuse(500, "InternalError")])  # botocore asks three times
    proxy.fault = lambda request: next(failures, None) if request.method == method and "assy_" in request.name else None

    assert_loads()

    assert next(failures, None) is None


def test_connections_that_are_cut_are_survived(proxy, assert_loads):
    n_cuts = {"before": 0, "inside": 0}

    def fault(request):
        if request.method == "GET" and "assy_" in request.name and n_cuts["before"] < 2:
            n_cuts["before"] += 1
            raise Cut

    def shorten(request, content):
        if request.method == "GET" and "assy_" in request.name and n_cuts["inside"] < 2:
            n_cuts["inside"] += 1
            return content[: len(content) // 2]
        return None

    proxy.fault, proxy.shorten = fault, shorten

    assert_loads()

    assert n_cuts == {"before": 2, "inside": 2}


def test_public_objects_load_without_credentials(s3, proxy, published, assert_loads):
    """Signed requests are refused, as with credentials of somebody else; those without a signature are answered."""
    objects = [stored for entry in read_artifacts(published).values() for stored in entry.values()]
    for stored in objects:
        s3.put_object_acl(Bucket=stored.bucket, Key=stored.key, ACL="public-read")
    proxy.fault = lambda request: refuse(403, "InvalidAccessKeyId") if "Authorization" in request.headers else None

    assert_loads()

    proxy.clear()
    for stored in objects:
        s3.put_object_acl(Bucket=stored.bucket, Key=stored.key, ACL="private")


@pytest.mark.parametrize("kind", ["assembly", "stimulus_csv", "stimulus_zip"])
def test_damaged_file_in_the_cache_is_downloaded_again(s3, objects, load_locally, kind):
    load_assembly(NAME, "test")
    os.truncate(objects[kind].cached_path, 100)

    assert_same_assembly(load_assembly(NAME, "test"), load_locally(load_assembly, NAME, "test"))


def test_wrong_bytes_of_an_object_are_refused_after_a_second_download(s3, objects, published, tmp_path):
    wrong = objects["stimulus_csv"].sha1, "0" * 40
    (tmp_path / "wrong.json").write_text(published.read_text().replace(*wrong))

    with pytest.raises(ValueError, match=r"^s3://brain/.*stimulus_Allen2022_fmri_surface_test.csv .*SHA1 mismatch"):
        load_stimulus_set(NAME, "test", source=tmp_path / "wrong.json")


def test_version_that_is_gone_is_named(s3, objects, published, tmp_path):
    stored = objects["stimulus_csv"]
    (tmp_path / "gone.json").write_text(published.read_text().replace(stored.version_id, "gone"))

    with pytest.raises(
        ConnectionError, match=rf"^s3://brain/{stored.key} \(version gone\) could not be downloaded"
    ) as raised:
        load_stimulus_set(NAME, "test", source=tmp_path / "gone.json")
    assert "\n" not in str(raised.value)


def test_server_that_does_not_answer_is_one_line_that_says_what_to_do(s3, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)

    with pytest.raises(ConnectionError, match="set BRAINSCORE_ALLEN2022_SURFACE_DIR to a release on disk") as raised:
        load_assembly(NAME, "test", region="V4")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("damage", ["missing", "cut short"])
def test_images_that_were_extracted_in_part_are_extracted_again(s3, objects, load_locally, damage):
    load_stimulus_set(NAME, "test")
    folder = objects["stimulus_zip"].cached_path.with_suffix("")
    path = sorted(folder.iterdir())[0]
    path.unlink() if damage == "missing" else os.truncate(path, 10)

    assert_same_stimuli(load_stimulus_set(NAME, "test"), load_locally(load_stimulus_set, NAME, "test"))
    assert sorted(path.name for path in folder.parent.iterdir()) == sorted([folder.name, f"{folder.name}.zip"])


def test_whole_in_the_cache_serves_a_region(proxy, objects, assert_loads):
    load_assembly(NAME, "test")
    shutil.rmtree(objects["stimulus_csv"].cached_path.parent)
    proxy.clear()

    assert_loads()

    assert not [request for request in proxy.requests if "assy_" in request.name]
