"""The neuroids of a release: their noise ceilings, split-half ceilings, repetition correlations and regions."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
import xarray as xr

from ..arrays import AnyArray, DoubleArray, FloatArray, IntArray
from ..facts import N_REPETITIONS
from ..plugin import import_plugin
from ..progress import follow
from ..release import DIMENSIONS, NEUROID_COORDINATES, Manifest, ReleaseFolder

REPETITION_PAIRS = tuple(combinations(range(N_REPETITIONS), 2))
CATEGORIES = ("subject", "hemisphere", "region")  # coordinates with few different texts
NEUROIDS_IN_MEMORY = 32_768
N_SPLITS = 10  # of `internal_consistency`
EVERY_ROW = slice(None)
ALL = "all"  # stands for all subjects together; in totals, also for all regions


@dataclass(frozen=True, eq=False)
class NeuroidStatistics:
    """The neuroids of a release, and the agreement of their test repetitions.

    Attributes
    ----------
    table : table with a row per neuroid
        The neuroid coordinates of the assembly but `neuroid_id`; `nc_repetitions`, the noise ceiling from the test repetitions alone, in
        percent; `split_half`, the median of the split-half ceilings over splits; and `repetition_r`, the mean of the
        correlations of pairs of repetitions.
    ids : array of shape (n_neuroids,)
        The `neuroid_id` as bytes.
    split_half_ceilings : array of shape (n_splits, n_neuroids)
        Unitless; NaN for neuroids whose responses are constant.
    repetition_correlations : array of shape (n_pairs, n_neuroids)
        Pearson's r of each pair in `REPETITION_PAIRS`, over images; NaN for neuroids whose responses are constant.
    """

    table: pd.DataFrame
    ids: AnyArray
    split_half_ceilings: FloatArray
    repetition_correlations: FloatArray

    def rows(self, *, region: str | None = None, subject: str = ALL) -> IntArray:
        """Return the rows of the neuroids of one region, of one subject, or of both, ascending."""
        return self._rows.get((region, subject), np.empty(0, dtype=np.int64))

    def values(self, column: str, rows: IntArray | slice = EVERY_ROW) -> AnyArray:
        """Return a column of the table as an array."""
        values: AnyArray = self.table[column].iloc[rows].to_numpy()
        return values

    def median(self, column: str, rows: IntArray | slice = EVERY_ROW) -> float:
        """Return the median of a column of the table over neuroids. NaN values are left out."""
        return median(self.values(column, rows))

    def split_half_ceiling(self, rows: IntArray | slice = EVERY_ROW) -> float:
        """Return the median over neuroids, averaged over splits, like the score of `internal_consistency`. Unitless."""
        medians = _median_over(self.split_half_ceilings[:, rows], axis=1)
        return float(np.nanmean(medians)) if np.isfinite(medians).any() else np.nan

    @cached_property
    def _rows(self) -> dict[tuple[str | None, str], IntArray]:
        """The rows of each region of each subject, of each region, of each subject, and of all."""
        groups = cast(
            dict[tuple[str, str], IntArray],
            self.table.groupby(["region", "subject"], sort=False, observed=True).indices,
        )
        parts: dict[tuple[str | None, str], list[IntArray]] = {}
        for (region, subject), rows in groups.items():
            for place in ((region, subject), (region, ALL), (None, subject), (None, ALL)):
                parts.setdefault(place, []).append(rows)
        return {place: np.sort(np.concatenate(rows)) for place, rows in parts.items()}


@dataclass(frozen=True, eq=False)
class CeilingComparison:
    """The neuroids with both ceilings: arrays of shape (n_neuroids,), and their rank correlation (Spearman)."""

    noise_ceilings: DoubleArray
    split_half: DoubleArray
    rank_correlation: float


def open_assembly(folder: ReleaseFolder, manifest: Manifest, split: str) -> xr.DataArray:
    """Open the assembly of a split. Its values are read lazily."""
    assembly: xr.DataArray = xr.open_dataarray(folder.assembly_path(manifest.name, split), engine="netcdf4")
    return assembly


def read_neuroids(folder: ReleaseFolder, manifest: Manifest) -> NeuroidStatistics:
    """Read the neuroids of a release, and measure the agreement of their test repetitions.

    `NEUROIDS_IN_MEMORY` neuroids are in memory at a time.
    """
    table, ids = _read_coordinates(folder.assembly_path(manifest.name, "test"))
    split_half = np.empty((N_SPLITS, len(table)), dtype=np.float32)
    correlations = np.empty((len(REPETITION_PAIRS), len(table)), dtype=np.float32)
    noise_ceilings = np.empty(len(table))
    with open_assembly(folder, manifest, "test") as assembly:
        starts = range(0, len(table), NEUROIDS_IN_MEMORY)
        for start in follow(starts, n_items=len(starts), title="ceilings", unit="block"):
            block = slice(start, min(start + NEUROIDS_IN_MEMORY, len(table)))
            responses = label_responses(assembly.variable[:, block, 0].values, assembly)
            noise_ceilings[block] = import_plugin("analysis.noise_ceilings").repetition_noise_ceilings(responses)
            split_half[:, block] = measure_split_half(responses)
            correlations[:, block] = correlate_repetitions(responses)
    table["nc_repetitions"] = noise_ceilings
    table["split_half"] = _median_over(split_half, axis=0)
    table["repetition_r"] = correlations.mean(axis=0, dtype=np.float64)
    return NeuroidStatistics(table, ids, split_half, correlations)


def label_responses(
    values: AnyArray, assembly: xr.DataArray, neuroids: Mapping[str, AnyArray] | None = None
) -> xr.DataArray:
    """Return values of shape (n_presentations, n_neuroids) with the presentation coordinates of an assembly.

    Neuroids have the given coordinates, and their number as `neuroid_id`. More would take longer than the measurements.
    """
    of_presentations = {
        name: values.values for name, values in assembly.coords.items() if values.dims == DIMENSIONS[:1]
    }
    coordinates = {name: ("presentation", values) for name, values in of_presentations.items()}
    of_neuroids = {"neuroid_id": np.arange(values.shape[1]), **(neuroids or {})}
    coordinates |= {name: ("neuroid", values) for name, values in of_neuroids.items()}
    return xr.DataArray(values, dims=DIMENSIONS[:2], coords=coordinates)


def measure_split_half(responses: xr.DataArray) -> FloatArray:
    """Compute the split-half ceilings of neuroids: the `internal_consistency` of each neuroid in each split.

    Parameters
    ----------
    responses : array of shape (n_images x n_repetitions, n_neuroids)
        The neuroids ascend by `neuroid_id`.

    Returns
    -------
    array of shape (n_splits, n_neuroids)
        Unitless; NaN for neuroids that are constant over images.
    """
    raw = import_plugin("analysis.ceiling").internal_consistency(responses).attrs["raw"]
    ceilings: FloatArray = raw.transpose("split", "neuroid").values
    return ceilings


def correlate_repetitions(responses: xr.DataArray) -> DoubleArray:
    """Correlate each pair of repetitions over images.

    Parameters
    ----------
    responses : array of shape (n_images x n_repetitions, n_neuroids)

    Returns
    -------
    array of shape (n_pairs, n_neuroids)
        Pearson's r, unitless; NaN for neuroids that are constant over images.
    """
    scores = []
    for repetition in range(N_REPETITIONS):
        values = responses.values[responses["repetition"].values == repetition].astype(np.float64)
        values -= values.mean(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            values /= np.sqrt(np.einsum("ij,ij->j", values, values))
        scores.append(values)
    return np.stack([np.einsum("ij,ij->j", scores[first], scores[second]) for first, second in REPETITION_PAIRS])


def _read_coordinates(path: Path) -> tuple[pd.DataFrame, AnyArray]:
    """Read the neuroid coordinates of an assembly, the ids apart. Texts stay bytes as long as they can: there are millions."""
    with xr.open_dataset(path, engine="netcdf4", decode_cf=False) as file:
        columns = {name: _as_texts(file[name].values) for name in NEUROID_COORDINATES}
    ids = columns.pop("neuroid_id")
    categories = {name: _as_categories(columns[name]) for name in CATEGORIES}
    return pd.DataFrame(columns | categories), ids


def _as_texts(values: AnyArray) -> AnyArray:
    """Turn a matrix of characters into an array of bytes; other arrays stay as they are."""
    return np.ascontiguousarray(values).view(f"S{values.shape[1]}")[:, 0] if values.ndim == 2 else values


def _as_categories(texts: AnyArray) -> pd.Series[str]:
    """Number different texts. Equal ones lie next to each other, so only the first of each row of equals is decoded."""
    starts = np.flatnonzero(np.concatenate([[True], texts[1:] != texts[:-1]]))
    firsts = pd.Series(texts[starts].astype(str).astype(object), dtype="category")
    return firsts.repeat(np.diff([*starts, len(texts)]).tolist()).reset_index(drop=True)


def compare_ceilings(noise_ceilings: DoubleArray, split_half: DoubleArray) -> CeilingComparison:
    """Compare the noise ceilings of neuroids with their split-half ceilings. Neuroids that lack one are left out."""
    is_valid = np.isfinite(noise_ceilings) & np.isfinite(split_half)
    noise_ceilings, split_half = noise_ceilings[is_valid], split_half[is_valid]
    ranks = [pd.Series(values).rank() for values in (noise_ceilings, split_half)]
    is_constant = any(len(values) < 2 or values.min() == values.max() for values in ranks)
    return CeilingComparison(noise_ceilings, split_half, np.nan if is_constant else float(ranks[0].corr(ranks[1])))


def expected_curve(highest: float) -> tuple[DoubleArray, DoubleArray]:
    """Return noise ceilings from 0 to `highest` percent, and the split-half ceilings to expect of such neuroids."""
    noise_ceilings = np.linspace(0, min(highest, 99.9), 200)
    return noise_ceilings, import_plugin("analysis.ceiling").expected_consistency(noise_ceilings)


def median(values: AnyArray) -> float:
    """Return the median of the values that are not NaN, or NaN if there are none."""
    return float(_median_over(values, axis=0))


def _median_over(values: AnyArray, axis: int) -> DoubleArray:
    """Return the medians over an axis of the values that are not NaN; NaN where there are none."""
    if values.shape[axis] == 0:
        return np.full(np.delete(values.shape, axis), np.nan)
    medians: DoubleArray = np.asarray(np.median(values, axis=axis), dtype=np.float64)
    is_nan = np.isnan(medians)
    if is_nan.any():  # only these need the slower function
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # numpy warns where all values are NaN
            medians[is_nan] = np.nanmedian(np.moveaxis(values, axis, 0)[:, is_nan], axis=0)
    return medians
