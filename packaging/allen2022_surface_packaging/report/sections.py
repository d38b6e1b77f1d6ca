"""The sections of the report that hold more than tables: each function returns what the template shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..nsd.facts import HEMISPHERES
from ..progress import follow
from ..recipe import published_dataset
from ..release import SPLITS, TIME_BIN, Manifest, ReleaseFolder
from .figures import (
    SHARED_COLOUR,
    SIDES,
    VIEWS,
    Picture,
    cortical_map,
    noise_ceiling_distributions,
    region_colours,
    region_map,
    split_half_against_noise_ceiling,
    split_overview,
    thumbnail,
)
from .statistics import (
    NeuroidStatistics,
    RegionMap,
    compare_ceilings,
    expected_curve,
    highest_on_scale,
    map_regions,
    median,
    read_neuroids,
)
from .summaries import (
    read_stimuli,
    region_names,
    subject_names,
    summarise_repetitions,
    summarise_splits,
)
from .tables import Table, format_bytes, format_count, format_number, join_words, repetition_table, split_table

MAX_THUMBNAILS = 800  # per split: enough for all images of NSD, and few enough for a page of some megabytes
VIEWS_IN_WORDS = f"in {join_words(VIEWS)} view"


@dataclass(frozen=True, eq=False)
class ReleaseContent:
    """A release, and what the report reads and measures once."""

    folder: ReleaseFolder
    manifest: Manifest
    neuroids: NeuroidStatistics
    stimuli: dict[str, pd.DataFrame]  # by split


@dataclass(frozen=True)
class CeilingScale:
    """The scale of all drawings of noise ceilings: its end in percent, and whether a noise ceiling is higher."""

    highest: float
    is_clipped: bool


@dataclass(frozen=True)
class CaptionedPicture:
    """A picture with a caption."""

    caption: str
    picture: Picture


@dataclass(frozen=True)
class CorticalPictures:
    """A picture of each hemisphere, by the name of the hemisphere, with a caption."""

    caption: str
    pictures: dict[str, Picture]


@dataclass(frozen=True)
class Overview:
    """The top of the page. Tiles are pairs of number and label, facts are pairs of term and text."""

    name: str
    n_subjects: int
    regions: str
    tiles: list[tuple[str, str]]
    facts: list[tuple[str, str]]


@dataclass(frozen=True)
class MapSection:
    """The cortical maps. The legend holds pairs of region and colour."""

    legend: list[tuple[str, str]]
    regions: list[CorticalPictures]
    ceilings: list[CorticalPictures]


@dataclass(frozen=True)
class SplitSection:
    """The splits and repetitions."""

    splits: Table
    picture: Picture
    repetitions: Table


@dataclass(frozen=True)
class ContactSheet:
    """Thumbnails of the images of a split."""

    split: str
    caption: str
    pictures: list[Picture]


def read_content(folder: ReleaseFolder, manifest: Manifest) -> ReleaseContent:
    """Read and measure a release. One region of one subject is in memory at a time."""
    return ReleaseContent(folder, manifest, read_neuroids(folder, manifest), read_stimuli(folder))


def ceiling_scale(neuroids: NeuroidStatistics) -> CeilingScale:
    """Choose the scale of noise ceilings, so that at most 1 % of the neuroids are above it."""
    noise_ceilings = neuroids.table["nc_testset"].to_numpy()
    highest = highest_on_scale(noise_ceilings)
    return CeilingScale(highest, is_clipped=bool((noise_ceilings > highest).any()))


def overview(release: ReleaseContent) -> Overview:
    """Return the top of the page."""
    names = region_names(release.manifest)
    n_subjects = len(release.manifest.recipe.subjects)
    return Overview(release.manifest.name, n_subjects, join_words(names), _tiles(release), _facts(release))


def _tiles(release: ReleaseContent) -> list[tuple[str, str]]:
    neuroids = release.neuroids
    return [
        (format_count(len(release.manifest.recipe.subjects)), "subjects"),
        (format_count(sum(map(len, release.stimuli.values()))), "images"),
        (format_count(len(neuroids.table)), "neuroids"),
        (f"{format_number(neuroids.noise_ceiling, 1)} %", "median noise ceiling"),
        (format_number(neuroids.split_half_ceiling, 3), "split-half ceiling (r)"),
    ]


def _facts(release: ReleaseContent) -> list[tuple[str, str]]:
    manifest = release.manifest
    name = manifest.name
    identifiers = ", ".join(f"{name}.{split}" for split in SPLITS)
    n_neuroids = release.neuroids.table["region"].value_counts().to_dict()
    n_bytes = sum(record.size for record in manifest.files.values())
    shapes = {split: " × ".join(map(format_count, manifest.shapes[split])) for split in SPLITS}
    start, end = (value for values in TIME_BIN.values() for value in values)
    return [
        ("Name", name),
        *([("In Brain-Score", identifiers)] if published_dataset(name) else []),
        ("Subjects", ", ".join(subject_names(manifest))),
        ("Images", ", ".join(f"{format_count(len(table))} {split}" for split, table in release.stimuli.items())),
        (
            "Neuroids",
            ", ".join(f"{region} {format_count(n_neuroids.get(region, 0))}" for region in region_names(manifest)),
        ),
        ("Surface", f"fsaverage, {format_count(manifest.n_vertices)} vertices per hemisphere"),
        *((f"{split.capitalize()} assembly", f"{shape} float32") for split, shape in shapes.items()),
        ("Values", "unitless: z-scored per session over trials, then per vertex over images"),
        ("Time bin", f"{start} to {end} ms, a placeholder that Brain-Score requires"),
        ("Size", f"{format_bytes(n_bytes)} in {format_count(len(manifest.files))} files"),
    ]


def distributions(release: ReleaseContent, scale: CeilingScale) -> Iterator[CaptionedPicture]:
    """Yield the distributions of the noise ceilings in each region."""
    for region in region_names(release.manifest):
        table = release.neuroids.select(region=region).table
        ceilings = {str(subject): neuroids["nc_testset"].to_numpy() for subject, neuroids in table.groupby("subject")}
        medians = ", ".join(f"{subject} {format_number(median(values), 1)} %" for subject, values in ceilings.items())
        alt = f"Distributions of the noise ceilings in {region}, one row per subject. Medians: {medians}."
        yield CaptionedPicture(region, noise_ceiling_distributions(ceilings, highest=scale.highest, alt=alt))


def comparisons(release: ReleaseContent, scale: CeilingScale) -> Iterator[CaptionedPicture]:
    """Yield the comparison of split-half ceilings and noise ceilings in each region."""
    for region in region_names(release.manifest):
        ceilings = compare_ceilings(release.neuroids.select(region=region).table)
        n_neuroids = format_count(len(ceilings.noise_ceilings))
        correlation = format_number(ceilings.rank_correlation, 2)
        picture = split_half_against_noise_ceiling(
            ceilings.noise_ceilings,
            ceilings.split_half,
            expected_curve(scale.highest),
            highest=scale.highest,
            alt=(
                f"Split-half ceilings against noise ceilings of {n_neuroids} neuroids in {region}, with the expected "
                f"curve. The colour shows the number of neuroids. Spearman's rank correlation is {correlation}."
            ),
        )
        yield CaptionedPicture(f"{region}: {n_neuroids} neuroids, rank correlation {correlation}", picture)


def map_section(release: ReleaseContent, scale: CeilingScale) -> MapSection:
    """Return the maps of regions and ceilings. Only a release of all vertices of fsaverage has maps."""
    names = region_names(release.manifest)
    legend = list(zip(names, region_colours(len(names)), strict=True))
    regions = [_region_pictures(drawn, names) for drawn in map_regions(release.neuroids.table, names)]
    return MapSection(legend, regions, list(_ceiling_pictures(release, scale)))


def _region_pictures(region_vertices: RegionMap, names: Sequence[str]) -> CorticalPictures:
    pictures = {}
    for hemisphere in HEMISPHERES:
        vertices = region_vertices.vertices[region_vertices.vertices["hemisphere"] == hemisphere]
        codes = vertices["code"].to_numpy(dtype=np.float64)
        counts = [
            f"{name} {format_count(int((codes == code).sum()))}"
            for code, name in enumerate([*names, "more than one region"])
        ]
        pictures[hemisphere] = region_map(
            codes,
            vertices["vertex_index"].to_numpy(),
            hemisphere,
            colours=[*region_colours(len(names)), SHARED_COLOUR],
            alt=(
                f"Map of the regions on the inflated {SIDES[hemisphere]} hemisphere, {VIEWS_IN_WORDS}. "
                f"Numbers of vertices: {', '.join(counts)}."
            ),
        )
    return CorticalPictures(join_words(region_vertices.subjects), pictures)


def _ceiling_pictures(release: ReleaseContent, scale: CeilingScale) -> Iterator[CorticalPictures]:
    subjects = subject_names(release.manifest)
    for subject in follow(subjects, n_items=len(subjects), title="maps", unit="subject"):
        table = release.neuroids.select(subject=subject).table
        noise_ceilings, split_half = {}, {}
        for hemisphere in HEMISPHERES:
            neuroids = table[table["hemisphere"] == hemisphere]
            noise_ceilings[hemisphere] = _noise_ceiling_picture(neuroids, subject, hemisphere, scale)
            split_half[hemisphere] = _split_half_picture(neuroids, subject, hemisphere)
        yield CorticalPictures(f"{subject}, noise ceiling", noise_ceilings)
        yield CorticalPictures(f"{subject}, split-half ceiling", split_half)


def _noise_ceiling_picture(neuroids: pd.DataFrame, subject: str, hemisphere: str, scale: CeilingScale) -> Picture:
    values = neuroids["nc_testset"].to_numpy()
    alt = (
        f"Map of the noise ceiling of {subject} on the inflated {SIDES[hemisphere]} hemisphere, {VIEWS_IN_WORDS}. "
        f"The median over neuroids is {format_number(median(values), 1)} %."
    )
    limits = (0, scale.highest)
    return cortical_map(values, neuroids["vertex_index"].to_numpy(), hemisphere, limits=limits, alt=alt)


def _split_half_picture(neuroids: pd.DataFrame, subject: str, hemisphere: str) -> Picture:
    values = neuroids["split_half"].to_numpy()
    alt = (
        f"Map of the split-half ceiling of {subject} on the inflated {SIDES[hemisphere]} hemisphere, {VIEWS_IN_WORDS}. "
        f"The median over neuroids is {format_number(median(values), 3)}."
    )
    return cortical_map(values, neuroids["vertex_index"].to_numpy(), hemisphere, limits=(0, 1), alt=alt)


def split_section(release: ReleaseContent) -> SplitSection:
    """Return the tables and the picture of the splits and repetitions."""
    counts = join_words([f"{format_count(len(table))} {split}" for split, table in release.stimuli.items()])
    picture = split_overview(
        {split: table["nsd_id"].to_numpy() for split, table in release.stimuli.items()},
        alt=f"Positions of the {counts} images among the images of NSD, one line per image.",
    )
    manifest = release.manifest
    repetitions = summarise_repetitions(release.neuroids, manifest)
    return SplitSection(
        split_table(summarise_splits(release.folder, manifest, release.stimuli)),
        picture,
        repetition_table(repetitions, n_trials_per_session=manifest.n_trials_per_session),
    )


def contact_sheet(release: ReleaseContent, split: str) -> ContactSheet:
    """Return thumbnails of the images of a split, in the order of the stimulus table: all images, or an even sample."""
    table = release.stimuli[split]
    n_shown = min(len(table), MAX_THUMBNAILS)
    rows = np.linspace(0, len(table) - 1, n_shown).round().astype(int)
    shown = table.iloc[rows]
    pictures = [
        thumbnail(release.folder.stimuli_path(split) / file_name, alt=stimulus_id)
        for file_name, stimulus_id in zip(shown["image_file_name"], shown["stimulus_id"], strict=True)
    ]
    n_images = format_count(len(table))
    is_sample = n_shown < len(table)
    caption = f"{format_count(n_shown)} of {n_images} images, evenly spaced" if is_sample else f"all {n_images} images"
    return ContactSheet(split, caption, pictures)
