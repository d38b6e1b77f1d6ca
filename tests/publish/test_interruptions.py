"""Publishing over failures: repeated requests, lost answers, other writers, and SIGKILL at any moment."""

import hashlib
import os
import signal
import time

import numpy as np
import pytest

from allen2022_surface_packaging.errors import PackagingError
from allen2022_surface_packaging.plugin import plugin_path
from allen2022_surface_packaging.publish.s3 import LocalFile, open_target, put
from publish.proxy import Cut, refuse
from publish.uploads import (
    NAME,
    OBJECTS,
    ONE_VERSION_EACH,
    PREFIX,
    count_versions,
    list_recorded,
    list_versions,
    publish,
)


def test_requests_are_repeated_when_s3_fails_for_a_while(release, s3, proxy, artifacts_path):
    failures = iter([refuse(500, "InternalError"), refuse(503, "SlowDown"), refuse(503, "ServiceUnavailable")])
    proxy.fault = lambda request: next(failures, None) if request.puts(f"assy_{NAME}_train") else None

    publish(release, artifacts_path)

    assert next(failures, None) is None
    assert count_versions(s3) == ONE_VERSION_EACH


@pytest.mark.parametrize("name", ["train.csv", f"assy_{NAME}_train"])
def test_lost_answer_does_not_make_a_second_version(release, s3, proxy, artifacts_path, name):
    """S3 writes the object, but its answer is lost. The client repeats the request, and S3 refuses it."""
    lost = []

    def after(request):
        if request.puts(name) and not lost:
            lost.append(request)
            raise Cut

    proxy.after = after

    publish(release, artifacts_path)

    assert lost
    assert count_versions(s3) == ONE_VERSION_EACH
    versions = [version for versions in list_versions(s3).values() for version in versions]
    assert {entry["version_id"] for entry in list_recorded(artifacts_path)} == set(versions)


def test_request_is_repeated_when_the_connection_is_cut(release, s3, proxy, artifacts_path):
    cuts = []

    def fault(request):
        if request.puts(OBJECTS[4]) and len(cuts) < 2:
            cuts.append(request)
            raise Cut

    proxy.fault = fault

    publish(release, artifacts_path)

    assert len(cuts) == 2
    assert sorted(proxy.contents_sent()) == sorted(OBJECTS)
    assert count_versions(s3) == ONE_VERSION_EACH


@pytest.mark.parametrize("method", ["PUT", "HEAD", "GET"])
def test_request_is_repeated_when_the_connection_stalls(release, s3, proxy, artifacts_path, monkeypatch, method):
    """S3 accepts a request and does not answer in time. An object may have been written when the request is repeated."""
    monkeypatch.setattr("allen2022_surface_packaging.publish.s3.READ_SECONDS", 0.5)
    stalled = []

    def after(request):
        if request.method == method and request.name == OBJECTS[1] and not stalled:
            stalled.append(request)
            time.sleep(1.5)

    proxy.after = after

    publish(release, artifacts_path)

    assert stalled
    assert count_versions(s3) == ONE_VERSION_EACH


def test_object_whose_version_is_gone_is_not_recorded(release, s3, proxy, artifacts_path):
    """Someone deletes the new version before it is looked up."""

    def after(request):
        if request.puts(OBJECTS[1]):
            for version_id in list_versions(s3)[OBJECTS[1]]:
                s3.delete_object(Bucket="brain", Key=f"{PREFIX}/{OBJECTS[1]}", VersionId=version_id)

    proxy.after = after
    before = artifacts_path.read_bytes()

    with pytest.raises(PackagingError, match=f"{OBJECTS[1]} is not what was sent: S3 reports None"):
        publish(release, artifacts_path)
    assert artifacts_path.read_bytes() == before


def test_objects_that_were_sent_are_not_sent_again(release, s3, proxy, artifacts_path, monkeypatch):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    proxy.fault = lambda request: refuse(503, "SlowDown") if request.puts(OBJECTS[4]) else None
    with pytest.raises(PackagingError, match="SlowDown.*S3 keeps failing. What has been sent is kept"):
        publish(release, artifacts_path)
    assert proxy.contents_sent() == OBJECTS[:4]
    proxy.clear()

    publish(release, artifacts_path)

    assert proxy.contents_sent() == OBJECTS[4:]
    assert count_versions(s3) == ONE_VERSION_EACH


@pytest.mark.parametrize("name", [OBJECTS[0], OBJECTS[4]])
def test_object_that_someone_else_put_meanwhile_stays(release, s3, proxy, artifacts_path, name):
    def fault(request):
        if request.puts(OBJECTS[0]) and not list_versions(s3):
            s3.put_object(Bucket="brain", Key=f"{PREFIX}/{name}", Body=b"theirs")

    proxy.fault = fault
    before = artifacts_path.read_bytes()

    with pytest.raises(PackagingError, match=rf"s3://brain/{PREFIX}/{name} was changed by someone else"):
        publish(release, artifacts_path)

    assert len(list_versions(s3)[name]) == 1
    assert s3.get_object(Bucket="brain", Key=f"{PREFIX}/{name}")["Body"].read() == b"theirs"
    assert artifacts_path.read_bytes() == before


def test_object_that_someone_else_replaced_meanwhile_stays(release, s3, proxy, artifacts_path):
    key = f"{PREFIX}/{OBJECTS[0]}"
    s3.put_object(Bucket="brain", Key=key, Body=b"to be replaced")

    def fault(request):
        if request.puts(OBJECTS[0]) and len(list_versions(s3)[OBJECTS[0]]) == 1:
            s3.put_object(Bucket="brain", Key=key, Body=b"theirs")

    proxy.fault = fault

    with pytest.raises(PackagingError, match="was changed by someone else"):
        publish(release, artifacts_path, overwrite=True)
    assert s3.get_object(Bucket="brain", Key=key)["Body"].read() == b"theirs"


def test_file_that_changed_after_the_plan_is_not_sent(s3, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"a" * 60_000)
    file = LocalFile(path, 60_000, hashlib.sha1(b"another").hexdigest())

    with pytest.raises(PackagingError, match="changed before it was sent"):
        put(open_target("brain"), "x", file, replaces=None, progress=lambda n_bytes: None)
    assert not list_versions(s3, "x")


def kill_at(proxy, number, moment, pid):
    """Kill a process when the proxy gets a request (moment "fault") or has the answer ("after")."""

    def kill(request):
        if request.number == number:
            os.kill(pid, signal.SIGKILL)
            raise Cut

    setattr(proxy, moment, kill)


def test_next_run_finishes_when_upload_is_killed_anywhere(s3, proxy, uploader, tmp_path):
    old = (plugin_path() / "artifacts.json").read_bytes()
    (tmp_path / "first.json").write_bytes(old)
    assert uploader.run("first", tmp_path / "first.json") == 0
    n_requests = len(proxy.requests)
    requests = [(int(n), ("fault", "after")[i % 2]) for i, n in enumerate(np.linspace(1, n_requests, 10))]
    new = {entry["sha1"] for entry in list_recorded(tmp_path / "first.json")}

    for i, point in enumerate([*requests, "open", "os.rename"]):
        proxy.clear()
        artifacts_path = tmp_path / f"{i}.json"
        artifacts_path.write_bytes(old)
        if isinstance(point, str):
            status = uploader.run(f"killed/{i}", artifacts_path, fatal=point)
        else:
            status = uploader.run(
                f"killed/{i}", artifacts_path, on_pid=lambda pid, point=point: kill_at(proxy, *point, pid)
            )
        assert os.WTERMSIG(status) == signal.SIGKILL, point
        assert artifacts_path.read_bytes() == old, point
        proxy.fault = proxy.after = lambda request: None

        assert uploader.run(f"killed/{i}", artifacts_path) == 0, point

        assert count_versions(s3, f"killed/{i}/") == ONE_VERSION_EACH, point
        sent = proxy.contents_sent()
        assert len(sent) == len(set(sent)), point
        assert {entry["sha1"] for entry in list_recorded(artifacts_path)} == new, point
