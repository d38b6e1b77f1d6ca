"""NSD's terms: an object that anybody can read stops the upload. moto refuses private objects to unsigned requests."""

import http.client
import json
import re

import boto3
import pytest

from allen2022_surface_packaging.errors import PackagingError
from publish.proxy import Cut, refuse
from publish.uploads import NAME, OBJECTS, PREFIX, list_versions, publish

FIRST = f"s3://brain/{PREFIX}/{OBJECTS[0]}"


def make_public(s3, action="s3:GetObject", names="*"):
    """Let anybody read objects of the bucket."""
    statement = {"Effect": "Allow", "Principal": "*", "Action": action, "Resource": f"arn:aws:s3:::brain/{names}"}
    s3.put_bucket_policy(Bucket="brain", Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}))


def is_unsigned(request):
    return request.path.startswith("/brain/") and "authorization" not in {name.lower() for name in request.headers}


def test_each_object_is_asked_for_without_credentials_before_the_next_is_sent(release, s3, proxy, artifacts_path):
    publish(release, artifacts_path)

    steps = [
        (request.name, is_unsigned(request)) for request in proxy.requests if request.puts() or is_unsigned(request)
    ]
    assert steps == [step for name in OBJECTS for step in ((name, False), (name, True), (name, True))]
    unsigned = [request for request in proxy.requests if is_unsigned(request)]
    assert all(request.headers["Range"] == "bytes=0-0" for request in unsigned)
    assert ["versionId" in request.query for request in unsigned] == [False, True] * len(OBJECTS)


def test_upload_stops_after_the_first_object_when_the_bucket_is_public(upload, s3, proxy, artifacts_path):
    before = artifacts_path.read_bytes()
    make_public(s3)

    line = upload("--accept-nsd-terms")

    assert f"{FIRST} can be read by anybody without credentials, which NSD's terms forbid" in line
    assert f"Sent so far: {FIRST}." in line
    assert "Remove it, switch on Block Public Access for s3://brain, and start again" in line
    assert proxy.contents_sent() == OBJECTS[:1]
    assert artifacts_path.read_bytes() == before


def test_nothing_is_sent_when_an_object_from_before_is_public(upload, s3, proxy, artifacts_path):
    upload("--accept-nsd-terms", status=0)
    s3.delete_object(Bucket="brain", Key=f"{PREFIX}/{OBJECTS[0]}")
    make_public(s3, names=f"*assy_{NAME}_test.nc")
    before, versions = artifacts_path.read_bytes(), list_versions(s3)
    proxy.clear()

    line = upload("--accept-nsd-terms")

    assert f"assy_{NAME}_test.nc can be read by anybody" in line
    assert "Nothing was sent." in line
    assert proxy.contents_sent() == []
    assert (artifacts_path.read_bytes(), list_versions(s3)) == (before, versions)


def test_public_object_is_found_when_everything_is_there_already(release, s3, proxy, artifacts_path):
    publish(release, artifacts_path)
    s3.put_object_acl(Bucket="brain", Key=f"{PREFIX}/{OBJECTS[5]}", ACL="public-read")

    with pytest.raises(PackagingError, match=f"{OBJECTS[5]} can be read by anybody .*Nothing was sent"):
        publish(release, artifacts_path)


def test_public_version_of_an_object_is_found(release, s3, proxy, artifacts_path):
    """A server that gives named versions to anybody, but not the newest one."""
    proxy.fault = lambda request: (206, {}, b"s") if is_unsigned(request) and "versionId" in request.query else None

    with pytest.raises(PackagingError, match=f"{OBJECTS[0]} can be read by anybody"):
        publish(release, artifacts_path)


@pytest.mark.parametrize("answer", [refuse(401, "Unauthorized"), refuse(403, "AccessDenied"), refuse(404, "NoSuchKey")])
def test_refusal_of_any_kind_counts_as_private(release, s3, proxy, artifacts_path, answer):
    proxy.fault = lambda request: answer if is_unsigned(request) else None

    publish(release, artifacts_path)

    assert proxy.contents_sent() == OBJECTS


def cut(request):
    raise Cut


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (cut, "It is unknown whether .* is private. Sent so far: .*without credentials.*Is the network up"),
        (
            lambda request: refuse(503, "SlowDown"),
            "It is unknown whether .* is private. Sent so far: .*S3 keeps failing",
        ),
    ],
)
def test_upload_stops_when_the_question_is_not_answered(upload, proxy, artifacts_path, answer, message):
    before = artifacts_path.read_bytes()
    proxy.fault = lambda request: answer(request) if is_unsigned(request) else None

    line = upload("--accept-nsd-terms")

    assert re.search(message, line), line
    assert proxy.contents_sent() == OBJECTS[:1]
    assert artifacts_path.read_bytes() == before


def test_upload_works_on_a_server_that_checks_signatures_and_policies(
    upload, s3, moto_port, monkeypatch, artifacts_path
):
    endpoint = f"http://127.0.0.1:{moto_port}"
    iam = boto3.client("iam", endpoint_url=endpoint)
    iam.create_user(UserName="writer")
    allowed = {"Effect": "Allow", "Action": ["s3:*", "sts:*"], "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
    iam.put_user_policy(UserName="writer", PolicyName="write", PolicyDocument=policy)
    key = iam.create_access_key(UserName="writer")["AccessKey"]
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)  # directly: the host is part of what is signed
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])

    def enforce(n_requests_without):
        connection = http.client.HTTPConnection("127.0.0.1", moto_port)
        connection.request("POST", "/moto-api/reset-auth", str(n_requests_without))
        connection.getresponse().read()

    try:
        enforce(0)
        output = upload("--accept-nsd-terms", status=0)
    finally:
        enforce("inf")
    assert f"{artifacts_path} now lists" in output
    assert key["SecretAccessKey"] not in output
