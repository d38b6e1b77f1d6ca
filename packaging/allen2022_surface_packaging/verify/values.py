"""The values of a release, computed again from the raw betas: plain numpy in double precision.

Standardised trials and their averages are rounded to single precision, in which the published procedure keeps them. Beside a
trial of 1e12, that leaves nothing of the differences between the others.

This module repeats on purpose what the builder computes, and shares no code with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import xarray

from ..arrays import BoolArray, DoubleArray, IntArray
from ..errors import PackagingError
from .assemblies import read_neuroids
from .expectation import N_REPETITIONS, Expectation
from .raw import local_copy, read_trials, reading


@dataclass(frozen=True, eq=False)
class Block:
    """Some neuroids of one subject and hemisphere, in the rows of a table with the neuroid coordinates."""

    subject: str
    hemisphere: str
    neuroids: pd.DataFrame

    @property
    def vertices(self) -> IntArray:
        """The vertices of the neuroids, ascending. Two regions may share a vertex."""
        vertices: IntArray = np.unique(self.neuroids["vertex_index"].to_numpy())
        return vertices


@dataclass(frozen=True, eq=False)
class RegionValues:
    """The values of some neuroids of one subject and region.

    Attributes
    ----------
    neuroids : table of the neuroids
    by_split : arrays of shape (n_presentations, n_neuroids); unitless, NaN where the raw files have no valid value, or one
        that single precision cannot hold
    has_invalid_trial : array of shape (n_neuroids,)
        Whether a trial (or a prepared average) that the release needs is NaN.
    """

    subject: str
    region: str
    neuroids: pd.DataFrame
    by_split: dict[str, DoubleArray]
    has_invalid_trial: BoolArray


def recompute_values(expected: Expectation, block: Block) -> Iterator[RegionValues]:
    """Compute the values of a block, region by region.

    Raises
    ------
    PackagingError
        If a raw file is missing or damaged, or has another number of trials than the manifest says.
    """
    responses = _read_responses(expected, block)
    for region, neuroids in block.neuroids.groupby("region", sort=False):
        columns = np.searchsorted(block.vertices, neuroids["vertex_index"])
        prepared = None
        if expected.manifest.from_region_assemblies:
            prepared = _read_prepared_averages(expected, str(region), Block(block.subject, block.hemisphere, neuroids))
        by_split, has_invalid_trial = _standardise_images(expected, block.subject, responses[:, :, columns], prepared)
        yield RegionValues(block.subject, str(region), neuroids, by_split, has_invalid_trial)


@dataclass(frozen=True)
class _Source:
    """A trial of a session, and the response that it gives: row of the image and repetition."""

    trial: int
    row: int
    repetition: int


def _read_responses(expected: Expectation, block: Block) -> DoubleArray:
    """Read session-standardised responses to the images, of shape (n_images, n_repetitions, n_vertices).

    They are NaN for repetitions that a subject did not see, and for train images with prepared averages.
    """
    n_repetitions = max(len(trials) for trials in expected.trials[block.subject].values())
    responses = np.full((len(expected.images), n_repetitions, len(block.vertices)), np.nan)
    for session, sources in _list_sources(expected, block.subject).items():
        version = expected.manifest.recipe.betas
        file = expected.tree.betas(int(block.subject[-2:]), block.hemisphere, session, version)
        betas = read_trials(file, block.vertices)
        if len(betas) != expected.manifest.n_trials_per_session:
            n_trials = expected.manifest.n_trials_per_session
            raise PackagingError(
                f"{file} holds {len(betas)} trials, but the manifest says {n_trials}. Download it again."
            )
        standardised = _standardise_session(betas)
        for source in sources:
            responses[source.row, source.repetition] = standardised[source.trial]
    return responses


def list_sessions(expected: Expectation, subject: str) -> list[int]:
    """List the sessions (1-based) with a trial that the release needs, ascending."""
    return sorted(_list_sources(expected, subject))


def _list_sources(expected: Expectation, subject: str) -> dict[int, list[_Source]]:
    """List the trials that the release needs, by session."""
    needed = set(expected.splits["test"] if expected.manifest.from_region_assemblies else expected.images)
    sources: dict[int, list[_Source]] = {}
    for row, nsd_id in enumerate(expected.images):
        for repetition, trial in enumerate(expected.trials[subject][nsd_id]):
            if nsd_id in needed:
                sources.setdefault(trial.session, []).append(_Source(trial.number, row, repetition))
    return sources


def _standardise_session(betas: DoubleArray) -> DoubleArray:
    """Standardise each vertex over the trials of a session, (n_trials, n_vertices). A constant vertex becomes 0."""
    is_constant = (betas == betas[0]).all(axis=0)
    with np.errstate(invalid="ignore"):  # an infinite trial makes the vertex NaN
        mean, deviation = betas.mean(axis=0), betas.std(axis=0)
        # The mean of a constant can differ from the constant in the last bit, and the deviation is then not zero.
        mean = np.where(is_constant, betas[0], mean)
        deviation = np.where(is_constant | (deviation == 0), 1, deviation)
        return _round((betas - mean) / deviation)


def _read_prepared_averages(expected: Expectation, region: str, block: Block) -> DoubleArray:
    """Read the averages of the complete images from a prepared assembly, of shape (n_images, n_neuroids)."""
    file = expected.tree.prepared_assembly(region)
    with reading(file, "a prepared assembly"), local_copy(file) as path:
        averages = _read_block(path, block, expected.images)
    return np.where(np.isfinite(averages), averages, np.nan)


def _read_block(path: Path, block: Block, nsd_ids: list[int]) -> DoubleArray:
    with xarray.open_dataarray(path) as assembly:
        is_of_block = (assembly["subject"].values == block.subject) & (
            assembly["hemisphere"].values == block.hemisphere
        )
        columns = {int(assembly["vertex_index"].values[i]): i for i in np.flatnonzero(is_of_block)}
        rows = {int(nsd_id): i for i, nsd_id in enumerate(assembly["nsd_id"].values)}
        needed_columns = np.array([columns[int(vertex)] for vertex in block.neuroids["vertex_index"]])
        return read_neuroids(assembly, needed_columns)[[rows[nsd_id] for nsd_id in nsd_ids]]


def _standardise_images(
    expected: Expectation, subject: str, responses: DoubleArray, prepared: DoubleArray | None
) -> tuple[dict[str, DoubleArray], BoolArray]:
    """Average responses of shape (n_images, n_repetitions, n_neuroids), and standardise them over images.

    Returns
    -------
    the values of each split, and whether a needed response or prepared average of each neuroid is NaN
    """
    rows = {split: np.searchsorted(expected.images, nsd_ids) for split, nsd_ids in expected.splits.items()}
    if prepared is None:
        averages = _round(_mean_of_valid(responses, axis=1))
        n_shown = [len(expected.trials[subject][nsd_id]) for nsd_id in expected.images]
        shown = np.arange(responses.shape[1]) < np.array(n_shown)[:, None]
        has_invalid_trial = np.isnan(responses[shown]).any(axis=0)
    else:
        averages = prepared
        has_invalid_trial = np.isnan(responses[rows["test"], :N_REPETITIONS]).any(axis=(0, 1))
        has_invalid_trial |= np.isnan(prepared).any(axis=0)
    base = averages[rows["train"]] if expected.manifest.recipe.standardize_on == "train" else averages
    mean = _mean_of_valid(base, axis=0)
    deviation = np.sqrt(_mean_of_valid((base - mean) ** 2, axis=0))
    deviation[deviation == 0] = 1
    test = responses[rows["test"], :N_REPETITIONS].reshape(-1, responses.shape[2])
    by_split = {"train": (averages[rows["train"]] - mean) / deviation, "test": (test - mean) / deviation}
    is_held = {split: np.isfinite(_round(values)) for split, values in by_split.items()}
    return {split: np.where(is_held[split], values, np.nan) for split, values in by_split.items()}, has_invalid_trial


def _mean_of_valid(values: DoubleArray, axis: int) -> DoubleArray:
    """Return the mean of the values that are not NaN; NaN if there are none. numpy's function would warn about that."""
    with np.errstate(invalid="ignore"):
        mean: DoubleArray = np.nansum(values, axis=axis) / (~np.isnan(values)).sum(axis=axis)
    return mean


def _round(values: DoubleArray) -> DoubleArray:
    """Round to single precision; what it cannot hold becomes infinite."""
    with np.errstate(over="ignore"):
        return values.astype(np.float32).astype(np.float64)
