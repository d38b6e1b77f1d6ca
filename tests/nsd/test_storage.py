"""A tree in a bucket gives the same release as a tree in a folder, even when the server or the connection fails."""

import re
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest

from allen2022_surface_packaging.assemble.pipeline import build_release
from allen2022_surface_packaging.errors import PackagingError
from allen2022_surface_packaging.nsd import bucket
from allen2022_surface_packaging.nsd.files import BetasShape, read_betas, read_images
from allen2022_surface_packaging.nsd.storage import RawFile, open_storage
from allen2022_surface_packaging.recipe import make_recipe
from publish.proxy import Cut, Proxy, refuse
from support import hashes, run_cli, upload_public

BUCKET = "nsd-copy"
PUBLIC = {"ACL": "public-read"}  # like NSD's bucket, which is read without credentials
BETAS = "nsddata_betas/ppdata/subj01/fsaverage/betas_fithrf_GLMdenoise_RR/lh.betas_session01.mgh"
SHAPE = BetasShape(n_vertices=1300, n_trials=42)
RECIPE = make_recipe((1, 4), name="two")
OPTIONS = ("--subjects", *RECIPE.subjects, "--name", RECIPE.name)


@pytest.fixture(scope="module")
def release(tiny_tree, tmp_path_factory):
    """The release of the tree, read from the folder."""
    path = tmp_path_factory.mktemp("releases") / "two"
    build_release(tiny_tree, path, RECIPE)
    return path


@pytest.fixture(scope="module")
def client(moto_port, direct_client, tiny_tree):
    """A client of a server that holds the tree in a bucket, once at its root and once below a prefix."""
    direct_client.create_bucket(Bucket=BUCKET, **PUBLIC)
    for prefix in ("", "copies/nsd/"):
        upload_public(direct_client, BUCKET, tiny_tree, prefix=prefix)
    for region in ("V1", "V2", "V4", "IT"):
        key = f"copies/nsd/assemblies/Allen2022_surface.{region}.nc"
        direct_client.put_object(Bucket=BUCKET, Key=key, Body=b"x")
    return direct_client


@pytest.fixture
def proxy(client, moto_port, monkeypatch):
    """A proxy in front of that server, to which the package connects without credentials. Waiting between attempts takes no time."""
    proxy = Proxy(moto_port)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    monkeypatch.setattr(bucket, "READ_SECONDS", 1.5)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # between attempts
    yield proxy
    proxy.close()


def in_bucket(path=BETAS):
    return RawFile(open_storage(f"s3://{BUCKET}"), path, path)


def is_of_bucket(request):
    """Return whether a request is not for an object."""
    return request.path.strip("/").count("/") == 0


def read_spans(proxy, name):
    """Return the first and last byte of each request for an object whose path ends with `name`."""
    requests = [request for request in proxy.requests if request.path.endswith(name)]
    ranges = [next(value for key, value in request.headers.items() if key.lower() == "range") for request in requests]
    return [tuple(map(int, re.findall(r"\d+", text))) for text in ranges]


@pytest.mark.parametrize(("root", "n_workers"), [(f"s3://{BUCKET}", 2), (f"s3://{BUCKET}/copies/nsd/", 1)])
def test_release_from_a_bucket_has_the_same_bytes(proxy, release, tmp_path, root, n_workers):
    options = (*OPTIONS, "--cache", tmp_path / "cache", "--workers", n_workers)

    assert "no problems found" in run_cli("check", root, "--subjects", *RECIPE.subjects).stdout
    assert run_cli("build", root, tmp_path / "out" / "release", *options).returncode == 0

    assert hashes(tmp_path / "out" / "release") == hashes(release)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["release"]


def test_private_bucket_is_read_with_the_credentials_of_a_profile(proxy, client, monkeypatch):
    client.create_bucket(Bucket="private")
    client.put_object(Bucket="private", Key="folder/a", Body=b"content")

    with pytest.raises(PackagingError, match=r"s3://private/folder/a: failed to read .*s3:GetObject"):
        RawFile(open_storage("s3://private"), "folder/a", "a").read()
    (Path.home() / ".aws").mkdir()
    (Path.home() / ".aws/config").write_text("[profile lab]\naws_access_key_id = a\naws_secret_access_key = b\n")
    monkeypatch.setenv("AWS_PROFILE", "lab")
    file = RawFile(open_storage("s3://private"), "folder/a", "a")
    with ThreadPoolExecutor(4) as threads:  # which are all refused without a signature
        assert list(threads.map(lambda _: file.read(), range(8))) == [b"content"] * 8


SSO = "sso_start_url = https://x.awsapps.com/start\nsso_region = us-east-1\nsso_account_id = 1\nsso_role_name = r"
USELESS = {  # variables, ~/.aws/config, and what the message about a private bucket says
    "expired token": ({"AWS_SECRET_ACCESS_KEY": "b", "AWS_SESSION_TOKEN": "c"}, "", "ExpiredToken.*renew them"),
    "half a key": ({}, "", "Partial credentials.*Set AWS_PROFILE"),
    "unknown profile": ({"AWS_PROFILE": "nobody"}, "", r"\(nobody\) could not be found.*Correct AWS_PROFILE"),
    "no login": ({"AWS_PROFILE": "lab"}, f"[profile lab]\n{SSO}\n", "aws sso login"),
}


@pytest.mark.parametrize(("variables", "settings", "message"), USELESS.values(), ids=USELESS)
def test_useless_credentials_matter_only_where_a_signature_is_needed(
    proxy, client, tiny_tree, monkeypatch, variables, settings, message
):
    client.create_bucket(Bucket="private")
    client.put_object(Bucket="private", Key="folder/a", Body=b"content")
    (Path.home() / ".aws").mkdir()
    (Path.home() / ".aws/config").write_text(settings)
    if "AWS_PROFILE" not in variables:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    for name, text in variables.items():
        monkeypatch.setenv(name, text)
    proxy.fault = lambda request: refuse(403, "ExpiredToken") if "Authorization" in request.headers else None

    assert in_bucket().read() == (tiny_tree / BETAS).read_bytes()
    with pytest.raises(PackagingError, match=rf"^s3://private/folder/a: failed to read .*{message}") as raised:
        RawFile(open_storage("s3://private"), "folder/a", "a").read()
    assert "\n" not in str(raised.value)


def test_second_build_from_a_bucket_reads_only_headers_of_betas(proxy, tmp_path):
    build_release(f"s3://{BUCKET}", tmp_path / "first", RECIPE, cache_path=tmp_path / "cache")
    assert len(read_spans(proxy, BETAS)) > 1
    proxy.clear()

    build_release(f"s3://{BUCKET}", tmp_path / "second", RECIPE, cache_path=tmp_path / "cache")

    assert hashes(tmp_path / "first") == hashes(tmp_path / "second")
    assert set(read_spans(proxy, BETAS)) == {(0, 283)}


def test_check_lists_each_folder_of_a_bucket_once(proxy):
    run_cli("check", f"s3://{BUCKET}", "--subjects", *RECIPE.subjects)

    assert Counter(request.method for request in proxy.requests)["HEAD"] <= 1  # sizes come from the listings
    listings = Counter(request.query["prefix"][0] for request in proxy.requests if is_of_bucket(request))
    assert set(listings.values()) == {1}
    assert len(listings) <= 2 + 8  # the betas of two subjects, and a few other folders


def test_only_the_needed_images_are_fetched(proxy, client, tmp_path, rng):
    images = rng.integers(0, 256, (8, 425, 425, 3), dtype=np.uint8)
    with h5py.File(tmp_path / "images.hdf5", "w") as file:
        file.create_dataset("imgBrick", data=images, chunks=(1, 425, 425, 3))
    client.upload_file(str(tmp_path / "images.hdf5"), BUCKET, "images.hdf5", ExtraArgs=PUBLIC)

    np.testing.assert_array_equal(list(read_images(in_bucket("images.hdf5"), [3, 5])), images[[3, 5]])

    assert sum(last - first + 1 for first, last in read_spans(proxy, "images.hdf5")) < images.nbytes / 2


def test_images_of_a_bucket_may_not_refer_to_other_files(proxy, client, tmp_path):
    """HDF5 would look for the other files on this machine, or crash."""
    layout = h5py.VirtualLayout((2, 4, 4, 3), "u1")
    layout[:] = h5py.VirtualSource("source.hdf5", "imgBrick", (2, 4, 4, 3))
    with h5py.File(tmp_path / "virtual.hdf5", "w") as file:
        file.create_virtual_dataset("imgBrick", layout)
    upload_public(client, BUCKET, tmp_path)

    with pytest.raises(PackagingError, match="the pixels of imgBrick lie in other files, expected all in this one"):
        next(read_images(in_bucket("virtual.hdf5"), [0]))


@pytest.mark.parametrize("root", ["folder", "bucket"])
def test_files_read_and_seek_as_in_python(proxy, tiny_tree, root):
    content = (tiny_tree / BETAS).read_bytes()
    with open_storage(tiny_tree if root == "folder" else f"s3://{BUCKET}").open(BETAS) as file:
        assert file.read(300) == content[:300]
        assert file.seek(100_000) == file.tell() == 100_000
        assert file.read(50_000) == content[100_000:150_000]
        file.seek(-10, 2)
        assert file.read(100) == content[-10:]
        assert file.read(100) == b""
        buffer = bytearray(100)
        assert file.read_at(len(content) - 50, memoryview(buffer)) == 50
        assert bytes(buffer[:50]) == content[-50:]


SURVIVED = {
    "503": lambda: refuse(503, "SlowDown"),
    "500": lambda: refuse(500, "InternalError"),
    "stalled": lambda: threading.Event().wait(3) and None,
}


@pytest.mark.parametrize("kind", [*SURVIVED, "cut"])
def test_release_has_the_same_bytes_when_the_server_fails_for_a_while(proxy, release, tmp_path, kind):
    counts, names = Counter(), ("lh.betas_session01.mgh", *(() if kind == "stalled" else ("nsd_stimuli.hdf5", BUCKET)))

    def is_hit(request):
        """Choose the first of four requests for each of some objects, and of four listings."""
        name = request.path.rstrip("/").rpartition("/")[2]
        counts[request.path] += name in names
        return name in names and counts[request.path] % 4 == 1

    if kind == "cut":
        proxy.shorten = lambda request, content: content[: 2 * len(content) // 3] if is_hit(request) else None
    else:
        proxy.fault = lambda request: SURVIVED[kind]() if is_hit(request) else None
    build_release(f"s3://{BUCKET}", tmp_path / "release", RECIPE, cache_path=None)

    assert len(+counts) == len(names) + 1  # there are two subjects
    assert hashes(tmp_path / "release") == hashes(release)


def test_reading_continues_inside_the_file_when_a_connection_breaks(proxy, tiny_tree):
    file = in_bucket()
    cuts = iter(range(5))
    proxy.shorten = lambda request, content: (
        None if is_of_bucket(request) or next(cuts, None) is None else content[:40_000]
    )

    assert file.read() == (tiny_tree / BETAS).read_bytes()

    assert [first for first, _ in read_spans(proxy, BETAS)] == [0, 40_000, 80_000, 120_000, 160_000, 200_000]


def answer_with(first, last, size, etag, content):
    """Return a partial answer that says that it holds the bytes `first` to `last`."""
    headers = {"ETag": etag, "Last-Modified": "Mon, 30 Nov 2026 12:00:00 GMT"}
    return 206, headers | {"Content-Range": f"bytes {first}-{last}/{size}"}, content


def cut(etag):
    raise Cut


# What a server or a proxy answers to a request of all N bytes of an object, and what the message says.
N = 218_704
OTHER_BYTES = f"the server was asked for the bytes 0-{N - 1} of {N}, but answered with"
ANSWERS = {
    "connections that break": (cut, "failed to read .*Is the network up"),
    "server that keeps failing": (lambda etag: refuse(503, "SlowDown"), "SlowDown.*S3 keeps failing"),
    "object that is gone": (lambda etag: refuse(404, "NoSuchKey"), "NoSuchKey.*It was removed meanwhile"),
    "object that changed": (lambda etag: refuse(412, "PreconditionFailed"), "It changed while it was read"),
    "refusal": (lambda etag: refuse(403, "AccessDenied", "Access Denied"), "AccessDenied: Access Denied.*GetObject"),
    "page": (lambda etag: (200, {"Content-Type": "text/html"}, b"<html>Log in first</html>"), OTHER_BYTES),
    "other range": (lambda etag: answer_with(4, N - 1, N, etag, bytes(N - 4)), OTHER_BYTES),
    "too few bytes": (lambda etag: answer_with(0, N - 1, N, etag, bytes(N - 4)), OTHER_BYTES),
}


@pytest.mark.parametrize(("answer", "message"), ANSWERS.values(), ids=ANSWERS)
def test_answer_that_is_not_the_object_is_refused_in_one_line(proxy, client, answer, message):
    etag = client.head_object(Bucket=BUCKET, Key=BETAS)["ETag"]
    proxy.fault = lambda request: None if is_of_bucket(request) else answer(etag)

    with pytest.raises(PackagingError, match=rf"^s3://{BUCKET}/{BETAS}: .*{message}") as raised:
        in_bucket().read()

    assert "\n" not in str(raised.value)


def test_build_stops_when_an_object_changes_while_it_is_read(proxy, client, tiny_tree, monkeypatch):
    monkeypatch.setattr(bucket.BucketFile, "block_bytes", 20_000)
    client.upload_file(str(tiny_tree / BETAS), BUCKET, "changing.mgh", ExtraArgs=PUBLIC)
    blocks = read_betas(in_bucket("changing.mgh"), SHAPE)
    next(blocks)
    client.put_object(Bucket=BUCKET, Key="changing.mgh", Body=bytes((tiny_tree / BETAS).stat().st_size), **PUBLIC)

    with pytest.raises(PackagingError, match=r"changing\.mgh: failed to read .*It changed while it was read"):
        list(blocks)


def test_stamp_changes_with_the_content_only(proxy, client):
    stamps = []
    for body in (b"one", b"one", b"two"):
        client.put_object(Bucket=BUCKET, Key="stamps/a", Body=body)
        stamps.append(in_bucket("stamps/a").stamp())

    assert stamps[0] == stamps[1] != stamps[2]


@pytest.mark.parametrize(
    ("root", "environment", "message"),
    [
        (f"s3://{BUCKET}/nsddata", {}, rf"s3://{BUCKET}/nsddata is no NSD tree, but s3://{BUCKET} is\. Name that one"),
        ("s3://no-such-bucket", {}, r"s3://no-such-bucket/.*: failed to list .*There is no such bucket"),
        ("gs://somewhere", {}, r"gs:... is not an NSD tree. Expected a folder, s3://bucket"),
        ("no/such/folder", {}, r"no/such/folder holds no NSD design"),
        (f"s3://{BUCKET}/copies/nsd", {}, "is in a bucket, but prepared assemblies are read from a folder"),
        (f"s3://{BUCKET}", {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, r"failed to list .*AWS_ENDPOINT_URL right\?"),
        (f"s3://{BUCKET}", {"AWS_ENDPOINT_URL": "localhost:9000"}, r"AWS_ENDPOINT_URL right\?"),
    ],
)
def test_root_that_cannot_be_read_is_one_line(proxy, tmp_path, monkeypatch, root, environment, message):
    for name, text in environment.items():
        monkeypatch.setenv(name, text)
    options = ["--from-region-assemblies"] if "prepared" in message else []

    result = run_cli("build", root, tmp_path / "release", *OPTIONS, *options)

    assert result.returncode == 1
    assert re.search(message, result.stderr)
    assert len(result.stderr.splitlines()) == 1
