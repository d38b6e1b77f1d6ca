"""Some neuroids of an assembly, read at a time."""

import numpy as np
import pytest
import xarray

from allen2022_surface_packaging.verify.assemblies import read_neuroids


@pytest.mark.parametrize("columns", [[], [3], [1, 2], [4, 0, 2]])
@pytest.mark.parametrize("dimensions", [("presentation", "neuroid", "time_bin"), ("neuroid", "presentation")])
def test_any_neuroids_are_read_in_their_order(rng, dimensions, columns):
    sizes = {"presentation": 6, "neuroid": 5, "time_bin": 1}
    assembly = xarray.DataArray(rng.standard_normal([sizes[name] for name in dimensions]), dims=dimensions)
    expected = assembly.transpose("presentation", "neuroid", ...).values.reshape(6, 5)

    actual = read_neuroids(assembly, np.array(columns, dtype=int))

    np.testing.assert_array_equal(actual, expected[:, columns].reshape(6, len(columns)))
