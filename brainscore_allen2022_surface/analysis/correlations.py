"""Correlations between the repetitions of the test images, as a check that their noise is independent."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import xarray as xr

from .repetitions import (
    DoubleArray,
    FloatingArray,
    IntArray,
    as_matrix,
    blocks,
    check_bootstrap,
    draw_images,
    presentation_rows,
    region_groups,
    valid_images,
)


def repetition_correlations(
    assembly: xr.DataArray, *, n_bootstraps: int = 10_000, confidence: float = 0.95, seed: int = 0
) -> pd.DataFrame:
    """Correlate each pair of repetitions over images, and test whether all pairs correlate equally.

    A signal that is the same in all repetitions, with independent noise of the same variance in each, gives all pairs the same
    correlation. Noise that two repetitions share, for example because they were close in time, raises the correlation of this
    pair. Split-half ceilings and noise ceilings are then too high.

    The test cannot find noise that all repetitions of an image share to the same degree: it looks like signal. For that, compare
    with estimates of the noise from elsewhere: `is_above_nc_testset` of `ceiling_intervals`, or the same release made from the beta
    version `betas_fithrf`. Nor does unequal correlation prove shared noise: it also arises if the signal-to-noise ratio differs
    between repetitions, for example by adaptation.

    Parameters
    ----------
    assembly : NeuroidAssembly or DataArray of shape (n_presentations, n_neuroids) or (n_presentations, n_neuroids, 1)
        The test split, with the neuroid coordinates `subject` and `region`.
    n_bootstraps : int
        2 or more draws of images. They need little time, because the correlations are linearised.
    confidence : float
        Of the interval, between 0 and 1. Equal correlations are called unequal with a probability of `1 - confidence`.
    seed : int
        The same seed gives the same table.

    Returns
    -------
    DataFrame with a row per region and subject
        `subject`, `region`; `n_neuroids` that vary in every repetition; `r_0_1` and so on, Pearson's correlation of each pair
        of repetitions over images, averaged over these neuroids; `largest_difference` between these, with the interval from
        `lower` to `upper`, simultaneous for all differences; and `is_unequal`, whether the interval excludes 0. Unitless. Images
        with a NaN repetition are left out for that neuroid. Correlations are NaN without any neuroid.

    Raises
    ------
    ValueError
        As `internal_consistency`; if a coordinate is missing, or a parameter is outside its range.

    References
    ----------
    Davison and Hinkley (1997), Bootstrap Methods and their Application, sections 2.7 and 4.2, for linearised statistics and
    bootstrap tests.
    """
    check_bootstrap(n_bootstraps, confidence)
    values, rows = as_matrix(assembly), presentation_rows(assembly)
    pairs = list(combinations(range(rows.shape[1]), 2))
    counts = draw_images(np.random.default_rng(seed), len(rows), n_bootstraps)
    table = []
    for subject, region, neuroids in region_groups(assembly):
        n_neuroids, correlations, influences = _read_correlations(values[:, neuroids], rows, pairs)
        difference = float(np.ptp(correlations))
        # A deviation of the largest difference is at most the range of the deviations of all pairs.
        deviation = float(np.quantile(np.ptp(counts @ influences, axis=1), confidence))
        table.append(
            {"subject": subject, "region": region, "n_neuroids": n_neuroids}
            | {f"r_{first}_{second}": r for (first, second), r in zip(pairs, correlations, strict=True)}
            | {"largest_difference": difference, "lower": max(difference - deviation, 0)}
            | {"upper": difference + deviation, "is_unequal": difference > deviation}
        )
    return pd.DataFrame(table)


def _read_correlations(
    values: xr.Variable, rows: IntArray, pairs: list[tuple[int, int]]
) -> tuple[int, DoubleArray, DoubleArray]:
    """Return the number of valid neuroids, the mean correlation of each pair, and how much each image adds to it."""
    n_neuroids, sums, influence_sums = 0, np.zeros(len(pairs)), np.zeros((len(rows), len(pairs)))
    for _, responses in blocks(values, rows):
        scores, n_images = _standardise(responses)
        n_neuroids += scores.shape[2]
        for number, (first, second) in enumerate(pairs):
            products = scores[first] * scores[second] / n_images
            correlations = products.sum(axis=0)
            sums[number] += correlations.sum()
            products -= correlations / n_images * (scores[first] ** 2 + scores[second] ** 2) / 2
            influence_sums[:, number] += products.sum(axis=1)
    correction = np.sqrt(len(rows) / (len(rows) - 1))  # the variance over drawn images is too small
    with np.errstate(invalid="ignore"):
        return n_neuroids, sums / n_neuroids, influence_sums / n_neuroids * correction


def _standardise(responses: FloatingArray) -> tuple[DoubleArray, DoubleArray]:
    """Return z-scores over valid images of the neuroids that vary in every repetition, and how many images are valid."""
    values, is_valid = valid_images(responses)
    n_images = is_valid.sum(axis=0)
    rounding = 1e-12 * np.abs(values).max(axis=(0, 1))  # it remains of a repetition that is constant
    values -= values.sum(axis=1, keepdims=True) / np.maximum(n_images, 1)
    values *= is_valid
    deviations = np.sqrt(np.einsum("rij,rij->rj", values, values) / np.maximum(n_images, 1))
    varies = (deviations > rounding).all(axis=0)
    return values[:, :, varies] / deviations[:, None, varies], n_images[varies]
