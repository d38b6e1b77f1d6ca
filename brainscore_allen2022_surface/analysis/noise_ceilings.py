"""Noise ceilings from the repetitions of the test images alone."""

from __future__ import annotations

import numpy as np
import pandas as pd
import scipy.stats
import xarray as xr
from numpy.typing import ArrayLike

from .repetitions import (
    BoolArray,
    DoubleArray,
    FloatingArray,
    IntArray,
    as_matrix,
    blocks,
    neuroid_coordinate,
    presentation_rows,
    region_groups,
    valid_images,
)

SMALLEST = 1e-12  # unexplained fraction: smaller ones, and those above its inverse, are rounding errors


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
        noise, total = _variances(responses)
        with np.errstate(invalid="ignore", divide="ignore"):  # constant neuroids
            ceilings[block] = _percent(noise[0] / total[0])
    return ceilings


def ceiling_intervals(assembly: xr.DataArray, *, confidence: float = 0.95) -> pd.DataFrame:
    r"""Estimate the noise ceiling of each region of each subject, with a confidence interval over images.

    The ceiling of a region is the fraction of the variance of all its neuroids together that a perfect model explains. With
    the variances of `repetition_noise_ceilings` for each neuroid :math:`v`, it is

    .. math:: C = 100\,\frac{\sum_v \sigma_{S,v}^2}{\sum_v (\sigma_{S,v}^2 + \sigma_{N,v}^2 / n)}

    Negative estimates of :math:`\sigma_{S,v}^2` stay negative here. So both sums are unbiased, and more neuroids make the
    ratio better known. The responses of a release are standardised: all neuroids have about the same total variance, and
    the ceiling is about the mean of theirs. In other units, neuroids with a larger variance count more.

    The interval is for these neuroids, over images: a jackknife leaves out each of the :math:`m` images, with all neuroids
    that share it, and computes :math:`\log(1 - C/100)`. The interval is symmetric in this logarithm, by the t distribution with
    :math:`m - 1` degrees of freedom. `docs/ceilings.md` says how often it covers the truth in simulations.

    Parameters
    ----------
    assembly : NeuroidAssembly or DataArray of shape (n_presentations, n_neuroids) or (n_presentations, n_neuroids, 1)
        The test split, with the neuroid coordinates `subject`, `region` and `nc_testset`. It may be lazy:
        then a part is in memory at a time.
    confidence : float
        Of the interval, between 0 and 1.

    Returns
    -------
    DataFrame with a row per region and subject
        `subject`, `region`; `n_neuroids`, those that vary and have at least three images without NaN, and the others are left
        out; in percent of variance from 0 to 100, where 0 stands for negative values, the ceiling of the region (`ceiling`),
        its interval from `lower` to `upper`, and what NSD's noise ceilings give for the same neuroids (`nc_testset`, their
        mean weighted by the total variances); and `is_above_nc_testset`, whether the whole interval lies above that. Noise
        that all repetitions of an image share looks like signal here, and can have this effect. Images with a NaN repetition
        are left out for that neuroid. Ceilings are NaN without any neuroid.

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
    values, rows = as_matrix(assembly), presentation_rows(assembly)
    nc_testset = neuroid_coordinate(assembly, "nc_testset").astype(np.float64)
    table = []
    for subject, region, neuroids in region_groups(assembly):
        noise, total, weights, is_kept = _sum_variances(values[:, neuroids], rows)
        with np.errstate(invalid="ignore", divide="ignore"):  # no neuroid, or averages without variance
            log_unexplained = np.log(np.clip(noise / np.maximum(total, 0), SMALLEST, 1 / SMALLEST))
            has_both = is_kept & np.isfinite(nc_testset[neuroids])
            of_nsd = float(nc_testset[neuroids][has_both] @ weights[has_both] / weights[has_both].sum())
        standard_error = np.sqrt((len(rows) - 1) * np.var(log_unexplained[1:]))
        half_width = standard_error * scipy.stats.t.ppf((1 + confidence) / 2, len(rows) - 1)
        ceiling, upper, lower = _percent(np.exp(log_unexplained[0] + half_width * np.array([0, -1, 1])))
        table.append(
            {
                "subject": subject,
                "region": region,
                "n_neuroids": int(is_kept.sum()),
                "ceiling": ceiling,
                "lower": lower,
                "upper": upper,
                "nc_testset": of_nsd,
                "is_above_nc_testset": bool(lower > of_nsd),
            }
        )
    return pd.DataFrame(table)


def _sum_variances(values: xr.Variable, rows: IntArray) -> tuple[DoubleArray, DoubleArray, DoubleArray, BoolArray]:
    """Sum the variances of a region.

    Returns
    -------
    two arrays of shape (1 + n_images,)
        The variances of `_variances`, summed over the neuroids that count.
    array of shape (n_neuroids,)
        The total variance of each neuroid over all images.
    array of shape (n_neuroids,)
        Whether it counts: it varies, and has a variance without each of the images.
    """
    sums = np.zeros((2, 1 + len(rows)))
    weights, is_kept = np.empty(values.shape[1]), np.empty(values.shape[1], dtype=bool)
    for block, responses in blocks(values, rows):
        noise, total = _variances(responses, leave_one_out=True)
        weights[block] = total[0]
        is_kept[block] = np.isfinite(noise + total).all(axis=0) & (noise[0] + total[0] > 0)
        sums += noise[:, is_kept[block]].sum(axis=1), total[:, is_kept[block]].sum(axis=1)
    return *sums, weights, is_kept


def _variances(responses: FloatingArray, *, leave_one_out: bool = False) -> tuple[DoubleArray, DoubleArray]:
    """Estimate the variances of the average over repetitions: of its noise, and in total.

    Parameters
    ----------
    responses : array of shape (n_repetitions, n_images, n_neuroids)

    Returns
    -------
    two arrays of shape (1, n_neuroids) or (1 + n_images, n_neuroids)
        From all valid images, and then without each of the images. NaN or infinite with fewer than two images.
    """
    values, is_valid = valid_images(responses)
    n_repetitions, n_images = len(values), is_valid.sum(axis=0)
    means = values.mean(axis=0)
    values -= means
    noise = np.einsum("rij,rij->ij", values, values) / (n_repetitions - 1) / n_repetitions
    means -= means.sum(axis=0) / np.maximum(n_images, 1)
    terms = np.stack([is_valid, noise, means**2 * is_valid])
    left_out = np.zeros((3, 1, terms.shape[2]))
    if leave_one_out:
        left_out = np.concatenate([left_out, terms], axis=1)
    n_left, noise_sum, square_sum = (term.sum(axis=0) - without for term, without in zip(terms, left_out, strict=True))
    with np.errstate(invalid="ignore", divide="ignore"):
        square_sum -= left_out[2] / (n_images - 1)  # the mean changes, too
        return noise_sum / n_left, square_sum / (n_left - 1)


def _percent(unexplained: ArrayLike) -> DoubleArray:
    """Convert the unexplained fraction of the variance to a noise ceiling."""
    return np.asarray(100 * np.maximum(1 - np.asarray(unexplained), 0), dtype=np.float64)
