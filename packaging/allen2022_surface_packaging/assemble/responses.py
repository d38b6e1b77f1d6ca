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

from collections.abc import Iterable, Iterator

import numpy as np

from ..arrays import DoubleArray, FloatArray, IntArray
from ..facts import N_REPETITIONS

# Part of the name of every cache entry: raise it whenever a change here or in `sessions` could change a value.
METHOD_VERSION = 1


def standardise_session(blocks: Iterable[FloatArray], *, vertices: IntArray, kept_trials: IntArray) -> FloatArray:
    """Standardise each vertex over all trials of one session, and keep some of the trials.

    The betas are read in one pass. Sums and sums of squares are in double precision and relative to the first trial,
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
    origin, centred, total, total_of_squares = np.zeros((4, len(vertices)))
    n_trials = 0
    with np.errstate(invalid="ignore"):  # NaN and infinite trials are expected, and make the vertex NaN
        for trial, responses in enumerate(_gather(blocks, vertices)):
            if trial in row_of_trial:
                kept[row_of_trial[trial]] = responses
            if trial == 0:
                origin[:] = responses
            np.subtract(responses, origin, out=centred)
            total += centred
            total_of_squares += np.multiply(centred, centred, out=centred)
            n_trials += 1
        centred_mean = total / n_trials
        variance = np.maximum(total_of_squares / n_trials - centred_mean**2, 0)
        mean, scale = origin + centred_mean, 1 / _nonzero(np.sqrt(variance))
        for row in kept:
            row[:] = (row - mean) * scale
    return kept


def _gather(blocks: Iterable[FloatArray], vertices: IntArray) -> Iterator[FloatArray]:
    """Yield the responses of some vertices in each trial, in native byte order; each is valid until the next."""
    gathered = np.empty(len(vertices), dtype=np.uint32)
    for block in blocks:
        # Gathered as integers: numpy copies them unchanged, and only the few that are needed are swapped afterwards.
        for trial in block.view(np.uint32):
            np.take(trial, vertices, out=gathered, mode="clip")
            if not block.dtype.isnative:
                gathered.byteswap(inplace=True)
            yield gathered.view(np.float32)


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
    is_missing = np.isnan(responses)
    n_valid: IntArray | int = responses.shape[1]
    if is_missing.any():  # few vertices, in most releases
        responses = np.where(is_missing, np.float32(0), responses)
        n_valid = responses.shape[1] - is_missing.sum(axis=1)
    with np.errstate(invalid="ignore"):
        averages: FloatArray = (responses.sum(axis=1, dtype=np.float64) / n_valid).astype(np.float32)
    return averages


def standardise_images(averages: FloatArray, test_responses: FloatArray, *, train: IntArray) -> dict[str, FloatArray]:
    """Standardise the train averages and the test repetitions by mean and standard deviation of the averages over images.

    Parameters
    ----------
    averages : array of shape (n_images, n_vertices)
        Averages over repetitions of the images whose statistics are used: all complete images, or those of train.
    test_responses : array of shape (n_test_images, n_repetitions, n_vertices)
        Of these, the first three repetitions are standardised.
    train : array of shape (n_train_images,)
        The rows of `averages` that are train images.

    Returns
    -------
    dict with ``train``, of shape (n_train_images, n_vertices), and ``test``, of shape (n_test_images * 3, n_vertices)
        Unitless. NaN images are left out of the statistics and stay NaN; a standard deviation of 0 counts as 1; what
        float32 cannot hold is infinite.
    """
    mean, deviation = _mean_and_deviation(averages)
    repetitions = test_responses[:, :N_REPETITIONS].reshape(-1, averages.shape[1])
    with np.errstate(over="ignore"):
        return {
            split: ((responses - mean) / deviation).astype(np.float32)
            for split, responses in (("train", averages[train]), ("test", repetitions))
        }


def _mean_and_deviation(averages: FloatArray) -> tuple[DoubleArray, DoubleArray]:
    """Return mean and population standard deviation of each vertex over the images that are not NaN; 1 in place of 0."""
    is_missing = np.isnan(averages)
    n_valid = len(averages) - is_missing.sum(axis=0)
    with np.errstate(invalid="ignore"):  # a vertex that is NaN for every image
        mean = _sum_over_images(np.where(is_missing, np.float32(0), averages)) / n_valid
        deviations = averages - mean
        deviations[is_missing] = 0
        return mean, _nonzero(np.sqrt(_sum_over_images(deviations**2) / n_valid))


def _sum_over_images(values: FloatArray | DoubleArray) -> DoubleArray:
    """Sum over the first axis, image by image, in double precision."""
    total: DoubleArray = values.sum(axis=0, dtype=np.float64)
    if values.shape[1] == 1:  # NumPy adds the values of a single vertex in another order than those of many
        total = np.cumsum(values, axis=0, dtype=np.float64)[-1]
    return total


def _nonzero(deviation: DoubleArray) -> DoubleArray:
    return np.where(deviation == 0, 1, deviation)
