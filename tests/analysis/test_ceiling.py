"""Split-half ceilings: the same values as Brain-Score's, and the values that the formula predicts."""

import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from brainscore_core.metrics import Score
from brainscore_core.supported_data_standards.brainio.assemblies import NeuroidAssembly

from analysis import repeated
from brainscore_allen2022_surface.analysis.ceiling import expected_consistency, internal_consistency
from brainscore_allen2022_surface.loaders import load_assembly


def make_assembly(values, **options) -> NeuroidAssembly:
    return NeuroidAssembly(repeated.make_assembly(values, **options))


def brainscore_ceiling(assembly):
    from brainscore_vision import load_ceiling

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # constant neuroids
        return load_ceiling("internal_consistency")(assembly)


def assert_same_score(actual: Score, expected: xr.DataArray):
    """Compare value, error and raw values, with the dimensions and coordinates of the raw values and their order."""
    assert isinstance(actual, Score)
    assert actual.dtype == expected.dtype
    np.testing.assert_allclose(actual.values, expected.values, atol=1e-6)
    np.testing.assert_allclose(actual.error.values, expected.error.values, atol=1e-6)
    assert actual.raw.dims == expected.raw.dims
    assert list(actual.raw.coords) == list(expected.raw.coords)
    assert actual.raw.dtype == expected.raw.dtype
    for dim in expected.raw.dims:
        pd.testing.assert_index_equal(actual.raw.indexes[dim], expected.raw.indexes[dim])
    np.testing.assert_allclose(actual.raw.values, expected.raw.values, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_consistency_of_a_release_equals_that_of_brainscore(release):
    assembly = load_assembly("Allen2022_fmri_surface", "test", "V4", source=release).isel(time_bin=0)

    expected = brainscore_ceiling(assembly)

    assert_same_score(internal_consistency(assembly), expected)
    assert np.isnan(expected.raw.values).any(), "the release should hold invalid vertices, which are constant"


def test_nan_and_constant_neuroids_equal_those_of_brainscore(rng):
    signal = np.repeat(rng.standard_normal((12, 7)), 3, axis=0)
    values = (signal + rng.standard_normal(signal.shape)).astype(np.float32)
    values[0, 0] = np.nan  # one repetition of an image: only the halves that consist of this repetition become NaN
    values[3:5, 1] = np.nan
    values[6:9, 2] = np.nan
    values[:, 3] = 0
    values[::3, 4] = 0.1  # constant in one repetition only; the mean of 0.1 is not 0.1 in single precision
    values[5, 5] = np.inf
    assembly = make_assembly(values)

    score = internal_consistency(assembly)

    assert_same_score(score, brainscore_ceiling(assembly))
    assert 0 < np.isnan(score.raw.values[:, 0]).sum() < 10
    assert np.isnan(score.raw.values[:, [2, 3]]).all()
    assert 0 < np.isnan(score.raw.values[:, 4]).sum() < 10
    assert np.isfinite(score.raw.values[:, 6]).all()


@pytest.mark.parametrize("n_repetitions", [2, 4, 5])
def test_other_numbers_of_repetitions_equal_brainscore(rng, n_repetitions):
    signal = np.repeat(rng.standard_normal((15, 5)), n_repetitions, axis=0)
    assembly = make_assembly(signal + rng.standard_normal(signal.shape), n_repetitions=n_repetitions)

    assert_same_score(internal_consistency(assembly), brainscore_ceiling(assembly))


def test_expected_consistency_equals_measured_consistency(rng):
    """For a signal and noise of known variance, with the same 60 neuroids for each noise ceiling."""
    ncsnr = np.repeat([0.0, 0.2, 0.5, 1.0, 2.0], 60)
    signal = np.repeat(ncsnr * rng.standard_normal((1000, len(ncsnr))), 3, axis=0)
    nc_testset = 100 * ncsnr**2 / (ncsnr**2 + 1 / 3)

    measured = internal_consistency(make_assembly(signal + rng.standard_normal(signal.shape))).raw.values.mean(axis=0)

    of_each_ceiling = measured.reshape(5, 60).mean(axis=1)
    np.testing.assert_allclose(of_each_ceiling, expected_consistency(nc_testset[::60]), atol=0.01)


def test_expected_consistency_keeps_shape_and_nan():
    actual = expected_consistency([[0, 75], [np.nan, 99.9]])

    correlation = 1 / np.sqrt(2 * 1.5)  # 75 percent: the signal's variance equals that of the noise of one repetition
    np.testing.assert_allclose(actual[:, :1], [[0], [np.nan]])
    assert actual[0, 1] == pytest.approx(2 * correlation / (1 + correlation))
    assert 0.99 < actual[1, 1] < 1


def test_ceilings_work_in_a_plain_install():
    """A plain install lacks brainscore_vision, which brings scikit-learn."""
    hide = "import sys; sys.modules |= dict.fromkeys(('brainscore_vision', 'sklearn'))"
    code = "from brainscore_allen2022_surface.analysis.ceiling import expected_consistency as f; print(f(0.0))"
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", f"{hide}\n{code}"], capture_output=True, text=True)

    assert run.stdout.strip() == "0.0", run.stderr
