"""Errors of an upload: one line that says what to do, and nothing is lost."""

import http.client
import json
import re

import boto3
import pytest

from publish.proxy import Cut, refuse
from publish.uploads import ACCESS_KEY, NAME, OBJECTS, ONE_VERSION_EACH, count_versions, list_versions
from support import run_cli


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
        "do not allow it. It needs s3:GetBucketVersioning",
    ),
    "no putting": (
        s3_always(403, "AccessDenied", where=lambda r: r.puts()),
        "do not allow it. It needs s3:PutObject",
    ),
    "no tagging": (
        s3_always(403, "AccessDenied", where=lambda r: "x-amz-tagging" in {name.lower() for name in r.headers}),
        "do not allow it. It needs .*s3:PutObjectTagging",
    ),
    "no looking": (s3_always(403, "AccessDenied", where=lambda r: r.method == "HEAD"), "It needs s3:GetObject"),
    "500 for good": (s3_always(500, "InternalError", where=lambda r: r.puts()), "S3 keeps failing. What has been sent is kept"),
    "503 for good": (s3_always(503, "SlowDown", where=lambda r: r.method == "HEAD"), "S3 keeps failing"),
    "cut for good": (cut_what_is_put, "Is the network up.*run the same command again"),
    "no ETag": (lambda r: (200, {"Content-Type": "text/html"}, b"") if r.method == "HEAD" else None, "KeyError: 'ETag'.*a proxy"),
    "elsewhere": (s3_always(400, "AuthorizationHeaderMalformed"), "another region"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_one_line_and_loses_nothing(upload, s3, proxy, artifacts_path, fault):
    before = artifacts_path.read_bytes()
    answer, message = FAULTS[fault]
    proxy.fault = answer

    line = upload("--accept-nsd-terms")

    assert re.search(message, line), line
    assert artifacts_path.read_bytes() == before
    if not any(request.puts() for request in proxy.requests):
        return
    proxy.clear()
    upload("--accept-nsd-terms", status=0)
    assert count_versions(s3) == ONE_VERSION_EACH


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"<html>Log in first</html>",
        b"<GetCallerIdentityResponse><GetCallerIdentityResult/></GetCallerIdentityResponse>",
    ],
)
def test_answer_about_the_uploader_stops_no_upload(upload, s3, proxy, answer):
    """It is only for a tag. A server that is not AWS has no such service, and answers anything."""
    proxy.fault = lambda request: (
        (200, {"Content-Type": "text/xml"}, answer) if b"GetCallerIdentity" in request.body else None
    )

    upload("--accept-nsd-terms", status=0)

    assert count_versions(s3) == ONE_VERSION_EACH


def test_missing_credentials_are_named_in_the_error(upload, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")

    assert "AWS credentials are missing or incomplete. Set AWS_PROFILE" in upload("--accept-nsd-terms")


def test_incomplete_credentials_are_named_in_the_error(upload, monkeypatch):
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")

    assert "AWS credentials are missing or incomplete" in upload("--accept-nsd-terms")


def test_credentials_with_a_line_break_are_not_shown(upload, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY + "\n")

    assert "contain a forbidden character" in upload("--accept-nsd-terms")


def test_missing_profile_is_named_in_the_error(upload, monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "nobody")

    assert "nobody" in upload("--accept-nsd-terms")


def test_missing_bucket_is_named_in_the_error(upload):
    assert "s3://nowhere: failed to look at the bucket (NoSuchBucket" in upload("--accept-nsd-terms", bucket="nowhere")


def test_missing_network_is_named_without_the_password(upload, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://user:password@127.0.0.1:9")

    line = upload("--accept-nsd-terms")

    assert "Is the network up" in line
    assert "password" not in line


def test_user_without_permission_is_refused_by_the_server(upload, s3, moto_port, proxy, monkeypatch):
    """The server checks signatures and policies as S3 does."""
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
        line = upload("--accept-nsd-terms")
        assert "failed to put the object (AccessDenied" in line
        assert key["SecretAccessKey"] not in line
    finally:
        enforce("inf")
    assert not list_versions(s3)


def test_nothing_is_sent_without_accepting_the_terms(upload, s3, proxy):
    assert "then add --accept-nsd-terms" in upload(status=2)

    assert proxy.requests == []
    assert upload("--dry-run", status=0).count(" new") == len(OBJECTS)
    assert not list_versions(s3)


def test_help_states_the_terms_and_their_address():
    text = " ".join(run_cli("upload", "--help").stdout.split())
    assert "I have accepted NSD's terms and conditions, which forbid giving its data to anybody" in text
    assert "https://cvnlab.slite.page/p/IB6BSeW_7o/Terms-and-Conditions" in text.replace("- ", "-")


def test_command_prints_the_plan_and_the_artifacts_file(upload, s3, artifacts_path):
    output = upload("--accept-nsd-terms", status=0)

    assert output.count(" new") == len(OBJECTS)
    assert f"{artifacts_path} now lists {NAME}.train, {NAME}.test" in output
