"""Summaries of a release: counts and medians by region, subject, split and raw file."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..facts import subject_name
from ..files import read_file
from ..release import SPLITS, Manifest, ReleaseFolder
from .statistics import ALL, NeuroidStatistics, median, open_assembly

MEDIANS = ("nc_testset", "nc_repetitions", "repetition_r")
VARYING_PART_OF_PATH = re.compile(r"(?<=/)[lr](?=h\.)|(?<=betas_session)\d+|(?<=nsd_)\d{5}")


@dataclass(frozen=True)
class RegionSummary:
    """The neuroids of one region of one subject, or of `ALL` subjects.

    Attributes
    ----------
    n_left, n_right : number of neuroids in each hemisphere
    n_shared : number of neuroids whose vertex is also in another region, by the name of that region; zeros are left out
    n_invalid : number of neuroids with a NaN before NaN values were filled
    medians : over neuroids, of each column in `MEDIANS`
    split_half : as `NeuroidStatistics.split_half_ceiling`
    """

    region: str
    subject: str
    n_neuroids: int
    n_left: int
    n_right: int
    n_shared: dict[str, int]
    n_invalid: int
    medians: dict[str, float]
    split_half: float


@dataclass(frozen=True)
class InvalidSummary:
    """What was filled, dropped or missing in one region of one subject.

    Attributes
    ----------
    n_neuroids : number of neuroids with filled values
    n_filled, n_values : number of filled values and of all values, by split
    n_dropped : number of neuroids that are missing from the numbering
    n_without_ceiling : number of neuroids whose noise ceiling is NaN
    """

    region: str
    subject: str
    n_neuroids: int
    n_filled: dict[str, int]
    n_values: dict[str, int]
    n_dropped: int
    n_without_ceiling: int

    @property
    def is_clean(self) -> bool:
        """Whether nothing was filled, dropped or missing."""
        return not any((self.n_neuroids, *self.n_filled.values(), self.n_dropped, self.n_without_ceiling))


@dataclass(frozen=True)
class RepetitionSummary:
    """The sessions of a subject, and the median correlation over neuroids of each pair in `REPETITION_PAIRS`."""

    subject: str
    n_sessions: int
    correlations: tuple[float, ...]


@dataclass(frozen=True)
class SplitSummary:
    """The images and presentations of a split.

    Attributes
    ----------
    n_per_image : the smallest and the largest number of presentations of an image
    nsd_ids : the first and the last `nsd_id`
    n_bytes : size of the assembly file
    """

    split: str
    n_images: int
    n_presentations: int
    n_per_image: tuple[int, int]
    nsd_ids: tuple[int, int]
    n_bytes: int


@dataclass(frozen=True)
class InputSummary:
    """Raw files whose paths differ only in hemisphere, session or image; `pattern` has a ``*`` where they differ."""

    pattern: str
    n_files: int
    n_bytes: int


def region_names(manifest: Manifest) -> list[str]:
    """Return the names of the regions, in the order of the release."""
    return [region.name for region in manifest.regions]


def subject_names(manifest: Manifest) -> list[str]:
    """Return NSD's names of the subjects, in the order of the release."""
    return [subject_name(subject) for subject in manifest.recipe.subjects]


def read_stimuli(folder: ReleaseFolder) -> dict[str, pd.DataFrame]:
    """Read the stimulus table of each split."""
    return {split: pd.read_csv(io.BytesIO(read_file(folder.stimulus_table_path(split)))) for split in SPLITS}


def summarise_regions(neuroids: NeuroidStatistics, manifest: Manifest) -> list[RegionSummary]:
    """Summarise each region of each subject, and each region of `ALL` subjects."""
    names, subjects = region_names(manifest), subject_names(manifest)
    n_shared = _count_shared_vertices(neuroids.table)
    summaries = []
    for region in names:
        for subject in [*subjects, ALL]:
            rows = neuroids.rows(region=region, subject=subject)
            n_left = int((neuroids.values("hemisphere", rows) == "lh").sum())
            summary = RegionSummary(
                region=region,
                subject=subject,
                n_neuroids=len(rows),
                n_left=n_left,
                n_right=len(rows) - n_left,
                n_shared={name: n for name in names if (n := n_shared[region, name, subject])},
                n_invalid=sum(
                    manifest.nan_counts[name][region].neuroids for name in subjects if subject in (name, ALL)
                ),
                medians={column: neuroids.median(column, rows) for column in MEDIANS},
                split_half=neuroids.split_half_ceiling(rows),
            )
            summaries.append(summary)
    return summaries


def summarise_repetitions(neuroids: NeuroidStatistics, manifest: Manifest) -> list[RepetitionSummary]:
    """Summarise the sessions and the agreement of repetitions of each subject, and of `ALL` subjects."""
    n_sessions = {subject: manifest.sessions[subject] for subject in subject_names(manifest)}
    n_sessions[ALL] = sum(manifest.sessions.values())
    return [
        RepetitionSummary(
            subject, n, tuple(map(median, neuroids.repetition_correlations[:, neuroids.rows(subject=subject)]))
        )
        for subject, n in n_sessions.items()
    ]


def summarise_invalid(neuroids: NeuroidStatistics, manifest: Manifest) -> list[InvalidSummary]:
    """Count what was filled, dropped or missing in each region of each subject."""
    summaries = []
    subjects = subject_names(manifest)
    for region in region_names(manifest):
        n_numbered = max(_count_numbered(neuroids, region, subject) for subject in subjects)
        for subject in subjects:
            rows = neuroids.rows(region=region, subject=subject)
            counts = manifest.nan_counts[subject][region]
            summary = InvalidSummary(
                region=region,
                subject=subject,
                n_neuroids=counts.neuroids,
                n_filled={"train": counts.train, "test": counts.test},
                n_values={split: manifest.shapes[split][0] * len(rows) for split in SPLITS},
                n_dropped=n_numbered - len(rows),
                n_without_ceiling=int(np.isnan(neuroids.values("nc_testset", rows)).sum()),
            )
            summaries.append(summary)
    return summaries


def _count_numbered(neuroids: NeuroidStatistics, region: str, subject: str) -> int:
    """Return one more than the number of the last neuroid; numbers ascend, and those of dropped neuroids are missing."""
    rows = neuroids.rows(region=region, subject=subject)
    return 1 + int(str(neuroids.ids[rows[-1]], "ascii").rpartition("_v")[2]) if len(rows) else 0


def total_invalid(summaries: Sequence[InvalidSummary]) -> InvalidSummary:
    """Add up what was filled, dropped or missing in all regions of all subjects."""
    return InvalidSummary(
        region=ALL,
        subject=ALL,
        n_neuroids=sum(summary.n_neuroids for summary in summaries),
        n_filled={split: sum(summary.n_filled[split] for summary in summaries) for split in SPLITS},
        n_values={split: sum(summary.n_values[split] for summary in summaries) for split in SPLITS},
        n_dropped=sum(summary.n_dropped for summary in summaries),
        n_without_ceiling=sum(summary.n_without_ceiling for summary in summaries),
    )


def summarise_splits(
    folder: ReleaseFolder, manifest: Manifest, stimuli: Mapping[str, pd.DataFrame]
) -> list[SplitSummary]:
    """Count the images and presentations of each split."""
    summaries = []
    for split, stimulus_table in stimuli.items():
        with open_assembly(folder, manifest, split) as assembly:
            _, n_per_image = np.unique(assembly["nsd_id"].values, return_counts=True)
        summary = SplitSummary(
            split=split,
            n_images=len(stimulus_table),
            n_presentations=int(n_per_image.sum()),
            n_per_image=(int(n_per_image.min()), int(n_per_image.max())),
            nsd_ids=(int(stimulus_table["nsd_id"].min()), int(stimulus_table["nsd_id"].max())),
            n_bytes=folder.assembly_path(manifest.name, split).stat().st_size,
        )
        summaries.append(summary)
    return summaries


def summarise_inputs(inputs: Mapping[str, int]) -> list[InputSummary]:
    """Count the raw files and add up their sizes, all hemispheres, sessions and images together.

    Parameters
    ----------
    inputs : the size in bytes of each file, by path
    """
    n_files: Counter[str] = Counter()
    n_bytes: Counter[str] = Counter()
    for path, size in inputs.items():
        pattern = VARYING_PART_OF_PATH.sub("*", path)
        n_files[pattern] += 1
        n_bytes[pattern] += size
    return [InputSummary(pattern, n_files[pattern], n_bytes[pattern]) for pattern in sorted(n_files)]


def _count_shared_vertices(table: pd.DataFrame) -> Counter[tuple[str, str, str]]:
    """Count the vertices that two regions share, by both regions and the subject, which is also `ALL`."""
    vertices = table[["region", "subject", "hemisphere", "vertex_index"]]
    vertices = vertices[vertices.duplicated(["subject", "hemisphere", "vertex_index"], keep=False)]
    pairs = vertices.merge(vertices, on=["subject", "hemisphere", "vertex_index"])
    pairs = pairs[pairs["region_x"] != pairs["region_y"]]
    of_subjects = Counter(zip(pairs["region_x"], pairs["region_y"], pairs["subject"], strict=True))
    of_all = Counter((first, second, ALL) for first, second in zip(pairs["region_x"], pairs["region_y"], strict=True))
    return of_subjects + of_all
