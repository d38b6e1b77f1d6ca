"""The same release from a bucket as from a folder, over connections that break, and nothing of it on disk."""

import hashlib
import logging
import pickle
import re
import socket
import threading
from collections import Counter
from contextlib import contextmanager, suppress

import boto3
import numpy as np
import pytest
from moto.server import ThreadedMotoServer

from allen2022_surface_packaging import cli
from allen2022_surface_packaging.build.pipeline import build_release
from allen2022_surface_packaging.errors import PackagingError
from allen2022_surface_packaging.nsd import storage
from allen2022_surface_packaging.nsd.files import open_tree, read_betas, read_images
from allen2022_surface_packaging.nsd.storage import Bucket, open_storage
from allen2022_surface_packaging.verify.soundness import inspect_tree

BUCKET = "natural-scenes"
PUBLIC = {"ACL": "public-read"}  # NSD's own bucket is read without credentials, and so are these
BETAS = "nsddata_betas/ppdata/subj01/fsaverage/betas_fithrf_GLMdenoise_RR/lh.betas_session01.mgh"


def sha1s(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha1(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="session")
def server():
    """An S3 server that speaks over HTTP."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


def client_of(address):
    return boto3.client(
        "s3", endpoint_url=address, region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x"
    )


@pytest.fixture(scope="session")
def filled_server(server, nsd_tree):
    """The server with the small tree in a bucket, once at its root and once below a prefix."""
    client = client_of(server)
    client.create_bucket(Bucket=BUCKET)
    for path in nsd_tree.rglob("*"):
        if path.is_file():
            key = str(path.relative_to(nsd_tree))
            client.upload_file(str(path), BUCKET, key, ExtraArgs=PUBLIC)
            client.upload_file(str(path), BUCKET, f"copies/nsd/{key}", ExtraArgs=PUBLIC)
    return server


@pytest.fixture
def bucket_server(filled_server, monkeypatch):
    """The address of the filled server, where every S3 client of this test goes without credentials."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", filled_server)
    return filled_server


class Proxy:
    """Hands connections on to a server, counts requests, and breaks some answers half-way."""

    def __init__(self, target):
        host, port = target.removeprefix("http://").split(":")
        self.target = host, int(port)
        self.requests = []
        self.n_breaks = 0
        self.break_after = 0
        self.refused = False
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.address = "http://{}:{}".format(*self.socket.getsockname())
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                client, _ = self.socket.accept()
            except OSError:
                return
            if self.refused:
                client.close()
                continue
            server = socket.create_connection(self.target)
            threading.Thread(target=self._hand_on_requests, args=(client, server), daemon=True).start()
            threading.Thread(target=self._hand_on_answers, args=(server, client), daemon=True).start()

    def _hand_on_requests(self, client, server):
        with closing_both(client, server):
            while content := client.recv(65536):
                self.requests += [
                    (method.decode(), path.decode().split("?")[0], (span or b"").decode())
                    for method, path, span in re.findall(
                        rb"(GET|HEAD|PUT|POST) (\S+) HTTP/1.1\r\n(?:.*?[Rr]ange: (\S+)\r\n)?", content, re.DOTALL
                    )
                ]
                server.sendall(content)

    def _hand_on_answers(self, server, client):
        with closing_both(server, client):
            n_sent = 0
            while content := server.recv(65536):
                n_sent += len(content)
                if self.n_breaks and n_sent > self.break_after:
                    self.n_breaks -= 1
                    return
                client.sendall(content)

    def of(self, name):
        """Return the ranges that were asked for of the object whose key ends so."""
        return [span for method, path, span in self.requests if method == "GET" and path.endswith(name)]


@contextmanager
def closing_both(*sockets):
    """Close both ends, whoever hung up first."""
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
def proxy(filled_server, monkeypatch):
    """A proxy in front of the filled server, through which every S3 client of this test goes."""
    proxy = Proxy(filled_server)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.address)
    monkeypatch.setattr(storage.time, "sleep", lambda seconds: None)
    yield proxy
    proxy.socket.close()


def read_all(root, n_vertices=642, n_trials=300):
    blocks = read_betas(open_tree(root), BETAS, n_vertices=n_vertices, n_trials=n_trials)
    return np.concatenate([block.copy() for block in blocks])


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks so small that a file of the tree takes dozens."""
    for file in (storage.FolderFile, storage.BucketFile):
        monkeypatch.setattr(file, "block_bytes", 20_000)


@pytest.mark.parametrize("root", [f"s3://{BUCKET}", f"s3://{BUCKET}/copies/nsd", f"s3://{BUCKET}/copies/nsd/"])
def test_a_release_from_a_bucket_has_the_bytes_of_one_from_the_folder(bucket_server, release, tmp_path, root):
    (tmp_path / "out").mkdir()

    with pytest.raises(SystemExit) as ended:
        cli.main(["build", root, str(tmp_path / "out" / "release"), "--cache", "none"])

    assert ended.value.code == 0
    assert sha1s(tmp_path / "out" / "release") == sha1s(release)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["release"]


@pytest.mark.slow
def test_two_workers_read_the_bucket_by_themselves(bucket_server, four_subject_release, tmp_path):
    build_release(
        f"s3://{BUCKET}", tmp_path / "release", subjects=(1, 2, 5, 7), n_workers=2, cache_path=tmp_path / "cache"
    )

    assert sha1s(tmp_path / "release") == sha1s(four_subject_release)


def test_check_finds_no_problem_in_a_bucket(bucket_server, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["check", f"s3://{BUCKET}"])

    assert ended.value.code == 0
    assert "no problems found" in capsys.readouterr().out


def test_a_second_build_from_the_bucket_reads_no_betas_again(proxy, release, tmp_path):
    build_release(f"s3://{BUCKET}", tmp_path / "one", subjects=(1, 2, 5, 7), cache_path=tmp_path / "cache")
    n_headers_and_betas = len(proxy.of("lh.betas_session01.mgh"))
    proxy.requests.clear()

    build_release(f"s3://{BUCKET}", tmp_path / "two", subjects=(1, 2, 5, 7), cache_path=tmp_path / "cache")

    assert sha1s(tmp_path / "one") == sha1s(tmp_path / "two")
    assert n_headers_and_betas > 4
    assert set(proxy.of("lh.betas_session01.mgh")) == {f"bytes=0-{storage.PAGE_BYTES - 1}"}  # headers


def test_betas_come_in_blocks_by_one_ranged_request_each(proxy, nsd_tree, small_blocks):
    found = read_all(f"s3://{BUCKET}")

    np.testing.assert_array_equal(found, read_all(nsd_tree))
    spans = sorted(tuple(map(int, re.findall(r"\d+", span))) for span in proxy.of(BETAS))
    assert spans[0][0] == 284
    assert spans[-1][1] == 284 + 4 * 642 * 300 - 1
    assert all(stop + 1 == start for (_, stop), (start, _) in zip(spans[:-1], spans[1:], strict=True))
    assert max(stop - start for start, stop in spans) < 20_000


def test_a_connection_that_breaks_is_taken_up_inside_the_file(proxy, nsd_tree, monkeypatch):
    expected = read_all(nsd_tree)
    monkeypatch.setattr(storage, "PIECE_BYTES", 10_000)
    tree = open_tree(f"s3://{BUCKET}")
    tree.storage.exists(BETAS)
    proxy.requests.clear()
    proxy.n_breaks, proxy.break_after = 5, 300_000

    found = np.concatenate([block.copy() for block in read_betas(tree, BETAS, n_vertices=642, n_trials=300)])

    np.testing.assert_array_equal(found, expected)
    assert proxy.n_breaks < 5
    starts = [int(re.findall(r"\d+", span)[0]) for span in proxy.of(BETAS)]
    assert starts[0] == 284
    assert len(starts) > 1
    assert all(start > 200_000 for start in starts[1:])  # nothing that had arrived was asked for again


def test_a_release_over_a_connection_that_keeps_breaking_has_the_same_bytes(proxy, four_subject_release, tmp_path):
    proxy.n_breaks, proxy.break_after = 60, 150_000

    build_release(f"s3://{BUCKET}", tmp_path / "release", subjects=(1, 2, 5, 7))

    assert proxy.n_breaks == 0
    assert sha1s(tmp_path / "release") == sha1s(four_subject_release)


def test_a_server_that_stays_away_ends_in_one_line(proxy, monkeypatch):
    tree = open_tree(f"s3://{BUCKET}")
    tree.storage.exists(BETAS)
    proxy.n_breaks, proxy.break_after = 10**6, 100

    with pytest.raises(PackagingError, match=rf"s3://{BUCKET}/{BETAS} cannot be read .*Is the network up") as raised:
        list(read_betas(tree, BETAS, n_vertices=642, n_trials=300))

    assert "\n" not in str(raised.value)


def test_nothing_answering_at_the_endpoint_ends_in_one_line(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")

    with pytest.raises(PackagingError, match=r"cannot be read .*AWS_ENDPOINT_URL right\?"):
        open_tree(f"s3://{BUCKET}")


def test_an_object_that_changes_while_it_is_read_is_noticed(bucket_server, nsd_tree, small_blocks):
    path = "changing.mgh"
    client = client_of(bucket_server)
    client.upload_file(str(nsd_tree / BETAS), BUCKET, path, ExtraArgs=PUBLIC)
    blocks = read_betas(open_tree(f"s3://{BUCKET}"), path, n_vertices=642, n_trials=300)
    next(blocks)
    client.put_object(Bucket=BUCKET, Key=path, Body=bytes((nsd_tree / BETAS).stat().st_size), **PUBLIC)

    with pytest.raises(PackagingError, match=r"changing\.mgh cannot be read .*It changed while it was read"):
        list(blocks)


def test_a_stamp_changes_with_the_content(bucket_server):
    client = client_of(bucket_server)
    stamps = []
    for body in (b"one", b"one", b"two"):
        client.put_object(Bucket=BUCKET, Key="stamps/a", Body=body)
        stamps.append(open_storage(f"s3://{BUCKET}").stamp("stamps/a"))

    assert stamps[0] == stamps[1] != stamps[2]


def test_inspecting_a_tree_lists_each_folder_once_and_asks_for_no_single_file(proxy):
    inspection, problems = inspect_tree(f"s3://{BUCKET}", range(1, 9))

    assert problems == []
    assert inspection is not None
    methods = Counter(method for method, _, _ in proxy.requests)
    assert set(methods) == {"GET"}
    listings = [path for _, path, _ in proxy.requests if path.rstrip("/") == f"/{BUCKET}"]
    assert len(listings) <= 8 + 8  # the betas of eight subjects, and the few other folders


def test_only_the_images_that_are_needed_are_fetched(proxy, nsd_tree, monkeypatch):
    monkeypatch.setattr(storage, "PAGE_BYTES", 4096)
    expected = list(read_images(open_tree(nsd_tree), [3, 17]))
    size = (nsd_tree / "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5").stat().st_size

    found = list(read_images(open_tree(f"s3://{BUCKET}"), [3, 17]))

    np.testing.assert_array_equal(found, expected)
    spans = [tuple(map(int, re.findall(r"\d+", span))) for span in proxy.of("nsd_stimuli.hdf5")]
    assert spans
    assert sum(stop - start + 1 for start, stop in spans) < size / 10


def test_a_bucket_travels_to_another_process_without_its_connection(bucket_server):
    bucket = open_storage(f"s3://{BUCKET}/copies/nsd")
    assert bucket.exists(BETAS)

    copy = pickle.loads(pickle.dumps(bucket))

    assert copy == bucket == Bucket(BUCKET, "copies/nsd")
    assert len(pickle.dumps(bucket)) < 500
    assert copy.size(BETAS) == bucket.size(BETAS)


def test_a_bucket_without_a_design_is_told_from_an_nsd_tree(bucket_server):
    with pytest.raises(PackagingError, match=rf"s3://{BUCKET}/elsewhere holds no NSD design"):
        open_tree(f"s3://{BUCKET}/elsewhere")


def test_a_bucket_that_is_not_there_is_named(bucket_server):
    with pytest.raises(PackagingError, match=r"s3://no-such-bucket.* cannot be read .*is its name right\?"):
        open_tree("s3://no-such-bucket")


def test_a_missing_betas_object_is_named(bucket_server):
    with pytest.raises(PackagingError, match=rf"s3://{BUCKET}/{BETAS}x is missing"):
        open_storage(f"s3://{BUCKET}").open(f"{BETAS}x")


def test_other_addresses_are_refused():
    with pytest.raises(PackagingError, match=r"gs://somewhere is not an NSD tree. Expected a folder, or s3://bucket"):
        open_storage("gs://somewhere")


def test_prepared_assemblies_in_a_bucket_are_refused(bucket_server, tmp_path):
    client_of(bucket_server).put_object(Bucket=BUCKET, Key="assemblies/Allen2022_surface.V1.nc", Body=b"x")
    try:
        with pytest.raises(PackagingError, match="lies in a bucket, but prepared assemblies are read from a folder"):
            build_release(f"s3://{BUCKET}", tmp_path / "release", subjects=range(1, 9), from_region_assemblies=True)
    finally:
        client_of(bucket_server).delete_object(Bucket=BUCKET, Key="assemblies/Allen2022_surface.V1.nc")


@pytest.mark.parametrize("place", ["folder", "bucket"])
def test_a_file_reads_seeks_and_ends_as_files_do(bucket_server, nsd_tree, place):
    content = (nsd_tree / BETAS).read_bytes()
    with open_storage(nsd_tree if place == "folder" else f"s3://{BUCKET}").open(BETAS) as file:
        assert file.read(300) == content[:300]
        assert file.tell() == 300
        file.seek(100_000)
        assert file.read(200_000) == content[100_000:300_000]
        for start in (65_530, 131_072, 131_000):  # across, at and before the edges of what is fetched at a time
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
