"""The steps of the interval of a median: deconvolution on a grid, and the width."""

import numpy as np
import pytest
import scipy.stats

from brainscore_allen2022_surface.analysis.medians import (
    ImageStatistics,
    median_interval,
)


@pytest.fixture
def statistics(rng):
    """Of 60 neuroids and 6 images of 3 repetitions. The signals are of many sizes, so that deconvolution shifts the median."""
    responses = rng.lognormal(0, 1, 60) * rng.standard_normal((6, 1, 60)) + rng.standard_normal((6, 3, 60))
    means = responses.mean(axis=1)
    return ImageStatistics(means - means.mean(axis=0), responses.var(axis=1, ddof=1), np.ones((6, 1)), 3)


def half_width(statistics, *, confidence=0.95, n_bootstraps=40):
    interval = median_interval(statistics, n_bootstraps=n_bootstraps, confidence=confidence, seed=3)
    assert interval.upper - interval.estimate == pytest.approx(interval.estimate - interval.lower)
    return interval.upper - interval.estimate


def test_width_follows_the_t_distribution(statistics):
    widths = [half_width(statistics, confidence=confidence) for confidence in (0.5, 0.9, 0.99)]

    expected = scipy.stats.t(5).ppf([0.75, 0.95, 0.995])
    np.testing.assert_allclose(np.divide(widths, widths[0]), expected / expected[0])
