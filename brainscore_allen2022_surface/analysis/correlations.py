"""Correlations between the repetitions of the test images, as a check that their noise is independent."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import xarray as xr

from .repetitions import FloatArray, IntArray, blocks, read_repetitions, region_groups, valid_images

N_PERMUTATIONS = 5000
SEED = 0


def repetition_correlations(assembly: xr.DataArray, *, false_alarms: float = 0.05) -> pd.DataFrame:
    """Correlate each pair of repetitions over images, and test whether all pairs correlate equally.

    A signal that is the same in all repetitions, with independent noise of the same variance in each, gives all pairs the same
    correlation. Noise that two repetitions share, for example because they were close in time, raises the correlation of this
    pair. Split-half ceilings and noise ceilings are then too high.

    The test exchanges the repetitions of each image at random, which changes nothing if their noise is independent, and
    compares the largest difference between pairs with those after 5,000 such permutations. It cannot find noise that all
    repetitions share to the same degree, which looks like signal: for that, see `is_above_nc_testset` of `ceiling_intervals`,
    or compare with the beta version `betas_fithrf`. Nor does unequal correlation prove shared noise: it also arises if the
    signal-to-noise ratio differs between repetitions, for example by adaptation.

    Parameters
    ----------
    assembly : NeuroidAssembly or DataArray of shape (n_presentations, n_neuroids) or (n_presentations, n_neuroids, 1)
        The test split, with the neuroid coordinates `subject` and `region`.
    false_alarms : float
        The probability, between 0 and 1, of calling equal correlations unequal. In simulations (`docs/ceilings.md`) it is kept
        with any number of images. With fewer than five, differences are hardly ever found.

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
    pairs = np.array(list(combinations(range(rows.shape[1]), 2)))
    table = []
    for subject, region, neuroids in region_groups(assembly):
        n_neuroids, correlations, contributions = _read_correlations(values[:, neuroids], rows, pairs)
        difference = float(np.ptp(correlations))
        is_as_large = _permuted_differences(contributions, pairs) >= difference * (1 - 1e-9)
        p_value = (1 + is_as_large.sum()) / (1 + N_PERMUTATIONS) if n_neuroids else np.nan
        table.append(
            {"subject": subject, "region": region, "n_neuroids": n_neuroids}
            | {f"r_{first}_{second}": r for (first, second), r in zip(pairs, correlations, strict=True)}
            | {"largest_difference": difference, "p_value": p_value, "is_unequal": bool(p_value <= false_alarms)}
        )
    return pd.DataFrame(table)


def _read_correlations(values: xr.Variable, rows: IntArray, pairs: IntArray) -> tuple[int, FloatArray, FloatArray]:
    """Return the number of valid neuroids, the mean correlation of each pair, and what each image contributes to it.

    The contributions, of shape (n_images, n_pairs), lack what all pairs have in common, so that they vary less.
    """
    n_neuroids, sums, contributions = 0, np.zeros(len(pairs)), np.zeros((len(rows), len(pairs)))
    for _, responses in blocks(values, rows):
        scores, n_images = _standardise(responses)
        n_neuroids += scores.shape[2]
        correlations = np.array([(scores[a] * scores[b]).sum(axis=0) / n_images for a, b in pairs])
        sums += correlations.sum(axis=1)
        mean = correlations.mean(axis=0)
        for number, (a, b) in enumerate(pairs):
            of_images = scores[a] * scores[b] - mean * (scores[a] ** 2 + scores[b] ** 2) / 2
            contributions[:, number] += (of_images / n_images).sum(axis=1)
    with np.errstate(invalid="ignore"):
        return n_neuroids, sums / n_neuroids, contributions / n_neuroids


def _permuted_differences(contributions: FloatArray, pairs: IntArray) -> FloatArray:
    """Return the largest difference between pairs after each permutation of the repetitions of each image."""
    rng = np.random.default_rng(SEED)
    n_images, n_repetitions = len(contributions), pairs.max() + 1
    numbers = np.zeros((n_repetitions, n_repetitions), dtype=np.int64)  # of the pair of two repetitions
    numbers[tuple(pairs.T)] = numbers[tuple(pairs.T[::-1])] = np.arange(len(pairs))
    repetitions = np.tile(np.arange(n_repetitions), (N_PERMUTATIONS, 1))
    sums = np.zeros((N_PERMUTATIONS, len(pairs)))
    for of_image in contributions:
        order = rng.permuted(repetitions, axis=1)
        sums += of_image[numbers[order[:, pairs[:, 0]], order[:, pairs[:, 1]]]]
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
