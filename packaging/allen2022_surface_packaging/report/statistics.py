"""The numbers of the report: of every neuroid, and of every region of every subject."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations, product
from typing import NamedTuple, cast

import numpy as np
import pandas as pd
import xarray as xr

from ..arrays import AnyArray, DoubleArray, FloatArray, IntArray
from ..facts import HEMISPHERES, N_REPETITIONS, subject_name
from ..plugin import import_plugin
from ..release import NEUROID_COORDINATES, SPLITS, Manifest, ReleaseFolder

ALL_REGIONS = "All regions"  # no region has a name with a space
ALL_SUBJECTS = "all"
REPETITION_PAIRS = tuple(combinations(range(N_REPETITIONS), 2))
MEDIANS = ("nc_testset", "nc_repetitions", "repetition_r")
ERROR_RATE = 0.05  # of the signs of shared noise, of all subjects together


class Measure(NamedTuple):
    """A number of every neuroid, or of every region of every subject: its column, and how it is written."""

    column: str
    title: str
    unit: str
    n_digits: int  # after the decimal point


NEUROID_MEASURES = (
    Measure("nc_testset", "Noise ceiling", "%", 1),
    Measure("nc_repetitions", "Noise ceiling from test repetitions", "%", 1),
    Measure("split_half", "Split-half ceiling", "r", 3),
    Measure("repetition_r", "Correlation of repetitions", "r", 3),
    Measure("between_subjects", "Correlation with other subjects", "r", 3),
)
GROUP_MEASURES = (
    Measure("nc_testset", "Noise ceiling (median)", "%", 1),
    Measure("nc_repetitions", "Noise ceiling from test repetitions (median)", "%", 1),
    Measure("split_half", "Split-half ceiling", "r", 2),
    Measure("repetition_r", "Correlation of repetitions (median)", "r", 2),
    Measure("n_neuroids", "Neuroids", "", 0),
    Measure("percent_filled", "Filled values", "%", 2),
)


@dataclass(frozen=True, eq=False)
class Neuroids:
    """The neuroids of a release, and how well their test repetitions agree.

    Attributes
    ----------
    responses : test assembly of shape (n_presentations, n_neuroids), in memory
        Neuroids have their number as `neuroid_id`.
    table : table with a row per neuroid
        The neuroid coordinates of the assembly but `neuroid_id`; `nc_repetitions`, the noise ceiling from the test
        repetitions alone, in percent; `split_half`, the median of the split-half ceilings over splits; `repetition_r`, the
        mean of the correlations of pairs of repetitions; `is_copy`, whether an earlier neuroid of the region and subject has
        the same responses; and `between_subjects`, the correlation with the other subjects, if subjects share vertices.
    split_half_ceilings : array of shape (n_splits, n_neuroids)
        Unitless; NaN for neuroids whose responses are constant.
    repetition_correlations : array of shape (n_pairs, n_neuroids)
        Pearson's r of each pair in `REPETITION_PAIRS`, over images; NaN for neuroids whose responses are constant.
    groups : arrays of shape (n_neuroids_in_group,), by region and subject
        The rows, ascending. `ALL_REGIONS` and `ALL_SUBJECTS` are groups too; a group without a neuroid is left out.
    """

    responses: xr.DataArray
    table: pd.DataFrame
    split_half_ceilings: FloatArray
    repetition_correlations: FloatArray
    groups: Mapping[tuple[str, str], IntArray]

    @property
    def measures(self) -> list[Measure]:
        """The measures of `NEUROID_MEASURES` that the neuroids have."""
        return [measure for measure in NEUROID_MEASURES if measure.column in self.table]

    def rows(self, region: str, subject: str) -> IntArray:
        """Return the rows of the neuroids of a region of a subject, ascending."""
        return self.groups.get((region, subject), np.empty(0, dtype=np.int64))

    def values(self, column: str, rows: IntArray | slice = slice(None)) -> AnyArray:
        """Return a column of the table as an array."""
        return np.asarray(self.table[column].array[rows])


def region_names(manifest: Manifest) -> list[str]:
    """Return the names of the regions, in the order of the release."""
    return [region.name for region in manifest.regions]


def subject_names(manifest: Manifest) -> list[str]:
    """Return NSD's names of the subjects, in the order of the release."""
    return [subject_name(subject) for subject in manifest.recipe.subjects]


def read_neuroids(folder: ReleaseFolder, manifest: Manifest) -> Neuroids:
    """Read the neuroids of a release, and measure how well their test repetitions agree."""
    with xr.open_dataarray(folder.assembly_path(manifest.name, "test")) as assembly:
        numbers = np.arange(assembly.sizes["neuroid"])  # texts would take longer to sort
        responses = assembly[:, :, 0].assign_coords(neuroid_id=("neuroid", numbers)).load()
    table = pd.DataFrame({name: responses[name].values for name in NEUROID_COORDINATES if name != "neuroid_id"})
    table = table.astype(dict.fromkeys(["subject", "hemisphere", "region"], "category"))
    consistency = import_plugin("analysis.ceiling").internal_consistency(responses).attrs["raw"]
    split_half = consistency.transpose("split", "neuroid").values
    correlations = _correlate_repetitions(responses)
    table["nc_repetitions"] = import_plugin("analysis.noise_ceilings").repetition_noise_ceilings(responses)
    table["split_half"] = valid_median(split_half, axis=0)
    table["repetition_r"] = correlations.mean(axis=0, dtype=np.float64)
    copied = table[["region", "subject"]].assign(first=import_plugin("analysis.copies").find_copies(responses))
    table["is_copy"] = copied.duplicated()
    between_subjects = import_plugin("analysis.between_subjects").between_subjects(responses)["correlation"]
    if between_subjects.notna().any():
        table["between_subjects"] = between_subjects
    return Neuroids(responses, table, split_half, correlations, _group_rows(table))


def _correlate_repetitions(responses: xr.DataArray) -> FloatArray:
    """Correlate each pair of repetitions over images, of shape (n_pairs, n_neuroids); NaN for constant neuroids."""
    repetitions = import_plugin("analysis.repetitions")
    correlations = np.empty((len(REPETITION_PAIRS), responses.sizes["neuroid"]), dtype=np.float32)
    for block, values in repetitions.blocks(*repetitions.read_repetitions(responses)):
        scores = values - values.mean(axis=1, keepdims=True, dtype=np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            scores /= np.sqrt(np.einsum("rij,rij->rj", scores, scores))[:, None]
        for number, (first, second) in enumerate(REPETITION_PAIRS):
            correlations[number, block] = np.einsum("ij,ij->j", scores[first], scores[second])
    return correlations


def _group_rows(table: pd.DataFrame) -> dict[tuple[str, str], IntArray]:
    by_region = table.groupby(["region", "subject"], sort=False, observed=True)
    parts: dict[tuple[str, str], list[IntArray]] = {}
    for (region, subject), rows in cast(dict[tuple[str, str], IntArray], by_region.indices).items():
        for group in product((region, ALL_REGIONS), (subject, ALL_SUBJECTS)):
            parts.setdefault(group, []).append(rows)
    return {group: np.sort(np.concatenate(rows)) for group, rows in parts.items()}


def summarise_groups(neuroids: Neuroids, manifest: Manifest) -> pd.DataFrame:
    """Summarise each region of each subject, and the totals over regions and subjects.

    Returns
    -------
    table with the index `region` and `subject`, in the order of the release, `ALL_SUBJECTS` and `ALL_REGIONS` last
        `n_neuroids`, `n_left`, `n_right`; `n_copies` within a region; `n_invalid`, the neuroids with a NaN before NaN values were filled;
        `n_filled_train` and `n_filled_test` of `n_values_train` and `n_values_test`, and `percent_filled` of both;
        `n_dropped`, the vertices of the regions without a neuroid; `n_without_ceiling`, those whose noise ceiling is
        NaN; the medians over neuroids of `nc_testset`, `nc_repetitions` (percent) and `repetition_r`; and `split_half`,
        the median over neuroids averaged over splits, like the score of `internal_consistency` (unitless). NaN where a
        group has no valid value. `shared_vertices` says how many vertices are in which other regions, such as ``12 in IT``.
    """
    index = pd.MultiIndex.from_product(
        [[*region_names(manifest), ALL_REGIONS], [*subject_names(manifest), ALL_SUBJECTS]], names=["region", "subject"]
    )
    groups = pd.DataFrame([_summarise(neuroids, manifest, *group) for group in index], index=index)
    shared_vertices = _describe_shared_vertices(neuroids, manifest)
    groups["shared_vertices"] = [shared_vertices.get(group, "0") for group in index]
    return groups


def _summarise(neuroids: Neuroids, manifest: Manifest, region: str, subject: str) -> dict[str, float]:
    """Return the numbers of a region of a subject, or of a total."""
    rows = neuroids.rows(region, subject)
    regions = [one for one in manifest.regions if region in (one.name, ALL_REGIONS)]
    subjects = [name for name in subject_names(manifest) if subject in (name, ALL_SUBJECTS)]
    counts = [manifest.nan_counts[name][one.name] for name, one in product(subjects, regions)]
    n_left = int((neuroids.values("hemisphere", rows) == HEMISPHERES[0]).sum())
    n_filled = {split: sum(getattr(count, split) for count in counts) for split in SPLITS}
    n_values = {split: manifest.shapes[split][0] * len(rows) for split in SPLITS}
    of_splits = valid_median(neuroids.split_half_ceilings[:, rows], axis=1)
    return {
        "n_neuroids": len(rows),
        "n_left": n_left,
        "n_right": len(rows) - n_left,
        "n_copies": int(neuroids.values("is_copy", rows).sum()),
        "n_invalid": sum(count.neuroids for count in counts),
        **{f"n_filled_{split}": n for split, n in n_filled.items()},
        **{f"n_values_{split}": n for split, n in n_values.items()},
        "percent_filled": 100 * sum(n_filled.values()) / sum(n_values.values()) if len(rows) else np.nan,
        "n_dropped": sum(one.n_vertices[name] for name, one in product(subjects, regions)) - len(rows),
        "n_without_ceiling": int(np.isnan(neuroids.values("nc_testset", rows)).sum()),
        **{name: float(valid_median(neuroids.values(name, rows))) for name in MEDIANS},
        "split_half": float(np.nanmean(of_splits)) if np.isfinite(of_splits).any() else np.nan,
    }


def correlate_pairs(neuroids: Neuroids, manifest: Manifest) -> pd.DataFrame:
    """Return the median correlation over neuroids of each pair of repetitions, by subject; the last row is `ALL_SUBJECTS`.

    The columns are those of `REPETITION_PAIRS`.
    """
    subjects = [*subject_names(manifest), ALL_SUBJECTS]
    rows = [neuroids.rows(ALL_REGIONS, subject) for subject in subjects]
    medians = [valid_median(neuroids.repetition_correlations[:, selected], axis=1) for selected in rows]
    return pd.DataFrame(medians, index=pd.Index(subjects, name="subject"), columns=list(map(str, REPETITION_PAIRS)))


def estimate_ceilings(neuroids: Neuroids) -> pd.DataFrame:
    """Estimate the noise ceiling of each region of each subject, from the test repetitions alone.

    Returns
    -------
    table with the index `region` and `subject`
        As `ceiling_intervals` of the plugin: `ceiling` and its 95 % interval from `lower` to `upper`, in percent.
    """
    estimates: pd.DataFrame = import_plugin("analysis.noise_ceilings").ceiling_intervals(neuroids.responses)
    return estimates.set_index(["region", "subject"])[["ceiling", "lower", "upper"]]


def measure_shared_noise(neuroids: Neuroids, manifest: Manifest) -> pd.DataFrame:
    """Look for noise that the test repetitions of a subject share.

    Returns
    -------
    table with a row per subject
        As `ceiling_intervals` and `repetition_correlations` of the plugin, over all regions. With independent noise, each
        of `is_above_nc_testset` and `is_unequal` is true for some subject in at most 5 % of all releases.
    """
    error_rate = ERROR_RATE / len(manifest.recipe.subjects)
    of_subjects = neuroids.responses.assign_coords(region=("neuroid", np.full(len(neuroids.table), ALL_REGIONS)))
    ceilings = import_plugin("analysis.noise_ceilings").ceiling_intervals(of_subjects, confidence=1 - error_rate)
    pairs = import_plugin("analysis.correlations").repetition_correlations(of_subjects, false_alarms=error_rate)
    table: pd.DataFrame = ceilings.merge(pairs, on="subject")
    return table


def _describe_shared_vertices(neuroids: Neuroids, manifest: Manifest) -> dict[tuple[str, str], str]:
    """Say how many vertices are shared with which regions, by region and subject, where any are."""
    vertex = ["subject", "hemisphere", "vertex_index"]
    shared = neuroids.table.loc[neuroids.table.duplicated(vertex, keep=False), ["region", *vertex]]
    shared = shared.astype({"region": object, "subject": object})
    pairs = shared.merge(shared, on=vertex).query("region_x != region_y")
    pairs = pd.concat([pairs, pairs.assign(subject=ALL_SUBJECTS)])
    sizes = Counter(zip(pairs["region_x"], pairs["subject"], pairs["region_y"], strict=True))
    order = region_names(manifest)
    texts: dict[tuple[str, str], list[str]] = {}
    for (region, subject, other), n_vertices in sorted(sizes.items(), key=lambda item: order.index(item[0][2])):
        texts.setdefault((region, subject), []).append(f"{n_vertices:,} in {other}")
    return {group: ", ".join(parts) for group, parts in texts.items()}


def rank_correlation(first: DoubleArray, second: DoubleArray) -> float:
    """Return Spearman's rank correlation, or NaN if one of both has fewer than two different values."""
    ranks = [pd.Series(values).rank() for values in (first, second)]
    is_constant = any(len(values) < 2 or values.min() == values.max() for values in ranks)
    return np.nan if is_constant else float(ranks[0].corr(ranks[1]))


def valid_median(values: AnyArray, axis: int = 0) -> DoubleArray:
    """Return the medians over an axis of the values that are not NaN; NaN where there are none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # numpy warns where there are none
        return np.asarray(np.nanmedian(values, axis=axis), dtype=np.float64)


def highest_on_scale(values: AnyArray, *, quantile: float = 1.0) -> float:
    """Return the end of a scale that starts at 0: a round number above a quantile of the values that are finite.

    It is 1, 2, 5 or another whole number below 10, times a power of ten; 1 if no value is above 0.
    """
    valid = values[np.isfinite(values)]
    highest = float(np.quantile(valid, quantile)) if len(valid) else 0.0
    if highest <= 0:
        return 1.0
    step = 10.0 ** np.floor(np.log10(highest))
    return float(round(np.ceil(highest / step - 1e-9) * step, 10))
