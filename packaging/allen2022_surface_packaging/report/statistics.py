"""The neuroids of a release: their noise ceilings, split-half ceilings, repetition correlations and regions."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Self

import numpy as np
import pandas as pd
import xarray as xr
from brainscore_core.supported_data_standards.brainio.assemblies import NeuroidAssembly

from ..arrays import AnyArray, BoolArray, DoubleArray
from ..nsd.facts import N_REPETITIONS
from ..plugin import import_plugin
from ..progress import follow
from ..release import NEUROID_COORDINATES, Manifest, ReleaseFolder

REPETITION_PAIRS = tuple(combinations(range(N_REPETITIONS), 2))
ALL = "all"  # stands for all subjects together; in totals, also for all regions


@dataclass(frozen=True, eq=False)
class NeuroidStatistics:
    """The neuroids of a release, and the agreement of their test repetitions.

    Attributes
    ----------
    table : table with a row per neuroid
        The neuroid coordinates of the assembly, and `split_half`, the median of the split-half ceilings over splits.
    split_half_ceilings : array of shape (n_splits, n_neuroids)
        Unitless; NaN for neuroids whose responses are constant.
    repetition_correlations : array of shape (n_pairs, n_neuroids)
        Pearson's r of each pair in `REPETITION_PAIRS`, over images; NaN for neuroids whose responses are constant.
    """

    table: pd.DataFrame
    split_half_ceilings: DoubleArray
    repetition_correlations: DoubleArray

    def select(self, *, region: str | None = None, subject: str = ALL) -> Self:
        """Return the statistics of the neuroids of one region, of one subject, or of both."""
        rows: BoolArray = np.full(len(self.table), True)
        if region is not None:
            rows &= (self.table["region"] == region).to_numpy()
        if subject != ALL:
            rows &= (self.table["subject"] == subject).to_numpy()
        return type(self)(self.table[rows], self.split_half_ceilings[:, rows], self.repetition_correlations[:, rows])

    @property
    def noise_ceiling(self) -> float:
        """The median noise ceiling over neuroids, in percent."""
        return median(self.table["nc_testset"].to_numpy())

    @property
    def split_half_ceiling(self) -> float:
        """The median over neuroids, averaged over splits, like the score of `internal_consistency`. Unitless."""
        medians = _median_over(self.split_half_ceilings, axis=1)
        return float(np.nanmean(medians)) if np.isfinite(medians).any() else np.nan


@dataclass(frozen=True, eq=False)
class CeilingComparison:
    """The neuroids with both ceilings: arrays of shape (n_neuroids,), and their rank correlation (Spearman)."""

    noise_ceilings: DoubleArray
    split_half: DoubleArray
    rank_correlation: float


@dataclass(frozen=True, eq=False)
class RegionMap:
    """The regions of subjects whose regions consist of the same vertices.

    Attributes
    ----------
    vertices : table with the columns `hemisphere`, `vertex_index` and `code`
        The code is the number of the region, or the number of regions for a vertex of several regions.
    """

    subjects: tuple[str, ...]
    vertices: pd.DataFrame


def open_assembly(folder: ReleaseFolder, manifest: Manifest, split: str) -> xr.DataArray:
    """Open the assembly of a split. Its values are read lazily."""
    assembly: xr.DataArray = xr.open_dataarray(folder.assembly_path(manifest.name, split), engine="netcdf4")
    return assembly


def read_neuroids(folder: ReleaseFolder, manifest: Manifest) -> NeuroidStatistics:
    """Read the neuroids of a release, and measure the agreement of their test repetitions.

    One region of one subject is in memory at a time.
    """
    with open_assembly(folder, manifest, "test") as assembly:
        table = pd.DataFrame({name: assembly[name].values for name in NEUROID_COORDINATES})
        split_half, correlations = [], []
        blocks = _region_blocks(table)
        for block in follow(blocks, n_items=len(blocks), title="ceilings", unit="region"):
            responses = NeuroidAssembly(assembly.isel(neuroid=block, time_bin=0).load())
            split_half.append(measure_split_half(responses))
            correlations.append(correlate_repetitions(responses))
    ceilings = np.concatenate(split_half, axis=1)
    table["split_half"] = _median_over(ceilings, axis=0)
    return NeuroidStatistics(table, ceilings, np.concatenate(correlations, axis=1))


def measure_split_half(responses: NeuroidAssembly) -> DoubleArray:
    """Compute the split-half ceilings of neuroids: the `internal_consistency` of each neuroid in each split.

    Parameters
    ----------
    responses : NeuroidAssembly of shape (n_images x n_repetitions, n_neuroids)

    Returns
    -------
    array of shape (n_splits, n_neuroids)
        Unitless, in the order of the assembly; NaN for neuroids that are constant over images.
    """
    raw = import_plugin("ceiling").internal_consistency(responses).attrs["raw"].transpose("split", "neuroid")
    ceilings = np.empty(raw.shape, dtype=np.float64)
    ceilings[:, np.argsort(responses["neuroid_id"].values)] = raw.values[:, np.argsort(raw["neuroid_id"].values)]
    return ceilings


def correlate_repetitions(responses: NeuroidAssembly) -> DoubleArray:
    """Correlate each pair of repetitions over images.

    Parameters
    ----------
    responses : NeuroidAssembly of shape (n_images x n_repetitions, n_neuroids)

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
            scores.append(values / np.linalg.norm(values, axis=0))
    return np.stack([np.einsum("ij,ij->j", scores[first], scores[second]) for first, second in REPETITION_PAIRS])


def compare_ceilings(table: pd.DataFrame) -> CeilingComparison:
    """Compare the noise ceilings of neuroids with their split-half ceilings. Neuroids that lack one are left out."""
    valid = table[np.isfinite(table["nc_testset"]) & np.isfinite(table["split_half"])]
    correlation = valid["nc_testset"].corr(valid["split_half"], method="spearman")
    return CeilingComparison(valid["nc_testset"].to_numpy(), valid["split_half"].to_numpy(), float(correlation))


def expected_curve(highest: float) -> tuple[DoubleArray, DoubleArray]:
    """Return noise ceilings from 0 to `highest` percent, and the split-half ceilings to expect of such neuroids."""
    noise_ceilings = np.linspace(0, min(highest, 99.9), 200)
    return noise_ceilings, import_plugin("ceiling").expected_consistency(noise_ceilings)


def map_regions(table: pd.DataFrame, names: Sequence[str]) -> list[RegionMap]:
    """Number the region of each vertex, once for all subjects whose regions consist of the same vertices."""
    coded = table.assign(code=table["region"].map({name: code for code, name in enumerate(names)}))
    subjects: dict[str, list[str]] = {}
    vertex_tables: dict[str, pd.DataFrame] = {}
    for subject, neuroids in coded.groupby("subject"):
        codes = neuroids.groupby(["hemisphere", "vertex_index"])["code"]
        vertices = codes.agg(code="max", n_regions="nunique").reset_index()
        vertices.loc[vertices["n_regions"] > 1, "code"] = len(names)
        key = vertices.to_csv()
        subjects.setdefault(key, []).append(str(subject))
        vertex_tables[key] = vertices
    return [RegionMap(tuple(subjects[key]), vertices) for key, vertices in vertex_tables.items()]


def highest_on_scale(noise_ceilings: DoubleArray) -> float:
    """Return the end of each scale of noise ceilings: the first multiple of ten above 99 % of the neuroids, in percent."""
    valid = noise_ceilings[np.isfinite(noise_ceilings)]
    return float(max(10, 10 * np.ceil(np.quantile(valid, 0.99) / 10))) if len(valid) else 100.0


def median(values: AnyArray) -> float:
    """Return the median of the values that are not NaN, or NaN if there are none."""
    return float(_median_over(values, axis=0))


def _median_over(values: AnyArray, axis: int) -> DoubleArray:
    """Return the medians over an axis of the values that are not NaN; NaN where there are none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # numpy warns where there are none
        medians: DoubleArray = np.nanmedian(values, axis=axis)
        return medians


def _region_blocks(table: pd.DataFrame) -> list[slice]:
    """Return the rows of each region of each subject, which lie next to each other."""
    groups = table.groupby(["region", "subject"], sort=False).ngroup().to_numpy()
    bounds = [0, *(np.flatnonzero(np.diff(groups)) + 1).tolist(), len(table)]
    return [slice(start, stop) for start, stop in pairwise(bounds)]
