"""Correlations between the repetitions of the test images, as a check that their noise is independent."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from .repetitions import FloatArray, IntArray, blocks, read_repetitions, region_groups, valid_images

N_PERMUTATIONS = 5000


def repetition_correlations(assembly: xr.DataArray, *, false_alarms: float = 0.05) -> pd.DataFrame:
    """Correlate each pair of repetitions over images, and test whether all pairs correlate equally.

    A signal that is the same in all repetitions, with independent noise of the same variance in each, gives all pairs the same
    correlation. Noise that two repetitions share, for example because they were close in time, raises theirs, and all ceilings.

    The largest difference between pairs is compared with those after 5,000 random permutations of the repetitions of each image,
    which change nothing if noise is independent. This cannot find noise that all repetitions share, which looks like signal:
    see `is_above_nc_testset` of `ceiling_intervals`, or compare with the beta version `betas_fithrf`. Nor does it prove shared
    noise: correlations also differ if the signal-to-noise ratio does, for example by adaptation.

    Parameters
    ----------
    assembly : NeuroidAssembly or DataArray of shape (n_presentations, n_neuroids) or (n_presentations, n_neuroids, 1)
        The test split, with the neuroid coordinates `subject` and `region`.
    false_alarms : float
        The probability, from 0 to 1, of calling equal correlations unequal: `docs/ceilings.md` says how well it is kept. With
        fewer than five images, differences are hardly ever found.

    Returns
    -------
    DataFrame with a row per region and subject
        `subject`, `region`; `n_neuroids` that vary in every repetition; `r_0_1` and so on, Pearson's correlation of each pair
        of repetitions over images, averaged over these neuroids; `largest_difference` between these; `p_value`, the
        probability of such a difference if the noise is independent; and `is_unequal`, whether it is at most `false_alarms`.
        Unitless. Images with a NaN repetition are left out for that neuroid. Numbers are NaN without any neuroid.

    Raises
    ------
    ValueError
        As `internal_consistency`; if a coordinate is missing, or `false_alarms` is outside its range.

    References
    ----------
    Davison and Hinkley (1997), Bootstrap Methods and their Application, section 4.3, for permutation tests.
    """
    if not 0 < false_alarms < 1:
        raise ValueError(f"false_alarms is {false_alarms}, expected a probability between 0 and 1, such as 0.05.")
    values, rows = read_repetitions(assembly)
    pairs = np.triu_indices(rows.shape[1], 1)
    table = []
    for subject, region, neuroids in region_groups(assembly):
        n_neuroids, correlations, contributions = _read_correlations(values[:, neuroids], rows)
        difference = float(np.ptp(correlations[pairs]))
        is_as_large = _permuted_differences(contributions) >= difference * (1 - 1e-9)
        p_value = (1 + is_as_large.sum()) / (1 + N_PERMUTATIONS) if n_neuroids else np.nan
        table.append(
            {"subject": subject, "region": region, "n_neuroids": n_neuroids}
            | {f"r_{first}_{second}": correlations[first, second] for first, second in zip(*pairs, strict=True)}
            | {"largest_difference": difference, "p_value": p_value, "is_unequal": bool(p_value <= false_alarms)}
        )
    return pd.DataFrame(table)


def _read_correlations(values: xr.Variable, rows: IntArray) -> tuple[int, FloatArray, FloatArray]:
    """Return the number of valid neuroids, the mean correlation of repetitions, and what each image contributes to it.

    These have the shapes (n_repetitions, n_repetitions) and (n_images, n_repetitions, n_repetitions). What an image contributes
    to all pairs by its variance is subtracted, so that the contributions vary less.
    """
    n_images, n_repetitions = rows.shape
    n_neuroids, products = 0, np.zeros((n_images, n_repetitions, n_repetitions))
    squares = np.zeros((n_images, n_repetitions))
    for _, responses in blocks(values, rows):
        scores, n_valid = _standardise(responses)
        n_neuroids += scores.shape[2]
        products += np.einsum("riv,siv->irs", scores, scores / n_valid)
        mean = (np.sum(scores.sum(axis=0) ** 2, axis=0) / n_valid / n_repetitions - 1) / (n_repetitions - 1)
        squares += np.einsum("riv,v->ir", scores**2, mean / n_valid)
    with np.errstate(invalid="ignore"):
        contributions = products - (squares[:, :, None] + squares[:, None]) / 2
        return n_neuroids, products.sum(axis=0) / n_neuroids, contributions / n_neuroids


def _permuted_differences(contributions: FloatArray) -> FloatArray:
    """Return the largest difference between pairs after each permutation of the repetitions of each image."""
    rng = np.random.default_rng(0)  # the same numbers in every run
    n_images, n_repetitions, _ = contributions.shape
    first, second = np.triu_indices(n_repetitions, 1)
    repetitions = np.tile(np.arange(n_repetitions), (N_PERMUTATIONS, 1))
    sums = np.zeros((N_PERMUTATIONS, len(first)))
    for of_image in contributions:
        order = rng.permuted(repetitions, axis=1)
        sums += of_image[order[:, first], order[:, second]]
    differences: FloatArray = np.ptp(sums, axis=1)
    differences *= np.sqrt(n_images / (n_images - 1))  # z-scores of few images differ too little
    return differences


def _standardise(responses: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return z-scores over valid images of the neuroids that vary in every repetition, and how many images are valid."""
    values, is_valid = valid_images(responses)
    n_images = is_valid.sum(axis=0)
    rounding = 1e-12 * np.abs(values).max(axis=(0, 1))  # it remains of a repetition that is constant
    values -= values.sum(axis=1, keepdims=True) / np.maximum(n_images, 1)
    values *= is_valid
    deviations = np.sqrt(np.einsum("rij,rij->rj", values, values) / np.maximum(n_images, 1))
    varies = (deviations > rounding).all(axis=0)
    return values[:, :, varies] / deviations[:, None, varies], n_images[varies]
