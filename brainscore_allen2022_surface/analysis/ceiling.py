"""Noise ceilings: how well the best possible model can predict noisy responses."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
from brainscore_core.metrics import Score
from brainscore_core.supported_data_standards.brainio.assemblies import NeuroidAssembly, walk_coords
from numpy.typing import ArrayLike

from .repetitions import FloatArray, blocks, read_repetitions

N_SPLITS = 10  # as in Brain-Score's cross-validation, like the seed
SEED = 1
N_REPETITIONS = 3  # for which `nc_testset` is computed

Halves: TypeAlias = tuple[tuple[int, ...], tuple[int, ...]]  # the numbers of their repetitions


def internal_consistency(assembly: NeuroidAssembly) -> Score:
    """Correlate halves of the repetitions over images, as Brain-Score's `internal_consistency`, but many neuroids at once.

    The repetitions are split into two random halves ten times; of three, into one and the average of the other two. The
    correlation of the halves is corrected for their length (Spearman-Brown).

    Parameters
    ----------
    assembly : NeuroidAssembly of shape (n_presentations, n_neuroids) or (n_presentations, n_neuroids, 1)
        Every image with every repetition once. NaN values are left out of the average of their half.

    Returns
    -------
    Score
        Unitless: the median over neuroids, averaged over splits. The attribute `error` is the standard error over splits, and
        `raw` the consistency of each neuroid in each split, of shape (n_splits, n_neuroids), with the neuroids sorted by
        `neuroid_id`. It is NaN where a half is constant over images, or is NaN for any image.

    Raises
    ------
    ValueError
        If the assembly has another shape, no coordinate `repetition`, fewer than two images or repetitions, or lacks one.

    References
    ----------
    `InternalConsistency` in brain-score/vision, brainscore_vision/metrics/internal_consistency/ceiling.py.
    """
    values, rows = read_repetitions(assembly)
    splits = _random_halves(rows.shape[1])
    parts = [{halves: _consistency(part, halves) for halves in set(splits)} for _, part in blocks(values, rows)]
    dtype = np.result_type(values.dtype, np.float32)
    consistencies = np.array([np.concatenate([part[halves] for part in parts]) for halves in splits], dtype=dtype)
    return _as_score(consistencies, assembly)


def expected_consistency(nc_testset: ArrayLike) -> FloatArray:
    r"""Compute the `internal_consistency` to expect of neuroids with a given noise ceiling.

    Let :math:`s` be the variance of the signal, in units of the variance of the noise of one repetition. The noise ceiling is
    :math:`100 s / (s + 1/3)`. One repetition has the variance :math:`s + 1`, the average of the two others :math:`s + 1/2`, and
    their covariance is :math:`s`. So they correlate with :math:`r = s / \sqrt{(s + 1)(s + 1/2)}`, which is corrected to
    :math:`2r / (1 + r)`.

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
    Allen et al. (2022), doi:10.1038/s41593-021-00962-x, Methods, "Noise ceiling estimation"; Spearman (1910),
    doi:10.1111/j.2044-8295.1910.tb00206.x, and Brown (1910), doi:10.1111/j.2044-8295.1910.tb00207.x, for the correction.
    """
    explained = np.asarray(nc_testset, dtype=np.float64) / 100
    signal = explained / (1 - explained) / N_REPETITIONS
    correlation = signal / np.sqrt((signal + 1) * (signal + 1 / 2))
    return _correct_for_length(correlation)


def _random_halves(n_repetitions: int) -> list[Halves]:
    """Return the splits of scikit-learn's `ShuffleSplit(10, train_size=0.5, random_state=1)`. A plain install lacks it."""
    random = np.random.RandomState(SEED)  # noqa: NPY002, because scikit-learn uses this generator
    orders = [random.permutation(n_repetitions).tolist() for _ in range(N_SPLITS)]
    n_second = n_repetitions - n_repetitions // 2
    return [(tuple(sorted(order[n_second:])), tuple(sorted(order[:n_second]))) for order in orders]


def _consistency(responses: FloatArray, halves: Halves) -> FloatArray:
    """Correlate the averages of two halves of the repetitions over images, and correct for their length."""
    with np.errstate(invalid="ignore", divide="ignore"):  # constant neuroids, and neuroids with opposite halves
        first, second = (_centred_average(responses[list(half)]) for half in halves)
        scale = np.sqrt(np.einsum("ij,ij->j", first, first) * np.einsum("ij,ij->j", second, second))
        return _correct_for_length(np.clip(np.einsum("ij,ij->j", first, second) / scale, -1, 1))


def _correct_for_length(correlation: FloatArray) -> FloatArray:
    """Apply the Spearman-Brown correction for halves."""
    return np.asarray(2 * correlation / (1 + correlation))


def _centred_average(repetitions: FloatArray) -> FloatArray:
    """Average the repetitions that are not NaN, and subtract the mean over images. Constant neuroids become NaN."""
    average = repetitions.mean(axis=0, dtype=np.float64)
    if np.isnan(average).any():
        average = np.nansum(repetitions, axis=0, dtype=np.float64) / (~np.isnan(repetitions)).sum(axis=0)
    is_constant = (average == average[0]).all(axis=0)  # their rounding errors would correlate
    return np.where(is_constant, np.nan, average - average.mean(axis=0))


def _as_score(consistencies: FloatArray, assembly: NeuroidAssembly) -> Score:
    """Return the consistencies as the Score that Brain-Score would return."""
    order = np.argsort(assembly["neuroid_id"].values, kind="stable")
    coordinates: dict[str, Any] = {
        name: (dims, values[order]) for name, dims, values in walk_coords(assembly) if dims == ("neuroid",)
    }
    coordinates["split"] = np.arange(len(consistencies))
    raw = Score(consistencies[:, order], coords=coordinates, dims=("split", "neuroid"))
    medians = raw.median("neuroid")
    score = Score(medians.mean("split"))
    score.attrs |= {Score.RAW_VALUES_KEY: raw, "error": medians.std("split") / math.sqrt(len(consistencies))}
    return score
