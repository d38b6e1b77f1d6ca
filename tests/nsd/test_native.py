"""Native betas are read as NSD writes them: of each file only some bytes, and in few requests."""

import h5py
import numpy as np
import pytest

from allen2022_surface_packaging.errors import PackagingError
from allen2022_surface_packaging.nsd.native import read_native_betas, read_native_shape
from allen2022_surface_packaging.nsd.storage import RawFile, open_storage
from publish.proxy import Proxy
from support import upload_public

N_TRIALS, N_VERTICES = 750, 6000
NEEDED = np.concatenate([np.arange(1000, 1300), np.arange(1310, 1400), [17, 5999], np.arange(4000, 4200), [1000, 4100]])
N_NEEDED_BYTES = 2 * N_TRIALS * len(np.unique(NEEDED))


def write(path, betas, *, order=None, libver="earliest", **options):
    """Write betas as NSD does, at once, or vertex by vertex in an order; options are those of a dataset of h5py."""
    with h5py.File(path, "w", libver=libver) as file:
        options = {"shape": betas.shape, "dtype": betas.dtype, "chunks": (len(betas), 1)} | options
        dataset = file.create_dataset("betas", **options)
        if order is None:
            dataset[:] = betas
        for vertex in [] if order is None else order:
            dataset[:, vertex] = betas[:, vertex]


@pytest.fixture(scope="module")
def sessions():
    """The integers of three sessions, which lack data of a vertex."""
    betas = np.random.default_rng(0).integers(-3000, 3000, (3, N_TRIALS, N_VERTICES), dtype=np.int16)
    betas[:, :, 1005] = 0
    return betas


def read(root, name, vertices=NEEDED):
    file = RawFile(open_storage(root), name, f"official/{name}")
    shape = read_native_shape(file)
    assert (shape.n_trials, shape.n_vertices) == (N_TRIALS, N_VERTICES)
    return np.concatenate(list(read_native_betas(file, N_TRIALS, vertices)))


def percent(betas, vertices=NEEDED):
    responses = betas[:, vertices] / np.float32(300)
    responses[:, vertices == 1005] = np.nan
    return responses


@pytest.mark.parametrize("libver", ["earliest", "v108", "latest"])
@pytest.mark.parametrize("vertices", [NEEDED, NEEDED[::-1], np.arange(N_VERTICES), np.array([], dtype=np.int64)])
def test_responses_of_some_vertices_are_those_of_the_whole_file(tmp_path, sessions, libver, vertices):
    write(tmp_path / "one.hdf5", sessions[0], libver=libver)

    np.testing.assert_array_equal(read(tmp_path, "one.hdf5", vertices), percent(sessions[0], vertices))


def test_each_file_is_read_where_its_own_index_says(tmp_path, sessions):
    shuffled = np.random.default_rng(1).permutation(N_VERTICES)
    for number, order in enumerate([None, None, shuffled, None]):
        write(tmp_path / f"{number}.hdf5", sessions[number % 3], order=order)

        np.testing.assert_array_equal(read(tmp_path, f"{number}.hdf5"), percent(sessions[number % 3]))


def test_another_dataset_in_a_file_is_not_taken_for_its_betas(tmp_path, sessions):
    with h5py.File(tmp_path / "two.hdf5", "w") as file:
        for name, betas in (("before", sessions[1]), ("betas", sessions[0])):
            file.create_dataset(name, data=betas, chunks=(N_TRIALS, 1))

    np.testing.assert_array_equal(read(tmp_path, "two.hdf5"), percent(sessions[0]))


def test_from_a_bucket_only_the_bytes_of_the_vertices_are_fetched(
    tmp_path, sessions, moto_port, direct_client, monkeypatch
):
    direct_client.create_bucket(Bucket="native", ACL="public-read")
    for number, betas in enumerate(sessions):
        write(tmp_path / f"{number}.hdf5", betas)
    upload_public(direct_client, "native", tmp_path)
    proxy = Proxy(moto_port)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)

    for number, most_requests in ((0, 40), (1, 12), (2, 12)):  # the places are looked up once
        proxy.clear()
        np.testing.assert_array_equal(read("s3://native", f"{number}.hdf5"), percent(sessions[number]))
        sent = [request for request in proxy.requests if request.name == f"{number}.hdf5"]
        assert len(sent) <= most_requests
        assert sum(request.n_answered_bytes for request in sent) < 1.2 * N_NEEDED_BYTES + 2**17
    proxy.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compression": "gzip"}, "with 1 filters, expected int16 of shape"),
        ({"chunks": (N_TRIALS, 2)}, r"in chunks of \(750, 2\)"),
        ({"chunks": None}, "in chunks of None"),
        ({"dtype": "float32"}, "it holds float32"),
        ({"dtype": ">i2"}, "it holds >i2"),
        ({"order": np.arange(1200)}, r"it lacks the responses of vertex 1200 \(0-based\)"),
    ],
)
def test_files_that_nsd_did_not_write_so_are_refused(tmp_path, sessions, options, message):
    write(tmp_path / "other.hdf5", sessions[0], **options)

    with pytest.raises(PackagingError, match=f"other.hdf5 is not a betas file of nativesurface .*{message}"):
        read(tmp_path, "other.hdf5")


@pytest.mark.parametrize(("start", "message"), [(0, "file signature not found"), (1_500_000, "its index is damaged")])
def test_damaged_files_are_refused(tmp_path, sessions, start, message):
    write(tmp_path / "damaged.hdf5", sessions[0])
    content = bytearray((tmp_path / "damaged.hdf5").read_bytes())
    content[start : start + 300_000] = bytes(300_000)
    (tmp_path / "damaged.hdf5").write_bytes(content)

    with pytest.raises(PackagingError, match=message):
        read(tmp_path, "damaged.hdf5")
