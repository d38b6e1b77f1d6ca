"""The tables of the report, as texts, and how its numbers are written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..files import sha1_of
from ..release import SPLITS, FileRecord, Manifest, ReleaseFolder
from .statistics import ALL, REPETITION_PAIRS
from .summaries import (
    InputSummary,
    InvalidSummary,
    RegionSummary,
    RepetitionSummary,
    SplitSummary,
    total_invalid,
)

MISSING = "–"
BETAS_MEANINGS = {
    "betas_fithrf_GLMdenoise_RR": "fitted hemodynamic response, GLMdenoise and ridge regression (NSD's b3). They share "
    "information between the repetitions of an image, so ceilings from repetitions may be too high.",
    "betas_fithrf": "fitted hemodynamic response (NSD's b2).",
    "betas_assumehrf": "assumed hemodynamic response (NSD's b1).",
}
OPTION_MEANINGS = {
    ("pool", "shared"): "The images that every subject saw three times, split into train and test.",
    ("pool", "own"): "Train: the images that only this subject saw. Test: the shared images that it saw three times.",
    ("standardize_on", "all"): "Each vertex is standardised over the averages of all complete images.",
    ("standardize_on", "train"): "Each vertex is standardised over the averages of the train images alone.",
    ("nan_policy", "zero"): "Values that are not a number are replaced by 0.",
    ("nan_policy", "drop"): "A vertex is left out if any trial that the release needs is not a number.",
    ("image_format", "png"): "Images are PNG (lossless), unless they were copied from an earlier packaging.",
    ("image_format", "jpg"): "Images are JPEG of quality 95 (lossy).",
    ("from_region_assemblies", "True"): "Averages come from prepared region assemblies, repetitions from the betas.",
    ("from_region_assemblies", "False"): "Averages and repetitions come from the single-trial betas.",
    **{("betas", version): f"Single-trial responses with {meaning}" for version, meaning in BETAS_MEANINGS.items()},
}


@dataclass(frozen=True)
class Table:
    """A table of the page.

    Attributes
    ----------
    rows, totals : the cells as texts; totals are the last rows, below a line
    n_heads : number of cells at the start of each row that name the row
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    totals: Sequence[Sequence[str]] = ()
    n_heads: int = 1


def region_table(summaries: Sequence[RegionSummary]) -> Table:
    """Show the neuroids of each region and subject."""
    columns = (
        "Region",
        "Subject",
        "Neuroids",
        "Left",
        "Right",
        "Also in another region",
        "Invalid vertices",
        "Median noise ceiling (%)",
        "From test repetitions (%)",
        "Median r of repetitions",
        "Split-half ceiling (r)",
    )
    rows = [_region_row(summary) for summary in summaries if summary.subject != ALL]
    totals = [_region_row(summary) for summary in summaries if summary.subject == ALL]
    return Table("Neuroids of each region and subject", columns, rows, totals, n_heads=2)


def _region_row(summary: RegionSummary) -> list[str]:
    return [
        summary.region,
        summary.subject,
        format_count(summary.n_neuroids),
        format_count(summary.n_left),
        format_count(summary.n_right),
        ", ".join(f"{format_count(n)} in {region}" for region, n in summary.n_shared.items()) or "0",
        format_count(summary.n_invalid),
        format_number(summary.medians["nc_testset"], 1),
        format_number(summary.medians["nc_repetitions"], 1),
        format_number(summary.medians["repetition_r"], 3),
        format_number(summary.split_half, 3),
    ]


def split_table(summaries: Sequence[SplitSummary]) -> Table:
    """Show the images and presentations of each split."""
    columns = ("Split", "Images", "Presentations per image", "Presentations", "Repetitions", "nsd_id", "Assembly file")
    rows = [
        [
            summary.split,
            format_count(summary.n_images),
            " to ".join(str(n) for n in sorted(set(summary.n_per_image))),
            format_count(summary.n_presentations),
            "averaged" if summary.split == "train" else "separate",
            " to ".join(str(nsd_id) for nsd_id in summary.nsd_ids),
            format_bytes(summary.n_bytes),
        ]
        for summary in summaries
    ]
    return Table("The two splits", columns, rows)


def repetition_table(summaries: Sequence[RepetitionSummary], *, n_trials_per_session: int) -> Table:
    """Show the sessions of each subject, and the agreement of its repetitions."""
    pairs = [f"r of repetitions {first} and {second}" for first, second in REPETITION_PAIRS]
    rows = {
        summary.subject: [
            summary.subject,
            format_count(summary.n_sessions),
            format_count(n_trials_per_session),
            *(format_number(correlation, 3) for correlation in summary.correlations),
        ]
        for summary in summaries
    }
    totals = [rows.pop(ALL)]
    columns = ("Subject", "Sessions", "Trials per session", *pairs)
    return Table("Sessions and repetitions", columns, list(rows.values()), totals)


def shared_noise_table(agreement: pd.DataFrame, correlations: pd.DataFrame) -> Table:
    """Show for each subject whether its repetitions seem to share noise.

    Parameters
    ----------
    agreement, correlations : tables with a row per subject
        As `compare_agreement`, and as `repetition_correlations` of the plugin.
    """
    columns = (
        "Subject",
        "Mean r of repetitions",
        "Expected from NSD's noise ceiling",
        "Interval of the difference",
        "Largest difference of pairs",
        "Its interval",
        "Signs of shared noise",
    )
    rows = []
    for agreed, pairs in zip(agreement.to_dict("records"), correlations.to_dict("records"), strict=True):
        signs = {"r above the expected one": agreed["is_above"], "pairs differ": pairs["is_unequal"]}
        rows.append(
            [
                agreed["subject"],
                format_number(agreed["observed"], 3),
                format_number(agreed["expected"], 3),
                format_range(agreed["lower"], agreed["upper"], 3),
                format_number(pairs["largest_difference"], 3),
                format_range(pairs["lower"], pairs["upper"], 3),
                " and ".join(sign for sign, is_there in signs.items() if is_there) or "none",
            ]
        )
    return Table("Is the noise of repetitions independent?", columns, rows)


def invalid_table(summaries: Sequence[InvalidSummary]) -> Table:
    """Show what was filled, dropped or missing. Regions of subjects without any of these are left out."""
    columns = (
        "Region",
        "Subject",
        "Neuroids with invalid values",
        "Train values filled",
        "Test values filled",
        "Neuroids dropped",
        "Without noise ceiling",
    )
    rows = [_invalid_row(summary) for summary in summaries if not summary.is_clean]
    return Table("Filled, dropped and missing", columns, rows, [_invalid_row(total_invalid(summaries))], n_heads=2)


def _invalid_row(summary: InvalidSummary) -> list[str]:
    return [
        summary.region,
        summary.subject,
        format_count(summary.n_neuroids),
        *(format_share(summary.n_filled[split], summary.n_values[split]) for split in SPLITS),
        format_count(summary.n_dropped),
        format_count(summary.n_without_ceiling),
    ]


def option_table(manifest: Manifest) -> Table:
    """Show what was chosen when the release was built: the recipe, and the options beside it."""
    meanings = {
        "train_fraction": "The share of the shared images that are train images.",
        "split_seed": "The seed of the random split into train and test.",
    }
    rows = [
        (name, value, OPTION_MEANINGS.get((name, value), meanings.get(name, "")))
        for name, value in list_options(manifest)
    ]
    return Table("Recipe and options", ("Option", "Value", "Meaning"), rows)


def list_options(manifest: Manifest) -> list[tuple[str, str]]:
    """Return the names and values of what was chosen when the release was built."""
    recipe = manifest.recipe
    split = [("train_fraction", str(recipe.train_fraction)), ("split_seed", str(recipe.split_seed))]
    return [
        ("betas", recipe.betas),
        ("pool", recipe.pool),
        *(split if recipe.pool == "shared" else []),
        ("standardize_on", recipe.standardize_on),
        ("nan_policy", recipe.nan_policy),
        ("image_format", manifest.image_format),
        ("from_region_assemblies", str(manifest.from_region_assemblies)),
    ]


def source_table(manifest: Manifest) -> Table:
    """Show from which labels of which atlas each region comes."""
    rows = [
        [
            region.name,
            region.atlas,
            ", ".join(map(str, region.labels)) or "every vertex",
            format_count(region.n_vertices),
        ]
        for region in manifest.regions
    ]
    return Table("Regions and their labels", ("Region", "Atlas", "Labels", "Vertices of a subject"), rows)


def version_table(manifest: Manifest) -> Table:
    """Show the versions of the packages that built the release."""
    return Table("Versions", ("Package", "Version"), list(manifest.versions.items()))


def input_table(summaries: Sequence[InputSummary]) -> Table:
    """Show which raw files were read."""
    rows = [[summary.pattern, format_count(summary.n_files), format_bytes(summary.n_bytes)] for summary in summaries]
    n_files, n_bytes = sum(summary.n_files for summary in summaries), sum(summary.n_bytes for summary in summaries)
    total = [ALL, format_count(n_files), format_bytes(n_bytes)]
    return Table("Raw files that were read, by their paths in NSD's bucket", ("Files", "Count", "Size"), rows, [total])


def file_table(folder: ReleaseFolder, manifest: Manifest) -> Table:
    """Show size and SHA-1 of each file of the release, the images excepted."""
    path = folder.manifest_path
    folders_of_images = {folder.stimuli_path(split) for split in SPLITS}
    records = {
        name: record
        for name, record in manifest.files.items()
        if folders_of_images.isdisjoint((folder.path / name).parents)
    }
    records[folder.file_name(path)] = FileRecord(path.stat().st_size, sha1_of(path))
    rows = [[name, format_bytes(record.size), record.sha1] for name, record in records.items()]
    return Table("Files and their SHA-1", ("File", "Size", "SHA-1"), rows)


def format_count(count: int) -> str:
    """Write a count with commas between thousands."""
    return f"{count:,}"


def format_number(value: float, n_digits: int) -> str:
    """Write a number with a fixed number of digits after the point, or a dash if the number is not finite."""
    if not np.isfinite(value):
        return MISSING
    return f"{round(value, n_digits) + 0.0:.{n_digits}f}".replace("-", "−")  # adding 0.0 removes the sign of zero


def format_estimate(value: float, lower: float, upper: float) -> str:
    """Write an estimate with its interval, or a dash if it is unknown."""
    interval = format_range(lower, upper, 0)
    return MISSING if interval == MISSING else f"{format_number(value, 1)} ({interval})"


def format_range(lower: float, upper: float, n_digits: int) -> str:
    """Write both ends of an interval, or a dash if they are not finite."""
    if not np.isfinite(lower + upper):
        return MISSING
    return f"{format_number(lower, n_digits)} to {format_number(upper, n_digits)}"


def format_share(count: int, total: int) -> str:
    """Write a count with its percentage of the total, or only 0 if there are none."""
    return f"{format_count(count)} ({format_number(100 * count / total, 2)} %)" if count else "0"


def format_bytes(size: int) -> str:
    """Write a size in the largest decimal unit, up to GB, in which it is 1 or more."""
    for unit, n_bytes in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= n_bytes:
            return f"{size / n_bytes:,.1f} {unit}"
    return f"{size} bytes"


def join_words(words: Sequence[str]) -> str:
    """Join words with commas, and with ``and`` before the last one."""
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
