"""A tree in a bucket gives the same release as a tree in a folder, even when connections break."""

import pickle
import re
import socket
import threading
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

import h5py
import numpy as np
import pytest

from allen2022_surface_packaging.assemble.pipeline import build_release
from allen2022_surface_packaging.errors import PackagingError
from allen2022_surface_packaging.facts import DEFAULT_BETAS
from allen2022_surface_packaging.nsd import bucket, storage
from allen2022_surface_packaging.nsd.bucket import Bucket
from allen2022_surface_packaging.nsd.files import BetasShape, read_betas, read_design, read_images
from allen2022_surface_packaging.nsd.inspection import inspect_tree
from allen2022_surface_packaging.nsd.simulation import simulate_tree
from allen2022_surface_packaging.nsd.size import TreeSize
from allen2022_surface_packaging.nsd.storage import RawFile, open_storage
from allen2022_surface_packaging.nsd.tree import open_tree
from allen2022_surface_packaging.recipe import make_recipe
from support import hashes, run_cli

BUCKET = "natural-scenes"
PUBLIC = {"ACL": "public-read"}  # like NSD's bucket, which is read without credentials
BETAS = "nsddata_betas/ppdata/subj01/fsaverage/betas_fithrf_GLMdenoise_RR/lh.betas_session01.mgh"
IMAGES = "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5"
SHAPE = BetasShape(n_vertices=642, n_trials=300)
RECIPE = make_recipe((1, 4), name="two")


@pytest.fixture(scope="module")
def nsd_tree(tmp_path_factory):
    """A tree of two subjects, because the S3 server, in Python, sends files slowly."""
    root = tmp_path_factory.mktemp("raw") / "nsd"
    simulate_tree(root, TreeSize(subjects=RECIPE.subjects, betas=(DEFAULT_BETAS,)))
    return root


@pytest.fixture(scope="module")
def release(nsd_tree, tmp_path_factory):
    """The release of that tree, read from the folder."""
    path = tmp_path_factory.mktemp("releases") / "two"
    build_release(nsd_tree, path, RECIPE)
    return path


@pytest.fixture(scope="module")
def filled_port(moto_port, direct_client, nsd_tree):
    """The port of a server that holds the small tree in a bucket, once at its root and once below a prefix."""
    direct_client.create_bucket(Bucket=BUCKET)
    for path in nsd_tree.rglob("*"):
        if path.is_file():
            key = str(path.relative_to(nsd_tree))
            direct_client.upload_file(str(path), BUCKET, key, ExtraArgs=PUBLIC)
            direct_client.upload_file(str(path), BUCKET, f"copies/nsd/{key}", ExtraArgs=PUBLIC)
    return moto_port


@pytest.fixture
def client(filled_port, direct_client, monkeypatch):
    """A client with credentials. Every client that the package opens in this test has none."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{filled_port}")
    return direct_client


@dataclass(frozen=True)
class Request:
    """A request that went through the proxy; `span` is its Range header."""

    method: str
    path: str
    query: dict[str, str]
    span: str


class Proxy:
    """Passes connections on to a server, records the requests, and breaks some answers half-way."""

    def __init__(self, port):
        self.port = port
        self.requests = []
        self.n_breaks = 0
        self.break_after = 0
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.address = "http://{}:{}".format(*self.socket.getsockname())
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                client, _ = self.socket.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self.port))
            threading.Thread(target=self._pass_requests_on, args=(client, server), daemon=True).start()
            threading.Thread(target=self._pass_answers_on, args=(server, client), daemon=True).start()

    def _pass_requests_on(self, client, server):
        with closing_both(client, server):
            while content := client.recv(65536):
                self.requests += read_requests(content)
                server.sendall(content)

    def _pass_answers_on(self, server, client):
        with closing_both(server, client):
            n_sent = 0
            while content := server.recv(65536):
                n_sent += len(content)
                if self.n_breaks and n_sent > self.break_after:
                    self.n_breaks -= 1
                    return
                client.sendall(content)

    def ranges_of(self, name):
        """Return the ranges that were requested of the object whose key ends with `name`."""
        return [request.span for request in self.requests if request.method == "GET" and request.path.endswith(name)]


def read_requests(content):
    """Return the requests in what a client sent."""
    pattern = rb"(GET|HEAD|PUT|POST) (\S+) HTTP/1.1\r\n(?:.*?[Rr]ange: (\S+)\r\n)?"
    requests = []
    for method, address, span in re.findall(pattern, content, re.DOTALL):
        parts = urlsplit(address.decode())
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        requests.append(Request(method.decode(), parts.path.rstrip("/"), query, (span or b"").decode()))
    return requests


@contextmanager
def closing_both(*sockets):
    """Close both ends when one of them closes the connection."""
    try:
        yield
    except OSError:
        pass
    finally:
        for end in sockets:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@pytest.fixture
def proxy(filled_port, monkeypatch):
    """A proxy in front of the filled server. Every S3 client of the test connects to it."""
    proxy = Proxy(filled_port)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.address)
    monkeypatch.setattr(bucket.time, "sleep", lambda seconds: None)
    yield proxy
    proxy.socket.close()


def read_all(file):
    return np.concatenate([block.copy() for block in read_betas(file, SHAPE)])


def open_betas(root):
    """Return the file at `BETAS`."""
    return open_tree(root).betas(1, "lh", 1)


@pytest.fixture
def small_blocks(monkeypatch):
    """Make blocks so small that a file of the tree takes dozens of them."""
    for file_type in (storage.FolderFile, bucket.BucketFile):
        monkeypatch.setattr(file_type, "block_bytes", 20_000)


@pytest.mark.parametrize("root", [f"s3://{BUCKET}", f"s3://{BUCKET}/copies/nsd", f"s3://{BUCKET}/copies/nsd/"])
def test_release_from_a_bucket_has_the_same_bytes(client, release, tmp_path, root):
    (tmp_path / "out").mkdir()

    subjects = ("--subjects", *RECIPE.subjects, "--name", RECIPE.name)
    result = run_cli("build", root, tmp_path / "out" / "release", *subjects, "--cache", "none")

    assert result.returncode == 0
    assert hashes(tmp_path / "out" / "release") == hashes(release)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["release"]


@pytest.mark.slow
def test_two_workers_build_from_a_bucket_the_same_bytes(client, release, tmp_path):
    build_release(f"s3://{BUCKET}", tmp_path / "release", RECIPE, n_workers=2, cache_path=tmp_path / "cache")

    assert hashes(tmp_path / "release") == hashes(release)


def test_check_finds_no_problem_in_a_bucket(client):
    result = run_cli("check", f"s3://{BUCKET}", "--subjects", *RECIPE.subjects)

    assert result.returncode == 0
    assert "no problems found" in result.stdout


def test_second_build_from_a_bucket_reads_only_headers_of_betas(proxy, tmp_path):
    build_release(f"s3://{BUCKET}", tmp_path / "first", RECIPE, cache_path=tmp_path / "cache")
    n_requests = len(proxy.ranges_of("lh.betas_session01.mgh"))
    proxy.requests.clear()

    build_release(f"s3://{BUCKET}", tmp_path / "second", RECIPE, cache_path=tmp_path / "cache")

    assert hashes(tmp_path / "first") == hashes(tmp_path / "second")
    assert n_requests > len(RECIPE.subjects)
    assert set(proxy.ranges_of("lh.betas_session01.mgh")) == {f"bytes=0-{bucket.PAGE_BYTES - 1}"}  # headers


def test_each_block_of_betas_takes_one_ranged_request(proxy, nsd_tree, small_blocks):
    betas = read_all(open_betas(f"s3://{BUCKET}"))

    np.testing.assert_array_equal(betas, read_all(open_betas(nsd_tree)))
    spans = sorted(tuple(map(int, re.findall(r"\d+", span))) for span in proxy.ranges_of(BETAS))
    assert spans[0][0] == 284
    assert spans[-1][1] == 284 + 4 * 642 * 300 - 1
    assert all(stop + 1 == start for (_, stop), (start, _) in zip(spans[:-1], spans[1:], strict=True))
    assert max(stop - start for start, stop in spans) < 20_000


def test_reading_continues_inside_the_file_when_a_connection_breaks(proxy, nsd_tree, monkeypatch):
    expected = read_all(open_betas(nsd_tree))
    monkeypatch.setattr(bucket, "PIECE_BYTES", 10_000)
    file = open_betas(f"s3://{BUCKET}")
    file.exists()  # lists the folder
    proxy.requests.clear()
    proxy.n_breaks, proxy.break_after = 5, 300_000

    betas = read_all(file)

    np.testing.assert_array_equal(betas, expected)
    assert proxy.n_breaks < 5
    starts = [int(re.findall(r"\d+", span)[0]) for span in proxy.ranges_of(BETAS)]
    assert starts[0] == 284
    assert len(starts) > 1
    assert all(start > 200_000 for start in starts[1:])  # bytes that had arrived are not requested again


def test_release_has_the_same_bytes_when_connections_keep_breaking(proxy, release, tmp_path):
    proxy.n_breaks, proxy.break_after = 30, 150_000

    build_release(f"s3://{BUCKET}", tmp_path / "release", RECIPE)

    assert proxy.n_breaks == 0
    assert hashes(tmp_path / "release") == hashes(release)


def test_message_is_one_line_when_every_connection_breaks(proxy):
    file = open_betas(f"s3://{BUCKET}")
    file.exists()  # lists the folder
    proxy.n_breaks, proxy.break_after = 10**6, 100

    with pytest.raises(PackagingError, match=rf"s3://{BUCKET}/{BETAS}: failed to read .*Is the network up") as raised:
        read_all(file)

    assert "\n" not in str(raised.value)


def test_message_names_the_endpoint_when_no_server_answers(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")

    with pytest.raises(PackagingError, match=rf"s3://{BUCKET}/.*: failed to list .*AWS_ENDPOINT_URL right\?"):
        open_tree(f"s3://{BUCKET}")


def test_build_stops_when_an_object_changes_while_it_is_read(client, nsd_tree, small_blocks):
    client.upload_file(str(nsd_tree / BETAS), BUCKET, "changing.mgh", ExtraArgs=PUBLIC)
    blocks = read_betas(RawFile(open_storage(f"s3://{BUCKET}"), "changing.mgh", "changing.mgh"), SHAPE)
    next(blocks)
    client.put_object(Bucket=BUCKET, Key="changing.mgh", Body=bytes((nsd_tree / BETAS).stat().st_size), **PUBLIC)

    with pytest.raises(PackagingError, match=r"changing\.mgh: failed to read .*It changed while it was read"):
        list(blocks)


def test_stamp_changes_with_the_content_only(client):
    stamps = []
    for body in (b"one", b"one", b"two"):
        client.put_object(Bucket=BUCKET, Key="stamps/a", Body=body)
        stamps.append(open_storage(f"s3://{BUCKET}").stamp("stamps/a"))

    assert stamps[0] == stamps[1] != stamps[2]


def test_inspection_lists_each_folder_of_a_bucket_once(proxy):
    inspection = inspect_tree(open_tree(f"s3://{BUCKET}"), RECIPE)

    assert inspection.problems == []
    assert inspection.plan is not None
    assert {request.method for request in proxy.requests} == {"GET"}  # no HEAD: sizes come from the listings
    listings = Counter(request.query["prefix"] for request in proxy.requests if request.path == f"/{BUCKET}")
    assert listings
    assert set(listings.values()) == {1}
    assert len(listings) <= 2 + 8  # the betas of two subjects, and a few other folders


def test_only_the_needed_images_are_fetched(proxy, nsd_tree, monkeypatch):
    monkeypatch.setattr(bucket, "PAGE_BYTES", 4096)
    expected = list(read_images(open_tree(nsd_tree).images, [3, 17]))
    n_bytes = (nsd_tree / IMAGES).stat().st_size

    images = list(read_images(open_tree(f"s3://{BUCKET}").images, [3, 17]))

    np.testing.assert_array_equal(images, expected)
    spans = [tuple(map(int, re.findall(r"\d+", span))) for span in proxy.ranges_of("nsd_stimuli.hdf5")]
    assert spans
    assert sum(stop - start + 1 for start, stop in spans) < n_bytes / 10


def test_pickled_bucket_opens_a_new_connection(client):
    bucket = open_storage(f"s3://{BUCKET}/copies/nsd")
    assert bucket.exists(BETAS)

    copy = pickle.loads(pickle.dumps(bucket))

    assert copy == bucket == Bucket(BUCKET, "copies/nsd")
    assert len(pickle.dumps(bucket)) < 500
    assert copy.size(BETAS) == bucket.size(BETAS)


def test_bucket_without_a_design_is_not_an_nsd_tree(client):
    with pytest.raises(PackagingError, match=rf"s3://{BUCKET}/elsewhere holds no NSD design"):
        open_tree(f"s3://{BUCKET}/elsewhere")


def test_bucket_is_named_when_it_does_not_exist(client):
    with pytest.raises(PackagingError, match=r"s3://no-such-bucket.*: failed to list .*There is no such bucket"):
        open_tree("s3://no-such-bucket")


def test_betas_object_is_named_when_it_is_missing(client):
    with pytest.raises(PackagingError, match=rf"s3://{BUCKET}/{BETAS}x is missing"):
        open_storage(f"s3://{BUCKET}").open(f"{BETAS}x")


def test_addresses_of_other_protocols_are_refused():
    with pytest.raises(PackagingError, match=r"gs://somewhere is not an NSD tree. Expected a folder, or s3://bucket"):
        open_storage("gs://somewhere")


def test_prepared_assemblies_are_refused_when_they_are_in_a_bucket(client, tmp_path):
    keys = [f"assemblies/Allen2022_surface.{region}.nc" for region in ("V1", "V2", "V4", "IT")]
    for key in keys:
        client.put_object(Bucket=BUCKET, Key=key, Body=b"x")
    try:
        with pytest.raises(PackagingError, match="is in a bucket, but prepared assemblies are read from a folder"):
            build_release(f"s3://{BUCKET}", tmp_path / "release", RECIPE, from_region_assemblies=True)
    finally:
        for key in keys:
            client.delete_object(Bucket=BUCKET, Key=key)


@pytest.mark.parametrize("storage_type", ["folder", "bucket"])
def test_files_read_and_seek_as_in_python(client, nsd_tree, storage_type):
    content = (nsd_tree / BETAS).read_bytes()
    with open_storage(nsd_tree if storage_type == "folder" else f"s3://{BUCKET}").open(BETAS) as file:
        assert file.read(300) == content[:300]
        assert file.tell() == 300
        file.seek(100_000)
        assert file.read(200_000) == content[100_000:300_000]
        for start in (65_530, 131_072, 131_000):  # across, at and before the limits of a page
            file.seek(start)
            assert file.read(1000) == content[start : start + 1000]
        file.seek(-10, 2)
        assert file.read(100) == content[-10:]
        assert file.read(100) == b""
        file.seek(len(content) - 150_000)
        assert file.read() == content[-150_000:]
        buffer = bytearray(100)
        assert file.read_at(len(content) - 50, memoryview(buffer)) == 50
        assert bytes(buffer[:50]) == content[-50:]


@pytest.fixture
def short_reads(monkeypatch):
    """Let the operating system return at most 1000 bytes per read, as a network disk may."""
    preadv, n_reads = storage.os.preadv, Counter()

    def read_1000_bytes(descriptor, buffers, offset):
        n_reads["short"] += len(buffers[0]) > 1000
        return preadv(descriptor, [buffers[0][:1000]], offset)

    monkeypatch.setattr(storage.os, "preadv", read_1000_bytes)
    return n_reads


def test_images_are_right_when_the_disk_reads_short(nsd_tree, short_reads):
    tree = open_tree(nsd_tree)
    nsd_ids = read_design(tree.design).shared_images[:2].tolist()  # the other images are blank
    with h5py.File(nsd_tree / IMAGES) as file:  # the HDF5 library reads the file itself here
        expected = file["imgBrick"][nsd_ids]

    images = list(read_images(tree.images, nsd_ids))

    np.testing.assert_array_equal(images, expected)
    assert expected.any()
    assert short_reads["short"] > 2


def test_betas_are_right_when_the_disk_reads_short(nsd_tree, short_reads):
    betas = read_all(open_betas(nsd_tree))

    assert betas.astype(">f4").tobytes() == (nsd_tree / BETAS).read_bytes()[284 : 284 + betas.nbytes]
    assert short_reads["short"] > 700
