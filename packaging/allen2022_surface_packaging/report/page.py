"""The report: a release as one HTML file that needs no other file."""

from __future__ import annotations

import base64
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ..errors import PackagingError, one_line, raise_if_of_machine
from ..files import unreplaced, write_whole
from ..release import SPLITS, UNREADABLE, Manifest, ReleaseFolder
from .colours import ink_on, scale_colours
from .cortex import cortex_content
from .findings import list_findings
from .heatmap import heat_map
from .pair import Pair, compare_pair
from .sections import (
    ReleaseContent,
    contact_sheet,
    list_facts,
    noise_ceiling_end,
    overview,
    read_content,
    region_panels,
    split_section,
)
from .statistics import read_neuroids
from .summaries import read_stimuli, summarise_inputs, summarise_invalid, summarise_regions, summarise_repetitions
from .surface import has_surface
from .tables import (
    file_table,
    input_table,
    invalid_table,
    list_options,
    option_table,
    region_table,
    repetition_table,
    shared_noise_table,
    source_table,
    version_table,
)
from .verification import read_verdict

logger = logging.getLogger(__name__)

TEMPLATES = files(__package__) / "templates"
SCRIPTS = ("page.js", "cortex.js")


def write_report(release_path: Path, other_path: Path | None = None) -> Path:
    """Write `report.html` into a release, replace an older one, and return its path.

    The same release gives the same bytes.

    Parameters
    ----------
    other_path : path, optional
        Another release, whose facts and ceilings the page sets beside those of the release.

    Raises
    ------
    PackagingError
        If a folder is not a release, if a file of a release is missing or damaged, if the release was replaced meanwhile, or if
        the plugin is not installed.
    """
    with unreplaced(release_path) as require_unreplaced:
        folder, manifest = _open_release(release_path)
        with _readable(folder):
            release = read_content(folder, manifest)
        pair = None if other_path is None else _read_pair(release, other_path)
        with _readable(folder):
            page = render_page(release, pair)
        path = folder.report_path
        content = page.encode()
        require_unreplaced()
        write_whole(path, [content])
    logger.info("%s: %.1f MB", path, len(content) / 1e6)
    return path


def _open_release(path: Path) -> tuple[ReleaseFolder, Manifest]:
    folder = ReleaseFolder(path)
    manifest = Manifest.read(folder)
    _require_files(folder, manifest)
    return folder, manifest


@contextmanager
def _readable(folder: ReleaseFolder) -> Iterator[None]:
    """Say which command examines a release that cannot be read."""
    try:
        yield
    except UNREADABLE as error:
        raise_if_of_machine(error, folder)
        raise PackagingError(
            f"The release {folder} cannot be read ({type(error).__name__}: {one_line(error)}), so it has no report. "
            f"`allen2022-surface verify {folder}` says what is wrong with it."
        ) from error


def _read_pair(release: ReleaseContent, other_path: Path) -> Pair:
    """Read what the page shows of another release."""
    folder, manifest = _open_release(other_path)
    with _readable(folder):
        neuroids = read_neuroids(folder, manifest)
        facts = list_facts(manifest, neuroids, read_stimuli(folder)) + list_options(manifest)
    return compare_pair(
        (release.manifest.name, manifest.name),
        (list_facts(release.manifest, release.neuroids, release.stimuli) + list_options(release.manifest), facts),
        (summarise_regions(release.neuroids, release.manifest), summarise_regions(neuroids, manifest)),
    )


def render_page(release: ReleaseContent, pair: Pair | None = None) -> str:
    """Return the report of a release as HTML."""
    folder, manifest, neuroids = release.folder, release.manifest, release.neuroids
    regions = summarise_regions(neuroids, manifest)
    invalid = summarise_invalid(neuroids, manifest)
    repetitions = summarise_repetitions(neuroids, manifest)
    has_maps = has_surface(manifest.n_vertices, simulated=manifest.simulated)
    script = Markup("\n".join((TEMPLATES / name).read_text(encoding="utf-8") for name in SCRIPTS))
    return (
        _environment()
        .get_template("report.html")
        .render(
            style=Markup((TEMPLATES / "style.css").read_text(encoding="utf-8")),
            script=script,
            script_hash=base64.b64encode(sha256(script.encode()).digest()).decode("ascii"),
            scale=[(colour, ink_on(colour)) for colour in scale_colours()],
            overview=overview(release),
            simulated=manifest.simulated,
            verdict=read_verdict(folder),
            verification_name=folder.verification_path.name,
            findings=list_findings(regions, invalid, repetitions, release.ceilings),
            cortex=cortex_content(neuroids, manifest) if has_maps else None,
            n_vertices=manifest.n_vertices,
            heat=heat_map(manifest, regions, invalid),
            region_table=region_table(regions),
            pair=pair,
            panels=list(region_panels(release)),
            first_panel=0 if len(manifest.regions) > 1 else 1,  # the panel of all regions is number 0
            noise_ceiling_end=noise_ceiling_end(neuroids),
            splits=split_section(release),
            repetition_table=repetition_table(repetitions, n_trials_per_session=manifest.n_trials_per_session),
            shared_noise_table=shared_noise_table(release.ceilings.agreement, release.ceilings.correlations),
            betas=manifest.recipe.betas,
            pool=manifest.recipe.pool,
            sheets=[contact_sheet(release, split) for split in SPLITS],
            nan_policy=manifest.recipe.nan_policy,
            invalid_table=invalid_table(invalid),
            option_table=option_table(manifest),
            source_table=source_table(manifest),
            version_table=version_table(manifest),
            input_table=input_table(summarise_inputs(manifest.inputs)),
            file_table=file_table(folder, manifest),
            manifest_name=folder.manifest_path.name,
        )
    )


def _environment() -> Environment:
    return Environment(
        loader=PackageLoader(__package__),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
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
