"""The arithmetic of responses: standardise sessions, average repetitions, standardise over images. Pure functions.

Sums are in double precision. Between two steps, values are in single precision, as in the published procedure. So beside a
trial of 1e12, the other trials of a vertex differ by less than single precision holds: they all become the same value,
and 0 after the standardisation over images. No sum or square of the betas overflows. A value that single precision cannot hold
is infinite here, and counts as NaN in a release.

References
----------
Brain-Score, notebooks 02 and 03 of Allen2022_fmri (surface): `per_rep` and the prepared averages are float32.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from ..arrays import BoolArray, DoubleArray, FloatArray, IntArray
from ..facts import N_REPETITIONS

# Part of the name of every cache entry: raise it whenever a change here or in `sessions` could change a value.
METHOD_VERSION = 1

AnyFloatArray = TypeVar("AnyFloatArray", FloatArray, DoubleArray)


def standardise_session(blocks: Iterable[FloatArray], *, vertices: IntArray, kept_trials: IntArray) -> FloatArray:
    """Standardise each vertex over all trials of one session, and keep some of the trials.

    The data is read in one pass. Sums and sums of squares are in double precision and relative to the first trial,
    which costs no accuracy and makes a constant vertex exactly constant.

    Parameters
    ----------
    blocks : arrays of shape (n_trials_in_block, n_vertices)
        Single-trial response amplitudes in trial order, percent signal change, float32 of either byte order.
    vertices : array of shape (n_read_vertices,)
        The vertices to return.
    kept_trials : array of shape (n_kept_trials,)
        The trials to return, 0-based within the session, ascending.

    Returns
    -------
    array of shape (n_kept_trials, n_read_vertices)
        Unitless, float32: mean 0 and population standard deviation 1 over *all* trials. A constant vertex is 0; a
        vertex with any NaN or infinite trial is NaN throughout.

    References
    ----------
    Allen et al. (2022), Nature Neuroscience, doi:10.1038/s41593-021-00962-x, Extended Data Fig. 8.
    """
    kept = np.empty((len(kept_trials), len(vertices)), dtype=np.float32)
    row_of_trial = {int(trial): row for row, trial in enumerate(kept_trials)}
    sums = _Sums(len(vertices))
    with np.errstate(invalid="ignore"):  # NaN and infinite trials are expected, and make the vertex NaN
        for trial, responses in enumerate(_gather(blocks, vertices)):
            if trial in row_of_trial:
                kept[row_of_trial[trial]] = responses
            sums.add(responses)
        mean, deviation = sums.mean_and_deviation()
        scale = 1 / deviation
        for row in kept:
            row[:] = (row - mean) * scale
    return kept


def _gather(blocks: Iterable[FloatArray], vertices: IntArray) -> Iterable[FloatArray]:
    """Yield the responses of some vertices in each trial, in native byte order; each is valid until the next."""
    gathered = np.empty(len(vertices), dtype=np.uint32)
    responses = gathered.view(np.float32)
    for block in blocks:
        swap = not block.dtype.isnative
        # Gathered as integers: numpy copies them unchanged, and only the few that are needed are swapped afterwards.
        for trial in block.view(np.uint32):
            np.take(trial, vertices, out=gathered, mode="clip")
            if swap:
                gathered.byteswap(inplace=True)
            yield responses


class _Sums:
    """Sums over trials, relative to the first trial, in double precision."""

    def __init__(self, n_vertices: int) -> None:
        self.n_trials = 0
        self.origin = np.zeros(n_vertices)
        self.centred = np.empty(n_vertices)
        self.total = np.zeros(n_vertices)
        self.total_of_squares = np.zeros(n_vertices)

    def add(self, responses: FloatArray) -> None:
        """Add the responses of one trial."""
        if self.n_trials == 0:
            self.origin[:] = responses
        np.subtract(responses, self.origin, out=self.centred)
        self.total += self.centred
        np.multiply(self.centred, self.centred, out=self.centred)
        self.total_of_squares += self.centred
        self.n_trials += 1

    def mean_and_deviation(self) -> tuple[DoubleArray, DoubleArray]:
        """Return mean and population standard deviation over trials; a deviation of 0 is replaced by 1."""
        mean = self.total / self.n_trials
        variance = np.maximum(self.total_of_squares / self.n_trials - mean**2, 0)
        return self.origin + mean, _nonzero(np.sqrt(variance))


def average_repetitions(responses: FloatArray) -> FloatArray:
    """Average over the repetitions that are not NaN, in double precision.

    Parameters
    ----------
    responses : array of shape (n_images, n_repetitions, n_vertices)

    Returns
    -------
    array of shape (n_images, n_vertices)
        NaN where every repetition is NaN.
    """
    total = responses[:, 0].astype(np.float64)
    for repetition in range(1, responses.shape[1]):
        total += responses[:, repetition]
    averages: FloatArray = (total / responses.shape[1]).astype(np.float32)
    incomplete = np.isnan(averages)
    if incomplete.any():  # few vertices, in most releases
        averages[incomplete] = _average_valid(responses.swapaxes(1, 2)[incomplete])
    return averages


def _average_valid(repetitions: FloatArray) -> FloatArray:
    """Average the values that are not NaN in each row of an array of shape (n, n_repetitions)."""
    valid = ~np.isnan(repetitions)
    total = np.zeros(len(repetitions))
    for column, is_valid in zip(repetitions.T, valid.T, strict=True):
        np.add(total, column, out=total, where=is_valid)
    with np.errstate(invalid="ignore"):
        averages: FloatArray = (total / valid.sum(axis=1)).astype(np.float32)
    return averages


@dataclass(frozen=True, eq=False)
class GlobalStatistics:
    """Mean and standard deviation of each vertex over images, each of shape (n_vertices,), unitless."""

    mean: DoubleArray
    deviation: DoubleArray

    @classmethod
    def of(cls, averages: FloatArray) -> GlobalStatistics:
        """Compute them over the images that are not NaN, in double precision.

        Parameters
        ----------
        averages : array of shape (n_images, n_vertices)

        Returns
        -------
        statistics
            A deviation of 0 is replaced by 1. Both are NaN for a vertex that is NaN for every image.
        """
        valid = ~np.isnan(averages)
        if valid.all():  # the same result in fewer passes
            mean = averages.sum(axis=0, dtype=np.float64) / len(averages)
            deviations = averages - mean
            np.multiply(deviations, deviations, out=deviations)
            return cls(mean, _nonzero(np.sqrt(deviations.sum(axis=0) / len(averages))))
        n_valid = valid.sum(axis=0)
        with np.errstate(invalid="ignore"):
            mean = np.where(valid, averages, 0).sum(axis=0, dtype=np.float64) / n_valid
            deviations = np.where(valid, averages - mean, 0)
            return cls(mean, _nonzero(np.sqrt((deviations**2).sum(axis=0) / n_valid)))

    def standardise(self, responses: FloatArray) -> FloatArray:
        """Standardise responses of shape (..., n_vertices); NaN stays NaN, and what float32 cannot hold is infinite."""
        centred = responses - self.mean
        with np.errstate(over="ignore"):
            centred /= self.deviation
            return centred.astype(np.float32)


def standardise_images(
    averages: FloatArray, test_responses: FloatArray, *, train: IntArray, statistics_over: IntArray
) -> dict[str, FloatArray]:
    """Standardise the train averages and the test repetitions by the statistics of the averages.

    Parameters
    ----------
    averages : array of shape (n_images, n_vertices)
        Averages over repetitions of the images of train and of the statistics.
    test_responses : array of shape (n_test_images, n_repetitions, n_vertices)
        Of these, the first three repetitions are standardised.
    train : array of shape (n_train_images,)
        The rows of `averages` that are train images.
    statistics_over : array of rows of `averages`
        The images over which the statistics are computed.

    Returns
    -------
    dict with ``train``, of shape (n_train_images, n_vertices), and ``test``, of shape (n_test_images * 3, n_vertices)
        Unitless; NaN stays NaN, and what float32 cannot hold is infinite.
    """
    statistics = GlobalStatistics.of(averages if len(statistics_over) == len(averages) else averages[statistics_over])
    repetitions = test_responses[:, :N_REPETITIONS].reshape(-1, averages.shape[1])
    return {"train": statistics.standardise(averages[train]), "test": statistics.standardise(repetitions)}


def find_valid_vertices(responses: FloatArray, rows: IntArray, repetitions: IntArray) -> BoolArray:
    """Return which vertices have no NaN in the trials that were shown.

    Parameters
    ----------
    responses : array of shape (n_images, n_repetitions, n_vertices)
    rows, repetitions : arrays of shape (n_trials,)
        The image and the repetition of each trial.

    Returns
    -------
    array of shape (n_vertices,)
    """
    valid: BoolArray = ~np.isnan(responses[rows, repetitions]).any(axis=0)
    return valid


def _nonzero(deviation: DoubleArray) -> DoubleArray:
    return np.where(deviation == 0, 1, deviation)
