"""Assembly files: what is written is what xarray reads, and a failed write is never silent."""

import netCDF4
import numpy as np
import pandas as pd
import pytest
import xarray
from hypothesis import given, settings
from hypothesis import strategies as st

from allen2022_surface_packaging.assemble.assembly import create_assembly
from allen2022_surface_packaging.errors import PackagingError

PRESENTATIONS = pd.DataFrame({"stimulus_id": ["nsd_00003", "nsd_00003"], "nsd_id": [3, 3], "repetition": [0, 1]})
NEUROIDS = pd.DataFrame(
    {"neuroid_id": ["a_v0", "a_v1", "b"], "vertex_index": [5, 163_841, 0], "nc_testset": [0.1, np.nan, 99.9]}
)
VALUES = np.arange(6, dtype=np.float32).reshape(2, 3)


def write(path, values=VALUES, **options):
    arguments = {"identifier": "a.train", "presentations": PRESENTATIONS, "neuroids": NEUROIDS} | options
    with create_assembly(path, **arguments) as write_values:
        write_values(0, 0, values)
    return path


def read(path):
    with xarray.open_dataarray(path) as array:
        return array.load()


def test_assembly_holds_values_coordinates_and_names(tmp_path):
    array = read(write(tmp_path / "a.nc"))

    assert array.name == "data"
    assert array.dims == ("presentation", "neuroid", "time_bin")
    assert array.dtype == np.float32
    assert array.values[:, :, 0].tolist() == VALUES.tolist()
    assert {name: array[name].values.tolist() for name in array.coords} == {
        "stimulus_id": ["nsd_00003", "nsd_00003"],
        "nsd_id": [3, 3],
        "repetition": [0, 1],
        "neuroid_id": ["a_v0", "a_v1", "b"],
        "vertex_index": [5, 163_841, 0],
        "nc_testset": [0.1, pytest.approx(np.nan, nan_ok=True), 99.9],
        "time_bin_start": [70],
        "time_bin_end": [170],
    }
    assert {name: array[name].dims for name in ("nsd_id", "vertex_index", "time_bin_end")} == {
        "nsd_id": ("presentation",),
        "vertex_index": ("neuroid",),
        "time_bin_end": ("time_bin",),
    }
    assert (array["vertex_index"].dtype, array["nc_testset"].dtype) == (np.int64, np.float64)


@pytest.mark.parametrize(("given_name", "name"), [(None, "a.train"), ("b.train", "b.train")])
def test_stimulus_set_is_named_as_the_assembly_by_default(tmp_path, given_name, name):
    attributes = read(write(tmp_path / "a.nc", stimulus_set_identifier=given_name)).attrs

    assert attributes == {"identifier": "a.train", "stimulus_set_identifier": name}


def test_values_are_contiguous_and_coordinates_compressed(tmp_path):
    with netCDF4.Dataset(write(tmp_path / "a.nc")) as file:
        assert file.data_model == "NETCDF4"
        assert file["data"].chunking() == "contiguous"
        assert not file["data"].filters()["zlib"]
        assert "_FillValue" not in file["data"].ncattrs()
        for name in ("neuroid_id", "vertex_index", "nc_testset"):
            assert file[name].filters()["zlib"]
            assert file[name].filters()["complevel"] == 4
            assert "_FillValue" not in file[name].ncattrs()
        assert file["neuroid_id"].dtype == "S1"
        assert file["neuroid_id"].dimensions == ("neuroid", "string4")
        assert file["stimulus_id"].dimensions == ("presentation", "string9")


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8"])
def test_parts_are_written_to_their_places(tmp_path, dtype):
    with create_assembly(
        tmp_path / "a.nc", identifier="a", presentations=PRESENTATIONS, neuroids=NEUROIDS
    ) as write_values:
        write_values(1, 1, np.asfortranarray(VALUES[1:, 1:]).astype(dtype))
        write_values(0, 2, VALUES[:1, 2:])
        write_values(0, 0, VALUES[:, :1])

    assert read(tmp_path / "a.nc").values[:, :, 0].tolist() == [[0, 0, 2], [3, 4, 5]]  # the rest is 0


def test_file_that_hdf5_cannot_write_is_named(tmp_path):
    with pytest.raises((PackagingError, OSError), match=r"missing/a\.nc"):
        write(tmp_path / "missing" / "a.nc")


NAMES = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=12)


@settings(max_examples=20)  # each takes as long as a hundred of others
@given(st.data())
def test_any_coordinates_and_values_are_read_as_written(tmp_path_factory, data):
    names = data.draw(st.lists(NAMES, min_size=1, max_size=4))
    texts = data.draw(st.lists(NAMES, min_size=len(names), max_size=len(names)))  # often of the same width
    numbers = data.draw(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=len(names), max_size=len(names)))
    values = np.array(data.draw(st.lists(st.floats(width=32), min_size=2 * len(names), max_size=2 * len(names))))
    neuroids = pd.DataFrame({"neuroid_id": names, "region": texts, "n": numbers})
    path = tmp_path_factory.mktemp("assemblies") / "a.nc"
    array = read(write(path, values.astype(np.float32).reshape(2, -1), neuroids=neuroids))

    assert array["neuroid_id"].values.tolist() == names
    assert array["region"].values.tolist() == texts
    assert array["n"].values.tolist() == numbers
    np.testing.assert_array_equal(array.values.ravel(), values.astype(np.float32))
