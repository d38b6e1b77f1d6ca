"""Assertions on what the plugin loads."""

import pandas as pd
import xarray as xr


def assert_same_stimuli(actual, expected):
    """Compare identifiers, columns and image files of two stimulus sets."""
    assert actual.identifier == expected.identifier
    pd.testing.assert_frame_equal(pd.DataFrame(actual), pd.DataFrame(expected))
    for stimulus_id in expected.stimulus_id:
        assert actual.get_stimulus(stimulus_id).read_bytes() == expected.get_stimulus(stimulus_id).read_bytes()


def assert_same_assembly(actual, expected):
    """Compare values, coordinates and identifiers of two assemblies, and their stimulus sets."""
    plain = [xr.DataArray(one.values, coords=one.coords, dims=one.dims) for one in (actual, expected)]
    xr.testing.assert_identical(*plain)  # which takes NaN noise ceilings for equal
    for attribute in ("identifier", "stimulus_set_identifier"):
        assert actual.attrs[attribute] == expected.attrs[attribute]
    assert_same_stimuli(actual.attrs["stimulus_set"], expected.attrs["stimulus_set"])
