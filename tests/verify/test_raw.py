"""Raw files, as `verify` reads them: compared with what nibabel, SciPy and pandas read, and with what was written."""

import io

import nibabel
import numpy as np
import pytest
import scipy.io

from allen2022_surface_packaging.errors import PackagingError
from allen2022_surface_packaging.facts import DEFAULT_BETAS
from allen2022_surface_packaging.nsd.tree import open_tree
from allen2022_surface_packaging.verify.raw import (
    local_copy,
    read_design,
    read_extent,
    read_label_names,
    read_stimulus_info,
    read_surface,
    read_trials,
)
from support import Memory


def stored(path, content):
    """Return a raw file in memory."""
    return Memory({path: content}).file(path)


def test_file_of_a_folder_is_used_where_it_is(tiny_tree):
    file = open_tree(tiny_tree).design

    with local_copy(file) as path:
        assert str(path) == str(file)
    assert path.exists()


def test_file_of_another_storage_is_copied_for_the_block():
    content = bytes(range(256)) * 10

    with local_copy(stored("folder/data.bin", content)) as path:
        assert path.name == "data.bin"
        assert path.read_bytes() == content
    assert not path.parent.exists()


@pytest.mark.parametrize("read", [read_extent, read_surface, lambda file: read_trials(file, np.array([0]))])
def test_missing_and_damaged_surfaces_are_named(read):
    with pytest.raises(PackagingError, match=r"memory/x\.mgh cannot be read as MGH \(.+\)\. Download it again\."):
        read(stored("x.mgh", b"damaged"))


@pytest.mark.parametrize("read", [read_surface, lambda file: read_trials(file, np.array([0]))])
def test_missing_surface_is_named(read):
    with pytest.raises(PackagingError, match=r"memory/x\.mgh is missing, but the release was made from it"):
        read(Memory({}).file("x.mgh"))


def test_design_is_what_scipy_reads(tiny_tree):
    file = open_tree(tiny_tree).design
    variables = scipy.io.loadmat(str(file))

    design = read_design(file)

    assert design.masterordering.tolist() == variables["masterordering"][0].tolist()
    assert design.subjectim.tolist() == variables["subjectim"].tolist()
    assert design.sharedix.tolist() == variables["sharedix"][0].tolist()
    assert {array.dtype for array in vars(design).values()} == {np.dtype(np.int64)}


def test_design_without_a_variable_is_named():
    content = io.BytesIO()
    scipy.io.savemat(content, {"masterordering": [1], "subjectim": [[1]]})

    with pytest.raises(PackagingError, match=r"memory/d\.mat cannot be read as NSD's experiment design \('sharedix'\)"):
        read_design(stored("d.mat", content.getvalue()))


@pytest.mark.parametrize("dtype", [">f4", ">i4"])
def test_surface_is_what_was_written(rng, dtype):
    values = (100 * rng.standard_normal(7)).astype(dtype)
    content = nibabel.MGHImage(values.reshape(7, 1, 1).astype(dtype[1:]), None).to_bytes()
    file = stored("x.mgh", content)

    np.testing.assert_array_equal(read_surface(file), values)
    assert read_extent(file) == (7, 1)


@pytest.mark.parametrize("vertices", [[0], [6, 2, 2], [], range(7)])
def test_trials_are_those_of_the_vertices_asked_for(rng, vertices):
    values = rng.standard_normal((7, 1, 1, 5)).astype(np.float32)
    file = stored("x.mgh", nibabel.MGHImage(values, None).to_bytes())

    responses = read_trials(file, np.array(vertices, dtype=int))

    assert responses.dtype == np.float64
    np.testing.assert_array_equal(responses, values[list(vertices), 0, 0].T)
    assert read_extent(file) == (7, 5)


def test_surface_of_more_than_one_column_is_named(rng):
    """The vertices of a block would be in another order."""
    values = rng.standard_normal((7, 1, 2, 5)).astype(np.float32)
    file = stored("x.mgh", nibabel.MGHImage(values, None).to_bytes())

    with pytest.raises(PackagingError, match="cannot be read as MGH"):
        read_trials(file, np.array([0]))


def test_trials_of_a_tree_are_percent_signal_change_as_nibabel_reads_them(tiny_tree):
    file = open_tree(tiny_tree).betas(1, "rh", 1, DEFAULT_BETAS)
    expected = np.asarray(nibabel.load(str(file)).dataobj)[[5, 600], 0, 0].T

    np.testing.assert_array_equal(read_trials(file, np.array([5, 600])), expected)


def test_label_names_are_the_first_two_columns_of_a_colour_table():
    table = "# comment\n\n  \n \t # another comment\n0 Unknown 1 2 3 0\n  5\tventral  9 9 9 0\n12 h\N{LATIN SMALL LETTER A WITH DIAERESIS}\n"

    assert read_label_names(stored("x.ctab", table.encode())) == {0: "Unknown", 5: "ventral", 12: "h\u00e4"}
    assert read_label_names(stored("x.ctab", "1 h\u00e4 0".encode("latin-1"))) == {1: "h\N{REPLACEMENT CHARACTER}"}


def test_missing_label_names_are_empty():
    assert read_label_names(Memory({}).file("x.ctab")) == {}


@pytest.mark.parametrize("line", ["one V1", "1"])
def test_damaged_label_names_are_named(line):
    with pytest.raises(PackagingError, match=r"memory/x\.ctab cannot be read as a colour table"):
        read_label_names(stored("x.ctab", f"{line}\n".encode()))


def test_table_of_images_is_text_by_nsd_id():
    content = b"cocoId,cocoSplit,nsdId\n007,NA,30\n8,val2017,4\n9,,\n"

    table = read_stimulus_info(stored("x.csv", content))

    assert table.index.tolist() == [30, 4]
    assert table.index.dtype == np.int64
    assert table.to_dict("list") == {"cocoId": ["007", "8"], "cocoSplit": ["NA", "val2017"], "nsdId": ["30", "4"]}


def test_missing_table_of_images_is_none():
    assert read_stimulus_info(Memory({}).file("x.csv")) is None


@pytest.mark.parametrize("content", ["nsdId,cocoId\n1,2\n1,3\n", "nsdId,other\n1,2\n", "cocoId\n2\n", "", "nsdId\nx\n"])
def test_damaged_table_of_images_is_named(content):
    with pytest.raises(PackagingError, match=r"memory/x\.csv cannot be read as NSD's table of images \(.+\)"):
        read_stimulus_info(stored("x.csv", content.encode()))


def test_file_of_zeros_is_named():
    """As a download that was cut may leave it, of the right length."""
    for read in (read_surface, lambda file: read_trials(file, np.array([0]))):
        with pytest.raises(PackagingError, match=r"x\.mgh cannot be read as MGH \(.*\)\. Download it again"):
            read(stored("x.mgh", bytes(1000)))
