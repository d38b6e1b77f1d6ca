import numpy as np
import pytest

from allen2022_surface_packaging.build.responses import GlobalStatistics, average_repetitions, standardise_session

ALL = slice(None)


def standardise_blocks(betas, vertices=ALL, trials=ALL, n_block=7):
    betas = np.asarray(betas)
    blocks = [betas[start : start + n_block].astype(">f4") for start in range(0, len(betas), n_block)]
    vertices, trials = np.arange(betas.shape[1])[vertices], np.arange(len(betas))[trials]
    return standardise_session(iter(blocks), vertices=vertices, kept_trials=trials)


def standardise_plainly(betas):
    betas = betas.astype(np.float32).astype(np.float64)
    deviation = betas.std(axis=0)
    return (betas - betas.mean(axis=0)) / np.where(deviation == 0, 1, deviation)


def test_session_has_mean_0_and_population_deviation_1(rng):
    betas = rng.normal(3, 10, (60, 5))

    np.testing.assert_allclose(standardise_blocks(betas), standardise_plainly(betas), rtol=0, atol=1e-6)


def test_session_offsets_and_gains_are_removed(rng):
    signal = rng.standard_normal((60, 5))

    np.testing.assert_allclose(standardise_blocks(3 * signal + 10), standardise_blocks(signal), atol=1e-5)


@pytest.mark.parametrize("offset", [1e3, 1e4])
def test_accuracy_is_kept_when_the_offset_is_large(rng, offset):
    betas = (rng.standard_normal((750, 20)) + offset).astype(np.float32)

    np.testing.assert_allclose(standardise_blocks(betas, n_block=64), standardise_plainly(betas), rtol=0, atol=1e-6)


def test_mean_and_deviation_include_trials_that_are_not_kept(rng):
    betas = rng.standard_normal((60, 5))

    np.testing.assert_array_equal(standardise_blocks(betas, trials=[3, 17, 59]), standardise_blocks(betas)[[3, 17, 59]])


def test_only_the_requested_vertices_are_returned(rng):
    betas = rng.standard_normal((60, 5))

    np.testing.assert_array_equal(standardise_blocks(betas, vertices=[1, 4]), standardise_blocks(betas)[:, [1, 4]])


def test_bytes_are_the_same_for_any_block_size(rng):
    betas = rng.standard_normal((60, 5))

    results = [standardise_blocks(betas, n_block=n).tobytes() for n in (1, 7, 60)]
    assert len(set(results)) == 1


def test_bytes_are_the_same_for_either_byte_order(rng):
    betas = rng.standard_normal((60, 5)).astype(np.float32)
    native = standardise_session(iter([betas]), vertices=np.arange(5), kept_trials=np.arange(60))

    assert native.tobytes() == standardise_blocks(betas).tobytes()


@pytest.mark.parametrize("value", [0.0, 0.1, -273.15, 1e30])
def test_constant_vertex_is_exactly_zero(rng, value):
    betas = rng.standard_normal((750, 3))
    betas[:, 1] = value

    assert (standardise_blocks(betas)[:, 1] == 0).all()


@pytest.mark.parametrize("trial", [0, 1, 59])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_vertex_is_nan_when_one_trial_is_invalid(rng, trial, value):
    betas = rng.standard_normal((60, 3))
    betas[trial, 1] = value
    result = standardise_blocks(betas)

    assert np.isnan(result[:, 1]).all()
    np.testing.assert_allclose(result[:, [0, 2]], standardise_plainly(betas[:, [0, 2]]), atol=1e-6)


def test_averages_leave_out_nan_repetitions():
    responses = np.array([[[1, np.nan, np.nan], [3, 5, np.nan], [5, 7, np.nan]]], dtype=np.float32)

    np.testing.assert_array_equal(average_repetitions(responses), np.array([[3, 6, np.nan]], np.float32))


def test_global_statistics_leave_out_nan_images(rng):
    averages = rng.normal(2, 3, (50, 4)).astype(np.float32)
    averages[:10, 1] = np.nan
    averages[:, 2] = np.nan
    averages[:, 3] = 7
    statistics = GlobalStatistics.of(averages)
    result = statistics.standardise(averages)

    for column in (0, 1):
        values = averages[:, column].astype(np.float64)
        expected = (values - np.nanmean(values)) / np.nanstd(values)
        np.testing.assert_allclose(result[:, column], expected, atol=1e-6)
    assert np.isnan(result[:, 2]).all()
    assert (result[:, 3] == 0).all()
