"""Noise ceilings: how well the best possible model can predict noisy responses."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
from brainscore_core.metrics import Score
from brainscore_core.supported_data_standards.brainio.assemblies import NeuroidAssembly, walk_coords
from numpy.typing import ArrayLike

from .repetitions import DoubleArray, FloatingArray, as_matrix, blocks, presentation_rows

N_SPLITS = 10  # as in Brain-Score's cross-validation, like the seed
SEED = 1
N_REPETITIONS = 3  # for which `nc_testset` is computed

Half: TypeAlias = tuple[int, ...]  # the numbers of its repetitions


def internal_consistency(assembly: NeuroidAssembly) -> Score:
    """Correlate halves of the repetitions over images, as Brain-Score's `internal_consistency`, but many neuroids at once.

    The repetitions are split into two random halves ten times. Three repetitions have only three different splits: one
    repetition and the average of the other two. The correlation of the halves is corrected for their length
    (Spearman-Brown).

    Parameters
    ----------
    assembly : NeuroidAssembly of shape (n_presentations, n_neuroids) or (n_presentations, n_neuroids, 1)
        Every image with every repetition once. NaN values are left out of the average of their half.

    Returns
    -------
    Score
        Unitless: the median over neuroids, averaged over splits. The attribute `error` is the standard error over splits.
        The attribute `raw` holds the consistency of each neuroid in each split, of shape (n_splits, n_neuroids), with the
        neuroids sorted by `neuroid_id`. It is NaN where a half is constant over images, or is NaN for any image.

    Raises
    ------
    ValueError
        If the assembly has another shape, has no coordinate `repetition`, has fewer than two images or repetitions, or lacks a
        repetition of an image.

    References
    ----------
    `InternalConsistency` in brain-score/vision, brainscore_vision/metrics/internal_consistency/ceiling.py.
    """
    values = as_matrix(assembly)
    rows = presentation_rows(assembly)
    splits = repetition_halves(rows.shape[1])
    consistencies = np.empty((len(splits), values.shape[1]), dtype=np.result_type(values.dtype, np.float32))
    for block, responses in blocks(values, rows):
        by_split = {halves: _consistency(responses, *halves) for halves in set(splits)}
        for number, halves in enumerate(splits):
            consistencies[number, block] = by_split[halves]
    return _as_score(consistencies, assembly)


def expected_consistency(nc_testset: ArrayLike) -> DoubleArray:
    r"""Compute the `internal_consistency` to expect of neuroids with a given noise ceiling.

    Let :math:`s` be the variance of the signal, in units of the variance of the noise of one repetition. The noise ceiling
    of the average of three repetitions is :math:`100 s / (s + 1/3)`. One repetition has the variance :math:`s + 1`, the
    average of the two others has :math:`s + 1/2`, and the two have the covariance :math:`s`. So their correlation is
    :math:`r = s / \sqrt{(s + 1)(s + 1/2)}`, and the corrected correlation is :math:`2r / (1 + r)`.

    Parameters
    ----------
    nc_testset : array of any shape
        Noise ceiling of the average of three repetitions, in percent of the variance, from 0 to below 100.

    Returns
    -------
    array of the same shape
        Unitless, from 0 to below 1. NaN stays NaN.

    References
    ----------
    Allen et al. (2022), Nature Neuroscience, doi:10.1038/s41593-021-00962-x, Methods, "Noise ceiling estimation";
    Spearman (1910), doi:10.1111/j.2044-8295.1910.tb00206.x, and Brown (1910), doi:10.1111/j.2044-8295.1910.tb00207.x, for
    the correction, which Brain-Score applies.
    """
    explained = np.asarray(nc_testset, dtype=np.float64) / 100
    signal = explained / (1 - explained) / N_REPETITIONS
    correlation = signal / np.sqrt((signal + 1) * (signal + 1 / 2))
    return _correct_for_length(correlation)


def repetition_halves(n_repetitions: int) -> list[tuple[Half, Half]]:
    """Return the ten random splits of the repetitions into halves. The second half is larger if the number is odd.

    They equal those of scikit-learn's `ShuffleSplit(10, train_size=0.5, random_state=1)`. A plain install lacks scikit-learn.
    """
    random = np.random.RandomState(SEED)  # noqa: NPY002, because scikit-learn uses this generator
    n_second = n_repetitions - n_repetitions // 2
    splits = []
    for _ in range(N_SPLITS):
        order = [int(repetition) for repetition in random.permutation(n_repetitions)]
        splits.append((tuple(order[n_second:]), tuple(order[:n_second])))
    return splits


def _consistency(responses: FloatingArray, first_half: Half, second_half: Half) -> DoubleArray:
    """Correlate the averages of two halves of the repetitions over images, and correct for their length."""
    with np.errstate(invalid="ignore", divide="ignore"):  # constant neuroids, and neuroids with opposite halves
        first, second = _centre(_average(responses, first_half)), _centre(_average(responses, second_half))
        scale = np.sqrt(np.einsum("ij,ij->j", first, first) * np.einsum("ij,ij->j", second, second))
        return _correct_for_length(np.clip(np.einsum("ij,ij->j", first, second) / scale, -1, 1))


def _correct_for_length(correlation: DoubleArray) -> DoubleArray:
    """Apply the Spearman-Brown correction for halves."""
    corrected: DoubleArray = 2 * correlation / (1 + correlation)
    return corrected


def _average(responses: FloatingArray, half: Half) -> DoubleArray:
    """Average the repetitions that are not NaN, in double precision. The average of NaN alone is NaN."""
    if len(half) == 1:
        return np.asarray(responses[half[0]], dtype=np.float64)
    repetitions = responses[list(half)]
    average: DoubleArray = repetitions.mean(axis=0, dtype=np.float64)
    if np.isnan(average).any():
        average = np.nansum(repetitions, axis=0, dtype=np.float64) / (~np.isnan(repetitions)).sum(axis=0)
    return average


def _centre(averages: DoubleArray) -> DoubleArray:
    """Subtract the mean over images. Constant neuroids become NaN, because their rounding errors would correlate."""
    centred: DoubleArray = averages - averages.mean(axis=0)
    centred[:, (averages == averages[0]).all(axis=0)] = np.nan
    return centred


def _as_score(consistencies: FloatingArray, assembly: NeuroidAssembly) -> Score:
    """Return the consistencies as the Score that Brain-Score would return."""
    order = np.argsort(assembly["neuroid_id"].values, kind="stable")
    coordinates: dict[str, Any] = {
        name: (dims, values[order]) for name, dims, values in walk_coords(assembly) if dims == ("neuroid",)
    }
    coordinates["split"] = np.arange(len(consistencies))
    raw = Score(consistencies[:, order], coords=coordinates, dims=("split", "neuroid"))
    medians = raw.median("neuroid")
    score = Score(medians.mean("split"))
    score.attrs[Score.RAW_VALUES_KEY] = raw
    score.attrs["error"] = medians.std("split") / math.sqrt(len(consistencies))
    return score
