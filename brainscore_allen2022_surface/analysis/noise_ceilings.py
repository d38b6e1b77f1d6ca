"""Noise ceilings from the repetitions of the test images alone."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from .medians import ImageStatistics, MedianInterval, median_interval
from .repetitions import (
    DoubleArray,
    FloatingArray,
    IntArray,
    as_matrix,
    blocks,
    check_bootstrap,
    neuroid_coordinate,
    presentation_rows,
    region_groups,
    valid_images,
)

NO_INTERVAL = MedianInterval(np.nan, np.nan, np.nan)


def repetition_noise_ceilings(assembly: xr.DataArray) -> DoubleArray:
    r"""Estimate the noise ceiling of each neuroid from the repetitions in the assembly, and from nothing else.

    `nc_testset` comes from all images that a subject saw, those of the train split included. Here no other image takes part.
    The estimate is that of a one-way analysis of variance with random effects. With :math:`n` repetitions of each image,
    the variance of the noise :math:`\sigma_N^2` is the mean over images of the variance over repetitions (ddof=1). The
    variance of the signal :math:`\sigma_S^2` is the variance over images (ddof=1) of the averages over repetitions, minus
    :math:`\sigma_N^2 / n`, or 0 if that is negative. The noise ceiling is
    :math:`100\,\sigma_S^2 / (\sigma_S^2 + \sigma_N^2 / n)`.

    Parameters
    ----------
    assembly : NeuroidAssembly or DataArray of shape (n_presentations, n_neuroids) or (n_presentations, n_neuroids, 1)
        Every image with every repetition once: the test split.

    Returns
    -------
    array of shape (n_neuroids,)
        In the order of the assembly; percent of the variance of the average over repetitions, from 0 to 100. Of three
        repetitions, it estimates the same quantity as `nc_testset`. Images with a NaN repetition are left out for that
        neuroid. NaN for neuroids that are constant, or that have fewer than two images without NaN.

    Raises
    ------
    ValueError
        As `internal_consistency`.

    Notes
    -----
    Releases hold 0 in place of NaN unless they were built otherwise. Zeros in all repetitions of an image look like a
    response without noise, and zeros in one repetition look like noise. A neuroid with many zeros has no valid ceiling.

    References
    ----------
    Shrout and Fleiss (1979), Psychological Bulletin, doi:10.1037/0033-2909.86.2.420, for the variance components: their
    ICC(1, k), in percent; Allen et al. (2022), Nature Neuroscience, doi:10.1038/s41593-021-00962-x, Methods, "Noise ceiling
    estimation", for the noise ceiling.
    """
    values, rows = as_matrix(assembly), presentation_rows(assembly)
    ceilings = np.empty(values.shape[1])
    for block, responses in blocks(values, rows):
        ceilings[block] = _percent(_image_statistics(responses).log_unexplained())
    return ceilings


def ceiling_intervals(
    assembly: xr.DataArray, *, n_bootstraps: int = 500, confidence: float = 0.95, seed: int = 0
) -> pd.DataFrame:
    """Estimate the median noise ceiling of each region of each subject, with a confidence interval over images.

    The interval is for the median over these neuroids of the ceilings that infinitely many images would give. It is found by
    bootstrap over images, because neuroids share the images, and nearby neuroids share noise. The estimates of single neuroids
    are noisy, which shifts their median; the interval is corrected for that, if the ceilings have a distribution with one peak.
    If they form two separate groups, with the median between them, the interval is too high and mostly misses the truth.
    `docs/ceilings.md` describes the method and how often the interval covers the truth in simulations.

    Parameters
    ----------
    assembly : NeuroidAssembly or DataArray of shape (n_presentations, n_neuroids) or (n_presentations, n_neuroids, 1)
        The test split, with the neuroid coordinates `subject`, `region` and `nc_testset`. One region of one subject is in
        memory at a time if the assembly is lazy.
    n_bootstraps : int
        2 or more.
    confidence : float
        Of the interval, between 0 and 1.
    seed : int
        The same seed gives the same table.

    Returns
    -------
    DataFrame with a row per region and subject
        `subject`, `region`; `n_neuroids`, those that have a ceiling; in percent of variance, the medians over these neuroids of
        `repetition_noise_ceilings` (`median_ceiling`), of the true ceilings (`corrected_ceiling`, with the interval from `lower`
        to `upper`), and of `nc_testset` (`median_nc_testset`); and `is_above_nc_testset`, whether the whole interval lies above
        `median_nc_testset`. Noise that all repetitions of an image share looks like signal here, and can have this effect. Medians are NaN
        without any neuroid.

    Raises
    ------
    ValueError
        As `internal_consistency`; if a coordinate is missing, or a parameter is outside its range.

    References
    ----------
    Efron and Tibshirani (1993), An Introduction to the Bootstrap, chapters 6 and 12; Efron (2016), Biometrika,
    doi:10.1093/biomet/asv068, for deconvolution towards a smooth density.
    """
    check_bootstrap(n_bootstraps, confidence)
    values, rows = as_matrix(assembly), presentation_rows(assembly)
    nc_testset = neuroid_coordinate(assembly, "nc_testset").astype(np.float64)
    table = []
    for subject, region, neuroids in region_groups(assembly):
        statistics, has_ceiling = _read_statistics(values[:, neuroids], rows)
        interval = NO_INTERVAL
        if has_ceiling.any():
            interval = median_interval(statistics, n_bootstraps=n_bootstraps, confidence=confidence, seed=seed)
        corrected, upper, lower = _percent(interval)  # the ceiling falls as the unexplained fraction rises
        median_nc_testset = _median(nc_testset[neuroids][has_ceiling])
        table.append(
            {
                "subject": subject,
                "region": region,
                "n_neuroids": int(has_ceiling.sum()),
                "median_ceiling": _median(_percent(statistics.log_unexplained())),
                "corrected_ceiling": corrected,
                "lower": lower,
                "upper": upper,
                "median_nc_testset": median_nc_testset,
                "is_above_nc_testset": bool(lower > median_nc_testset),
            }
        )
    return pd.DataFrame(table)


def _read_statistics(values: xr.Variable, rows: IntArray) -> tuple[ImageStatistics, NDArray[np.bool_]]:
    """Return the statistics of the neuroids that have a ceiling, and which these are."""
    parts = [_image_statistics(responses) for _, responses in blocks(values, rows)]
    has_ceiling = [~np.isnan(part.log_unexplained()) for part in parts]
    means, variances, is_valid = (
        np.concatenate([getattr(part, name)[:, kept] for part, kept in zip(parts, has_ceiling, strict=True)], axis=1)
        for name in ("means", "variances", "is_valid")
    )
    if is_valid.all():
        is_valid = np.ones((len(rows), 1))
    return ImageStatistics(means, variances, is_valid, rows.shape[1]), np.concatenate(has_ceiling)


def _image_statistics(responses: FloatingArray) -> ImageStatistics:
    """Return the statistics of responses of shape (n_repetitions, n_images, n_neuroids)."""
    values, is_valid = valid_images(responses)
    means = values.mean(axis=0)
    values -= means
    variances = np.einsum("rij,rij->ij", values, values) / (len(values) - 1)
    means -= means.sum(axis=0) / np.maximum(is_valid.sum(axis=0), 1)
    return ImageStatistics(means * is_valid, variances, is_valid, len(values))


def _percent(log_unexplained: ArrayLike) -> DoubleArray:
    """Convert the logarithm of the unexplained fraction to a noise ceiling."""
    return np.asarray(100 * np.maximum(1 - np.exp(log_unexplained), 0), dtype=np.float64)


def _median(values: DoubleArray) -> float:
    """Return the median of the values that are not NaN, or NaN if there are none."""
    valid = values[~np.isnan(values)]
    return float(np.median(valid)) if len(valid) else np.nan
