"""The arithmetic on responses: standardise sessions, average repetitions, standardise globally. Arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

# Part of every cache key: raise it whenever a change here or in `sessions` could change a value.
METHOD_VERSION = 1


def standardise_session(blocks: Iterable[np.ndarray], *, vertices: np.ndarray, kept_trials: np.ndarray) -> np.ndarray:
    """Standardise each vertex over all trials of one session, and keep some of the trials.

    One pass: sums and sums of squares are taken in double precision about the first trial, which costs no accuracy and
    makes a constant vertex exactly constant.

    Parameters
    ----------
    blocks : arrays of shape (n_trials_in_block, n_vertices)
        Single-trial response amplitudes in trial order, percent signal change, float32 of either byte order.
    vertices : array of shape (n_read_vertices,)
        The vertices wanted.
    kept_trials : array of shape (n_kept_trials,)
        The trials wanted, 0-based within the session, ascending.

    Returns
    -------
    array of shape (n_kept_trials, n_read_vertices)
        Unitless float32: mean 0 and population standard deviation 1 over *all* trials. A constant vertex is 0; a vertex
        with any NaN trial is NaN throughout.

    References
    ----------
    Allen et al. (2022), Nature Neuroscience, doi:10.1038/s41593-021-00962-x, Extended Data Fig. 8.
    """
    kept = np.empty((len(kept_trials), len(vertices)), dtype=np.float32)
    row_of_trial = {int(trial): row for row, trial in enumerate(kept_trials)}
    gathered = np.empty(len(vertices), dtype=np.uint32)
    responses = gathered.view(np.float32)
    origin = np.zeros(len(vertices))
    centred, total, total_of_squares = np.empty_like(origin), np.zeros_like(origin), np.zeros_like(origin)
    n_trials = 0
    with np.errstate(invalid="ignore"):  # NaN and infinite trials are expected, and make the vertex NaN
        for block in blocks:
            swap = not block.dtype.isnative
            # Gathered as integers: numpy copies them untouched, and the few that are wanted are swapped afterwards.
            for trial in block.view(np.uint32):
                np.take(trial, vertices, out=gathered, mode="clip")
                if swap:
                    gathered.byteswap(inplace=True)
                if n_trials == 0:
                    origin[:] = responses
                if n_trials in row_of_trial:
                    kept[row_of_trial[n_trials]] = responses
                np.subtract(responses, origin, out=centred)
                total += centred
                np.multiply(centred, centred, out=centred)
                total_of_squares += centred
                n_trials += 1
        mean = total / n_trials
        variance = np.maximum(total_of_squares / n_trials - mean**2, 0)
        scale = 1 / _nonzero(np.sqrt(variance))
        offset = origin + mean
        for row in kept:
            row[:] = (row - offset) * scale
    return kept


def average_repetitions(responses: np.ndarray) -> np.ndarray:
    """Average over the repetitions that are not NaN.

    Parameters
    ----------
    responses : array of shape (n_images, n_repetitions, n_vertices)

    Returns
    -------
    array of shape (n_images, n_vertices)
        float32; NaN where every repetition is.
    """
    n_images, n_repetitions, n_vertices = responses.shape
    total, n_valid = np.zeros((n_images, n_vertices)), np.zeros((n_images, n_vertices))
    for repetition in range(n_repetitions):
        valid = ~np.isnan(responses[:, repetition])
        n_valid += valid
        np.add(total, responses[:, repetition], out=total, where=valid)
    with np.errstate(invalid="ignore"):
        return np.divide(total, n_valid, out=total).astype(np.float32)


@dataclass(frozen=True)
class GlobalStatistics:
    """Mean and standard deviation of each vertex over images, each of shape (n_vertices,), unitless."""

    mean: np.ndarray
    deviation: np.ndarray

    @classmethod
    def of(cls, averages: np.ndarray) -> GlobalStatistics:
        """Take them over the images that are not NaN (`averages` has the shape (n_images, n_vertices)).

        A zero deviation counts as 1; a vertex that is NaN for every image stays NaN.
        """
        valid = ~np.isnan(averages)
        n_valid = valid.sum(axis=0)
        with np.errstate(invalid="ignore"):
            mean = np.where(valid, averages, 0).sum(axis=0, dtype=np.float64) / n_valid
            deviations = np.where(valid, averages - mean, 0)
            return cls(mean, _nonzero(np.sqrt((deviations**2).sum(axis=0) / n_valid)))

    def standardise(self, responses: np.ndarray) -> np.ndarray:
        """Standardise responses of shape (..., n_vertices); float32, NaN stays NaN."""
        return ((responses - self.mean) / self.deviation).astype(np.float32)


def _nonzero(deviation: np.ndarray) -> np.ndarray:
    return np.where(deviation == 0, 1, deviation)
