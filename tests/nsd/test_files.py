"""The contents of raw files: what is read from sound ones, and what is refused, without any tree."""

import gzip
import io
import re
import struct
from dataclasses import astuple

import h5py
import numpy as np
import pytest
import scipy.io
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from allen2022_surface_packaging.errors import PackagingError
from allen2022_surface_packaging.nsd.files import (
    BetasShape,
    check_images,
    read_betas,
    read_betas_shape,
    read_design,
    read_images,
    read_label_names,
    read_origins,
    read_vertices,
)
from support import Memory, MemoryFile

SHAPE = BetasShape(n_vertices=5, n_trials=4)


def file_of(content: bytes, name: str = "a"):
    return Memory({name: content}).file(name)


KINDS = {np.uint8: 0, np.int32: 1, np.float32: 3, np.int16: 4}  # the codes of types in an MGH header


def make_mgh(values, *, version=1, kind=None):
    """Return an MGH file without a footer, of an array of four dimensions."""
    kind = KINDS[values.dtype.type] if kind is None else kind
    header = struct.pack(">7i", version, *values.shape, kind, 0).ljust(284, b"\0")
    return header + values.astype(values.dtype.newbyteorder(">")).tobytes(order="F")


def make_betas(shape=SHAPE):
    values = np.arange(shape.n_vertices * shape.n_trials, dtype=np.float32) + 0.5
    return values.reshape(shape.n_vertices, 1, 1, shape.n_trials, order="F")


def make_design(**changes):
    variables = {
        "masterordering": np.array([[1, 3, 2]], np.uint16),
        "subjectim": np.array([[5, 9, 11], [5, 9, 12]], np.int32),
        "sharedix": np.array([[5, 9]], np.int32),
    } | changes
    target = io.BytesIO()
    scipy.io.savemat(target, {name: value for name, value in variables.items() if value is not None})
    return file_of(target.getvalue(), "design.mat")


def test_design_is_read_in_its_own_numbers():
    design = read_design(make_design())

    assert design.masterordering.tolist() == [1, 3, 2]
    assert design.subjectim.tolist() == [[5, 9, 11], [5, 9, 12]]
    assert design.shared_images.tolist() == [4, 8]
    assert design.n_trials == 3
    assert {array.dtype for array in (design.masterordering, design.subjectim, design.sharedix)} == {np.dtype(np.int64)}


def test_design_of_one_subject_has_two_dimensions():
    assert read_design(make_design(subjectim=np.array([5, 9, 11], np.int32))).subjectim.shape == (1, 3)


@pytest.mark.parametrize(("n_trials", "is_full_size"), [(30_000, True), (29_999, False), (30_001, False)])
def test_design_is_full_size_with_the_trials_of_nsd(n_trials, is_full_size):
    design = read_design(make_design(masterordering=np.ones((1, n_trials), np.uint16)))

    assert design.is_full_size is is_full_size


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"masterordering": None, "sharedix": None}, r"lacks the variable masterordering, sharedix\. Is it NSD's"),
        ({"masterordering": np.array([[0, 1]])}, "masterordering holds 0 to 1, expected ids from 1 to 3"),
        ({"masterordering": np.array([[1, 4]])}, "masterordering holds 1 to 4, expected ids from 1 to 3"),
        ({"masterordering": scipy.sparse.csc_matrix([[1, 2]])}, "masterordering is csc_matrix, expected a matrix of"),
        ({"masterordering": np.array([["a", "b"]])}, "masterordering is <U1 of shape .*, expected a matrix of whole"),
        ({"subjectim": np.ones((1, 2, 3))}, r"subjectim is float64 of shape \(1, 2, 3\), expected a matrix of whole"),
        ({"sharedix": np.array([[1.5, 2]])}, "sharedix holds fractions or NaN, expected whole numbers"),
        ({"sharedix": np.array([[1, np.nan]])}, "sharedix holds fractions or NaN, expected whole numbers"),
        ({"masterordering": np.zeros((1, 0))}, "masterordering holds nothing, expected ids from 1 to 3"),
        ({"subjectim": np.array([[0, 9, 11]])}, "subjectim holds 0 to 11, expected ids from 1 to 73000"),
        ({"subjectim": np.array([[1, 9, 73_001]])}, "subjectim holds 1 to 73001, expected ids from 1 to 73000"),
        ({"sharedix": np.array([[0, 9]])}, "sharedix holds 0 to 9, expected ids from 1 to 73000"),
        ({"sharedix": np.array([[9, 73_001]])}, "sharedix holds 9 to 73001, expected ids from 1 to 73000"),
        ({"sharedix": np.array([[9, 5]])}, "sharedix is not ascending without repeats"),
        ({"sharedix": np.array([[5, 5]])}, "sharedix is not ascending without repeats"),
    ],
)
def test_design_with_impossible_ids_is_refused(changes, message):
    with pytest.raises(PackagingError, match=rf"^memory/design\.mat:? {message}"):
        read_design(make_design(**changes))


def test_largest_ids_of_nsd_are_accepted():
    design = read_design(make_design(subjectim=np.array([[1, 2, 73_000]]), sharedix=np.array([[1, 73_000]])))

    assert design.shared_images.tolist() == [0, 72_999]


@pytest.mark.parametrize("content", [b"", b"MATLAB", b"x" * 500])
def test_design_that_is_no_matlab_file_is_refused_in_one_line(content):
    with pytest.raises(
        PackagingError, match=r"^memory/a is not a MATLAB 5 file \(.*\)\. Download it again\.$"
    ) as raised:
        read_design(file_of(content))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.uint8, np.int16])
@pytest.mark.parametrize("name", ["lh.a.mgz", "lh.a.mgh"])
def test_vertices_are_read_in_native_byte_order(dtype, name):
    content = make_mgh(np.array([3, 0, 7], dtype).reshape(-1, 1, 1, 1))
    values = read_vertices(file_of(gzip.compress(content) if name.endswith("z") else content, name))

    assert values.tolist() == [3, 0, 7]
    assert values.dtype == dtype
    assert values.dtype.isnative


@pytest.mark.parametrize(
    "content",
    [b"", b"no gzip", gzip.compress(b"no header", mtime=0), gzip.compress(b"x" * 400, mtime=0)[:-3]],
    ids=["empty", "no gzip", "no header", "cut"],  # they are the same in every process
)
def test_vertices_that_cannot_be_read_are_refused_in_one_line(content):
    message = r"^memory/lh\.a\.mgz cannot be read as MGH \(.+\)\. Download it again\.$"
    with pytest.raises(PackagingError, match=message) as raised:
        read_vertices(file_of(content, "lh.a.mgz"))
    assert "\n" not in str(raised.value)


def test_shape_of_betas_is_that_of_the_header():
    assert read_betas_shape(file_of(make_mgh(make_betas()))) == SHAPE
    assert str(BetasShape(163_842, 750)) == "163,842 vertices x 750 trials"


def test_shape_of_betas_with_a_footer_is_read():
    assert read_betas_shape(file_of(make_mgh(make_betas()) + bytes(20))) == SHAPE


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not an MGH file: its header is cut short"),
        (make_mgh(make_betas())[:89], "is not an MGH file: its header is cut short"),
        (make_mgh(make_betas(), version=2), "is not an MGH file: its version is 2, expected 1"),
        (make_mgh(make_betas(), kind=0), r"holds type 0 of shape \(5, 1, 1, 4\), expected float32 \(type 3\)"),
        (make_mgh(make_betas(), kind=1), r"holds type 1 of shape \(5, 1, 1, 4\), expected float32"),
        (
            make_mgh(make_betas().reshape(1, 5, 1, 4)),
            r"holds type 3 of shape \(1, 5, 1, 4\), expected float32 .* of shape \(n_vert",
        ),
        (make_mgh(make_betas().reshape(1, 1, 5, 4)), r"holds type 3 of shape \(1, 1, 5, 4\), expected float32"),
        (make_mgh(make_betas())[:-1], r"is cut short: 363 bytes, expected at least 364\. Download it again"),
    ],
)
def test_betas_of_another_format_are_refused(content, message):
    with pytest.raises(PackagingError, match=f"^memory/a {message}"):
        read_betas_shape(file_of(content))


@pytest.mark.parametrize("dimension", [0, 3])
@pytest.mark.parametrize("n", [0, -1])
def test_betas_without_vertices_or_trials_are_refused(dimension, n):
    content = bytearray(make_mgh(make_betas()))
    content[4 + 4 * dimension : 8 + 4 * dimension] = n.to_bytes(4, "big", signed=True)

    with pytest.raises(PackagingError, match="holds type 3 of shape .* expected float32"):
        read_betas_shape(file_of(bytes(content)))


def read_all(file, shape=SHAPE):
    return [block.copy() for block in read_betas(file, shape)]


@pytest.fixture
def set_reading(monkeypatch):
    """A function that sets the size of a block, and how many threads read ahead."""

    def set_reading(n_trials_per_block, n_readers):
        monkeypatch.setattr(MemoryFile, "block_bytes", int(n_trials_per_block * 4 * SHAPE.n_vertices))
        monkeypatch.setattr(MemoryFile, "n_readers", n_readers)

    return set_reading


@pytest.mark.parametrize("n_readers", [0, 1, 2, 5])
@pytest.mark.parametrize(
    ("n_trials_per_block", "sizes"), [(0.5, [1] * 4), (1, [1] * 4), (2, [2, 2]), (3.9, [3, 1]), (4, [4]), (100, [4])]
)
def test_betas_are_read_in_blocks_of_whole_trials(set_reading, n_trials_per_block, sizes, n_readers):
    set_reading(n_trials_per_block, n_readers)
    blocks = read_all(file_of(make_mgh(make_betas()) + b"footer"))

    assert [len(block) for block in blocks] == sizes
    np.testing.assert_array_equal(np.concatenate(blocks), make_betas()[:, 0, 0].T)
    assert blocks[0].dtype == ">f4"


@pytest.mark.parametrize("n_readers", [0, 2])
def test_betas_that_end_early_are_refused(set_reading, n_readers):
    """The file has shrunk since its header was checked."""
    set_reading(3, n_readers)

    with pytest.raises(PackagingError, match=r"^memory/a ended 7 bytes early\. Download it again\.$"):
        read_all(file_of(make_mgh(make_betas())[:-7]))


@pytest.mark.parametrize("n_readers", [0, 1, 3])
def test_blocks_are_requested_ahead_and_each_once(set_reading, monkeypatch, n_readers):
    set_reading(1, n_readers)
    starts = []
    read_at = MemoryFile.read_at
    monkeypatch.setattr(MemoryFile, "read_at", lambda f, start, b: (starts.append(start), read_at(f, start, b))[1])
    blocks = read_betas(file_of(make_mgh(make_betas())), SHAPE)
    next(blocks)

    n_bytes = 4 * SHAPE.n_vertices
    list(blocks)
    assert sorted(starts) == [284 + i * n_bytes for i in range(4)]


@given(st.data())
def test_any_betas_are_read_as_written(data):
    shape = BetasShape(data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6)))
    elements = st.floats(width=32)
    betas = data.draw(arrays(np.float32, (shape.n_vertices, 1, 1, shape.n_trials), elements=elements))
    file = file_of(make_mgh(betas))

    assert read_betas_shape(file) == shape
    np.testing.assert_array_equal(np.concatenate(read_all(file, shape)), betas[:, 0, 0].T)


def make_images(images=None, name="imgBrick"):
    images = np.arange(5 * 2 * 3 * 3, dtype=np.uint8).reshape(5, 2, 3, 3) if images is None else images
    target = io.BytesIO()
    with h5py.File(target, "w") as file:
        file[name] = images
    return file_of(target.getvalue(), "stimuli.hdf5")


def test_images_are_read_in_the_order_of_their_ids():
    images = list(read_images(make_images(), [4, 0, 3]))

    assert [image[0, 0, 0] for image in images] == [72, 0, 54]
    assert {image.shape for image in images} == {(2, 3, 3)}


@pytest.mark.parametrize(
    ("nsd_ids", "message"),
    [
        ([0, 5], r"holds 5 images, but the design asks for image 5 \(0-based\)\. Do design"),
        ([-1], r"holds 5 images, but the design asks for image -1 \(0-based\)\. Do design"),
        ([0, 7, 9, 6], r"asks for image 7 \(0-based\) and 2 more\. Do design and images belong together\?"),
    ],
)
@pytest.mark.parametrize("function", [check_images, lambda *arguments: list(read_images(*arguments))])
def test_images_outside_the_file_are_refused(function, nsd_ids, message):
    with pytest.raises(PackagingError, match=f"memory/stimuli.hdf5: imgBrick {message}|imgBrick .*{message}"):
        function(make_images(), nsd_ids)


@pytest.mark.parametrize(
    "images",
    [np.zeros((5, 2, 3, 3), np.int16), np.zeros((5, 2, 3, 4), np.uint8), np.zeros((5, 2, 3), np.uint8)],
    ids=["type", "channels", "dimensions"],
)
def test_images_of_another_format_are_refused(images):
    message = f"imgBrick is {images.dtype} of shape {images.shape}, expected uint8 (n_images, height, width, 3)"
    with pytest.raises(PackagingError, match=re.escape(message)):
        check_images(make_images(images), [0])


@pytest.mark.parametrize("file", [file_of(b"no HDF5"), make_images(name="other")], ids=["no HDF5", "other name"])
def test_file_without_images_is_refused(file):
    with pytest.raises(PackagingError, match=r"an HDF5 dataset imgBrick \(.*\)\. Download it again"):
        check_images(file, [0])


def test_label_names_are_read_without_the_label_of_the_outside():
    text = "# a comment\n\n  0 Unknown 0 0 0 0\n1 V1v 205 62 78 0\n-1 outside\n  25   FEF\n"

    assert read_label_names(file_of(text.encode())) == {1: "V1v", -1: "outside", 25: "FEF"}
    assert read_label_names(Memory({}).file("missing")) == {}


@pytest.mark.parametrize("line", ["V1v 1", "1", "1.5 V1v", "- V1v"])
def test_line_of_a_colour_table_without_number_and_name_is_refused(line):
    message = rf"^memory/a holds the line '{re.escape(line)}', expected a number and a name\. Download it again"
    with pytest.raises(PackagingError, match=message):
        read_label_names(file_of(f"0 Unknown\n{line}\n".encode()))


@pytest.mark.parametrize("line", ["1 other", "2 V1v", "0 V1v"])
def test_repeated_number_or_name_in_a_colour_table_is_refused(line):
    label, name = line.split()
    with pytest.raises(PackagingError, match=rf"names the label {label} '{name}', but one of them is taken"):
        read_label_names(file_of(f"1 V1v\n{line}\n".encode()))


HEADER = "nsdId,cocoId,cocoSplit,cropBox\n"


def test_origins_are_read_in_the_order_of_the_ids():
    text = HEADER + '3,30,train2017,"(0, 0, 0.125, 0.25)"\n1,10,val2017,"(0.5, 0.75, 0, 0)"\n2,,,\n'
    origins = read_origins(file_of(text.encode()), [1, 3])

    assert list(map(astuple, origins)) == [
        (10, "val2017", (0.5, 0.75, 0.0, 0.0)),
        (30, "train2017", (0.0, 0.0, 0.125, 0.25)),
    ]


@pytest.mark.parametrize("nsd_ids", [[1, 2], [1, 7]], ids=["no COCO id", "no row"])
def test_origins_are_unknown_when_one_coco_id_is(nsd_ids):
    assert read_origins(file_of(f"{HEADER}1,10,val2017,\n2,,,\n".encode()), nsd_ids) is None
    assert read_origins(Memory({}).file("missing"), [1]) is None


@pytest.mark.parametrize("text", ["nsdId,cocoId\n1,10\n", f"{HEADER}1,10,,\n"])
def test_split_and_crop_box_may_be_unknown(text):
    assert list(map(astuple, read_origins(file_of(text.encode()), [1]))) == [(10, "", None)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "No columns to parse"),
        ("cocoId\n1\n", "it lacks the column nsdId"),
        ("x\n1\n", "it lacks the column cocoId, nsdId"),
        (f"{HEADER}1,10,,\n1,11,,\n", "an nsdId is empty or occurs twice"),
        (f"{HEADER},10,,\n1,11,,\n", "an nsdId is empty or occurs twice"),
        (f"{HEADER}x,10,,\n", "nsdId is 'x', expected a number from 0 to 72999"),
        (f"{HEADER}1,x,,\n", "cocoId is 'x', expected a number from 0 to 10000000"),
        (f'{HEADER}1,10,,"(0, 0, 0)"\n', "not enough values"),
        (f'{HEADER}1,10,,"(0, 0, 0, 0, 0)"\n', "too many values"),
        (f'{HEADER}1,10,,"(0, 0, 0, x)"\n', "could not convert"),
        (f'{HEADER}1,10,,"(0, 0, 0, 1)"\n', "expected four fractions"),
        (f'{HEADER}1,10,,"(-0.1, 0, 0, 0)"\n', "expected four fractions"),
        (f'{HEADER}1,10,,"(nan, 0, 0, 0)"\n', "expected four fractions"),
    ],
)
def test_damaged_table_of_images_is_refused_in_one_line(text, message):
    pattern = rf"^memory/a is not NSD's table of images \(.*{message}.*\)\. Download it again\.$"
    with pytest.raises(PackagingError, match=pattern) as raised:
        read_origins(file_of(text.encode()), [1])
    assert "\n" not in str(raised.value)
