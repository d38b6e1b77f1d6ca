"""Ceilings between subjects: how well the other subjects predict one subject at the same place on fsaverage."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from .repetitions import (
    NEUROIDS_AT_A_TIME,
    FloatArray,
    IntArray,
    blocks,
    jackknife_interval,
    jackknife_moments,
    neuroid_coordinate,
    read_repetitions,
    region_groups,
    valid_images,
)

CONFIDENCE = 0.95
COLUMNS = ("correlation", "lower", "upper", "corrected", "corrected_lower", "corrected_upper")


class Moments(NamedTuple):
    """Of some neuroids, and of the mean of the other subjects there, from all images, and without each of them.

    Attributes
    ----------
    neuroids, n_others : array of shape (n_neuroids,)
    is_valid : array of shape (n_images, n_neuroids)
    values : array of shape (5, 1 + n_images, n_neuroids)
        The covariance, both variances of the averages over repetitions, and both variances of their noise.
    """

    neuroids: IntArray
    n_others: IntArray
    is_valid: FloatArray
    values: FloatArray


def between_subjects(assembly: xr.DataArray) -> pd.DataFrame:
    r"""Correlate each neuroid with the mean of the other subjects that have a neuroid at the same place, over images.

    The same place means the same hemisphere, vertex of fsaverage and region. With the average over the :math:`n` repetitions
    :math:`a` of the subject and the mean :math:`b` of those of :math:`k` others, the correlation is
    :math:`\mathrm{cov}(a, b) / \sqrt{\mathrm{var}(a)\,\mathrm{var}(b)}` (ddof=1). The corrected one estimates that of the signals:

    .. math:: \frac{\mathrm{cov}(a, b)}{\sqrt{(\mathrm{var}(a) - \sigma_a^2)\,(\mathrm{var}(b) - \sigma_b^2)}}

    Here :math:`\sigma_a^2` is the mean over images of the variance over repetitions (ddof=1), divided by :math:`n`, and
    :math:`\sigma_b^2` is the sum of those of the others, divided by :math:`k^2`. Noise must be independent between subjects.

    The intervals (95 %) come from a jackknife over images, by the t distribution: of Fisher's z of the correlation, and of the
    corrected correlation as it is, because it has no z above 1.

    Parameters
    ----------
    assembly : NeuroidAssembly or DataArray of shape (n_presentations, n_neuroids) or (n_presentations, n_neuroids, 1)
        The test split, with the neuroid coordinates `subject`, `hemisphere`, `vertex_index` and `region`. Of a lazy one, the
        averages and their noise are in memory, two thirds of its size.

    Returns
    -------
    DataFrame with a row per neuroid, in the order of the assembly
        `n_others`, the number of the other subjects; `correlation`, `lower` and `upper`; `corrected`, `corrected_lower` and
        `corrected_upper`, all unitless. Corrected values are not clipped, and can be above 1. Images with a NaN repetition in
        one of the subjects are left out at that place. Neuroids that are constant, or have fewer than three images without
        NaN, do not count as others. Numbers are NaN for them, without another subject, and with fewer than three images.
        Corrected ones are NaN where an estimate of a variance of signal is 0 or below, and their interval where it is
        without one of the images.

    Raises
    ------
    ValueError
        As `internal_consistency`; if a coordinate is missing.

    References
    ----------
    Spearman (1904), American Journal of Psychology 15, 72-101, for the correction for attenuation; Hasson et al. (2004), Science
    303, 1634-1640, for correlations between subjects; Nili et al. (2014), PLoS Computational Biology 10, e1003553, for ceilings
    from the mean of the other subjects.
    """
    n_neuroids = assembly.sizes["neuroid"]
    n_others, estimates = np.zeros(n_neuroids, dtype=np.int64), np.full((len(COLUMNS), n_neuroids), np.nan)
    for moments in _moments(assembly):
        n_others[moments.neuroids] = moments.n_others
        estimates[:, moments.neuroids] = _estimate(moments.values, moments.is_valid)
    return pd.DataFrame({"n_others": n_others, **dict(zip(COLUMNS, estimates, strict=True))})


def between_subject_intervals(assembly: xr.DataArray) -> pd.DataFrame:
    """Correlate each region of each subject with the other subjects, with confidence intervals over images.

    The covariance and the variances of `between_subjects` are summed over neuroids before the correlation is computed from them.
    Negative estimates of the variance of the signal stay negative in their sum. The intervals are for these neuroids.

    Parameters
    ----------
    assembly : NeuroidAssembly or DataArray of shape (n_presentations, n_neuroids) or (n_presentations, n_neuroids, 1)
        As for `between_subjects`.

    Returns
    -------
    DataFrame with a row per region and subject
        `subject`, `region`; `n_neuroids` with a correlation in `between_subjects`: the others are left out; and the columns of
        `between_subjects` from `correlation` on, unitless. Numbers are NaN as there, and without any neuroid.

    Raises
    ------
    ValueError
        As `between_subjects`.

    References
    ----------
    Those of `between_subjects`.
    """
    groups = list(region_groups(assembly))
    group_of = np.empty(assembly.sizes["neuroid"], dtype=np.int64)
    for number, (_, _, neuroids) in enumerate(groups):
        group_of[neuroids] = number
    n_images = len(read_repetitions(assembly)[1])
    n_neuroids, sums = np.zeros(len(groups), dtype=np.int64), np.zeros((5, 1 + n_images, len(groups)))
    for moments in _moments(assembly):
        is_kept = np.isfinite(moments.values).all(axis=(0, 1)) & (moments.values[1:3, 0] > 0).all(axis=0)
        membership = np.equal.outer(group_of[moments.neuroids[is_kept]], np.arange(len(groups)))
        n_neuroids += membership.sum(axis=0)
        sums += moments.values[:, :, is_kept] @ membership.astype(np.float64)
    table = pd.DataFrame([group[:2] for group in groups], columns=["subject", "region"]).assign(n_neuroids=n_neuroids)
    estimates = _estimate(sums, np.ones((n_images, len(groups))))
    return table.assign(**dict(zip(COLUMNS, estimates, strict=True)))


def _moments(assembly: xr.DataArray) -> Iterator[Moments]:
    """Yield the moments of the neuroids that have others, some places at a time."""
    values, rows = read_repetitions(assembly)
    place = ["hemisphere", "vertex_index", "region"]
    places = pd.DataFrame({name: neuroid_coordinate(assembly, name) for name in place})
    means, noise = np.empty((2, len(rows), len(places)), dtype=np.float32)  # half the memory of float64
    for block, responses in blocks(values, rows):
        valid, is_valid = valid_images(responses)
        means[:, block] = np.where(is_valid, valid.mean(axis=0), np.nan)
        noise[:, block] = valid.var(axis=0, ddof=1) / rows.shape[1]
    n_valid = np.isfinite(means).sum(axis=0)
    varies = np.any((means != 0) & np.isfinite(means) | (noise != 0), axis=0)
    usable = np.flatnonzero(varies & (n_valid >= 3))
    numbers = places.iloc[usable].groupby(place, sort=False, observed=True).ngroup().to_numpy()
    has_others = np.bincount(numbers, minlength=1)[numbers] > 1
    order = np.argsort(numbers[has_others], kind="stable")
    neuroids, numbers = usable[has_others][order], numbers[has_others][order]
    starts = np.append(np.flatnonzero(np.diff(numbers, prepend=-1)), len(numbers))
    targets = np.append(np.arange(0, len(numbers), NEUROIDS_AT_A_TIME), len(numbers))
    edges = np.unique(starts[np.searchsorted(starts, targets)])  # a place is never divided
    for first, last in zip(edges[:-1], edges[1:], strict=True):
        some = neuroids[first:last]
        yield _pair(some, numbers[first:last], means[:, some].astype(np.float64), noise[:, some].astype(np.float64))


def _pair(neuroids: IntArray, numbers: IntArray, means: FloatArray, noise: FloatArray) -> Moments:
    """Compute the moments of neuroids that lie at the places with these numbers, ascending."""
    starts = np.flatnonzero(np.diff(numbers, prepend=-1))
    sizes = np.diff(np.append(starts, len(numbers)))
    n_others = np.repeat(sizes, sizes) - 1

    def sum_places(values: FloatArray) -> FloatArray:
        return np.repeat(np.add.reduceat(values, starts, axis=1), sizes, axis=1)

    is_valid = (sum_places(np.isnan(means).astype(np.float64)) == 0).astype(np.float64)
    n_images = is_valid.sum(axis=0)
    means = np.where(is_valid, means, 0)
    means = (means - means.sum(axis=0) / np.maximum(n_images, 1)) * is_valid
    noise = noise * is_valid
    others = (sum_places(means) - means) / n_others
    of_others = (sum_places(noise) - noise) / n_others**2
    products = np.stack([means * others, means**2, others**2])
    moments, noises = jackknife_moments(products, np.stack([noise, of_others]), is_valid)
    moments[:, :, n_images < 3] = np.nan
    return Moments(neuroids, n_others, is_valid, np.concatenate([moments, noises]))


def _estimate(moments: FloatArray, is_valid: FloatArray) -> FloatArray:
    """Return `COLUMNS` as rows from moments of shape (5, 1 + n_images, n_columns)."""
    covariance, variance, of_others, noise, noise_of_others = moments
    with np.errstate(invalid="ignore", divide="ignore"):  # without variance
        fisher_z = np.arctanh(np.clip(covariance / np.sqrt(variance * of_others), -1, 1))
        signals = np.stack([variance - noise, of_others - noise_of_others])
        corrected = covariance / np.sqrt(np.where(signals > 0, signals, np.nan).prod(axis=0))
        intervals = [jackknife_interval(values, is_valid, confidence=CONFIDENCE) for values in (fisher_z, corrected)]
        return np.concatenate([np.tanh(intervals[0]), intervals[1]])
