"""The median over neuroids of what no model can explain, with a confidence interval by bootstrap over images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import scipy.stats

from .repetitions import DoubleArray, draw_images

LOG_LIMIT = np.log(1000)  # of the unexplained fraction: a ceiling above 99.9 % counts as 99.9 %
VALUES_AT_A_TIME = 2**20  # of bootstraps x neuroids: bounds the memory, and fits into the cache of a processor
BINS_PER_DEVIATION = 4
MOST_BINS = 400
N_STEPS = 6  # of the deconvolution; more steps follow the noise of the histogram
N_QUANTILES = 2**13
# Deconvolution finds the shape only roughly: a standard error, as a fraction of the shift, chosen by simulation.
UNCERTAINTY_OF_SHIFT = 1 / 3


@dataclass(frozen=True, eq=False)
class ImageStatistics:
    """What a bootstrap over images needs.

    Attributes
    ----------
    means : array of shape (n_images, n_neuroids)
        The average of the repetitions of an image, minus its mean over images. 0 where an image has a NaN repetition.
    variances : array of shape (n_images, n_neuroids)
        The variance over repetitions (ddof=1). 0 where an image has a NaN repetition.
    is_valid : array of shape (n_images, n_neuroids), or (n_images, 1) if it is the same for all neuroids
        0 where an image has a NaN repetition, else 1.
    n_repetitions : int
    """

    means: DoubleArray
    variances: DoubleArray
    is_valid: DoubleArray
    n_repetitions: int

    def log_unexplained(self) -> DoubleArray:
        """Estimate the natural logarithm of the fraction of variance that is noise, of shape (n_neuroids,).

        It is NaN for neuroids that are constant, or that have fewer than two valid images.
        """
        logarithm: DoubleArray = self._log_unexplained(np.ones((1, len(self.means))), n_shrinkages=1)[0]
        return logarithm

    def resampled_log_unexplained(self, weights: DoubleArray) -> DoubleArray:
        """Estimate the same from images drawn with replacement.

        Parameters
        ----------
        weights : array of shape (n_bootstraps, n_images)
            How often each image is drawn.

        Returns
        -------
        array of shape (n_bootstraps, n_neuroids)
        """
        return self._log_unexplained(weights, n_shrinkages=2)

    def _log_unexplained(self, weights: DoubleArray, *, n_shrinkages: int) -> DoubleArray:
        n_images = self.is_valid.sum(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            n_drawn = weights @ self.is_valid
            between = weights @ self.means**2 / n_drawn - (weights @ self.means / n_drawn) ** 2
            # The variance over images shrinks by this factor in a sample, and once more in a draw from the sample.
            between = np.maximum(between, 0) * (n_images / (n_images - 1)) ** n_shrinkages
            logarithm: DoubleArray = np.log(weights @ self.variances / n_drawn / self.n_repetitions / between)
            return logarithm


class MedianInterval(NamedTuple):
    """A median over neuroids: the estimate, and the ends of its confidence interval."""

    estimate: float
    lower: float
    upper: float


def median_interval(statistics: ImageStatistics, *, n_bootstraps: int, confidence: float, seed: int) -> MedianInterval:
    """Estimate the median over neuroids of the logarithm of the unexplained fraction.

    The estimates of single neuroids are noisy, so that their distribution is wider than that of the true values, and its
    median lies elsewhere if it is skewed. The distribution of the true values is found by deconvolution: a few steps of
    expectation maximisation, which start at the normal distribution with the right mean and variance. Each bootstrap draws
    images, which gives errors that are correlated over neuroids like those of the estimates. These are added to values drawn
    from the distribution of the true values, and their median is estimated in the same way. The interval is symmetric. Its
    width follows from the standard deviation of these estimates, to which a third of the shift that deconvolution makes is
    added as a further standard error, by the t distribution with `n_images - 1` degrees of freedom.

    Parameters
    ----------
    statistics : ImageStatistics
        Of neuroids with an estimate.

    Returns
    -------
    MedianInterval
        Natural logarithms.
    """
    n_images = len(statistics.means)
    rng = np.random.default_rng(seed)
    weights = draw_images(rng, n_images, n_bootstraps)
    estimates = np.clip(statistics.log_unexplained(), -LOG_LIMIT, LOG_LIMIT)[None]
    errors = next(_errors(statistics, estimates, weights))
    grid = _Grid.of(estimates, errors)
    estimate, density = grid.true_medians(estimates)
    quantiles = grid.quantiles(density[0])
    deviations, error_sum = [], 0.0
    for errors in _errors(statistics, estimates, weights):
        truth = quantiles[rng.integers(0, N_QUANTILES, errors.shape, dtype=np.uint16)]
        error_sum += errors.mean(axis=1).sum()
        deviations.append(-np.median(truth, axis=1))
        truth += errors
        deviations[-1] += grid.true_medians(truth)[0]
    centre = float(estimate[0]) - error_sum / n_bootstraps
    shift = float(estimate[0] - np.median(estimates))
    deviation = np.hypot(np.std(np.concatenate(deviations), ddof=1), shift * UNCERTAINTY_OF_SHIFT)
    width = float(deviation * scipy.stats.t.ppf((1 + confidence) / 2, n_images - 1))
    return MedianInterval(centre, centre - width, centre + width)


def _errors(statistics: ImageStatistics, estimates: DoubleArray, weights: DoubleArray) -> Iterator[DoubleArray]:
    """Yield how far the estimates from drawn images are from those of all images, some bootstraps at a time."""
    n_images, n_neuroids = statistics.means.shape
    n_rows = max(1, VALUES_AT_A_TIME // n_neuroids)
    for start in range(0, len(weights), n_rows):
        errors = statistics.resampled_log_unexplained(weights[start : start + n_rows])
        errors = np.clip(errors, -LOG_LIMIT, LOG_LIMIT) - estimates
        # A neuroid with few valid images has no estimate from some draws.
        yield np.nan_to_num(errors, copy=False) * np.sqrt(n_images / (n_images - 1))


@dataclass(frozen=True, eq=False)
class _Grid:
    """A grid of values, which count from their mean over neuroids, and how errors spread each of them over the grid.

    Attributes
    ----------
    edges : array of shape (n_bins + 1,)
    spread : array of shape (n_bins, n_bins)
        The fraction of the neuroids with a true value in one bin that are estimated in another.
    error_variance : float
        Of the errors of single neuroids. The error that all have in common is left out, as it changes no shape.
    """

    edges: DoubleArray
    spread: DoubleArray
    error_variance: float

    @classmethod
    def of(cls, estimates: DoubleArray, errors: DoubleArray) -> Self:
        """Make a grid from estimates of shape (1, n_neuroids) and errors of shape (n_bootstraps, n_neuroids)."""
        single = errors - errors.mean(axis=1, keepdims=True)
        deviation = float(single.std())
        low, high = np.array([estimates.min(), estimates.max()]) - estimates.mean() + deviation * np.array([-6, 6])
        width = max(deviation / BINS_PER_DEVIATION, (high - low) / MOST_BINS, 1e-6)
        n_bins = int((high - low) / width) + 1
        steps = np.clip(np.rint(single / width).astype(np.int64), 1 - n_bins, n_bins - 1)
        counts = np.bincount(steps.ravel() + n_bins - 1, minlength=2 * n_bins - 1) / steps.size
        bins = np.arange(n_bins)
        return cls(low + width * np.arange(n_bins + 1), counts[bins - bins[:, None] + n_bins - 1], deviation**2)

    def true_medians(self, values: DoubleArray) -> tuple[DoubleArray, DoubleArray]:
        """Estimate the median of the true values, of shape (n_bootstraps,), and their density, (n_bootstraps, n_bins)."""
        centred = values - values.mean(axis=1, keepdims=True)
        observed, density = self._histogram(centred), self._normal(centred.var(axis=1, keepdims=True))
        for _ in range(N_STEPS):
            density *= (observed / np.maximum(density @ self.spread, 1e-12)) @ self.spread.T
            density /= density.sum(axis=1, keepdims=True)
        shift = self._median(density) - self._median(density @ self.spread)
        return np.median(values, axis=1) + shift, density

    def quantiles(self, density: DoubleArray) -> DoubleArray:
        """Return values, equally likely, that represent a density."""
        cumulative = np.concatenate([[0], np.cumsum(density)])
        levels = (np.arange(N_QUANTILES) + 0.5) / N_QUANTILES
        values: DoubleArray = np.interp(levels, cumulative / cumulative[-1], self.edges)
        return values

    def _histogram(self, values: DoubleArray) -> DoubleArray:
        n_bins = len(self.spread)
        bins = ((values - self.edges[0]) / (self.edges[1] - self.edges[0])).astype(np.int64)
        bins = np.clip(bins, 0, n_bins - 1) + n_bins * np.arange(len(values))[:, None]
        counts = np.bincount(bins.ravel(), minlength=n_bins * len(values))
        return counts.reshape(len(values), n_bins) / values.shape[1]

    def _normal(self, variances: DoubleArray) -> DoubleArray:
        """Return normal densities around 0 with these variances, of shape (n_bootstraps, 1), minus that of the errors."""
        centres, width = (self.edges[1:] + self.edges[:-1]) / 2, self.edges[1] - self.edges[0]
        density = np.exp(-(centres**2) / 2 / np.maximum(variances - self.error_variance, width**2))
        normalised: DoubleArray = density / density.sum(axis=1, keepdims=True)
        return normalised

    def _median(self, density: DoubleArray) -> DoubleArray:
        """Return the median of each row, interpolated within its bin."""
        cumulative = np.cumsum(density, axis=1)
        half = cumulative[:, -1:] / 2
        bins, rows = (cumulative < half).sum(axis=1), np.arange(len(density))
        fraction = 1 - (cumulative[rows, bins] - half[:, 0]) / density[rows, bins]
        median: DoubleArray = self.edges[bins] + fraction * (self.edges[1] - self.edges[0])
        return median
