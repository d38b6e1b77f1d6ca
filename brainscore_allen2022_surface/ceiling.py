"""Ceilings: how well a model can do, given the noise of the responses."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd
import xarray as xr
from brainscore_core.metrics import Score
from brainscore_core.supported_data_standards.brainio.assemblies import NeuroidAssembly, walk_coords

N_SPLITS = 10  # as Brain-Score's cross-validation, and so the next
SEED = 1
NEUROIDS_IN_MEMORY = 65_536  # of a lazy assembly
NEUROIDS_AT_A_TIME = 2048  # the block fits a processor's cache, and memory stays that of the assembly


def internal_consistency(assembly: NeuroidAssembly) -> Score:
    """Correlate halves of the repetitions over images, as Brain-Score's `internal_consistency`, but all neuroids at once.

    Ten random halves, of which three repetitions have only three different ones: a repetition against the average of the
    other two, corrected for two halves (Spearman-Brown).

    Parameters
    ----------
    assembly : NeuroidAssembly of shape (n_presentations, n_neuroids) or (n_presentations, n_neuroids, 1)
        Every image with every repetition once; in memory or lazy, which is then read a chunk of neuroids at a time. A NaN
        is left out of the average of its half.

    Returns
    -------
    Score
        Unitless: the median over neuroids, averaged over halves. Its attribute `error` is the standard error over halves,
        `raw` the consistency of each, of shape (n_splits, n_neuroids), neuroids in the order of `neuroid_id`; NaN where a
        half is constant over images, or NaN for any.

    Raises
    ------
    ValueError
        If the assembly has another shape, no repetitions, fewer than two images, or not every repetition of each.

    References
    ----------
    `InternalConsistency` in brain-score/vision, brainscore_vision/metrics/internal_consistency/ceiling.py.
    """
    values = _as_matrix(assembly)
    rows = _presentation_rows(assembly)
    splits = repetition_halves(rows.shape[1])
    consistencies = np.empty((len(splits), values.shape[1]), dtype=np.result_type(values.dtype, np.float32))
    for block, responses in _blocks(values, rows):
        found = {halves: _consistency(responses, *halves) for halves in set(splits)}
        for split, halves in enumerate(splits):
            consistencies[split, block] = found[halves]

    order = np.argsort(assembly["neuroid_id"].values, kind="stable")
    coordinates = {
        name: (dims, of_neuroids[order]) for name, dims, of_neuroids in walk_coords(assembly) if dims == ("neuroid",)
    }
    raw = Score(
        consistencies[:, order], coords=coordinates | {"split": np.arange(len(splits))}, dims=("split", "neuroid")
    )
    medians = raw.median("neuroid")
    score = Score(medians.mean("split"))
    score.attrs[Score.RAW_VALUES_KEY] = raw
    score.attrs["error"] = medians.std("split") / math.sqrt(len(splits))
    return score


def noise_ceiling(ncsnr: np.ndarray, n_repetitions: int = 3) -> np.ndarray:
    """Return the noise ceiling of responses averaged over repetitions, in percent of explainable variance.

    Parameters
    ----------
    ncsnr : array
        Noise-ceiling signal-to-noise ratio, unitless: signal over noise standard deviation. NaN stays NaN.

    Raises
    ------
    ValueError
        If there is less than one repetition.

    References
    ----------
    Allen et al. (2022), Methods, "Noise ceiling estimation"; NSD Data Manual, "ncsnr".
    """
    if n_repetitions < 1:
        raise ValueError(f"n_repetitions must be at least 1, but got {n_repetitions}.")
    signal = np.asarray(ncsnr, dtype=np.float64) ** 2
    return 100 * signal / (signal + 1 / n_repetitions)


def repetition_halves(n_repetitions: int) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Return the ten random halves of the repetitions; of an odd number the second half is the larger one.

    They are those of scikit-learn's `ShuffleSplit(10, train_size=0.5, random_state=1)`, which a plain install lacks.
    """
    random = np.random.RandomState(SEED)  # noqa: NPY002, as scikit-learn draws
    n_second = n_repetitions - n_repetitions // 2
    halves = []
    for _ in range(N_SPLITS):
        order = [int(repetition) for repetition in random.permutation(n_repetitions)]
        halves.append((tuple(order[n_second:]), tuple(order[:n_second])))
    return halves


def _as_matrix(assembly: NeuroidAssembly) -> xr.Variable:
    """Return the values as (presentation, neuroid), unread if they are."""
    others = {dim: size for dim, size in assembly.sizes.items() if dim not in ("presentation", "neuroid")}
    if len(assembly.dims) != len(others) + 2 or any(size != 1 for size in others.values()):
        raise ValueError(
            f"The assembly has the dimensions {dict(assembly.sizes)}, expected presentation, neuroid and at most one "
            "time_bin. Select one."
        )
    return assembly.variable.isel(dict.fromkeys(others, 0)).transpose("presentation", "neuroid")


def _presentation_rows(assembly: NeuroidAssembly) -> np.ndarray:
    """Return where each repetition of each image is, of shape (n_images, n_repetitions)."""
    columns = {name: values for name, dims, values in walk_coords(assembly) if dims == ("presentation",)}
    if "repetition" not in columns:
        raise ValueError("The assembly has no coordinate repetition, so there are no halves. Take the test split.")
    table = pd.DataFrame(columns)
    # As Brain-Score does: presentations belong together where they agree in everything but the repetition.
    table["image"] = table.groupby([name for name in columns if name != "repetition"], dropna=False).ngroup()
    repetitions, table["number"] = np.unique(table["repetition"], return_inverse=True)
    n_images = int(table["image"].max()) + 1
    counts = np.zeros((n_images, len(repetitions)), dtype=int)
    np.add.at(counts, (table["image"], table["number"]), 1)
    if len(repetitions) < 2 or n_images < 2:
        raise ValueError(f"The assembly has {len(repetitions)} repetitions of {n_images} images, expected 2 or more.")
    if (counts != 1).any():
        image, number = np.argwhere(counts != 1)[0]
        stimulus_id = table["stimulus_id"][table["image"] == image].iloc[0]
        raise ValueError(
            f"Image {stimulus_id} has {counts[image, number]} presentations with repetition {repetitions[number]} and the "
            "same coordinates, expected 1."
        )
    rows = np.empty_like(counts)
    rows[table["image"], table["number"]] = np.arange(len(table))
    return rows


def _blocks(values: xr.Variable, rows: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield blocks of neuroids, of shape (n_repetitions, n_images, n_neuroids_in_block)."""
    for start, stop in _reads(values):
        read = values[:, start:stop].values
        for first in range(start, stop, NEUROIDS_AT_A_TIME):
            block = slice(first, min(first + NEUROIDS_AT_A_TIME, stop))
            yield block, read[:, block.start - start : block.stop - start][rows.T]


def _reads(values: xr.Variable) -> Iterator[tuple[int, int]]:
    """Yield where to start and stop reading: at the ends of dask's chunks, which are only ever read as a whole.

    A huge chunk is read more than once after all, or it would be in memory twice.
    """
    ends = np.cumsum(values.chunks[1]) if values.chunks else np.array([values.shape[1]])
    start = 0
    while start < ends[-1]:
        n_chunks = max(
            np.searchsorted(ends, start, "right") + 1, np.searchsorted(ends, start + NEUROIDS_AT_A_TIME, "right")
        )
        stop = min(int(ends[n_chunks - 1]), start + NEUROIDS_IN_MEMORY)
        yield start, stop
        start = stop


def _consistency(responses: np.ndarray, first: tuple[int, ...], second: tuple[int, ...]) -> np.ndarray:
    """Correlate the averages of two halves of the repetitions over images, and correct for two halves."""
    with np.errstate(invalid="ignore", divide="ignore"):  # constant neuroids, and those whose halves are opposite
        one, other = _centre(_average(responses, first)), _centre(_average(responses, second))
        scale = np.sqrt(np.einsum("ij,ij->j", one, one) * np.einsum("ij,ij->j", other, other))
        correlation = np.clip(np.einsum("ij,ij->j", one, other) / scale, -1, 1)
        return 2 * correlation / (1 + correlation)


def _average(responses: np.ndarray, repetitions: tuple[int, ...]) -> np.ndarray:
    """Average the repetitions that are not NaN, in double precision; NaN where all are."""
    if len(repetitions) == 1:
        return responses[repetitions[0]].astype(np.float64)
    total = responses[list(repetitions)].sum(axis=0, dtype=np.float64)
    if not np.isnan(total).any():
        return total / len(repetitions)
    half = responses[list(repetitions)]
    return np.nansum(half, axis=0, dtype=np.float64) / (~np.isnan(half)).sum(axis=0)


def _centre(averages: np.ndarray) -> np.ndarray:
    """Take the mean over images away, and make what is constant NaN, whose rounded deviations would correlate."""
    centred = averages - averages.mean(axis=0)
    centred[:, (averages == averages[0]).all(axis=0)] = np.nan
    return centred
