"""Some neuroids of an assembly, read at a time."""

import netCDF4
import numpy as np
import pytest
import xarray

from allen2022_surface_packaging.errors import PackagingError
from allen2022_surface_packaging.verify.assemblies import open_assembly, read_neuroids
from allen2022_surface_packaging.verify.soundness import verify_release
from support import accept
from verify.planted import TEST


@pytest.mark.parametrize("columns", [[], [3], [1, 2], [4, 0, 2]])
@pytest.mark.parametrize("dimensions", [("presentation", "neuroid", "time_bin"), ("neuroid", "presentation")])
def test_any_neuroids_are_read_in_their_order(rng, dimensions, columns):
    sizes = {"presentation": 6, "neuroid": 5, "time_bin": 1}
    assembly = xarray.DataArray(rng.standard_normal([sizes[name] for name in dimensions]), dims=dimensions)
    expected = assembly.transpose("presentation", "neuroid", ...).values.reshape(6, 5)

    actual = read_neuroids(assembly, np.array(columns, dtype=int))

    np.testing.assert_array_equal(actual, expected[:, columns].reshape(6, len(columns)))


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
    assert any(str(path) in problem for problem in verify_release(tiny_copy))
