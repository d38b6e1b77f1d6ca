"""A bucket whose server fails for a while, or does not answer: the right bytes, or one line."""

import re
import time

import pytest

from allen2022_surface_packaging.errors import PackagingError
from allen2022_surface_packaging.nsd import bucket
from allen2022_surface_packaging.nsd.storage import RawFile, open_storage
from publish.proxy import Proxy, refuse

NAME = "betas.mgh"
PUBLIC = {"ACL": "public-read"}


class NoWaiting:
    """In place of the module `time` of the bucket alone: the proxy waits in the same process."""

    def sleep(self, seconds):
        pass


@pytest.fixture
def content(rng):
    return rng.bytes(300_000)


@pytest.fixture
def proxy(moto_port, direct_client, content, monkeypatch):
    """The way to a server that holds one object. Waiting between attempts takes no time."""
    direct_client.create_bucket(Bucket="faulty")
    direct_client.put_object(Bucket="faulty", Key=NAME, Body=content, **PUBLIC)
    direct_client.put_bucket_acl(Bucket="faulty", ACL="public-read")
    proxy = Proxy(moto_port)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    monkeypatch.setattr(bucket, "time", NoWaiting())
    yield proxy
    proxy.server.shutdown()


def read():
    return RawFile(open_storage("s3://faulty"), NAME, NAME).read()


def is_listing(request):
    return "list-type" in request.query


@pytest.mark.parametrize("is_listing_faulty", [True, False])
def test_burst_of_503_is_survived(proxy, content, is_listing_faulty):
    failures = iter([refuse(503, "SlowDown"), refuse(500, "InternalError"), refuse(503, "SlowDown")])
    proxy.fault = lambda request: next(failures, None) if is_listing(request) == is_listing_faulty else None

    assert read() == content
    assert next(failures, None) is None


def test_stalled_connection_is_given_up_and_opened_again(proxy, content, monkeypatch):
    monkeypatch.setattr(bucket, "READ_SECONDS", 0.5)
    stalled = []

    def fault(request):
        if not is_listing(request) and len(stalled) < 2:
            stalled.append(request)
            time.sleep(2)

    proxy.fault = fault

    assert read() == content
    assert len(stalled) == 2


def test_half_of_an_answer_is_completed_by_another_request(proxy, content):
    cuts = []

    def shorten(request, answer):
        if not is_listing(request) and len(cuts) < 3:
            cuts.append(request)
            return answer[: len(answer) // 2]
        return None

    proxy.shorten = shorten

    assert read() == content
    assert len(cuts) == 3


def test_server_that_fails_for_good_is_one_line(proxy, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # botocore waits between its attempts
    proxy.fault = lambda request: None if is_listing(request) else refuse(503, "SlowDown")

    with pytest.raises(
        PackagingError, match=rf"s3://faulty/{NAME}: failed to read .*SlowDown.*S3 keeps failing"
    ) as error:
        read()
    assert "\n" not in str(error.value)


def whole(content, start, etag):
    """The way of a proxy that ignores which bytes it is asked for."""
    return 200, {"ETag": etag}, content


def early(content, start, etag):
    size = len(content)
    return 206, {"ETag": etag, "Content-Range": f"bytes {start - 4}-{size - 5}/{size}"}, content[start - 4 : size - 4]


def late(content, start, etag):
    size = len(content)
    return 206, {"ETag": etag, "Content-Range": f"bytes {start + 4}-{size - 1}/{size}"}, content[start + 4 :]


def unnamed(content, start, etag):
    return 206, {"ETag": etag}, content[start:]


def of_another_size(content, start, etag):
    size = len(content)
    return 206, {"ETag": etag, "Content-Range": f"bytes {start}-{size - 1}/{size + 1}"}, content[start:]


def of_another_object(content, start, etag):
    size = len(content)
    return 206, {"ETag": '"another"', "Content-Range": f"bytes {start}-{size - 1}/{size}"}, content[start:]


def page(content, start, etag):
    return 200, {"Content-Type": "text/html"}, b"<html>Log in first</html>"


@pytest.mark.parametrize("answer", [whole, early, late, unnamed, of_another_size, of_another_object, page])
def test_answer_with_other_bytes_than_those_asked_for_is_refused(proxy, direct_client, content, answer):
    etag = direct_client.head_object(Bucket="faulty", Key=NAME)["ETag"]
    proxy.fault = lambda request: None if is_listing(request) else answer(content, 100_000, etag)

    with (
        pytest.raises(
            PackagingError, match=rf"s3://faulty/{NAME}: the server was asked for bytes 100000-299999/300000"
        ),
        RawFile(open_storage("s3://faulty"), NAME, NAME).open() as file,
    ):
        file.seek(100_000)
        file.read(200_000)

    assert len([request for request in proxy.requests if not is_listing(request)]) == 1


@pytest.mark.parametrize("removed", ["ETag", "Size"])
def test_listing_without_what_s3_lists_is_one_line(proxy, removed):
    entry = f"<Key>{NAME}</Key><ETag>&quot;x&quot;</ETag><Size>3</Size>"
    listing = (
        f"<ListBucketResult><Contents>{re.sub(f'<{removed}>.*</{removed}>', '', entry)}</Contents></ListBucketResult>"
    )
    proxy.fault = lambda request: (200, {"Content-Type": "application/xml"}, listing.encode())

    with pytest.raises(
        PackagingError, match=rf"s3://faulty/: failed to list .* not that of S3 \(KeyError: '{removed}'\)"
    ):
        read()


def test_object_that_is_gone_is_one_line(proxy):
    proxy.fault = lambda request: None if is_listing(request) else refuse(404, "NoSuchKey")

    with pytest.raises(PackagingError, match=rf"s3://faulty/{NAME}: failed to read .*It was removed meanwhile"):
        read()
