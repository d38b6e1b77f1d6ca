"""A release from an NSD tree, from the first raw file to the last hash."""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..arrays import FloatArray
from ..atomic import new_folder
from ..errors import PackagingError
from ..nsd.facts import subject_name
from ..nsd.inspection import inspect_tree
from ..nsd.plan import Plan
from ..nsd.regions import list_neuroids
from ..nsd.tree import open_tree
from ..recipe import Recipe
from ..release import (
    SPLITS,
    FilledCounts,
    Manifest,
    ReleaseFolder,
    installed_versions,
    list_presentations,
    record_files,
    refuse_existing,
)
from .assembly import NeuroidTable, create_assembly, order_neuroids
from .prepared import PreparedAverages, read_prepared_averages
from .responses import average_repetitions, find_valid_vertices, standardise_images
from .sessions import SessionCache
from .stimuli import write_stimuli

if TYPE_CHECKING:
    from .assembly import FloatVariable

logger = logging.getLogger(__name__)

NEUROIDS_AT_A_TIME = 4096  # bounds the memory of the second standardisation, whatever the size of a region


def build_release(
    nsd_root: str | Path,
    release_path: Path,
    recipe: Recipe,
    *,
    image_format: str | None = None,
    from_region_assemblies: bool = False,
    overwrite: bool = False,
    cache_path: Path | None = None,
    n_workers: int = 1,
    scheduler: str | None = None,
) -> None:
    """Build a release: standardised assemblies, stimulus sets and tables, whole or not at all.

    Each betas file with a trial that the release needs is read once.

    Parameters
    ----------
    image_format : "png" or "jpg", optional
        Of extracted images; png if None.
    from_region_assemblies : bool
        Take the averages from the prepared region assemblies in the tree.
    cache_path : path, optional
        Where the responses of each session are kept, so that a build that was stopped continues. Without it they are
        removed at the end.
    n_workers, scheduler
        See `run_on_workers`.

    Raises
    ------
    PackagingError
        If the tree is incomplete or malformed, `release_path` exists, or the disk is full.
    """
    refuse_existing(release_path, overwrite=overwrite)
    plan = inspect_tree(
        open_tree(nsd_root), recipe, image_format=image_format, from_region_assemblies=from_region_assemblies
    ).require_sound()
    logger.info(
        "%d complete images: %d train, %d test", len(plan.images), *(len(plan.splits[split]) for split in SPLITS)
    )
    prepared = read_prepared_averages(plan) if from_region_assemblies else None
    with new_folder(release_path) as path:
        folder = ReleaseFolder(path)
        write_stimuli(plan, folder)
        cache = SessionCache(plan, cache_path or path / "cache")
        cache.prepare(n_workers=n_workers, scheduler=scheduler)
        assemblies = write_assemblies(plan, cache, prepared, folder)
        if cache_path is None:
            shutil.rmtree(cache.path)
        describe_release(plan, assemblies, folder).write(folder)


@dataclass(frozen=True)
class AssemblyRecord:
    """The assemblies of a release: their shapes by split, and how many values were NaN by subject and region."""

    shapes: dict[str, tuple[int, int, int]]
    nan_counts: dict[str, dict[str, FilledCounts]]


def write_assemblies(
    plan: Plan, cache: SessionCache, prepared: PreparedAverages | None, folder: ReleaseFolder
) -> AssemblyRecord:
    """Write the train and test assemblies, one subject at a time, so that memory does not grow with their number.

    Raises
    ------
    PackagingError
        If the disk is full, or no vertex of a subject is valid and invalid ones are dropped.
    """
    table = order_neuroids(_list_kept_neuroids(plan, cache, prepared), plan.recipe.regions)
    presentations = {split: list_presentations(split, plan.splits[split]) for split in SPLITS}
    shapes = {split: (len(presentations[split]), len(table.neuroids), 1) for split in SPLITS}
    _require_space(folder, 4 * sum(math.prod(shape) for shape in shapes.values()))
    nan_counts = {}
    with _create_assemblies(plan, folder, presentations, table.neuroids) as variables:
        for subject in plan.recipe.subjects:
            nan_counts[subject_name(subject)] = _write_subject(plan, cache, prepared, table, subject, variables)
    for split in SPLITS:
        path = folder.assembly_path(plan.recipe.name, split)
        logger.info("%s: %.1f MB", path.name, path.stat().st_size / 1e6)
    return AssemblyRecord(shapes, nan_counts)


def describe_release(plan: Plan, assemblies: AssemblyRecord, folder: ReleaseFolder) -> Manifest:
    """Return the manifest of a release whose other files are written.

    Raw files are listed by their paths in NSD's public bucket, so that both layouts give the same manifest.
    """
    return Manifest(
        name=plan.recipe.name,
        recipe=plan.recipe,
        image_format=plan.image_format,
        from_region_assemblies=plan.from_region_assemblies,
        n_vertices=plan.region_map.n_vertices,
        n_trials_per_session=plan.n_trials_per_session,
        sessions={subject_name(subject): n for subject, n in plan.n_sessions.items()},
        shapes=assemblies.shapes,
        nan_counts=assemblies.nan_counts,
        inputs={file.official_path: file.size() for file in plan.inputs},
        versions=installed_versions(),
        files=record_files(folder),
        simulated=plan.tree.simulation_mark.exists(),
    )


def _list_kept_neuroids(plan: Plan, cache: SessionCache, prepared: PreparedAverages | None) -> dict[int, pd.DataFrame]:
    """List the neuroids of each subject, without the invalid ones if the recipe drops them."""
    tables = {subject: list_neuroids(plan.region_map, subject, ncsnr) for subject, ncsnr in plan.ncsnr.items()}
    if plan.recipe.nan_policy == "drop":
        tables = {subject: _drop_invalid(plan, cache, prepared, subject, table) for subject, table in tables.items()}
    return tables


def _drop_invalid(
    plan: Plan, cache: SessionCache, prepared: PreparedAverages | None, subject: int, neuroids: pd.DataFrame
) -> pd.DataFrame:
    """Leave out the neuroids with an invalid trial; with prepared averages, those with an invalid average as well."""
    keep = find_valid_vertices(cache.read(subject))[neuroids["column"].to_numpy()]
    if prepared is not None:
        averages = [prepared.read(subject, region.name, plan.images) for region in plan.recipe.regions]
        keep &= np.concatenate([~np.isnan(values).any(axis=0) for values in averages])
    if not keep.any():
        raise PackagingError(
            f"{subject_name(subject)} has no vertex whose trials are all valid, so nothing is left. Keep invalid "
            "vertices (--nan-policy zero), or choose other subjects."
        )
    kept: pd.DataFrame = neuroids[keep]
    return kept


@contextmanager
def _create_assemblies(
    plan: Plan, folder: ReleaseFolder, presentations: dict[str, pd.DataFrame], neuroids: pd.DataFrame
) -> Iterator[dict[str, FloatVariable]]:
    """Create the assembly files of both splits, and yield their variables."""
    try:
        with ExitStack() as files:
            yield {
                split: files.enter_context(
                    create_assembly(
                        folder.assembly_path(plan.recipe.name, split),
                        identifier=f"{plan.recipe.name}.{split}",
                        presentations=presentations[split],
                        neuroids=neuroids,
                    )
                )
                for split in SPLITS
            }
    except RuntimeError as error:  # what netCDF4 raises when a write fails
        free = shutil.disk_usage(folder.path).free
        raise PackagingError(
            f"{folder.path.parent} could not be written to ({error}); {free:,} bytes are free there. Free some space."
        ) from error


def _write_subject(
    plan: Plan,
    cache: SessionCache,
    prepared: PreparedAverages | None,
    table: NeuroidTable,
    subject: int,
    variables: dict[str, FloatVariable],
) -> dict[str, FilledCounts]:
    """Write the values of one subject, and count the NaN of each region."""
    responses = cache.read(subject)
    counts = {}
    for region in plan.recipe.regions:
        rows = table.slices[subject, region.name]
        neuroids = table.neuroids[rows]
        averages = None if prepared is None else prepared.read(subject, region.name, plan.images)
        counts[region.name] = FilledCounts(0, 0, 0)
        for first in range(0, len(neuroids), NEUROIDS_AT_A_TIME):
            block = neuroids[first : first + NEUROIDS_AT_A_TIME]
            block_responses = responses[:, :, block["column"].to_numpy()]
            block_averages = None if averages is None else averages[:, block["number"].to_numpy()]
            values = _standardise_block(plan, block_responses, block_averages)
            block_counts = _write_block(values, variables, rows.start + first)
            counts[region.name] = _add_counts(counts[region.name], block_counts)
    logger.info("%s: %d neuroids", subject_name(subject), sum(table.neuroids["subject"] == subject_name(subject)))
    return counts


def _standardise_block(plan: Plan, responses: FloatArray, averages: FloatArray | None) -> dict[str, FloatArray]:
    """Average and standardise a block of neuroids; `averages` are those of all complete images if they are prepared."""
    train = np.searchsorted(plan.images, plan.splits["train"])
    test = np.searchsorted(plan.single_trial_images, plan.splits["test"])
    return standardise_images(
        average_repetitions(responses) if averages is None else averages,
        responses[test],
        train=train,
        statistics_over=train if plan.recipe.standardize_on == "train" else None,
    )


def _write_block(values: dict[str, FloatArray], variables: dict[str, FloatVariable], start: int) -> FilledCounts:
    """Write a block of neuroids with zeros for NaN, and count the NaN."""
    invalid = {split: np.isnan(split_values) for split, split_values in values.items()}
    stop = start + values["train"].shape[1]
    for split, variable in variables.items():
        variable[:, start:stop, 0] = np.where(invalid[split], 0, values[split])
    in_neuroid = np.any([mask.any(axis=0) for mask in invalid.values()], axis=0)
    return FilledCounts(int(invalid["train"].sum()), int(invalid["test"].sum()), int(in_neuroid.sum()))


def _add_counts(one: FilledCounts, two: FilledCounts) -> FilledCounts:
    return FilledCounts(one.train + two.train, one.test + two.test, one.neuroids + two.neuroids)


def _require_space(folder: ReleaseFolder, n_bytes: int) -> None:
    free = shutil.disk_usage(folder.path).free
    if free < n_bytes:
        raise PackagingError(
            f"{folder.path.parent} has {free:,} bytes free, but the assemblies take {n_bytes:,}: no space left. Free some space."
        )
