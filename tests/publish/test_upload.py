"""Publishing, against moto's S3 over HTTP. Between the two stands a proxy that counts requests, and fails when told to."""

import contextlib
import hashlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import boto3
import numpy as np
import pandas as pd
import pytest

from allen2022_surface_packaging.build.pipeline import build_release
from allen2022_surface_packaging.cli import main
from allen2022_surface_packaging.errors import PackagingError
from allen2022_surface_packaging.nsd.files import SUBJECTS
from allen2022_surface_packaging.nsd.simulation import Recipe, simulate_tree
from allen2022_surface_packaging.publish.objects import make_objects
from allen2022_surface_packaging.publish.s3 import LocalFile, open_bucket, put
from allen2022_surface_packaging.publish.upload import plugin_artifacts_path, publish_release

ACCESS_KEY, SECRET_KEY = "AKIAQUITESECRET00000", "wJalrXUtnFEMI/notToBeShown/bPxRfiCY"
PREFIX = "some/where/deep"
PART_BYTES = 20_000
NAME = "Allen2022_fmri_surface"
OBJECTS = [
    f"stimulus_{NAME}_train.csv",
    f"stimulus_{NAME}_train.zip",
    f"stimulus_{NAME}_test.csv",
    f"stimulus_{NAME}_test.zip",
    f"assy_{NAME}_train.nc",
    f"assy_{NAME}_test.nc",
]


class Request:
    """A request on its way to S3."""

    def __init__(self, number, method, path, headers, body):
        self.number, self.method, self.headers, self.body = number, method, headers, body
        parts = urlsplit(path)
        self.path, self.query = unquote(parts.path), parse_qs(parts.query, keep_blank_values=True)
        self.name = self.path.rpartition("/")[2]

    def puts(self, name=""):
        """Tell whether it brings content: an object or a part of one."""
        return self.method == "PUT" and name in self.name and not set(self.query) - {"partNumber", "uploadId", "x-id"}

    def is_a_part(self):
        return self.method == "PUT" and "partNumber" in self.query


class Cut(Exception):
    """Cut the connection instead of answering."""


def refuse(status, code, message="as told by the test"):
    """Answer as S3 answers when it fails."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
    return status, {"Content-Type": "application/xml"}, body


class Proxy:
    """Passes requests on to S3 and remembers them; `fault` may answer instead, `after` acts when S3 has answered."""

    def __init__(self, port):
        self.port, self.requests, self.n_under_way, self.lock = port, [], 0, threading.Lock()
        self.passed_on = []
        self.calm()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def answer(self):
                with proxy.lock:
                    proxy.n_under_way += 1
                try:
                    length = int(self.headers.get("Content-Length") or 0)
                    body = self.rfile.read(length)
                    if len(body) < length:
                        raise Cut  # the sender died in the middle of it
                    with proxy.lock:
                        request = Request(len(proxy.requests) + 1, self.command, self.path, dict(self.headers), body)
                        proxy.requests.append(request)
                    status, headers, content = proxy.fault(request) or self.pass_on(request)
                    proxy.after(request)
                    self.send_response(status)
                    for name, value in headers.items():
                        if name.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server"):
                            self.send_header(name, value)
                    length = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(content))
                    self.send_header("Content-Length", length)
                    self.end_headers()
                    if self.command != "HEAD":
                        self.wfile.write(content)
                except (Cut, OSError):
                    self.close_connection = True
                    with contextlib.suppress(OSError):
                        self.connection.shutdown(socket.SHUT_RDWR)
                finally:
                    with proxy.lock:
                        proxy.n_under_way -= 1

            def pass_on(self, request):
                connection = http.client.HTTPConnection("127.0.0.1", proxy.port)
                connection.request(self.command, self.path, request.body, dict(self.headers))
                response = connection.getresponse()
                content = response.read()
                if response.status < 300:
                    proxy.passed_on.append(request)
                return response.status, dict(response.headers), content

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer

            def log_message(self, *arguments):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda request, address: None  # a sender that died
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def calm(self):
        self.fault = self.after = lambda request: None
        self.requests, self.passed_on = [], []

    def wait(self):
        while self.n_under_way:
            time.sleep(0.005)

    def contents_sent(self):
        """Return what S3 took: (object, part number) of every content, in order."""
        return [(r.name, int(r.query.get("partNumber", ["0"])[0])) for r in self.passed_on if r.puts()]


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """A release smaller than the other tests have it: it is uploaded more than a hundred times."""
    folder = tmp_path_factory.mktemp("tiny")
    simulate_tree(folder / "nsd", Recipe(n_trials=60, n_vertices=160, image_size=24))
    build_release(folder / "nsd", folder / "release", subjects=SUBJECTS)
    return folder / "release"


@pytest.fixture(scope="module")
def proxy(moto_port):
    proxy = Proxy(moto_port)
    yield proxy
    proxy.server.shutdown()


@pytest.fixture
def s3(proxy, moto_port, monkeypatch):
    """A client that goes to S3 directly, and a new versioned bucket `brain`; everyone else goes through the proxy."""
    proxy.calm()
    monkeypatch.setattr("moto.s3.models.S3_UPLOAD_PART_MIN_SIZE", 1024)
    for name, value in {
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_ENDPOINT_URL": proxy.url,
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{moto_port}")
    connection = http.client.HTTPConnection("127.0.0.1", moto_port)
    connection.request("POST", "/moto-api/reset")
    connection.getresponse().read()
    client.create_bucket(Bucket="brain")
    client.put_bucket_versioning(Bucket="brain", VersioningConfiguration={"Status": "Enabled"})
    return client


@pytest.fixture
def artifacts_path(tmp_path):
    return Path(shutil.copy(plugin_artifacts_path(), tmp_path / "artifacts.json"))


def publish(release, artifacts_path, prefix=PREFIX, **options):
    lines = []
    publish_release(
        release, f"brain/{prefix}", artifacts_path=artifacts_path, part_bytes=PART_BYTES, tell=lines.append, **options
    )
    return "\n".join(lines)


def versions(s3, prefix=PREFIX):
    """Return the versions of every object under a prefix, newest first."""
    found = {}
    for version in s3.list_object_versions(Bucket="brain", Prefix=prefix).get("Versions", ()):
        found.setdefault(version["Key"].rpartition("/")[2], []).append(version["VersionId"])
    return found


def pending(s3):
    return s3.list_multipart_uploads(Bucket="brain").get("Uploads", [])


def recorded(artifacts_path, name=NAME):
    artifacts = json.loads(artifacts_path.read_text())
    return [artifacts[f"{name}.{split}"][kind] for split in ("train", "test") for kind in artifacts[f"{name}.{split}"]]


# --- objects ---------------------------------------------------------------------------------------------------------


def test_a_stimulus_zip_is_flat_holds_exactly_the_files_of_the_csv_in_order_and_no_time(release, tmp_path):
    objects = {item.name: item for item in make_objects(release, tmp_path)}
    table = pd.read_csv(objects[f"stimulus_{NAME}_test.csv"].path)
    own = pd.read_csv(release / "stimulus_metadata_test.csv")

    with zipfile.ZipFile(objects[f"stimulus_{NAME}_test.zip"].path) as archive:
        assert archive.namelist() == table.filename.tolist()
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert all(archive.read(name) == (release / "stimuli_test" / name).read_bytes() for name in archive.namelist())
    assert list(table) == ["stimulus_id", "filename", "nsd_id", "image_file_name", "coco_id"]
    pd.testing.assert_frame_equal(table.drop(columns="filename"), own)


def test_objects_are_the_same_bytes_on_any_day_under_any_hash_seed_and_umask(release, tmp_path):
    later = Path(shutil.copytree(release, tmp_path / "later"))
    for path in later.rglob("*"):
        path.chmod(0o700)
        os.utime(path, (1_900_000_000, 1_900_000_000))
    script = (
        "import os, sys, pathlib; from allen2022_surface_packaging.publish.objects import make_objects\n"
        "os.umask(0o077); folder = pathlib.Path(sys.argv[2]); folder.mkdir()\n"
        "print([(item.name, item.sha1) for item in make_objects(pathlib.Path(sys.argv[1]), folder)])"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-c", script, str(source), str(tmp_path / seed)],
            env=os.environ | {"PYTHONHASHSEED": seed, "TZ": zone},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for source, seed, zone in ((release, "1", "UTC"), (later, "77", "Asia/Tokyo"))
    ]

    assert outputs[0] == outputs[1] != ""


def test_an_object_is_named_as_brainio_looks_for_it(release, tmp_path):
    assert [item.name for item in make_objects(release, tmp_path)] == OBJECTS


def test_a_release_that_misses_an_image_is_refused(own_release, tmp_path):
    next((own_release / "stimuli_test").iterdir()).unlink()
    (tmp_path / "made").mkdir()

    with pytest.raises(PackagingError, match="release is not whole: .*stimuli_test/nsd_.*missing"):
        make_objects(own_release, tmp_path / "made")


# --- plan and order --------------------------------------------------------------------------------------------------


def test_a_dry_run_prints_key_size_sha1_and_state_and_changes_nothing(release, s3, proxy, artifacts_path):
    before = artifacts_path.read_bytes()

    plan = publish(release, artifacts_path, dry_run=True)

    path = release / f"{NAME}_train.nc"
    sha1 = hashlib.sha1(path.read_bytes()).hexdigest()
    line = next(line for line in plan.splitlines() if "assy_" in line)
    assert line.split() == [
        f"{PREFIX}/assy_{NAME}_train.nc", f"{path.stat().st_size:,}", "bytes", "SHA-1", sha1, "new"
    ]  # fmt: skip
    assert plan.count(" new") == 6
    assert not versions(s3)
    assert artifacts_path.read_bytes() == before
    assert {request.method for request in proxy.requests} <= {"GET", "HEAD", "POST"}
    assert all(request.path == "/" for request in proxy.requests if request.method == "POST")  # who am I


def test_stimulus_sets_go_first_and_what_lies_on_s3_is_what_artifacts_json_says(release, s3, proxy, artifacts_path):
    publish(release, artifacts_path)

    order = list(dict.fromkeys(name for name, _ in proxy.contents_sent()))
    assert order == OBJECTS
    assert versions(s3) == {Path(entry["key"]).name: [entry["version_id"]] for entry in recorded(artifacts_path)}
    for entry in recorded(artifacts_path):
        found = s3.get_object(Bucket=entry["bucket"], Key=entry["key"], VersionId=entry["version_id"])
        content = found["Body"].read()
        assert hashlib.sha1(content).hexdigest() == entry["sha1"] == found["Metadata"]["sha1"]
        assert len(content) == entry["size"]
    assert not pending(s3)


def test_an_uploaded_assembly_is_the_file_of_the_release(release, s3, artifacts_path):
    publish(release, artifacts_path)

    for split in ("train", "test"):
        content = s3.get_object(Bucket="brain", Key=f"{PREFIX}/assy_{NAME}_{split}.nc")["Body"].read()
        assert content == (release / f"{NAME}_{split}.nc").read_bytes()


def test_objects_are_tagged_with_who_uploaded_them_and_nobody_is_granted_anything(release, s3, proxy, artifacts_path):
    publish(release, artifacts_path)

    for name in OBJECTS:
        tags = s3.get_object_tagging(Bucket="brain", Key=f"{PREFIX}/{name}")["TagSet"]
        assert [tag["Key"] for tag in tags] == ["uploadedBy"]
    names = {name.lower() for request in proxy.requests for name in [*request.headers, *request.query]}
    assert "x-amz-tagging" in names
    assert not {name for name in names if name == "acl" or name.startswith(("x-amz-acl", "x-amz-grant"))}


def test_where_aws_cannot_be_asked_who_uploads_nothing_is_tagged(release, s3, proxy, artifacts_path, caplog):
    """As from a cluster whose firewall lets only S3 through, or with an S3 that is not Amazon's."""
    body = b"<ErrorResponse><Error><Code>UnsupportedOperation</Code><Message>no</Message></Error></ErrorResponse>"
    answer = 400, {"Content-Type": "text/xml"}, body
    proxy.fault = lambda request: answer if request.method == "POST" and request.path == "/" else None

    publish(release, artifacts_path)

    assert "does not say who uploads (UnsupportedOperation)" in caplog.text
    for name in OBJECTS:
        assert s3.get_object_tagging(Bucket="brain", Key=f"{PREFIX}/{name}")["TagSet"] == []


def test_the_second_upload_sends_nothing_and_records_the_same(release, s3, proxy, artifacts_path, tmp_path):
    publish(release, artifacts_path)
    first = versions(s3)
    proxy.calm()

    plan = publish(release, tmp_path / "other.json")

    assert plan.count("already there, skipped") == 6
    assert proxy.contents_sent() == []
    assert versions(s3) == first
    assert recorded(tmp_path / "other.json") == recorded(artifacts_path)


@pytest.mark.parametrize("size", ["5", None])
def test_an_object_that_s3_reports_otherwise_than_it_was_sent_is_not_recorded(release, s3, proxy, artifacts_path, size):
    """A wrong size, or the right size of wrong bytes."""
    before = artifacts_path.read_bytes()

    def fault(request):
        if request.method == "HEAD" and "versionId" in request.query:
            headers = s3.head_object(Bucket="brain", Key=f"{PREFIX}/{request.name}")["ResponseMetadata"]["HTTPHeaders"]
            return (
                200,
                headers | {"Content-Length": size or headers["content-length"], "x-amz-checksum-sha1": "AAAA"},
                b"",
            )
        if request.method == "GET" and "versionId" in request.query:
            return 200, {}, b"other bytes"
        return None

    proxy.fault = fault

    with pytest.raises(
        PackagingError, match=rf"{OBJECTS[0]} is not what was sent: S3 reports .*expected .* bytes of SHA-1"
    ):
        publish(release, artifacts_path)
    assert artifacts_path.read_bytes() == before
    assert {name for name, _ in proxy.contents_sent()} == {OBJECTS[0]}


def test_another_content_is_refused_before_anything_is_sent_and_replaced_with_overwrite(
    release, s3, proxy, artifacts_path
):
    key = f"{PREFIX}/assy_{NAME}_test.nc"
    theirs = s3.put_object(Bucket="brain", Key=key, Body=b"another file")["VersionId"]

    with pytest.raises(PackagingError, match=rf"s3://brain/{key} is there with another content .*--overwrite"):
        publish(release, artifacts_path)
    assert proxy.contents_sent() == []

    plan = publish(release, artifacts_path, overwrite=True)

    assert "different, replaced only with --overwrite" in plan
    assert versions(s3)[Path(key).name][1:] == [theirs]
    assert s3.get_object(Bucket="brain", Key=key, VersionId=theirs)["Body"].read() == b"another file"


def test_content_is_compared_itself_where_another_tool_put_the_object(release, s3, proxy, artifacts_path, tmp_path):
    """aws s3 cp leaves neither our checksum nor our note, and a file of the same size may differ in a single byte."""
    same, other = (release / f"{NAME}_{split}.nc" for split in ("train", "test"))
    changed = bytearray(other.read_bytes())
    changed[-1] ^= 1
    s3.put_object(Bucket="brain", Key=f"{PREFIX}/assy_{NAME}_train.nc", Body=same.read_bytes())
    s3.put_object(Bucket="brain", Key=f"{PREFIX}/assy_{NAME}_test.nc", Body=bytes(changed))

    lines = publish(release, artifacts_path, dry_run=True).splitlines()

    assert "already there" in next(line for line in lines if f"assy_{NAME}_train.nc" in line)
    assert "different" in next(line for line in lines if f"assy_{NAME}_test.nc" in line)


def test_an_object_from_before_versioning_gets_a_version(release, s3, artifacts_path):
    s3.create_bucket(Bucket="older")
    s3.put_object(Bucket="older", Key=f"assy_{NAME}_train.nc", Body=(release / f"{NAME}_train.nc").read_bytes())
    s3.put_bucket_versioning(Bucket="older", VersioningConfiguration={"Status": "Enabled"})

    publish_release(release, "older", artifacts_path=artifacts_path)

    assert all(entry["version_id"] not in ("null", None, "") for entry in recorded(artifacts_path))


def test_a_damaged_release_is_not_sent(own_release, s3, proxy, artifacts_path):
    path = own_release / f"{NAME}_test.nc"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)

    with pytest.raises(PackagingError, match="not sound, so nothing was sent: .*SHA-1"):
        publish(own_release, artifacts_path)
    assert proxy.contents_sent() == []


@pytest.mark.parametrize("status", [None, "Suspended"])
def test_a_bucket_without_versions_is_refused(release, s3, artifacts_path, status):
    s3.create_bucket(Bucket="plain")
    if status:
        s3.put_bucket_versioning(Bucket="plain", VersioningConfiguration={"Status": status})

    with pytest.raises(PackagingError, match="s3://plain keeps no versions .*Switch versioning on"):
        publish_release(release, "plain", artifacts_path=artifacts_path)


@pytest.mark.parametrize("destination", ["", "/", "s3://", "brain/a//b", "brain/a b"])
def test_a_destination_that_brainio_could_not_load_from_is_refused(release, s3, artifacts_path, destination):
    with pytest.raises(PackagingError, match="expected BUCKET or BUCKET/PREFIX"):
        publish_release(release, destination, artifacts_path=artifacts_path)


@pytest.mark.parametrize("destination", ["brain", "brain/", "s3://brain/", "brain/one/two/", "s3://brain/one/two"])
def test_a_bucket_can_be_named_in_the_usual_ways(s3, destination):
    bucket = open_bucket(destination)

    assert bucket.name == "brain"
    assert bucket.key("x.nc") == ("one/two/x.nc" if "one" in destination else "x.nc")


# --- artifacts.json --------------------------------------------------------------------------------------------------


def test_only_the_entries_of_the_release_are_replaced(release, four_subject_release, s3, artifacts_path):
    before = json.loads(artifacts_path.read_text())

    publish(release, artifacts_path)
    between = json.loads(artifacts_path.read_text())
    publish(four_subject_release, artifacts_path)
    after = json.loads(artifacts_path.read_text())

    ours = {f"{NAME}.train", f"{NAME}.test"}
    assert list(between) == list(after) == list(before)
    assert all((between[identifier] == before[identifier]) == (identifier not in ours) for identifier in before)
    assert all((after[identifier] == between[identifier]) == (identifier in ours) for identifier in before)


def test_a_release_of_another_name_gets_entries_of_its_own(own_release, s3, artifacts_path):
    manifest = json.loads((own_release / "release.json").read_text())
    for split in ("train", "test"):
        (own_release / f"{NAME}_{split}.nc").rename(own_release / f"Other_{split}.nc")
        manifest["files"][f"Other_{split}.nc"] = manifest["files"].pop(f"{NAME}_{split}.nc")
    (own_release / "release.json").write_text(json.dumps(manifest | {"name": "Other"}))

    publish(own_release, artifacts_path)

    assert [Path(entry["key"]).name for entry in recorded(artifacts_path, "Other")][0] == "assy_Other_train.nc"
    assert len(json.loads(artifacts_path.read_text())) == 6


def test_artifacts_that_cannot_be_written_are_found_before_anything_is_sent(
    release, s3, proxy, artifacts_path, tmp_path
):
    artifacts_path.write_text("{not json")

    with pytest.raises(PackagingError, match="artifacts.json is damaged .*Mend it"):
        publish(release, artifacts_path)
    with pytest.raises(PackagingError, match="could not be written: its folder is missing or read-only"):
        publish(release, tmp_path / "nowhere" / "artifacts.json")
    assert proxy.requests == []


def test_without_a_file_the_plugins_own_artifacts_are_the_ones(monkeypatch):
    import brainscore_allen2022_surface

    assert plugin_artifacts_path() == Path(brainscore_allen2022_surface.__file__).with_name("artifacts.json")


# --- interruptions ---------------------------------------------------------------------------------------------------


def test_what_fails_for_a_while_is_tried_again(release, s3, proxy, artifacts_path):
    failures = iter([refuse(500, "InternalError"), refuse(503, "SlowDown"), refuse(503, "ServiceUnavailable")])
    proxy.fault = lambda request: next(failures, None) if request.puts(f"assy_{NAME}_train") else None

    publish(release, artifacts_path)

    assert next(failures, None) is None
    assert {name: len(found) for name, found in versions(s3).items()} == dict.fromkeys(OBJECTS, 1)


def test_a_connection_cut_in_the_middle_of_a_part_is_made_anew(release, s3, proxy, artifacts_path):
    n_cut = []

    def fault(request):
        if request.is_a_part() and request.query["partNumber"] == ["2"] and len(n_cut) < 2:
            n_cut.append(request)
            raise Cut

    proxy.fault = fault

    publish(release, artifacts_path)

    assert len(n_cut) == 2
    sent = proxy.contents_sent()
    assert len(sent) == len(set(sent))
    assert {name: len(found) for name, found in versions(s3).items()} == dict.fromkeys(OBJECTS, 1)


@pytest.mark.parametrize("what", ["an object", "the end of a multipart upload"])
def test_an_answer_that_was_lost_does_not_make_a_second_version(release, s3, proxy, artifacts_path, what):
    """S3 did it, we did not hear; we ask again, and S3 refuses, since the object is there."""
    lost = []

    def after(request):
        is_it = (
            request.puts("train.csv")
            if what == "an object"
            else request.method == "POST" and "uploadId" in request.query
        )
        if is_it and not lost:
            lost.append(request)
            raise Cut

    proxy.after = after

    publish(release, artifacts_path)

    assert lost
    assert {name: len(found) for name, found in versions(s3).items()} == dict.fromkeys(OBJECTS, 1)
    assert {entry["version_id"] for entry in recorded(artifacts_path)} == {v[0] for v in versions(s3).values()}


@pytest.mark.parametrize("name", [OBJECTS[0], OBJECTS[4]])
def test_what_another_hand_put_between_plan_and_upload_stays(release, s3, proxy, artifacts_path, name):
    def fault(request):
        if request.puts(OBJECTS[0]) and not versions(s3):
            s3.put_object(Bucket="brain", Key=f"{PREFIX}/{name}", Body=b"theirs")

    proxy.fault = fault
    before = artifacts_path.read_bytes()

    with pytest.raises(PackagingError, match=rf"s3://brain/{PREFIX}/{name} was written by another hand"):
        publish(release, artifacts_path)

    assert len(versions(s3)[name]) == 1
    assert s3.get_object(Bucket="brain", Key=f"{PREFIX}/{name}")["Body"].read() == b"theirs"
    assert artifacts_path.read_bytes() == before
    assert not pending(s3)


def test_what_another_hand_put_over_what_we_meant_to_overwrite_stays(release, s3, proxy, artifacts_path):
    key = f"{PREFIX}/{OBJECTS[0]}"
    s3.put_object(Bucket="brain", Key=key, Body=b"to be replaced")

    def fault(request):
        if request.puts(OBJECTS[0]) and len(versions(s3)[OBJECTS[0]]) == 1:
            s3.put_object(Bucket="brain", Key=key, Body=b"theirs")

    proxy.fault = fault

    with pytest.raises(PackagingError, match="was written by another hand"):
        publish(release, artifacts_path, overwrite=True)
    assert s3.get_object(Bucket="brain", Key=key)["Body"].read() == b"theirs"


def test_parts_that_were_sent_are_not_sent_again(release, s3, proxy, artifacts_path, monkeypatch):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    proxy.fault = lambda r: refuse(503, "SlowDown") if r.is_a_part() and r.query["partNumber"] == ["4"] else None
    with pytest.raises(PackagingError, match="SlowDown.*S3 keeps failing. What has been sent is kept"):
        publish(release, artifacts_path)
    first = proxy.contents_sent()
    assert {(OBJECTS[4], 1), (OBJECTS[4], 2), (OBJECTS[4], 3)} <= set(first)
    proxy.calm()

    publish(release, artifacts_path)

    assert not set(first) & set(proxy.contents_sent())
    assert {name: len(found) for name, found in versions(s3).items()} == dict.fromkeys(OBJECTS, 1)
    assert not pending(s3)


def test_parts_of_another_content_are_not_used(release, s3, artifacts_path):
    key = f"{PREFIX}/{OBJECTS[4]}"
    upload_id = s3.create_multipart_upload(Bucket="brain", Key=key, ChecksumAlgorithm="SHA1")["UploadId"]
    content = (release / f"{NAME}_train.nc").read_bytes()
    for number, part in ((1, content[:PART_BYTES]), (2, b"x" * PART_BYTES)):
        s3.upload_part(
            Bucket="brain", Key=key, UploadId=upload_id, PartNumber=number, Body=part, ChecksumAlgorithm="SHA1"
        )

    publish(release, artifacts_path)

    assert s3.get_object(Bucket="brain", Key=key)["Body"].read() == content
    assert not pending(s3)  # nobody is to pay for parts that nobody needs


def test_an_upload_works_where_pending_ones_cannot_be_listed(release, s3, proxy, artifacts_path):
    proxy.fault = lambda r: refuse(403, "AccessDenied") if r.method == "GET" and "uploads" in r.query else None

    publish(release, artifacts_path)

    assert {name: len(found) for name, found in versions(s3).items()} == dict.fromkeys(OBJECTS, 1)


def test_a_file_that_changes_while_it_is_sent_does_not_become_an_object(s3, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"a" * 3 * PART_BYTES)
    file = LocalFile(path, 3 * PART_BYTES, hashlib.sha1(b"another").hexdigest())

    with pytest.raises(PackagingError, match="changed while it was sent"):
        put(open_bucket("brain"), "x", file, replaces=None, progress=lambda n: None, part_bytes=PART_BYTES)
    assert not versions(s3, "x")
    assert not pending(s3)


def test_a_file_of_several_parts_of_the_usual_size_is_sent_whole(s3, proxy, tmp_path, rng, monkeypatch):
    monkeypatch.setattr("moto.s3.models.S3_UPLOAD_PART_MIN_SIZE", 5 * 2**20)  # as S3 itself has it
    content = rng.bytes(37 * 2**20 + 5)
    (tmp_path / "file").write_bytes(content)
    file = LocalFile(tmp_path / "file", len(content), hashlib.sha1(content).hexdigest())
    told = []

    remote = put(open_bucket("brain"), "x", file, replaces=None, progress=told.append)

    found = s3.get_object(Bucket="brain", Key="x", VersionId=remote.version_id)["Body"].read()
    assert hashlib.sha1(found).hexdigest() == file.sha1
    assert sum(told) == len(content)
    assert sorted(proxy.contents_sent()) == [("x", 1), ("x", 2), ("x", 3)]


UPLOADS = """
import json, os, signal, sys
from pathlib import Path
from allen2022_surface_packaging.publish.upload import publish_release

for line in sys.stdin:
    release, destination, artifacts, part_bytes, fatal = json.loads(line)
    child = os.fork()
    if not child:
        def watch(event, arguments):
            if fatal and event == fatal and any(str(value).endswith(".json.partial") for value in arguments):
                os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(watch)
        publish_release(Path(release), destination, artifacts_path=Path(artifacts), part_bytes=part_bytes)
        os._exit(0)
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
"""


@pytest.fixture
def uploader(s3):
    """A process that uploads in children of its own, so that each can be killed and none has to start from nothing."""
    process = subprocess.Popen(
        [sys.executable, "-c", UPLOADS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ
    )
    yield process
    process.stdin.close()
    process.wait(10)


@pytest.mark.slow
def test_killed_at_any_of_twenty_points_the_next_run_finishes(release, s3, proxy, uploader, tmp_path):
    def run(prefix, artifacts_path, fatal=None, on_pid=lambda pid: None):
        arguments = [str(release), f"brain/{prefix}", str(artifacts_path), PART_BYTES, fatal]
        uploader.stdin.write(json.dumps(arguments) + "\n")
        uploader.stdin.flush()
        on_pid(int(uploader.stdout.readline()))
        status = int(uploader.stdout.readline())
        proxy.wait()  # what was on its way when its sender died may yet arrive
        return status

    def kill_at(number, moment, pid):
        def strike(request):
            if request.number == number:
                os.kill(pid, signal.SIGKILL)
                raise Cut

        setattr(proxy, moment, strike)

    old = plugin_artifacts_path().read_bytes()
    (tmp_path / "first.json").write_bytes(old)
    assert run("first", tmp_path / "first.json") == 0
    n_requests = len(proxy.requests)
    requests = [(int(n), ("fault", "after")[i % 2]) for i, n in enumerate(np.linspace(1, n_requests, 18))]
    points = [*requests, "open", "os.rename"]
    new = {entry["sha1"] for entry in recorded(tmp_path / "first.json")}

    for i, point in enumerate(points):
        proxy.calm()
        artifacts_path = tmp_path / f"{i}.json"
        artifacts_path.write_bytes(old)
        if isinstance(point, str):
            status = run(f"killed/{i}", artifacts_path, fatal=point)
        else:
            status = run(f"killed/{i}", artifacts_path, on_pid=lambda pid, point=point: kill_at(*point, pid))
        assert os.WTERMSIG(status) == signal.SIGKILL, point
        assert artifacts_path.read_bytes() == old, point
        proxy.fault = proxy.after = lambda request: None

        assert run(f"killed/{i}", artifacts_path) == 0, point

        sent = proxy.contents_sent()
        assert len(sent) == len(set(sent)), point
        assert {name: len(found) for name, found in versions(s3, f"killed/{i}/").items()} == dict.fromkeys(OBJECTS, 1)
        assert {entry["sha1"] for entry in recorded(artifacts_path)} == new, point
        assert not pending(s3), point


# --- faults ----------------------------------------------------------------------------------------------------------


def s3_always(status, code, message="as told by the test", where=lambda request: True):
    return lambda request: refuse(status, code, message) if where(request) else None


def cut_what_is_put(request):
    if request.puts():
        raise Cut


FAULTS = {
    "wrong key": (s3_always(403, "InvalidAccessKeyId"), "InvalidAccessKeyId.*AWS refuses your credentials"),
    "wrong secret": (s3_always(403, "SignatureDoesNotMatch"), "AWS refuses your credentials"),
    "expired": (s3_always(400, "ExpiredToken"), "AWS refuses your credentials.*renew"),
    "clock": (
        s3_always(403, "RequestTimeTooSkewed", "The difference between the request time and the current time is too large."),
        "RequestTimeTooSkewed.*clock of this machine is wrong",
    ),
    "no listing of versions": (
        s3_always(403, "AccessDenied", where=lambda r: "versioning" in r.query),
        "do not allow it. Ask the owner of the bucket for s3:GetBucketVersioning",
    ),
    "no putting": (
        s3_always(403, "AccessDenied", where=lambda r: r.puts()),
        "do not allow it. Ask the owner of the bucket for s3:PutObject",
    ),
    "no tagging": (
        s3_always(403, "AccessDenied", where=lambda r: "x-amz-tagging" in {name.lower() for name in r.headers}),
        "do not allow it. .*s3:PutObjectTagging",
    ),
    "no looking": (s3_always(403, "AccessDenied", where=lambda r: r.method == "HEAD"), "Ask .* for s3:GetObject"),
    "500 for good": (s3_always(500, "InternalError", where=lambda r: r.puts()), "S3 keeps failing. What has been sent is kept"),
    "503 for good": (s3_always(503, "SlowDown", where=lambda r: r.method == "HEAD"), "S3 keeps failing"),
    "cut for good": (cut_what_is_put, "Check the network. What has been sent is kept: run the same command again"),
    "elsewhere": (s3_always(400, "AuthorizationHeaderMalformed"), "another region"),
}  # fmt: skip


@pytest.fixture
def upload(release, s3, artifacts_path, monkeypatch, capsys):
    """Run the command, and return its one line of complaint."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")

    def run(*options, bucket=f"brain/{PREFIX}", status=1):
        arguments = ["upload", str(release), "--bucket", bucket, "--artifacts", str(artifacts_path), *options]
        with pytest.raises(SystemExit) as exit:
            main(arguments)
        captured = capsys.readouterr()
        assert exit.value.code == status, captured.err
        assert "Traceback" not in captured.err
        assert ACCESS_KEY not in captured.err + captured.out
        assert SECRET_KEY not in captured.err + captured.out
        start = "allen2022-surface upload: error: " if status == 2 else "allen2022-surface: "
        complaints = [line for line in captured.err.splitlines() if line.startswith(start)]
        assert len(complaints) == (status > 0)
        return complaints[0] if complaints else captured.out

    return run


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_told_in_one_line_and_nothing_is_lost(upload, s3, proxy, artifacts_path, fault):
    before = artifacts_path.read_bytes()
    answer, message = FAULTS[fault]
    proxy.fault = answer

    complaint = upload("--accept-nsd-terms")

    assert re.search(message, complaint), complaint
    assert artifacts_path.read_bytes() == before
    if not any(request.puts() for request in proxy.requests):
        return
    proxy.calm()
    upload("--accept-nsd-terms", status=0)
    assert {name: len(found) for name, found in versions(s3).items()} == dict.fromkeys(OBJECTS, 1)


def test_absent_credentials_are_told(upload, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")

    assert "no whole AWS credentials. Set AWS_PROFILE" in upload("--accept-nsd-terms")


def test_half_of_credentials_is_told(upload, monkeypatch):
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")

    assert "no whole AWS credentials" in upload("--accept-nsd-terms")


def test_credentials_with_a_line_end_are_told_but_not_shown(upload, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY + "\n")

    assert "hold a character that they cannot hold" in upload("--accept-nsd-terms")


def test_a_profile_that_is_not_there_is_told(upload, monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "nobody")

    assert "nobody" in upload("--accept-nsd-terms")


def test_a_bucket_that_is_not_there_is_told(upload):
    assert "s3://nowhere: failed to look at the bucket (NoSuchBucket" in upload("--accept-nsd-terms", bucket="nowhere")


def test_a_network_that_is_not_there_is_told(upload, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://user:password@127.0.0.1:9")

    complaint = upload("--accept-nsd-terms")

    assert "Check the network" in complaint
    assert "password" not in complaint


def test_moto_itself_refuses_a_user_who_may_not_put(upload, s3, moto_port, proxy, monkeypatch):
    """With IAM enforced, signatures and policies are checked as S3 checks them."""
    endpoint = f"http://127.0.0.1:{moto_port}"
    iam = boto3.client("iam", endpoint_url=endpoint)
    iam.create_user(UserName="reader")
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": ["s3:Get*", "s3:List*", "s3:HeadObject", "sts:*"], "Resource": "*"}
        ],
    }
    iam.put_user_policy(UserName="reader", PolicyName="read", PolicyDocument=json.dumps(policy))
    key = iam.create_access_key(UserName="reader")["AccessKey"]

    def enforce(n_requests_without):
        connection = http.client.HTTPConnection("127.0.0.1", moto_port)
        connection.request("POST", "/moto-api/reset-auth", str(n_requests_without))
        connection.getresponse().read()

    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)  # directly: the host is part of what is signed
    try:
        enforce(0)
        assert "AWS refuses your credentials" in upload("--accept-nsd-terms")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        assert "AWS refuses your credentials" in upload("--accept-nsd-terms")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
        complaint = upload("--accept-nsd-terms")
        assert "failed to put the object (AccessDenied" in complaint
        assert key["SecretAccessKey"] not in complaint
    finally:
        enforce("inf")
    assert not versions(s3)


# --- command line ----------------------------------------------------------------------------------------------------


def test_nothing_is_sent_without_accepting_nsds_terms(upload, s3, proxy):
    assert "then add --accept-nsd-terms" in upload(status=2)

    assert proxy.requests == []
    assert upload("--dry-run", status=0).count(" new") == 6
    assert not versions(s3)


def test_the_help_says_what_is_accepted_and_points_to_the_terms(capsys):
    with pytest.raises(SystemExit):
        main(["upload", "--help"])

    text = " ".join(capsys.readouterr().out.split())
    assert "I have accepted NSD's terms and conditions, which forbid passing its data on" in text
    assert "https://cvnlab.slite.page/p/IB6BSeW_7o/Terms-and-Conditions" in text.replace("- ", "-")


def test_the_command_prints_the_plan_and_where_it_recorded(upload, s3, artifacts_path):
    output = upload("--accept-nsd-terms", status=0)

    assert output.count(" new") == 6
    assert f"{artifacts_path} now lists {NAME}.train, {NAME}.test" in output
