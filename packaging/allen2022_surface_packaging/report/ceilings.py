"""How well the ceilings are known, and whether the noise of repetitions is independent, from a sample of the neuroids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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
    ALL_REGIONS,
    N_NEUROIDS_READ_AT_ONCE,
    REPETITION_PAIRS,
    Neuroids,
    open_assembly,
    region_names,
    subject_names,
)

N_BOOTSTRAPS = 200
FEWEST_BOOTSTRAPS = 50  # an interval is then known to about a tenth of its width
BOOTSTRAPS_OF_ALL_REGIONS = 20_000  # a second or so for a hundred; with more regions, each has fewer
SAMPLE_OF_REGION = 500  # neuroids of a subject: more hardly narrow an interval that comes from few images
SAMPLE_OF_SUBJECT = 2000
SAMPLE_IN_MEMORY = 8000
ERROR_RATE = 0.05  # of all subjects together


def estimate_medians(folder: ReleaseFolder, manifest: Manifest, neuroids: Neuroids) -> pd.DataFrame:
    """Estimate the median of the noise ceilings in each region of each subject, from the test repetitions alone.

    Returns
    -------
    table with the index `region` and `subject`
        As `ceiling_intervals` of the plugin: `corrected_ceiling` and its 95 % interval from `lower` to `upper`, in percent.
    """
    ceiling_intervals = import_plugin("analysis.noise_ceilings").ceiling_intervals
    groups = [neuroids.rows(region, name) for region in region_names(manifest) for name in subject_names(manifest)]
    n_bootstraps = max(FEWEST_BOOTSTRAPS, min(N_BOOTSTRAPS, BOOTSTRAPS_OF_ALL_REGIONS // len(groups)))
    with open_assembly(folder, manifest) as assembly:
        samples = _read_samples(assembly, neuroids, groups, most=SAMPLE_OF_REGION)
        tables = [ceiling_intervals(responses, n_bootstraps=n_bootstraps) for responses in samples]
    estimates: pd.DataFrame = pd.concat(tables).set_index(["region", "subject"])
    return estimates[["corrected_ceiling", "lower", "upper"]]


def measure_shared_noise(folder: ReleaseFolder, manifest: Manifest, neuroids: Neuroids) -> pd.DataFrame:
    """Look for noise that the test repetitions of a subject share.

    Returns
    -------
    table with a row per subject
        As `compare_agreement`; and `largest_difference`, `pairs_lower`, `pairs_upper` and `is_unequal` as
        `repetition_correlations` of the plugin. The intervals hold for all subjects together with 95 % confidence.
    """
    repetition_correlations = import_plugin("analysis.correlations").repetition_correlations
    groups = [neuroids.rows(ALL_REGIONS, name) for name in subject_names(manifest)]
    confidence = 1 - ERROR_RATE / len(groups)
    tables = []
    with open_assembly(folder, manifest) as assembly:
        for responses in _read_samples(assembly, neuroids, groups, most=SAMPLE_OF_SUBJECT):
            pooled = responses.assign_coords(region=("neuroid", np.full(responses.sizes["neuroid"], ALL_REGIONS)))
            pairs = repetition_correlations(pooled, confidence=confidence)
            pairs = pairs.rename(columns={"lower": "pairs_lower", "upper": "pairs_upper"})
            tables.append(compare_agreement(responses, confidence=confidence).merge(pairs, on="subject"))
    return pd.concat(tables, ignore_index=True)


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
    values = responses.values[order].reshape(N_REPETITIONS, -1, responses.shape[1])
    centred = values - values.mean(axis=1, keepdims=True, dtype=np.float64)
    explained = responses["nc_testset"].values / 100
    with np.errstate(invalid="ignore", divide="ignore"):  # constant neuroids, and noise ceilings of 100 %
        scores = centred / np.sqrt(np.mean(centred**2, axis=1, keepdims=True))
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
            {
                "subject": subject,
                "observed": observed,
                "expected": observed - difference,
                "lower": difference - half_width,
                "upper": difference + half_width,
                "is_above": bool(difference > half_width),
            }
        )
    return pd.DataFrame(rows)


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


def _read_samples(
    assembly: xr.DataArray, neuroids: Neuroids, groups: Sequence[IntArray], *, most: int
) -> Iterator[xr.DataArray]:
    """Yield an even sample of at most `most` neuroids of each group, as many groups at a time as fit into memory."""
    samples = [rows[np.linspace(0, len(rows) - 1, min(len(rows), most)).round().astype(np.int64)] for rows in groups]
    n_groups = SAMPLE_IN_MEMORY // max(1, *map(len, samples))
    starts = range(0, len(samples), n_groups)
    for start in follow(starts, n_items=len(starts), title="intervals", unit="block"):
        rows = np.sort(np.concatenate(samples[start : start + n_groups]))
        if len(rows):
            names = ("subject", "region", "nc_testset")
            coordinates = {name: ("neuroid", np.asarray(neuroids.values(name, rows))) for name in names}
            sample = assembly.isel(neuroid=rows).copy(data=_read_neuroids_at(assembly, rows))
            yield sample.assign_coords(coordinates)


def _read_neuroids_at(assembly: xr.DataArray, rows: IntArray) -> FloatArray:
    """Read neuroids in ascending order, block by block: reading them one at a time is slow."""
    values = np.empty((assembly.sizes["presentation"], len(rows)), dtype=np.float32)
    for start in range(int(rows[0]), int(rows[-1]) + 1, N_NEUROIDS_READ_AT_ONCE):
        first, last = np.searchsorted(rows, (start, start + N_NEUROIDS_READ_AT_ONCE))
        if first < last:
            block = assembly.variable[:, start : int(rows[last - 1]) + 1].values
            values[:, first:last] = block[:, rows[first:last] - start]
    return values
