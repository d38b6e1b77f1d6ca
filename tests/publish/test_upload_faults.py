"""An upload that S3, the network or other people disturb: one line that says what to do, and nothing is lost."""

import http.client
import json
import os
import re
import subprocess
import sys

import boto3
import pytest

from allen2022_surface_packaging.plugin import plugin_path
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

FIRST = f"s3://brain/{PREFIX}/{OBJECTS[0]}"


def is_put(request):
    return request.puts()


def is_unsigned(request):
    return "authorization" not in {name.lower() for name in request.headers}


def cut(request):
    raise Cut


FAULTS = {  # which requests, what S3 answers, and what the user reads
    "wrong key": (lambda r: True, refuse(403, "InvalidAccessKeyId"), "InvalidAccessKeyId.*AWS refuses your credentials"),
    "expired token": (lambda r: True, refuse(400, "ExpiredToken"), "AWS refuses your credentials.*renew"),
    "no versions": (lambda r: "versioning" in r.query, refuse(403, "AccessDenied"), "It needs s3:GetBucketVersioning"),
    "no looking": (lambda r: r.method == "HEAD", refuse(403, "AccessDenied"), "It needs s3:GetObject"),
    "no putting": (is_put, refuse(403, "AccessDenied"), "do not allow it. It needs s3:PutObject"),
    "no conditions": (is_put, refuse(501, "NotImplemented"), "This server lacks a part of S3 that is needed here"),
    "no ACLs": (is_put, refuse(400, "AccessControlListNotSupported"), "leave --acl out"),
    "503 for good": (is_put, refuse(503, "SlowDown"), "S3 keeps failing. What is done is kept"),
    "cut for good": (is_put, cut, "Is the network up.*run the same command again"),
    "another region": (lambda r: True, refuse(400, "AuthorizationHeaderMalformed"), "another region"),
    "private or not": (is_unsigned, refuse(503, "SlowDown"), "to ask for the object without credentials.*S3 keeps failing"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_one_line_and_loses_nothing(upload, s3, proxy, artifacts_path, fault):
    before = artifacts_path.read_bytes()
    is_hit, answer, message = FAULTS[fault]
    proxy.fault = lambda request: (answer(request) if callable(answer) else answer) if is_hit(request) else None

    line = upload("--accept-nsd-terms")

    assert re.search(message, line), line
    assert artifacts_path.read_bytes() == before
    proxy.clear()
    if any(list_versions(s3)) or "put" in line:
        upload("--accept-nsd-terms", status=0)
        assert count_versions(s3) == ONE_VERSION_EACH


REQUIRED = {  # a header that a bucket requires of each request, or of those that put; the options that give it
    ("x-amz-server-side-encryption", "AES256"): ["--sse", "AES256"],
    ("x-amz-server-side-encryption-aws-kms-key-id", "alias/ours"): ["--sse-kms-key-id", "alias/ours"],
    ("x-amz-acl", "bucket-owner-full-control"): ["--acl", "bucket-owner-full-control"],
    ("x-amz-request-payer", "requester"): ["--request-payer", "requester"],
}


@pytest.mark.parametrize(("header", "options"), REQUIRED.items(), ids=lambda value: value[-1])
def test_bucket_that_requires_a_header_gets_it_by_an_option_that_the_error_names(upload, s3, proxy, header, options):
    """The server knows no tags of objects, or the keys may not set them."""

    def fault(request):
        headers = {name.lower(): value for name, value in request.headers.items()}
        is_concerned = request.puts() or (header[0] == "x-amz-request-payer" and request.name in OBJECTS)
        if "x-amz-tagging" in headers or "tagging" in request.query:
            return refuse(501, "NotImplemented")
        if "kms" in header[0] + header[1] and is_unsigned(request):
            return refuse(400, "InvalidArgument", "KMS managed keys require AWS Signature Version 4")
        return refuse(403, "AccessDenied") if is_concerned and headers.get(header[0]) != header[1] else None

    proxy.fault = fault

    assert options[0].partition("-kms")[0] in upload("--accept-nsd-terms").partition("It needs ")[2]
    upload("--accept-nsd-terms", *options, status=0)

    assert count_versions(s3) == ONE_VERSION_EACH


def test_key_of_another_kind_of_encryption_is_wrong_usage(upload):
    options = ("--accept-nsd-terms", "--sse", "AES256", "--sse-kms-key-id", "alias/ours")
    assert "names a key of aws:kms, but --sse is AES256" in upload(*options, status=2)


SETTINGS = {  # the file of settings, environment variables, and what the user reads
    "no secret": ("", {"AWS_SECRET_ACCESS_KEY": None}, "Set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
    "damaged file": ("[profile lab\n", {"AWS_PROFILE": "lab"}, "Correct AWS_PROFILE"),
    "wrong endpoint": ("", {"AWS_ENDPOINT_URL": "localhost"}, "Is the network up, and AWS_ENDPOINT_URL right"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "variables", "message"), SETTINGS.values(), ids=SETTINGS)
def test_wrong_settings_are_one_line_that_says_what_to_do(upload, tmp_path, monkeypatch, text, variables, message):
    (tmp_path / "config").write_text(text)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    if "AWS_PROFILE" in variables:
        variables = variables | dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"))
    for name, value in variables.items():
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name)

    assert re.search(message, upload("--accept-nsd-terms"))


def test_lost_answer_does_not_make_a_second_version(release, s3, proxy, artifacts_path):
    """S3 writes the object, but its answer is lost. The client repeats the request, and S3 refuses it."""
    lost = []

    def after(request):
        if request.puts(OBJECTS[4]) and not lost:
            lost.append(request)
            raise Cut

    proxy.after = after

    publish(release, artifacts_path)

    assert lost
    assert count_versions(s3) == ONE_VERSION_EACH
    versions = [version for versions in list_versions(s3).values() for version in versions]
    assert {entry["version_id"] for entry in list_recorded(artifacts_path)} == set(versions)


@pytest.mark.parametrize("before", [None, b"to be replaced"])
def test_object_that_someone_else_put_meanwhile_stays(upload, s3, proxy, artifacts_path, before):
    key, theirs, recorded = f"{PREFIX}/{OBJECTS[4]}", [], artifacts_path.read_bytes()
    if before is not None:
        s3.put_object(Bucket="brain", Key=key, Body=before)

    def fault(request):
        if request.puts(OBJECTS[0]) and not theirs:
            theirs.append(s3.put_object(Bucket="brain", Key=key, Body=b"theirs")["VersionId"])

    proxy.fault = fault

    line = upload("--accept-nsd-terms", "--overwrite")

    assert f"s3://brain/{key} was changed by someone else" in line
    assert list_versions(s3)[OBJECTS[4]][0] == theirs[0]
    assert proxy.contents_sent() == OBJECTS[:4]
    assert artifacts_path.read_bytes() == recorded


def test_next_run_finishes_when_upload_is_killed_anywhere(release, s3, proxy, tmp_path):
    """Killed while a request is on its way to S3, or after S3 has done it."""
    old = (plugin_path() / "artifacts.json").read_bytes()
    n_requests = 2 + 3 * len(OBJECTS)  # the bucket, then look, send and ask for each object
    for number, moment in [(2, "fault"), (13, "fault"), (n_requests - 3, "after")]:
        proxy.clear()
        prefix, artifacts_path = f"killed/{number}", tmp_path / f"{number}.json"
        artifacts_path.write_bytes(old)
        arguments = ["upload", release, "--bucket", f"brain/{prefix}", "--artifacts", artifacts_path]
        with subprocess.Popen(
            [sys.executable, "-m", "allen2022_surface_packaging", "-q", *arguments, "--accept-nsd-terms"],
            stdout=subprocess.DEVNULL,
            env=os.environ,
        ) as process:

            def kill(request, number=number, process=process):
                if len(proxy.requests) == number:
                    process.kill()
                    raise Cut

            setattr(proxy, moment, kill)
        assert process.returncode == -9, number
        assert artifacts_path.read_bytes() == old
        proxy.wait()  # a request may still arrive after its sender died
        proxy.fault = proxy.after = lambda request: None

        publish(release, artifacts_path, prefix)

        assert count_versions(s3, f"{prefix}/") == ONE_VERSION_EACH, number
        sent = proxy.contents_sent()
        assert len(sent) == len(set(sent)), number
        assert len(list_recorded(artifacts_path)) == len(OBJECTS)


def make_public(s3, names="*"):
    """Let anybody read objects of the bucket."""
    resource = f"arn:aws:s3:::brain/{names}"
    statement = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": resource}
    s3.put_bucket_policy(Bucket="brain", Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}))


def test_upload_stops_after_the_first_object_when_the_bucket_is_public(upload, s3, proxy, artifacts_path):
    before = artifacts_path.read_bytes()
    make_public(s3)

    line = upload("--accept-nsd-terms")

    assert f"{FIRST} can be read by anybody without credentials, which NSD's terms forbid" in line
    assert f"Sent so far: {FIRST}. Remove it, switch on Block Public Access for s3://brain, and start again." in line
    assert proxy.contents_sent() == OBJECTS[:1]
    assert artifacts_path.read_bytes() == before


def test_nothing_is_sent_when_an_object_from_before_is_public(upload, s3, proxy):
    upload("--accept-nsd-terms", status=0)
    s3.delete_object(Bucket="brain", Key=f"{PREFIX}/{OBJECTS[0]}")
    make_public(s3, names=f"*assy_{NAME}_test.nc")
    proxy.clear()

    line = upload("--accept-nsd-terms")

    assert f"assy_{NAME}_test.nc can be read by anybody" in line
    assert "Nothing was sent." in line
    assert proxy.contents_sent() == []


def test_permissions_are_those_of_the_documentation(upload, s3, moto_port, monkeypatch, artifacts_path):
    """On a server that checks signatures and policies as S3 does. A reader is refused, and a writer needs nothing else."""
    endpoint = f"http://127.0.0.1:{moto_port}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)  # directly: the host is part of what is signed
    iam = boto3.client("iam", endpoint_url=endpoint)
    reading = ["s3:GetBucketVersioning", "s3:ListBucket", "s3:GetObject", "s3:GetObjectVersion"]

    def become(name, actions):
        iam.create_user(UserName=name)
        policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": actions, "Resource": "*"}]}
        iam.put_user_policy(UserName=name, PolicyName=name, PolicyDocument=json.dumps(policy))
        return iam.create_access_key(UserName=name)["AccessKey"]

    def enforce(n_requests_without):
        connection = http.client.HTTPConnection("127.0.0.1", moto_port)
        connection.request("POST", "/moto-api/reset-auth", str(n_requests_without))
        connection.getresponse().read()

    keys = [become("reader", reading), become("writer", [*reading, "s3:PutObject"])]
    outputs = []
    try:
        enforce(0)
        for key, status in zip(keys, (1, 0), strict=True):
            monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
            monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
            outputs.append(upload("--accept-nsd-terms", status=status))
    finally:
        enforce("inf")
    assert "failed to put the object (AccessDenied" in outputs[0]
    assert f"{artifacts_path} now lists" in outputs[1]
