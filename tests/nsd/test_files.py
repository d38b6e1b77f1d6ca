"""The contents of raw files, read from sound ones. `tests/test_bad_input.py` has the damaged ones."""

import gzip
import io
from dataclasses import astuple

import h5py
import numpy as np
import pytest

from allen2022_surface_packaging.errors import PackagingError
from allen2022_surface_packaging.nsd.files import (
    BetasShape,
    read_betas,
    read_betas_shape,
    read_brick_shape,
    read_images,
    read_label_names,
    read_native_index,
    read_origins,
    read_vertices,
)
from allen2022_surface_packaging.nsd.storage import Folder, FolderFile, RawFile
from support import make_mgh

BETAS = (np.arange(20, dtype=np.float32) + 0.5).reshape(5, 1, 1, 4, order="F")
SHAPE = BetasShape(n_vertices=5, n_trials=4)


@pytest.fixture
def file_of(tmp_path):
    """A function that returns a raw file of some content."""

    def write(content, name="a"):
        (tmp_path / name).write_bytes(content)
        return RawFile(Folder(tmp_path), name, name)

    return write


@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.uint8, np.int16])
@pytest.mark.parametrize("write", [gzip.compress, bytes])
def test_vertices_are_read_in_native_byte_order(file_of, dtype, write):
    content = make_mgh(np.array([3, 0, 7], dtype).reshape(-1, 1, 1, 1))
    values = read_vertices(file_of(write(content), "lh.a.mgz"))

    assert values.tolist() == [3, 0, 7]
    assert values.dtype == dtype
    assert values.dtype.isnative


@pytest.mark.parametrize("numbers", [np.int32([3, 1, 3]), np.float32([3, 1, 3])])
def test_native_vertices_are_numbered_from_one_in_the_file(file_of, numbers):
    assert read_native_index(file_of(make_mgh(numbers.reshape(-1, 1, 1, 1)))).tolist() == [2, 0, 2]


@pytest.mark.parametrize("number", [0, -1, 1.5, np.nan, np.inf, 9e9])
def test_number_that_no_native_vertex_has_is_refused(file_of, number):
    content = make_mgh(np.float32([1, 2, number]).reshape(-1, 1, 1, 1))
    with pytest.raises(PackagingError, match=r"\S/a holds \S+ at vertex 2, expected the 1-based number of a vertex\."):
        read_native_index(file_of(content))


def read_all(monkeypatch, file, n_trials_per_block, n_readers):
    """Read betas in blocks of some trials, with some threads that read ahead."""
    monkeypatch.setattr(FolderFile, "block_bytes", int(n_trials_per_block * 4 * SHAPE.n_vertices))
    monkeypatch.setattr(FolderFile, "n_readers", n_readers)
    return [block.copy() for block in read_betas(file, SHAPE)]


@pytest.mark.parametrize("n_readers", [0, 1, 2, 5])
@pytest.mark.parametrize(
    ("n_trials_per_block", "sizes"), [(0.5, [1] * 4), (1, [1] * 4), (2, [2, 2]), (3.9, [3, 1]), (4, [4]), (100, [4])]
)
def test_betas_are_read_in_blocks_of_whole_trials(file_of, monkeypatch, n_trials_per_block, sizes, n_readers):
    content = make_mgh(BETAS) + b"footer"
    blocks = read_all(monkeypatch, file_of(content), n_trials_per_block, n_readers)

    assert read_betas_shape(file_of(content)) == SHAPE
    assert [len(block) for block in blocks] == sizes
    np.testing.assert_array_equal(np.concatenate(blocks), BETAS[:, 0, 0].T)
    assert blocks[0].dtype == ">f4"


@pytest.mark.parametrize("n_readers", [0, 2])
def test_betas_that_end_early_are_refused(file_of, monkeypatch, n_readers):
    """The file has shrunk since its header was checked."""
    with pytest.raises(PackagingError, match=r"\S/a ends 7 bytes early\. Download it again\.$"):
        read_all(monkeypatch, file_of(make_mgh(BETAS)[:-7]), 3, n_readers)


@pytest.mark.parametrize("n_readers", [0, 2])
def test_betas_that_were_copied_in_part_are_refused(file_of, monkeypatch, n_readers):
    with pytest.raises(PackagingError, match=r"\S/a ends with a trial of zeros: it was copied in part\. Download"):
        read_all(monkeypatch, file_of(make_mgh(BETAS * np.float32([1, 1, 1, 0]))), 3, n_readers)


@pytest.mark.parametrize("chunks", [None, (1, 2, 3, 3)], ids=["contiguous", "chunked"])
def test_images_are_read_in_the_order_of_their_ids(file_of, chunks):
    target, pixels = io.BytesIO(), np.arange(1, 1 + 5 * 2 * 3 * 3, dtype=np.uint8).reshape(5, 2, 3, 3)
    with h5py.File(target, "w") as file:
        file.create_dataset("imgBrick", data=pixels, chunks=chunks)
    images = file_of(target.getvalue())

    assert read_brick_shape(images, [4, 0, 3]) == (5, 2, 3, 3)
    np.testing.assert_array_equal(np.stack(list(read_images(images, [4, 0, 3]))), pixels[[4, 0, 3]])


TABLES = {
    "with colours": "0 Unknown 0 0 0 0\n1 V1v 205 62 78 0\n2 V1 d 1 2 3 0\n",
    "without transparency": "1 V1v 205 62 78\n2 V1 d 1 2 3\n",
    "without colours": "1 V1v\n2 V1 d\n",
    "tabs and blanks": "\t1\tV1v\t205 62 78 0  \n2  V1   d\t1 2 3 0\n",
    "lines of Windows": "1 V1v 205 62 78 0\r\n2 V1 d 1 2 3 0\r\n",
    "comments": "# No. Label\n\n1 V1v 205 62 78 0\n   \n2 V1 d 1 2 3 0\n#end",
    "unused names that are equal": "-1 Unknown 0 0 0 0\n0 Unknown 0 0 0 0\n1 V1v 205 62 78 0\n2 V1 d 1 2 3 0\n",
    "unused lines of another form": "LUT v1\n1 V1v 205 62 78 0\n2 V1 d 1 2 3 0\n3\nfour V4 1 2 3 0\n",
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("table", TABLES)
def test_names_of_labels_are_read_from_any_table(file_of, table, encoding):
    assert read_label_names(file_of(TABLES[table].encode(encoding))) == {"V1v": {1}, "V1 d": {2}}


def test_names_of_labels_may_be_in_latin_letters_and_be_shared(file_of):
    text = "1 Sillon précentral 0 0 0 0\n1001 Sillon précentral 0 0 0 0\n1 deux"

    assert read_label_names(file_of(text.encode("latin-1"))) == {"Sillon précentral": {1, 1001}, "deux": {1}}


HEADER = "nsdId,cocoId,cocoSplit,cropBox\n"


def test_origins_are_read_in_the_order_of_the_ids(file_of):
    text = HEADER + '3,30,train2017,"(0, 0, 0.125, 0.25)"\n1,10,val2017,"(0.5, 0.75, 0, 0)"\n2,,,\n'
    origins = read_origins(file_of(text.encode()), [1, 3])

    assert {nsd_id: astuple(origin) for nsd_id, origin in origins.items()} == {
        1: (10, "val2017", (0.5, 0.75, 0.0, 0.0)),
        3: (30, "train2017", (0.0, 0.0, 0.125, 0.25)),
    }


@pytest.mark.parametrize("nsd_ids", [[1, 2], [1, 7]], ids=["no COCO id", "no row"])
def test_origins_are_unknown_when_one_coco_id_is(file_of, nsd_ids):
    assert read_origins(file_of(f"{HEADER}1,10,val2017,\n2,,,\n".encode()), nsd_ids) == {}


@pytest.mark.parametrize(
    "text", ["nsdId,cocoId\n1,10\n", f"{HEADER}1,10,,\n", f"{HEADER}1.0,10.0,NaN,\n2.0,,,\n,,,\n,,,\n"]
)
def test_split_and_crop_box_may_be_unknown(file_of, text):
    assert astuple(read_origins(file_of(text.encode()), [1])[1]) == (10, "", None)
