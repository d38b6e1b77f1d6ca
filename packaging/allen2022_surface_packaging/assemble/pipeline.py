"""Releases from an NSD tree, from the first raw file to the last hash."""

from __future__ import annotations

import hashlib
import logging
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from ..errors import PackagingError
from ..facts import subject_name
from ..files import naming, new_folder, scratch_folder
from ..nsd.inspection import inspect_tree
from ..nsd.plan import Plan
from ..nsd.storage import RawFile
from ..nsd.tree import open_tree
from ..recipe import Recipe
from ..release import (
    SPLITS,
    FilledCounts,
    Manifest,
    ReleasedRegion,
    ReleaseFolder,
    installed_versions,
    list_presentations,
    record_files,
    refuse_existing,
)
from .assembly import AssemblyFile, create_assembly
from .cluster import Workers
from .neuroids import NeuroidTable, order_neuroids
from .prepared import read_prepared_averages
from .sessions import SessionCache
from .stimuli import write_stimuli
from .subjects import SubjectTask, SubjectValues, compute_subject, plan_subject

logger = logging.getLogger(__name__)


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

    Parameters and errors are those of `build_releases`.
    """
    build_releases(
        nsd_root,
        {release_path: recipe},
        image_format=image_format,
        from_region_assemblies=from_region_assemblies,
        overwrite=overwrite,
        cache_path=cache_path,
        n_workers=n_workers,
        scheduler=scheduler,
    )


def build_releases(
    nsd_root: str | Path,
    recipes: Mapping[Path, Recipe],
    *,
    image_format: str | None = None,
    from_region_assemblies: bool = False,
    overwrite: bool = False,
    cache_path: Path | None = None,
    n_workers: int = 1,
    scheduler: str | None = None,
) -> dict[Path, Manifest]:
    """Build several releases from one pass over the data: each betas file that any of them needs is read once.

    Parameters
    ----------
    recipes : by the folder of the release
    image_format : "png" or "jpg", optional
        Of extracted images; png if None.
    from_region_assemblies : bool
        Take the averages from the prepared region assemblies in the tree.
    cache_path : path, optional
        Where the responses of each session are kept, so that a build that was stopped continues. Without it they are
        removed at the end.
    n_workers, scheduler
        See `Workers`.

    Returns
    -------
    the manifests, by the folder of the release

    Raises
    ------
    PackagingError
        If the tree is incomplete, malformed or changed meanwhile, a release exists, or the disk is full.
    """
    for path in recipes:
        refuse_existing(path, overwrite=overwrite)
    tree = open_tree(nsd_root)
    plans = {
        path: inspect_tree(
            tree, recipe, image_format=image_format, from_region_assemblies=from_region_assemblies
        ).require_sound()
        for path, recipe in recipes.items()
    }
    stamps = {file: file.stamp() for plan in plans.values() for file in plan.inputs}
    first_path = next(iter(recipes)).absolute()
    manifests, stimuli = {}, {}
    with ExitStack() as exits:
        folders = {path: exits.enter_context(ExitStack()) for path in recipes}
        partial_paths = {path: folders[path].enter_context(new_folder(path)) for path in recipes}
        if cache_path is None:
            cache_path = exits.enter_context(scratch_folder(first_path.parent, f"{first_path.name}.cache"))
        cache = SessionCache(list(plans.values()), cache_path)
        workers = exits.enter_context(Workers(n_workers, scheduler))
        for path, plan in plans.items():  # first, because it takes seconds, and a damaged image ends the build
            stimuli[path] = write_stimuli(plan, ReleaseFolder(partial_paths[path]))
        cache.prepare(workers)
        for path, plan in plans.items():
            manifests[path] = _write_release(plan, ReleaseFolder(partial_paths[path]), stimuli[path], cache, workers)
            _refuse_changed(plan.inputs, stamps)
            folders[path].close()  # the release appears, whatever happens to the next
    return manifests


def _write_release(
    plan: Plan, folder: ReleaseFolder, stimuli: list[Path], cache: SessionCache, workers: Workers
) -> Manifest:
    """Write the rest of one release from the cached sessions, and return its manifest."""
    n_images = [len(plan.splits[split]) for split in SPLITS]
    logger.info("%s: %d images, %d train, %d test", plan.recipe.name, sum(n_images), *n_images)
    # In the cache, which every worker sees, and named after the release, so that two builds do not share it.
    name = f"values-{hashlib.sha1(os.fsencode(folder.path)).hexdigest()[:12]}"
    with scratch_folder(cache.path, name) as scratch:
        subjects = workers.run(compute_subject, _plan_subjects(plan, cache, scratch))
        assemblies = write_assemblies(plan, subjects, folder)
    manifest = describe_release(plan, assemblies, folder, stimuli)
    with naming(folder.manifest_path):
        manifest.write(folder)
    return manifest


def _refuse_changed(inputs: Iterable[RawFile], stamps: Mapping[RawFile, str]) -> None:
    """Raise a `PackagingError` if a raw file is not what it was when the build started: parts of both may be in the release."""
    for file in inputs:
        if not file.exists() or file.stamp() != stamps[file]:
            raise PackagingError(f"{file} was changed or removed while the build ran. Start it again.")


def _plan_subjects(plan: Plan, cache: SessionCache, scratch: Path) -> list[SubjectTask]:
    prepared = read_prepared_averages(plan) if plan.from_region_assemblies else None
    tasks = []
    for subject in plan.recipe.subjects:
        averages = None if prepared is None else prepared.read(subject, plan.region_map, plan.averaged_images)
        tasks.append(plan_subject(plan, cache, subject, averages, scratch / f"{subject_name(subject)}.values"))
    return tasks


@dataclass(frozen=True)
class AssemblyRecord:
    """The assemblies of a release: their shapes by split, and how many values were NaN by subject and region."""

    shapes: dict[str, tuple[int, int, int]]
    nan_counts: dict[str, dict[str, FilledCounts]]


def write_assemblies(plan: Plan, subjects: Iterator[SubjectValues], folder: ReleaseFolder) -> AssemblyRecord:
    """Write the train and test assemblies from the values of each subject, whose files are removed.

    Raises
    ------
    PackagingError
        If the disk is full, or no vertex of a subject is valid and invalid ones are dropped.
    """
    valid = None
    if plan.recipe.nan_policy == "drop":  # the neuroids are known only when all subjects are
        known = list(subjects)
        subjects, valid = iter(known), {values.subject: values.is_valid for values in known}
        _refuse_empty(known)
    neuroids = order_neuroids(plan.region_map, plan.ncsnr, valid)
    presentations = {split: list_presentations(split, plan.splits[split]) for split in SPLITS}
    shapes = {split: (len(presentations[split]), len(neuroids), 1) for split in SPLITS}
    _require_space(folder, 4 * sum(math.prod(shape) for shape in shapes.values()))
    nan_counts = {}
    with ExitStack() as exits:
        assemblies = {
            split: exits.enter_context(
                create_assembly(
                    folder.assembly_path(plan.recipe.name, split),
                    identifier=f"{plan.recipe.name}.{split}",
                    presentations=presentations[split],
                    neuroids=neuroids.coordinates(),
                )
            )
            for split in SPLITS
        }
        for values in subjects:
            nan_counts[values.subject] = _copy_subject(values, neuroids, assemblies)
            values.path.unlink()
    for split, assembly in assemblies.items():
        logger.info("%s: %s, %.1f MB", assembly.path.name, shapes[split], assembly.path.stat().st_size / 1e6)
    return AssemblyRecord(shapes, {subject_name(subject): nan_counts[subject] for subject in plan.recipe.subjects})


def describe_release(
    plan: Plan, assemblies: AssemblyRecord, folder: ReleaseFolder, stimuli: Iterable[Path]
) -> Manifest:
    """Return the manifest of a release whose other files are written.

    Raw files are listed by their paths in NSD's public bucket, so that both layouts give the same manifest.
    """
    return Manifest(
        name=plan.recipe.name,
        recipe=plan.recipe,
        regions=tuple(ReleasedRegion(r.name, r.atlas, r.labels, r.n_vertices) for r in plan.region_map.regions),
        image_format=plan.image_format,
        from_region_assemblies=plan.from_region_assemblies,
        n_vertices=plan.region_map.n_vertices,
        n_trials_per_session=plan.n_trials_per_session,
        sessions={subject_name(subject): n for subject, n in plan.n_sessions.items()},
        shapes=assemblies.shapes,
        nan_counts=assemblies.nan_counts,
        inputs={file.official_path: file.size() for file in plan.inputs},
        versions=installed_versions(),
        files=record_files(folder, [*stimuli, *(folder.assembly_path(plan.recipe.name, split) for split in SPLITS)]),
        simulated=plan.tree.simulation_mark.exists(),
    )


def _copy_subject(
    values: SubjectValues, neuroids: NeuroidTable, assemblies: dict[str, AssemblyFile]
) -> dict[str, FilledCounts]:
    """Copy the values of a subject to the places of its neuroids, and count the NaN of each region."""
    groups = neuroids.of_subject(values.subject)
    for split, assembly in assemblies.items():
        for first_row, band in values.bands(split):
            for group in groups:
                assembly.write(first_row, group.start, band[:, group.columns])
    logger.info("%s: %d neuroids", subject_name(values.subject), sum(map(len, groups)))
    counts = {}
    for group in groups:
        train, test = (values.n_invalid[split][group.columns] for split in SPLITS)
        counts[group.region] = FilledCounts(int(train.sum()), int(test.sum()), int(((train > 0) | (test > 0)).sum()))
    return counts


def _refuse_empty(subjects: list[SubjectValues]) -> None:
    for values in subjects:
        if not values.is_valid.any():
            raise PackagingError(
                f"{subject_name(values.subject)} has no vertex whose trials are all valid, so nothing is left. Keep "
                "invalid vertices (--nan-policy zero), or choose other subjects."
            )


def _require_space(folder: ReleaseFolder, n_bytes: int) -> None:
    free = shutil.disk_usage(folder.path).free
    if free < n_bytes:
        raise PackagingError(
            f"{folder.path.parent} has {free:,} bytes free, but the assemblies take {n_bytes:,}: no space left. Free some space."
        )
