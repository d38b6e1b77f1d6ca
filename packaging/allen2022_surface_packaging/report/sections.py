"""The sections of the report that hold more than tables: each function returns what the template shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from markupsafe import Markup

from ..recipe import CORTEX, published_dataset
from ..release import SPLITS, TIME_BIN, Manifest, ReleaseFolder
from .ceilings import CeilingTables, measure_ceilings
from .charts import Thumbnail, comparison, distribution, positions, thumbnail
from .measures import highest_on_scale
from .statistics import ALL, NeuroidStatistics, compare_ceilings, expected_curve, read_neuroids
from .summaries import (
    read_stimuli,
    region_names,
    subject_names,
    summarise_splits,
)
from .tables import (
    BETAS_MEANINGS,
    Table,
    format_bytes,
    format_count,
    format_estimate,
    format_number,
    join_words,
    split_table,
)

MAX_THUMBNAILS = 450  # per split: enough for all images of the published releases, and few enough for a small page
MOST_NAMED_REGIONS = 8  # in a sentence
ALL_REGIONS = "All regions"


@dataclass(frozen=True, eq=False)
class ReleaseContent:
    """A release, and what the report reads and measures once."""

    folder: ReleaseFolder
    manifest: Manifest
    neuroids: NeuroidStatistics
    stimuli: dict[str, pd.DataFrame]  # by split
    ceilings: CeilingTables


@dataclass(frozen=True)
class Overview:
    """The top of the page. Tiles are pairs of number and label, facts are pairs of term and text."""

    name: str
    description: str
    n_subjects: int
    regions: str
    tiles: list[tuple[str, str]]
    facts: list[tuple[str, str]]


@dataclass(frozen=True)
class SubjectRow:
    """One subject in a panel of a region: numbers as texts, and the distribution of its noise ceilings.

    Attributes
    ----------
    interval : the corrected median of the noise ceilings from the test repetitions and its interval, or nothing
    """

    subject: str
    n_neuroids: str
    distribution: Markup
    noise_ceiling: str
    from_repetitions: str
    interval: str
    split_half: str


@dataclass(frozen=True)
class RegionPanel:
    """A region, or all regions, in detail."""

    name: str
    caption: str
    rows: list[SubjectRow]
    comparison: Markup


@dataclass(frozen=True)
class SplitSection:
    """The images of both splits."""

    splits: Table
    positions: Markup


@dataclass(frozen=True)
class ContactSheet:
    """Thumbnails of the images of a split."""

    split: str
    caption: str
    thumbnails: list[Thumbnail]


def read_content(folder: ReleaseFolder, manifest: Manifest) -> ReleaseContent:
    """Read and measure a release."""
    neuroids = read_neuroids(folder, manifest)
    return ReleaseContent(
        folder, manifest, neuroids, read_stimuli(folder), measure_ceilings(folder, manifest, neuroids)
    )


def overview(release: ReleaseContent) -> Overview:
    """Return the top of the page."""
    manifest = release.manifest
    return Overview(
        name=manifest.name,
        description=manifest.recipe.description,
        n_subjects=len(manifest.recipe.subjects),
        regions=_describe_regions(manifest),
        tiles=_tiles(release),
        facts=list_facts(manifest, release.neuroids, release.stimuli),
    )


def _describe_regions(manifest: Manifest) -> str:
    if [region.atlas for region in manifest.regions] == [CORTEX]:
        return "the whole cortex"
    names = region_names(manifest)
    if len(names) <= MOST_NAMED_REGIONS:
        return join_words(names)
    return f"{format_count(len(names))} regions of {join_words(manifest.recipe.atlases)}"


def _tiles(release: ReleaseContent) -> list[tuple[str, str]]:
    neuroids = release.neuroids
    n_subjects, n_regions = len(release.manifest.recipe.subjects), len(release.manifest.regions)
    return [
        (format_count(n_subjects), "subject" if n_subjects == 1 else "subjects"),
        (format_count(n_regions), "region" if n_regions == 1 else "regions"),
        (format_count(sum(map(len, release.stimuli.values()))), "images"),
        (format_count(len(neuroids.table)), "neuroids"),
        (f"{format_number(neuroids.median('nc_testset'), 1)} %", "median noise ceiling"),
        (format_number(neuroids.split_half_ceiling(), 3), "split-half ceiling (r)"),
    ]


def list_facts(
    manifest: Manifest, neuroids: NeuroidStatistics, stimuli: Mapping[str, pd.DataFrame]
) -> list[tuple[str, str]]:
    """Return the facts about a release, as pairs of a term and a text."""
    recipe, name = manifest.recipe, manifest.name
    identifiers = ", ".join(f"{name}.{split}" for split in SPLITS)
    n_bytes = sum(record.size for record in manifest.files.values())
    shapes = {split: " × ".join(map(format_count, manifest.shapes[split])) for split in SPLITS}
    start, end = (value for values in TIME_BIN.values() for value in values)
    images = ", ".join(f"{format_count(len(table))} {split}" for split, table in stimuli.items())
    return [
        ("Name", name),
        *([("In Brain-Score", identifiers)] if published_dataset(name) else []),
        ("Subjects", ", ".join(subject_names(manifest))),
        (
            "Images",
            f"{images}; {'shared between subjects' if recipe.pool == 'shared' else 'train images are own images'}",
        ),
        ("Neuroids", _count_neuroids(manifest, neuroids)),
        ("Betas", f"{recipe.betas}: {BETAS_MEANINGS.get(recipe.betas, '')}"),
        ("Surface", f"fsaverage, {format_count(manifest.n_vertices)} vertices per hemisphere"),
        *((f"{split.capitalize()} assembly", f"{shape} float32") for split, shape in shapes.items()),
        ("Values", f"unitless: z-scored per session over trials, then per vertex over {recipe.standardize_on} images"),
        ("Time bin", f"{start} to {end} ms, a placeholder that Brain-Score requires"),
        ("Size", f"{format_bytes(n_bytes)} in {format_count(len(manifest.files))} files"),
    ]


def _count_neuroids(manifest: Manifest, neuroids: NeuroidStatistics) -> str:
    counts = neuroids.table["region"].value_counts().to_dict()
    names = region_names(manifest)
    if len(names) <= MOST_NAMED_REGIONS:
        return ", ".join(f"{name} {format_count(counts.get(name, 0))}" for name in names)
    sizes = [counts.get(name, 0) for name in names]
    return f"{format_count(min(sizes))} to {format_count(max(sizes))} in a region"


def region_panels(release: ReleaseContent) -> Iterator[RegionPanel]:
    """Yield a panel of all regions, if there are several, and one of each region."""
    names = region_names(release.manifest)
    highest = noise_ceiling_end(release.neuroids)
    for name in [*([None] if len(names) > 1 else []), *names]:
        yield _region_panel(name, release, highest)


def noise_ceiling_end(neuroids: NeuroidStatistics) -> float:
    """Return the end of the axes of noise ceilings in percent: no neuroid is above it."""
    return min(100.0, highest_on_scale(neuroids.values("nc_testset")))


def _region_panel(region: str | None, release: ReleaseContent, highest: float) -> RegionPanel:
    name = region or ALL_REGIONS
    neuroids, subjects = release.neuroids, subject_names(release.manifest)
    columns = [*subjects, *([ALL] if len(subjects) > 1 else [])]
    rows = neuroids.rows(region=region)
    ceilings = compare_ceilings(neuroids.values("nc_testset", rows), neuroids.values("split_half", rows))
    n_neuroids = format_count(len(ceilings.noise_ceilings))
    correlation = format_number(ceilings.rank_correlation, 2)
    picture = comparison(
        ceilings,
        expected_curve(highest),
        highest=highest,
        alt=(
            f"Split-half ceilings against noise ceilings of {n_neuroids} neuroids in {name}, with the expected curve. "
            f"The colour shows the number of neuroids. Spearman's rank correlation is {correlation}."
        ),
    )
    return RegionPanel(
        name=name,
        caption=f"{name}: {n_neuroids} neuroids, rank correlation {correlation}",
        rows=[_subject_row(release, region, subject, highest) for subject in columns],
        comparison=picture,
    )


def _subject_row(release: ReleaseContent, region: str | None, subject: str, highest: float) -> SubjectRow:
    neuroids = release.neuroids
    rows = neuroids.rows(region=region, subject=subject)
    estimate = release.ceilings.estimate(region or "", subject)
    return SubjectRow(
        subject=subject,
        n_neuroids=format_count(len(rows)),
        distribution=distribution(neuroids.values("nc_testset", rows), highest=highest),
        noise_ceiling=format_number(neuroids.median("nc_testset", rows), 1),
        from_repetitions=format_number(neuroids.median("nc_repetitions", rows), 1),
        interval=format_estimate(*estimate) if estimate else "",
        split_half=format_number(neuroids.split_half_ceiling(rows), 3),
    )


def split_section(release: ReleaseContent) -> SplitSection:
    """Return the table of the splits, and where their images are among those of NSD."""
    counts = join_words([f"{format_count(len(table))} {split}" for split, table in release.stimuli.items()])
    picture = positions(
        {split: table["nsd_id"].to_numpy() for split, table in release.stimuli.items()},
        alt=f"Positions of the {counts} images among the images of NSD, one line per image.",
    )
    return SplitSection(split_table(summarise_splits(release.folder, release.manifest, release.stimuli)), picture)


def contact_sheet(release: ReleaseContent, split: str) -> ContactSheet:
    """Return thumbnails of the images of a split, in the order of the stimulus table: all images, or an even sample."""
    table = release.stimuli[split]
    n_shown = min(len(table), MAX_THUMBNAILS)
    rows = np.linspace(0, len(table) - 1, n_shown).round().astype(int)
    shown = table.iloc[rows]
    thumbnails = [
        thumbnail(release.folder.stimuli_path(split) / file_name, name=stimulus_id)
        for file_name, stimulus_id in zip(shown["image_file_name"], shown["stimulus_id"], strict=True)
    ]
    n_images = format_count(len(table))
    is_sample = n_shown < len(table)
    caption = f"{format_count(n_shown)} of {n_images} images, evenly spaced" if is_sample else f"all {n_images} images"
    return ContactSheet(split, caption, thumbnails)
