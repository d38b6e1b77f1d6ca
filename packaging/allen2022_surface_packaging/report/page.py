"""The report: a release as one HTML file that needs no other file."""

from __future__ import annotations

import logging
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from ..atomic import write_whole
from ..errors import PackagingError, one_line
from ..nsd.facts import N_VERTICES_OF_FSAVERAGE
from ..release import SPLITS, Manifest, ReleaseFolder
from .figures import SHARED_COLOUR, VIEWS, colour_scale
from .sections import (
    ReleaseContent,
    ceiling_scale,
    comparisons,
    contact_sheet,
    distributions,
    map_section,
    overview,
    read_content,
    split_section,
)
from .summaries import summarise_inputs, summarise_invalid, summarise_regions
from .tables import (
    file_table,
    format_count,
    input_table,
    invalid_table,
    option_table,
    region_table,
    version_table,
)

logger = logging.getLogger(__name__)

TEMPLATE = "report.html"


def write_report(release_path: Path) -> Path:
    """Write `report.html` into a release, replace an older one, and return its path.

    The same release gives the same bytes.

    Raises
    ------
    PackagingError
        If the folder is not a release, if a file of the release is missing or damaged, or if the plugin is not installed.
    """
    folder = ReleaseFolder(release_path)
    manifest = Manifest.read(folder)
    _require_files(folder, manifest)
    try:
        page = render_page(read_content(folder, manifest))
    except (KeyError, ValueError, TypeError, OSError) as error:
        raise PackagingError(
            f"The release {folder} cannot be read ({type(error).__name__}: {one_line(error)}), so it has no report. "
            f"`allen2022-surface verify {folder}` says what is wrong with it."
        ) from error
    path = folder.report_path
    write_whole(path, [page.encode()])
    logger.info("%s: %.1f MB", path, path.stat().st_size / 1e6)
    return path


def render_page(release: ReleaseContent) -> str:
    """Return the report of a release as HTML."""
    folder, manifest, neuroids = release.folder, release.manifest, release.neuroids
    has_maps = manifest.n_vertices == N_VERTICES_OF_FSAVERAGE
    scale = ceiling_scale(neuroids)
    environment = Environment(
        loader=PackageLoader(__package__),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(TEMPLATE).render(
        overview=overview(release),
        simulated=manifest.simulated,
        region_table=region_table(summarise_regions(neuroids, manifest)),
        scale=scale,
        scale_colours=colour_scale(),
        maps=map_section(release, scale) if has_maps else None,
        n_vertices=format_count(manifest.n_vertices),
        n_vertices_of_fsaverage=format_count(N_VERTICES_OF_FSAVERAGE),
        shared_colour=SHARED_COLOUR,
        views=VIEWS,
        distributions=list(distributions(release, scale)),
        comparisons=list(comparisons(release, scale)),
        splits=split_section(release),
        sheets=[contact_sheet(release, split) for split in SPLITS],
        nan_policy=manifest.recipe.nan_policy,
        invalid_table=invalid_table(summarise_invalid(neuroids.table, manifest)),
        option_table=option_table(manifest),
        version_table=version_table(manifest),
        input_table=input_table(summarise_inputs(manifest.inputs)),
        file_table=file_table(folder, manifest),
        manifest_name=folder.manifest_path.name,
    )


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
