"""How well the ceilings are known, and whether the noise of repetitions is independent, by the functions of the plugin."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import scipy.stats
import xarray as xr

from ..arrays import DoubleArray, FloatArray, IntArray
from ..facts import N_REPETITIONS
from ..plugin import import_plugin
from ..progress import follow
from ..release import Manifest, ReleaseFolder
from .statistics import (
    ALL,
    NEUROIDS_IN_MEMORY,
    REPETITION_PAIRS,
    NeuroidStatistics,
    label_responses,
    open_assembly,
)
from .summaries import region_names, subject_names

N_BOOTSTRAPS = 200
FEWEST_BOOTSTRAPS = 50  # an interval is then known to about a tenth of its width
BOOTSTRAPS_OF_ALL_REGIONS = 20_000  # a second or so for a hundred; with more regions, each has fewer
SAMPLED_NEUROIDS = 500  # of a region of a subject: more hardly narrow an interval that comes from few images
SAMPLED_NEUROIDS_OF_SUBJECT = 2000
SAMPLE_IN_MEMORY = 8192
ERROR_RATE = 0.05  # of all subjects together


@dataclass(frozen=True, eq=False)
class CeilingTables:
    """Noise ceilings from the test repetitions alone, and checks of them, from a sample of the neuroids.

    Attributes
    ----------
    regions : table with a row per region and subject
        As `ceiling_intervals` of the plugin, with 95 % intervals.
    agreement : table with a row per subject
        As `compare_agreement`. The intervals hold for all subjects together with 95 % confidence.
    correlations : table with a row per subject
        As `repetition_correlations` of the plugin, over all regions, with the same confidence.
    """

    regions: pd.DataFrame
    agreement: pd.DataFrame
    correlations: pd.DataFrame

    def estimate(self, region: str, subject: str) -> tuple[float, float, float] | None:
        """Return the corrected median of the noise ceilings and its interval in percent, or None without a neuroid."""
        return self._estimates.get((region, subject))

    @cached_property
    def _estimates(self) -> dict[tuple[str, str], tuple[float, float, float]]:
        names = ("region", "subject", "corrected_ceiling", "lower", "upper")
        columns = (self.regions[name].tolist() for name in names)
        return {(region, subject): (e, lower, upper) for region, subject, e, lower, upper in zip(*columns, strict=True)}


def measure_ceilings(folder: ReleaseFolder, manifest: Manifest, neuroids: NeuroidStatistics) -> CeilingTables:
    """Estimate medians of noise ceilings with intervals, and compare the repetitions."""
    ceiling_intervals = import_plugin("analysis.noise_ceilings").ceiling_intervals
    repetition_correlations = import_plugin("analysis.correlations").repetition_correlations
    subjects = subject_names(manifest)
    confidence = 1 - ERROR_RATE / len(subjects)
    of_regions = [
        _spread(neuroids.rows(region=region, subject=subject), SAMPLED_NEUROIDS)
        for region in region_names(manifest)
        for subject in subjects
    ]
    of_subjects = [_spread(neuroids.rows(subject=subject), SAMPLED_NEUROIDS_OF_SUBJECT) for subject in subjects]
    n_bootstraps = _count_bootstraps(len(of_regions))
    agreement, correlations = [], []
    with open_assembly(folder, manifest, "test") as assembly:
        batches = _read_batches(assembly, neuroids, of_regions)
        intervals = [ceiling_intervals(responses, n_bootstraps=n_bootstraps) for responses in batches]
        for responses in _read_batches(assembly, neuroids, of_subjects):
            agreement.append(compare_agreement(responses, confidence=confidence))
            pooled = responses.assign_coords(region=("neuroid", np.full(responses.sizes["neuroid"], ALL)))
            correlations.append(repetition_correlations(pooled, confidence=confidence))
    return CeilingTables(*(pd.concat(parts, ignore_index=True) for parts in (intervals, agreement, correlations)))


def compare_agreement(responses: xr.DataArray, *, confidence: float) -> pd.DataFrame:
    r"""Compare the correlation of two repetitions with the one that NSD's noise ceiling predicts, for each subject.

    With signal variance :math:`s` in units of the noise variance of one repetition, the noise ceiling of the average of three
    repetitions is :math:`100 s / (s + 1/3)`, and two repetitions with independent noise correlate with :math:`s / (s + 1)`.
    Noise that the test repetitions share, and that NSD's estimate from all images does not contain, raises the correlation. A mean
    over neuroids is compared and no median, because a mean of noisy estimates is not biased.

    Parameters
    ----------
    responses : array of shape (n_images x n_repetitions, n_neuroids)
        With the coordinates `repetition`, `stimulus_id`, `subject` and `nc_testset`.
    confidence : float
        Of the interval, between 0 and 1.

    Returns
    -------
    table with a row per subject
        `subject`; `observed` and `expected`, the correlations as mean over neuroids and pairs; `lower` and `upper`, the interval
        of their difference over images; and `is_above`, whether the whole interval is above 0. Unitless; NaN without
        neuroids that have a noise ceiling and vary over images.

    References
    ----------
    Davison and Hinkley (1997), Bootstrap Methods and their Application, section 2.7, for the variance of linearised statistics.
    """
    order = np.lexsort((responses["stimulus_id"].values, responses["repetition"].values))
    scores = _standardise(responses.values[order].reshape(N_REPETITIONS, -1, responses.shape[1]))
    explained = responses["nc_testset"].values / 100
    with np.errstate(divide="ignore"):
        signal = explained / (1 - explained) / N_REPETITIONS
    expected = np.where(np.isinf(signal), 1, signal / (signal + 1))
    is_valid = np.isfinite(expected) & np.isfinite(scores).all(axis=(0, 1))
    rows = []
    for subject in dict.fromkeys(responses["subject"].values.tolist()):
        kept = is_valid & (responses["subject"].values == subject)
        observed, deviation = _mean_correlation(scores[:, :, kept])
        difference = observed - expected[kept].mean() if kept.any() else np.nan
        half_width = deviation * scipy.stats.t.ppf((1 + confidence) / 2, scores.shape[1] - 1)
        rows.append(
            {"subject": subject, "observed": observed, "expected": observed - difference}
            | {"lower": difference - half_width, "upper": difference + half_width}
            | {"is_above": bool(difference > half_width)}
        )
    return pd.DataFrame(rows)


def _standardise(values: FloatArray) -> DoubleArray:
    """Return z-scores over images of values of shape (n_repetitions, n_images, n_neuroids); NaN where constant."""
    centred = values - values.mean(axis=1, keepdims=True, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        scores: DoubleArray = centred / np.sqrt(np.mean(centred**2, axis=1, keepdims=True))
    return scores


def _mean_correlation(scores: DoubleArray) -> tuple[float, float]:
    """Return the mean correlation over pairs of repetitions and neuroids, and its standard deviation over samples of images."""
    n_images, n_neuroids = scores.shape[1:]
    if not n_neuroids:
        return np.nan, np.nan
    influences = np.zeros(n_images)
    mean = 0.0
    for first, second in REPETITION_PAIRS:
        products = scores[first] * scores[second]
        correlations = products.mean(axis=0)
        mean += float(correlations.mean()) / len(REPETITION_PAIRS)
        products -= correlations * (scores[first] ** 2 + scores[second] ** 2) / 2
        influences += products.mean(axis=1) / len(REPETITION_PAIRS)
    return mean, float(np.sqrt(np.sum(influences**2) / (n_images - 1) / n_images))


def _count_bootstraps(n_groups: int) -> int:
    return max(FEWEST_BOOTSTRAPS, min(N_BOOTSTRAPS, BOOTSTRAPS_OF_ALL_REGIONS // n_groups))


def _spread(rows: IntArray, most: int) -> IntArray:
    """Return rows, or an even sample if there are more than `most`."""
    if len(rows) <= most:
        return rows
    return rows[np.linspace(0, len(rows) - 1, most).round().astype(np.int64)]


def _read_batches(
    assembly: xr.DataArray, neuroids: NeuroidStatistics, groups: Sequence[IntArray]
) -> Iterator[xr.DataArray]:
    """Yield the neuroids of whole groups, as many groups at a time as fit into memory."""
    batches: list[list[IntArray]] = [[]]
    for rows in groups:
        if sum(map(len, batches[-1])) + len(rows) > SAMPLE_IN_MEMORY and batches[-1]:
            batches.append([])
        batches[-1].append(rows)
    for batch in follow(batches, n_items=len(batches), title="intervals", unit="block"):
        rows = np.sort(np.concatenate(batch))
        if len(rows):
            coordinates = {
                name: np.asarray(neuroids.values(name, rows)) for name in ("subject", "region", "nc_testset")
            }
            yield label_responses(_read_values(assembly, rows), assembly, coordinates)


def _read_values(assembly: xr.DataArray, rows: IntArray) -> FloatArray:
    """Read neuroids in ascending order, block by block: reading them one at a time is slow."""
    values = np.empty((assembly.sizes["presentation"], len(rows)), dtype=np.float32)
    for start in range(int(rows[0]), int(rows[-1]) + 1, NEUROIDS_IN_MEMORY):
        first, last = np.searchsorted(rows, (start, start + NEUROIDS_IN_MEMORY))
        if first < last:
            block = assembly.variable[:, start : int(rows[last - 1]) + 1, 0].values
            values[:, first:last] = block[:, rows[first:last] - start]
    return values
