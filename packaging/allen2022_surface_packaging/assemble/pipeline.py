"""Releases from an NSD tree, from the first raw file to the last hash."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ..errors import PackagingError
from ..facts import subject_name
from ..files import free_bytes, naming, new_folder
from ..nsd.inspection import inspect_tree
from ..nsd.plan import Plan
from ..nsd.tree import open_tree
from ..recipe import Recipe
from ..release import SPLITS, Manifest, ReleasedRegion, ReleaseFolder, installed_versions, record_files, refuse_existing
from .estimates import BYTES_PER_VALUE, count_values
from .prepared import check_prepared
from .sessions import SessionCache
from .stimuli import write_stimuli
from .subjects import AssemblyRecord, write_assemblies


def build_release(nsd_root: str | Path, release_path: Path, recipe: Recipe, **choices: Any) -> Manifest:
    """Build one release. Choices and errors are those of `build_releases`."""
    return build_releases(nsd_root, {release_path: recipe}, **choices)[release_path]


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
    """Build several releases, whole or not at all: each betas file that any of them needs is read once.

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
        See `run_tasks`.

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
    for plan in plans.values():
        if plan.from_region_assemblies:
            check_prepared(plan)
    stamps = {file: file.stamp() for plan in plans.values() for file in plan.inputs}
    last_path = list(recipes)[-1]
    manifests, stimuli = {}, {}
    with ExitStack() as exits:
        endings = {path: exits.enter_context(ExitStack()) for path in recipes}
        folders = {path: ReleaseFolder(endings[path].enter_context(new_folder(path))) for path in recipes}
        scratch_path = folders[last_path].path / ".scratch"
        cache = SessionCache(list(plans.values()), cache_path or scratch_path)
        _require_space(folders[last_path].path, plans.values(), cache)
        for path, plan in plans.items():  # first, because it takes seconds, and a damaged image ends the build
            stimuli[path] = write_stimuli(plan, folders[path])
        cache.prepare(scratch_path, n_workers=n_workers, scheduler=scheduler)
        for path, plan in plans.items():
            assemblies = write_assemblies(plan, cache, folders[path])
            manifests[path] = make_manifest(plan, folders[path], stimuli[path], assemblies)
            with naming(folders[path].manifest_path):
                manifests[path].write(folders[path])
            for file in plan.inputs:
                if file.stamp() != stamps[file]:  # parts of both may be in the release
                    raise PackagingError(f"{file} was changed while the build ran. Start it again.")
            if path == last_path:
                shutil.rmtree(scratch_path, ignore_errors=True)
            endings[path].close()  # the release appears, whatever happens to the next
    return manifests


def make_manifest(plan: Plan, folder: ReleaseFolder, stimuli: Iterable[Path], assemblies: AssemblyRecord) -> Manifest:
    """Return the manifest of a release whose other files are written; `stimuli` are its images and tables.

    Raw files are listed by their paths in NSD's public bucket, so that both layouts give the same manifest.
    """
    return Manifest(
        name=plan.recipe.name,
        recipe=plan.recipe,
        regions=tuple(
            ReleasedRegion(r.name, r.atlas, r.labels, {subject_name(s): n for s, n in r.n_vertices.items()})
            for r in plan.region_map.regions
        ),
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
        simulated=plan.is_simulated,
    )


def _require_space(folder: Path, plans: Iterable[Plan], cache: SessionCache) -> None:
    """Raise a `PackagingError` if the values of the releases, or the sessions that the cache lacks, need more space."""
    needed = {folder: BYTES_PER_VALUE * sum(map(count_values, plans)), cache.path: cache.count_missing_bytes()}
    for path, n_bytes in needed.items():
        n_free = free_bytes(path)
        if n_free < n_bytes:
            raise PackagingError(
                f"{path.parent} has {n_free:,} bytes free, but the build writes {n_bytes:,} there: no space left. Free some space."
            )
