"""The steps of the interval of a median: deconvolution on a grid, and the width."""

import numpy as np
import pytest
import scipy.stats

from brainscore_allen2022_surface.analysis import medians
from brainscore_allen2022_surface.analysis.medians import (
    LOG_LIMIT,
    N_QUANTILES,
    ImageStatistics,
    _Grid,
    median_interval,
)


@pytest.fixture
def statistics(rng):
    """Of 60 neuroids and 6 images of 3 repetitions. The signals are of many sizes, so that deconvolution shifts the median."""
    responses = rng.lognormal(0, 1, 60) * rng.standard_normal((6, 1, 60)) + rng.standard_normal((6, 3, 60))
    means = responses.mean(axis=1)
    return ImageStatistics(means - means.mean(axis=0), responses.var(axis=1, ddof=1), np.ones((6, 1)), 3)


@pytest.fixture
def grid():
    """40 bins of width 0.25 from -5 to 5. Errors do not spread."""
    return _Grid(np.linspace(-5, 5, 41), np.eye(40), 0.5)


def half_width(statistics, *, confidence=0.95, n_bootstraps=40):
    interval = median_interval(statistics, n_bootstraps=n_bootstraps, confidence=confidence, seed=3)
    assert interval.upper - interval.estimate == pytest.approx(interval.estimate - interval.lower)
    return interval.upper - interval.estimate


def test_width_follows_the_t_distribution(statistics):
    widths = [half_width(statistics, confidence=confidence) for confidence in (0.5, 0.9, 0.99)]

    expected = scipy.stats.t(5).ppf([0.75, 0.95, 0.995])
    np.testing.assert_allclose(np.divide(widths, widths[0]), expected / expected[0])


def test_a_third_of_the_shift_is_a_further_standard_error(statistics, monkeypatch):
    actual = half_width(statistics)
    monkeypatch.setattr(medians, "UNCERTAINTY_OF_SHIFT", 0)
    of_bootstraps = half_width(statistics)
    monkeypatch.setattr(medians, "UNCERTAINTY_OF_SHIFT", 1e6)
    of_shift = half_width(statistics) / 1e6

    assert of_shift > 0.05 * of_bootstraps
    assert actual == pytest.approx(np.hypot(of_bootstraps, of_shift / 3))


def test_bootstraps_are_computed_in_parts_of_any_size(statistics, monkeypatch):
    widths = []
    for n_values in (1, 7 * 60, 10**6):
        monkeypatch.setattr(medians, "VALUES_AT_A_TIME", n_values)
        weights = np.random.default_rng(0).multinomial(6, np.full(6, 1 / 6), 40).astype(float)
        parts = list(medians._errors(statistics, np.zeros((1, 60)), weights))
        assert len(parts) == {1: 40, 420: 6, 10**6: 1}[n_values]
        widths.append(np.concatenate(parts))

    np.testing.assert_allclose(widths[1], widths[0])
    np.testing.assert_allclose(widths[2], widths[0])
    drawn = np.clip(statistics.resampled_log_unexplained(weights), -LOG_LIMIT, LOG_LIMIT)
    np.testing.assert_allclose(widths[0], drawn * np.sqrt(6 / 5))


def test_grid_reaches_six_deviations_beyond_the_estimates(rng):
    estimates, errors = rng.uniform(-1, 3, (1, 200)), rng.normal(0, 0.4, (30, 200)) + rng.normal(0, 5, (30, 1))
    grid = _Grid.of(estimates, errors)

    deviation = (errors - errors.mean(axis=1, keepdims=True)).std()
    assert grid.error_variance == pytest.approx(deviation**2)  # without what all neuroids have in common
    centred = estimates - estimates.mean()
    assert grid.edges[0] == pytest.approx(centred.min() - 6 * deviation)
    np.testing.assert_allclose(np.diff(grid.edges), deviation / 4)
    assert centred.max() + 6 * deviation <= grid.edges[-1] < centred.max() + 6.3 * deviation
    assert grid.spread.shape == (len(grid.edges) - 1,) * 2


def test_spread_holds_the_fraction_of_errors_of_each_size():
    """Errors of 0, and of one more and one less than the others."""
    errors = np.array([[0.0, 0, 0, 1, 1, -1, -1, 0]])
    grid = _Grid.of(np.linspace(-2, 2, 8)[None], errors)

    width = grid.edges[1] - grid.edges[0]
    step = round(1 / width)
    middle = len(grid.spread) // 2
    expected = np.zeros(len(grid.spread))
    expected[[middle - step, middle, middle + step]] = 0.25, 0.5, 0.25
    np.testing.assert_allclose(grid.spread[middle], expected)
    np.testing.assert_allclose(grid.spread[middle + 1][1:], expected[:-1])


def test_few_bins_are_used_for_exact_estimates():
    grid = _Grid.of(np.array([[0.0, 1000]]), np.zeros((2, 2)))

    assert len(grid.spread) in (400, 401)
    assert len(_Grid.of(np.zeros((1, 2)), np.zeros((2, 2))).spread) == 1


def test_normal_density_has_the_variance_that_errors_do_not_explain(grid):
    (density,) = grid._normal(np.array([[1.7]]))

    centres = (grid.edges[1:] + grid.edges[:-1]) / 2
    expected = scipy.stats.norm(0, np.sqrt(1.2)).pdf(centres)
    np.testing.assert_allclose(density, expected / expected.sum())
    (narrowest,) = grid._normal(np.array([[0.1]]))
    expected = scipy.stats.norm(0, 0.25).pdf(centres)
    np.testing.assert_allclose(narrowest, expected / expected.sum())


def test_histogram_counts_outliers_in_the_outermost_bins(grid):
    values = np.array([[-9, -4.9, 0.1, 0.2, 4.99, 7], [0.1] * 6])
    actual = grid._histogram(values)

    expected = np.zeros((2, 40))
    expected[0, [0, 20, 39]] = 2 / 6
    expected[1, 20] = 1
    np.testing.assert_allclose(actual, expected)


def test_median_of_a_density_lies_within_its_bin(grid):
    density = np.zeros((2, 40))
    density[0, [10, 20]] = 0.25, 0.75  # a third of bin 20, which is from 0 to 0.25, lies below the median
    density[1, 8] = 2

    np.testing.assert_allclose(grid._median(density), [0.25 / 3, -3 + 0.125])


def test_quantiles_are_equally_likely_and_lie_in_the_middle_of_their_parts(grid):
    quantiles = grid.quantiles(np.full(40, 3.0))

    np.testing.assert_allclose(quantiles, -5 + 10 * (np.arange(N_QUANTILES) + 0.5) / N_QUANTILES)


def test_without_errors_the_true_median_is_that_of_the_values(grid, rng):
    values = rng.normal(2, 1, (3, 101))
    medians_, density = grid.true_medians(values)

    np.testing.assert_allclose(medians_, np.median(values, axis=1))
    np.testing.assert_allclose(density.sum(axis=1), 1)
    np.testing.assert_allclose(density, grid._histogram(values - values.mean(axis=1, keepdims=True)), atol=1e-9)


def test_deconvolution_finds_the_median_of_a_skewed_distribution(rng):
    truth = rng.gamma(2, 1, (1, 20000))
    errors = rng.normal(0, 0.7, truth.shape)
    values = truth + errors
    grid = _Grid.of(values, errors)

    (actual,), _ = grid.true_medians(values)

    plain = np.median(values) - np.median(truth)
    assert plain > 0.05
    assert abs(actual - np.median(truth)) < plain / 2
