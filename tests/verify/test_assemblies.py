"""An assembly of a release is opened, checked, and read some neuroids at a time."""

import netCDF4
import numpy as np
import pytest
import xarray

from allen2022_surface_packaging.errors import PackagingError
from allen2022_surface_packaging.verify.assemblies import (
    open_assembly,
    opened_assembly,
    read_neuroids,
    require_coordinates,
)
from allen2022_surface_packaging.verify.soundness import verify_release
from support import accept, list_open_files
from verify.planted import TEST


@pytest.mark.parametrize("columns", [[], [3], [1, 2], [4, 0, 2]])
@pytest.mark.parametrize("dimensions", [("presentation", "neuroid", "time_bin"), ("neuroid", "presentation")])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_any_neuroids_of_the_first_time_bin_are_read_in_their_order(rng, dimensions, columns, dtype):
    sizes = {"presentation": 6, "neuroid": 5, "time_bin": 3}
    values = rng.standard_normal([sizes[name] for name in dimensions]).astype(dtype)
    expected = values[:, :, 0] if "time_bin" in dimensions else values.T

    actual = read_neuroids(xarray.DataArray(values, dims=dimensions), np.array(columns, dtype=int))

    assert actual.dtype == np.float64
    assert actual.shape == (6, len(columns))
    np.testing.assert_array_equal(actual, expected[:, columns])


def test_attributes_are_applied_unless_the_numbers_in_the_file_are_asked_for(tiny_copy):
    path = tiny_copy / TEST
    with netCDF4.Dataset(path, "r+") as file:
        stored, first_image = file["data"][:].data, int(file["nsd_id"][0])
        file["data"].setncattr("scale_factor", 2.0)
        file["nsd_id"].setncattr("units", "days since 2000-1-1")

    for opened in (open_assembly(path), open_assembly(path, decode=False)):
        opened.close()
    with opened_assembly(path) as applied, opened_assembly(path, decode=False) as raw:
        np.testing.assert_array_equal(applied.values, 2 * stored)
        assert applied["nsd_id"].values[0] == np.datetime64("2000-01-01") + np.timedelta64(first_image, "D")
        np.testing.assert_array_equal(raw.values, stored)
        assert raw["nsd_id"].values[0] == first_image
    np.testing.assert_array_equal(open_assembly(path).values, 2 * stored)


def test_file_is_closed_after_use(tiny_release):
    with opened_assembly(tiny_release / TEST) as assembly:
        assert str(tiny_release / TEST) in list_open_files()

    assert str(tiny_release / TEST) not in list_open_files()
    assert assembly.dims == ("presentation", "neuroid", "time_bin")


def test_missing_assembly_is_named(tmp_path):
    with pytest.raises(PackagingError, match=f"{TEST} is missing. Build the release again"):
        open_assembly(tmp_path / TEST)


COORDINATES = {
    "stimulus_id": "presentation",
    **dict.fromkeys(("neuroid_id", "subject", "hemisphere", "region", "vertex_index", "nc_testset"), "neuroid"),
    **dict.fromkeys(("time_bin_start", "time_bin_end"), "time_bin"),
}


def make_assembly(dimensions=("presentation", "neuroid", "time_bin"), **changes) -> xarray.DataArray:
    """Return an assembly of zeros whose coordinates lie along `COORDINATES`, with some changes; None leaves one out."""
    sizes = {"presentation": 2, "neuroid": 3, "time_bin": 1}
    coordinates = {
        name: (dimension, np.zeros(sizes[dimension]))
        for name, dimension in {**COORDINATES, **changes}.items()
        if dimension is not None
    }
    return xarray.DataArray(np.zeros([sizes[name] for name in dimensions]), coordinates, dimensions)


def test_assembly_with_all_coordinates_is_accepted(tmp_path):
    require_coordinates(tmp_path / "r.nc", make_assembly(), ["stimulus_id"])


@pytest.mark.parametrize("name", COORDINATES)
@pytest.mark.parametrize("is_elsewhere", [True, False])
def test_coordinate_that_is_missing_or_of_another_dimension_is_named(tmp_path, name, is_elsewhere):
    dimension = COORDINATES[name]
    other = "time_bin" if dimension == "presentation" else "presentation"
    assembly = make_assembly(**{name: other if is_elsewhere else None})

    with pytest.raises(PackagingError, match=f"{tmp_path}/r.nc has no coordinate {name} of {dimension}"):
        require_coordinates(tmp_path / "r.nc", assembly, ["stimulus_id"])


def test_other_order_of_dimensions_is_refused(tmp_path):
    assembly = make_assembly(("neuroid", "presentation", "time_bin"))

    with pytest.raises(PackagingError, match=r"has the dimensions \('neuroid', 'presentation', 'time_bin'\), expected"):
        require_coordinates(tmp_path / "r.nc", assembly, ["stimulus_id"])


@pytest.mark.parametrize("encoding", [3, "no such encoding", "utf-16"])
def test_coordinate_that_cannot_be_decoded_is_one_line(tiny_copy, encoding):
    path = tiny_copy / TEST
    with netCDF4.Dataset(path, "r+") as file:
        for name in ("neuroid_id", "stimulus_id", "region"):
            file[name].setncattr("_Encoding", encoding)
    accept(tiny_copy, TEST)

    with pytest.raises(PackagingError, match=f"{path} cannot be read as a NetCDF file") as raised:
        open_assembly(path)
    assert "\n" not in str(raised.value)
    assert str(path) not in list_open_files()
    assert any(str(path) in problem for problem in verify_release(tiny_copy))
