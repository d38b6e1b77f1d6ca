"""Noise ceilings from the repetitions of the test images alone."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from .repetitions import (
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

SMALLEST = 1e-12  # unexplained fraction: smaller ones, and those above its inverse, are rounding errors


def repetition_noise_ceilings(assembly: xr.DataArray) -> FloatArray:
    r"""Estimate the noise ceiling of each neuroid from the repetitions in the assembly, and from nothing else.

    It comes from a one-way analysis of variance with random effects. With :math:`n` repetitions of each image, the variance of
    the noise :math:`\sigma_N^2` is the mean over images of the variance over repetitions (ddof=1). The variance of the signal
    :math:`\sigma_S^2` is the variance over images (ddof=1) of the averages over repetitions, minus :math:`\sigma_N^2 / n`, or 0
    if that is negative. The noise ceiling is :math:`100\,\sigma_S^2 / (\sigma_S^2 + \sigma_N^2 / n)`.

    Parameters
    ----------
    assembly : NeuroidAssembly or DataArray of shape (n_presentations, n_neuroids) or (n_presentations, n_neuroids, 1)
        Every image with every repetition once: the test split.

    Returns
    -------
    array of shape (n_neuroids,)
        In the order of the assembly; percent of the variance of the average over repetitions, from 0 to 100; of three, as
        `nc_testset`. Images with a NaN repetition are left out for that neuroid. NaN for neuroids that are constant, or that
        have fewer than two images without NaN.

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
    Shrout and Fleiss (1979), Psychological Bulletin, doi:10.1037/0033-2909.86.2.420: their ICC(1, k), in percent; Allen et al.
    (2022), Nature Neuroscience, doi:10.1038/s41593-021-00962-x, Methods, "Noise ceiling estimation".
    """
    values, rows = read_repetitions(assembly)
    ceilings = np.empty(values.shape[1])
    for block, responses in blocks(values, rows):
        total, noise = _variances(responses)
        with np.errstate(invalid="ignore", divide="ignore"):  # constant neuroids
            ceilings[block] = 100 * np.maximum(1 - noise[0] / total[0], 0)
    return ceilings


def ceiling_intervals(assembly: xr.DataArray, *, confidence: float = 0.95) -> pd.DataFrame:
    r"""Estimate the noise ceiling of each region of each subject, with a confidence interval over images.

    It is the share of signal in the variance of all neuroids of the region together. With the variances of
    `repetition_noise_ceilings` for each neuroid :math:`v`, it is

    .. math:: C = 100\,\frac{\sum_v \sigma_{S,v}^2}{\sum_v (\sigma_{S,v}^2 + \sigma_{N,v}^2 / n)}

    Negative estimates of :math:`\sigma_{S,v}^2` stay negative here, so both sums are unbiased. In a release all neuroids have
    about the same total variance, and the ceiling is about the mean of theirs. In other units, a larger variance counts more.

    The interval is for these neuroids, over images. A jackknife computes :math:`\log(1 - C/100)` without each of the :math:`m`
    images. The interval is symmetric in this logarithm, by the t distribution with :math:`m - 1` degrees of freedom.
    `docs/ceilings.md` says how often it covers the truth in simulations.

    Parameters
    ----------
    assembly : NeuroidAssembly or DataArray of shape (n_presentations, n_neuroids) or (n_presentations, n_neuroids, 1)
        The test split, with the neuroid coordinates `subject`, `region` and `nc_testset`. Of a lazy one, parts are in memory.
    confidence : float
        Of the interval, between 0 and 1.

    Returns
    -------
    DataFrame with a row per region and subject
        `subject`, `region`; `n_neuroids` that vary, and have three images or more without NaN: the others are left out;
        `ceiling`, with the interval from `lower` to `upper`, and `nc_testset`, the mean of NSD's noise ceilings of these neuroids,
        weighted by their total variances, all in percent of variance from 0 (also for negative values) to 100; and
        `is_above_nc_testset`, whether the whole interval is above that, as noise can make it that all repetitions of an image
        share. Images with a NaN repetition are left out for that neuroid. Numbers are NaN without any neuroid.

    Raises
    ------
    ValueError
        As `internal_consistency`; if a coordinate is missing, or the confidence is outside its range.

    References
    ----------
    Shrout and Fleiss (1979), doi:10.1037/0033-2909.86.2.420, for the variances; Miller (1974), Biometrika,
    doi:10.1093/biomet/61.1.1, for the jackknife, and why it needs the logarithm of a ratio of variances.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}, expected a fraction between 0 and 1, such as 0.95.")
    values, rows = read_repetitions(assembly)
    nc_testset = neuroid_coordinate(assembly, "nc_testset").astype(np.float64)
    table = []
    for subject, region, neuroids in region_groups(assembly):
        n_neuroids, noise, total, of_nsd = _sum_variances(values[:, neuroids], rows, nc_testset[neuroids])
        with np.errstate(invalid="ignore", divide="ignore"):  # no neuroid, or averages without variance
            log_unexplained = np.log(np.clip(noise / np.maximum(total, 0), SMALLEST, 1 / SMALLEST))
        interval = jackknife_interval(log_unexplained[:, None], np.ones((len(rows), 1)), confidence=confidence)
        ceiling, upper, lower = 100 * np.maximum(1 - np.exp(interval[:, 0]), 0)
        row = {"subject": subject, "region": region, "n_neuroids": n_neuroids, "ceiling": ceiling, "lower": lower}
        table.append(row | {"upper": upper, "nc_testset": of_nsd, "is_above_nc_testset": bool(lower > of_nsd)})
    return pd.DataFrame(table)


def _sum_variances(
    values: xr.Variable, rows: IntArray, nc_testset: FloatArray
) -> tuple[int, FloatArray, FloatArray, float]:
    """Return the number of neuroids that count, both variances summed over them, and their mean `nc_testset`, weighted."""
    n_neuroids, sums, weighted = 0, np.zeros((2, 1 + len(rows))), np.zeros(2)
    for block, responses in blocks(values, rows):
        total, noise = _variances(responses)
        is_kept = np.isfinite(noise + total).all(axis=0) & (noise[0] + total[0] > 0)
        n_neuroids += int(is_kept.sum())
        sums += noise[:, is_kept].sum(axis=1), total[:, is_kept].sum(axis=1)
        has_both = is_kept & np.isfinite(nc_testset[block])
        weighted += (total[0] * nc_testset[block])[has_both].sum(), total[0, has_both].sum()
    return n_neuroids, *sums, float(weighted[0] / weighted[1]) if weighted[1] > 0 else np.nan


def _variances(responses: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Estimate the total variance of the average over repetitions, and the variance of its noise.

    Each has the shape (1 + n_images, n_neuroids), as in `jackknife_moments`.
    """
    values, is_valid = valid_images(responses)
    n_repetitions, n_images = len(values), is_valid.sum(axis=0)
    means = values.mean(axis=0)
    values -= means
    noise = np.einsum("rij,rij->ij", values, values) / (n_repetitions - 1) / n_repetitions
    means -= means.sum(axis=0) / np.maximum(n_images, 1)
    return jackknife_moments(means**2 * is_valid, noise, is_valid)
