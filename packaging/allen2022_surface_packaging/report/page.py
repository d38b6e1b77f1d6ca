"""The report: a release as one HTML file that needs no other file."""

from __future__ import annotations

import base64
import io
import logging
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ..errors import PackagingError, reading
from ..files import read_file, write_whole
from ..progress import format_bytes
from ..recipe import published_dataset
from ..release import SPLITS, TIME_BIN, Manifest, ReleaseFolder
from . import charts, tables
from .cortex import cortex_maps
from .findings import list_findings
from .methods import NSD_DOI, describe_methods
from .statistics import (
    ALL_REGIONS,
    ALL_SUBJECTS,
    GROUP_MEASURES,
    Measure,
    Neuroids,
    correlate_pairs,
    estimate_ceilings,
    highest_on_scale,
    measure_shared_noise,
    rank_correlation,
    read_neuroids,
    region_names,
    subject_names,
    summarise_groups,
)
from .verdict import read_verdict

logger = logging.getLogger(__name__)

TEMPLATES = files(__package__) / "templates"
GENERATOR = '<meta name="generator" content="allen2022-surface report">'
LONGEST_HEAD = 1000  # bytes before which it stands
MOST_THUMBNAILS = 450  # per split: enough for all images of the published releases, and few enough for a small page


def write_report(release_path: Path, output_path: Path | None = None) -> Path:
    """Write the report of a release, by default `report.html` in its folder, replace an older one, and return its path.

    The same release gives the same bytes.

    Raises
    ------
    PackagingError
        If the folder is not a release, if a file of it is missing or damaged, if the plugin is not installed, or if the
        report cannot be written or would replace another file than a report.
    """
    folder = ReleaseFolder(release_path)
    manifest = Manifest.read(folder)
    path = output_path or folder.report_path
    _require_writable(path, folder)
    _require_files(folder, manifest)
    with reading(folder, "a sound release", f"`allen2022-surface verify {folder}` says what is wrong with it."):
        content = render_page(folder, manifest).encode()
    write_whole(path, [content])
    logger.info("%s: %.1f MB", path, len(content) / 1e6)
    return path


def _require_writable(path: Path, folder: ReleaseFolder) -> None:
    """Raise a `PackagingError` if the report cannot be written, which is better known before the measurements."""
    if path.exists() and not path.is_file():
        raise PackagingError(f"{path} is {'a folder' if path.is_dir() else 'a device'}, expected the file to write.")
    if path != folder.report_path and path.exists():
        with path.open("rb") as file:
            if GENERATOR.encode() not in file.read(LONGEST_HEAD):
                raise PackagingError(f"{path} exists already and is not a report. Choose another --output FILE.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise PackagingError(
            f"{path.parent} cannot be written ({error.strerror}). Write the report elsewhere: "
            f"allen2022-surface report {folder} --output FILE"
        ) from error


def _require_files(folder: ReleaseFolder, manifest: Manifest) -> None:
    for name, record in manifest.files.items():
        path = folder.path / name
        size = path.stat().st_size if path.is_file() else None
        if size != record.size:
            raise PackagingError(
                f"{path} {'is missing' if size is None else f'has {size:,} bytes'}, but {folder.manifest_path.name} lists "
                f"it with {record.size:,} bytes. Build the release again. "
                f"(`allen2022-surface verify {folder}` lists everything that is wrong with it.)"
            )


def render_page(folder: ReleaseFolder, manifest: Manifest) -> str:
    """Measure a release, and return its report as HTML."""
    neuroids = read_neuroids(folder, manifest)
    stimuli = {split: pd.read_csv(io.BytesIO(read_file(folder.stimulus_table_path(split)))) for split in SPLITS}
    groups = summarise_groups(neuroids, manifest).join(estimate_ceilings(neuroids))
    shared_noise = measure_shared_noise(neuroids, manifest)
    pairs = correlate_pairs(neuroids, manifest)
    regions, subjects = region_names(manifest), subject_names(manifest)
    columns = [*subjects, ALL_SUBJECTS] if len(subjects) > 1 else subjects
    panel_names = [ALL_REGIONS, *regions] if len(regions) > 1 else regions
    highest = min(100.0, highest_on_scale(neuroids.values("nc_testset")))  # no noise ceiling is above it
    return (
        _environment()
        .get_template("report.html")
        .render(
            manifest=manifest,
            is_published=published_dataset(manifest.name) is not None,
            regions=regions,
            columns=columns,
            groups=groups,
            verdict=read_verdict(folder, manifest),
            findings=list_findings(groups, pairs, shared_noise),
            cortex=cortex_maps(neuroids, manifest),
            methods=describe_methods(
                manifest,
                n_neuroids=int(groups["n_neuroids"][ALL_REGIONS, ALL_SUBJECTS]),
                percent_filled=float(groups["percent_filled"][ALL_REGIONS, ALL_SUBJECTS]),
            ),
            heat_measures=[_heat_measure(groups, regions, columns, measure) for measure in GROUP_MEASURES],
            panels=[
                _panel(name, groups.loc[[name]].droplevel("region").loc[columns], neuroids, highest)
                for name in panel_names
            ],
            highest=highest,
            sheets=[_contact_sheet(folder, split, stimuli) for split in SPLITS],
            tables={
                "region": tables.region_table(groups),
                "repetition": tables.repetition_table(pairs, manifest),
                "shared-noise": tables.shared_noise_table(shared_noise),
                "split": tables.split_table(folder, manifest, stimuli),
                "invalid": tables.invalid_table(groups),
                "option": tables.option_table(manifest),
                "source": tables.source_table(manifest),
                "version": pd.DataFrame(list(manifest.versions.items()), columns=["Package", "Version"]),
                "input": tables.input_table(manifest),
                "file": tables.file_table(folder, manifest),
            },
        )
    )


def _environment() -> Environment:
    """Return the templates, with what they call: `asset` reads a file beside them."""
    environment = Environment(
        loader=PackageLoader(__package__),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": tables.format_count,
        "number": tables.format_number,
        "estimate": tables.format_estimate,
        "size": format_bytes,
        "words": tables.join_words,
        "step": charts.scale_step,
        "digest": lambda text: base64.b64encode(sha256(text.encode()).digest()).decode("ascii"),
    }
    environment.globals |= {
        "generator": Markup(GENERATOR),
        "asset": lambda name: Markup((TEMPLATES / name).read_text(encoding="utf-8")),
        "scale": charts.scale_colours(),
        "first_light_step": charts.FIRST_LIGHT_STEP,
        "plot": charts.PLOT,
        "expected_curve": charts.expected_curve,
        "nsd_doi": NSD_DOI,
        "betas_meanings": tables.BETAS_MEANINGS,
        "time_bin": [value for values in TIME_BIN.values() for value in values],
    }
    return environment


def _heat_measure(groups: pd.DataFrame, regions: list[str], columns: list[str], measure: Measure) -> dict[str, object]:
    """Return a measure of the heat map: its `values` by region and column, None for no value, and `high`, the end of its scale."""
    numbers = {group: round(float(value), measure.n_digits) for group, value in groups[measure.column].items()}
    values = [[numbers[region, subject] for subject in columns] for region in regions]
    return {
        "title": measure.title,
        "unit": measure.unit,
        "digits": measure.n_digits,
        "high": highest_on_scale(np.array(values)),
        "values": [[value if np.isfinite(value) else None for value in row] for row in values],
    }


def _panel(region: str, subjects: pd.DataFrame, neuroids: Neuroids, highest: float) -> dict[str, object]:
    """Return a region in detail: the numbers of `subjects` with their distributions, and all neuroids with both ceilings."""
    rows = neuroids.rows(region, ALL_SUBJECTS)
    noise_ceilings, split_half = (neuroids.values(name, rows) for name in ("nc_testset", "split_half"))
    has_both = np.isfinite(noise_ceilings) & np.isfinite(split_half)
    noise_ceilings, split_half = noise_ceilings[has_both], split_half[has_both]
    ceilings = {name: neuroids.values("nc_testset", neuroids.rows(region, str(name))) for name in subjects.index}
    paths = [charts.distribution_path(values, highest=highest) for values in ceilings.values()]
    return {
        "name": region,
        "n_neuroids": len(noise_ceilings),
        "correlation": rank_correlation(noise_ceilings, split_half),
        "picture": charts.comparison_picture(noise_ceilings, split_half, highest=highest),
        "subjects": subjects.assign(distribution=paths).reset_index().to_dict("records"),
    }


def _contact_sheet(folder: ReleaseFolder, split: str, stimuli: dict[str, pd.DataFrame]) -> dict[str, object]:
    """Return the images of a split: thumbnails of all, or of an even sample, and where they are among those of NSD."""
    table = stimuli[split]
    shown = table.iloc[np.linspace(0, len(table) - 1, min(len(table), MOST_THUMBNAILS)).round().astype(int)]
    n_images = 1 + max(int(other["nsd_id"].max()) for other in stimuli.values())
    return {
        "split": split,
        "n_images": len(table),
        "thumbnails": charts.thumbnails(shown, folder.stimuli_path(split)),
        "positions": charts.position_path(table["nsd_id"].to_numpy(), n_images),
    }
