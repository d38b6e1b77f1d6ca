"""A release from an NSD tree, from the first raw file to the last hash."""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pandas as pd

from ..errors import PackagingError
from ..nsd.files import HEMISPHERES, subject_name
from ..nsd.regions import ATLASES, REGIONS, read_ncsnr, subject_neuroids
from ..nsd.trials import N_REPETITIONS, complete_images, split_images
from ..release import SPLITS, assembly_file, new_folder, refuse_existing, release_name, write_manifest
from ..verify.soundness import TreeInspection, inspect_tree
from .assembly import create_assembly, order_neuroids, presentations
from .prepared import PreparedAverages, prepared_path, read_prepared_averages
from .responses import GlobalStatistics, average_repetitions
from .sessions import Session, prepare_sessions, session_responses
from .stimuli import write_stimuli

logger = logging.getLogger(__name__)

COLUMNS_AT_A_TIME = 4096  # bounds the memory of the global standardisation, whatever the size of a region
CACHE_NAME = "allen2022_surface_cache"


@dataclass(frozen=True)
class Method:
    """The choices that change a value of the release; the defaults are the published procedure.

    Attributes
    ----------
    standardize_on : "all" or "train"
        The complete images over which the global mean and deviation are taken.
    nan_policy : "zero" or "drop"
        Fill NaN with zero, or leave out vertices with any NaN needed trial.
    """

    standardize_on: str = "all"
    nan_policy: str = "zero"


@dataclass(frozen=True)
class Contents:
    """What a release is to hold.

    Attributes
    ----------
    images : `nsd_id` of the complete images, ascending
    splits : `nsd_id` of the train and of the test images
    prepared : the averages that an earlier packaging left, if they are to be used
    """

    name: str
    method: Method
    images: np.ndarray
    splits: dict[str, np.ndarray]
    prepared: PreparedAverages | None

    @property
    def needed_images(self) -> np.ndarray:
        """The images whose single trials are needed: with prepared averages, those of the test repetitions."""
        return self.splits["test"] if self.prepared else self.images


def build_release(
    nsd_root: str | Path,
    release_path: Path,
    *,
    subjects: Sequence[int],
    method: Method = Method(),
    name: str | None = None,
    image_format: str | None = None,
    from_region_assemblies: bool = False,
    overwrite: bool = False,
    cache_path: Path | None = None,
    n_workers: int = 1,
    scheduler: str | None = None,
) -> None:
    """Build a release: standardised assemblies, stimulus sets and tables, whole or not at all.

    Each betas file that holds a needed trial is read once; what it gives is kept in `cache_path` (without one, only
    until the build ends), so that a build that was stopped goes on where it was.

    Raises
    ------
    PackagingError
        If the tree is incomplete or malformed, something is at `release_path`, or the disk is full.
    ValueError
        If `name` does not fit the subjects and the method.
    """
    subjects = sorted(subjects)
    name = release_name(subjects, name=name, is_published_method=method == Method())
    refuse_existing(release_path, overwrite=overwrite)
    tree = inspect_or_raise(nsd_root, subjects)
    contents = plan_contents(tree, name, method, from_region_assemblies=from_region_assemblies)
    with new_folder(release_path) as folder:
        image_inputs = write_stimuli(tree.tree, folder, contents.splits, image_format)
        responses = ResponseReader(tree, cache_path or folder / "cache", contents.needed_images)
        prepare_sessions(
            responses.sessions,
            tree.region_map.vertices,
            responses.cache_path,
            n_workers=n_workers,
            scheduler=scheduler,
        )
        nan_counts, shapes = write_assemblies(folder, contents, tree, responses)
        if cache_path is None:
            shutil.rmtree(responses.cache_path)
        inputs = image_inputs + [path for session in responses.sessions for path in session.paths()]
        written_format = min(folder.glob("stimuli_*/*")).suffix[1:]  # copied images have their own
        facts = describe(contents, tree, inputs, written_format)
        write_manifest(folder, facts | {"shapes": shapes, "nan_counts": nan_counts})


def plan_contents(tree: TreeInspection, name: str, method: Method, *, from_region_assemblies: bool) -> Contents:
    """Choose the complete images and split them.

    Raises
    ------
    PackagingError
        If there are too few, or the prepared averages are not of this tree.
    """
    images = complete_images(tree.fewest)
    splits = split_images(images)
    logger.info("%d complete images: %d train, %d test", len(images), len(splits["train"]), len(splits["test"]))
    prepared = None
    if from_region_assemblies:
        prepared = read_prepared_averages(tree.tree, tree.region_map, list(tree.trials), tree.fewest)
    return Contents(name, method, images, splits, prepared)


def inspect_or_raise(nsd_root: str | Path, subjects: Sequence[int]) -> TreeInspection:
    """Inspect a tree and raise a `PackagingError` with the first problem, if there is any."""
    inspection, problems = inspect_tree(nsd_root, subjects)
    if problems or inspection is None:
        more = f" ({len(problems)} problems in all: `allen2022-surface check` lists them.)" if len(problems) > 1 else ""
        raise PackagingError(problems[0] + more)
    return inspection


class ResponseReader:
    """The session-standardised responses to some of the shared images, subject by subject.

    Attributes
    ----------
    sessions : the sessions that hold at least one trial of the images; the others are never read
    """

    def __init__(self, inspection: TreeInspection, cache_path: Path, nsd_ids: np.ndarray) -> None:
        self.inspection = inspection
        self.cache_path = cache_path
        self.nsd_ids = nsd_ids
        self.sessions = [
            Session(
                inspection.tree,
                subject,
                int(session),
                tuple(int(trial) for trial in trials.trial),
                inspection.region_map.n_vertices,
                inspection.n_trials_per_session,
            )
            for subject, table in inspection.trials.items()
            for session, trials in table.groupby("session")
            if trials.nsd_id.isin(nsd_ids).any()
        ]

    def read(self, subject: int) -> np.ndarray:
        """Return a subject's responses, float32 of shape (n_images, n_repetitions, n_read_vertices); NaN where not seen."""
        table = self.inspection.trials[subject]
        vertices = self.inspection.region_map.vertices
        n_repetitions = max(N_REPETITIONS, int(table.repetition.max()) + 1)
        shape = (len(self.nsd_ids), n_repetitions, sum(len(own) for own in vertices.values()))
        responses = np.full(shape, np.nan, dtype=np.float32)
        for session in self.sessions:
            if session.subject != subject:
                continue
            trials = table[table.session == session.session]
            needed = trials.nsd_id.isin(self.nsd_ids).to_numpy()
            image = np.searchsorted(self.nsd_ids, trials.nsd_id[needed])
            responses[image, trials.repetition[needed]] = session_responses(session, vertices, self.cache_path)[needed]
        return responses


def write_assemblies(
    folder: Path, contents: Contents, tree: TreeInspection, responses: ResponseReader
) -> tuple[dict[str, dict[str, dict[str, int]]], dict[str, list[int]]]:
    """Write the train and test assemblies, a subject at a time, so that memory does not grow with their number.

    Returns
    -------
    the NaN filled with zeros per subject and region, and the shape of each split
    """
    neuroids_of = {
        subject: subject_neuroids(tree.region_map, subject, read_ncsnr(tree.tree, tree.region_map, subject))
        for subject in tree.trials
    }
    if contents.method.nan_policy == "drop":
        neuroids_of = {s: _drop_invalid(s, own, responses.read(s), contents) for s, own in neuroids_of.items()}
    neuroids, places = order_neuroids(neuroids_of)
    shapes = {s: [len(presentations(s, contents.splits[s])), len(neuroids), 1] for s in SPLITS}
    _require_space(folder, 4 * sum(math.prod(shape) for shape in shapes.values()))
    paths = {split: folder / assembly_file(contents.name, split) for split in SPLITS}
    nan_counts: dict[str, dict[str, dict[str, int]]] = {}
    try:
        with ExitStack() as files:
            variables = {
                split: files.enter_context(
                    create_assembly(
                        path,
                        identifier=f"{contents.name}.{split}",
                        presentation=presentations(split, contents.splits[split]),
                        neuroids=neuroids,
                    )
                )
                for split, path in paths.items()
            }
            for subject, own in neuroids_of.items():
                subject_responses = responses.read(subject)
                nan_counts[subject_name(subject)] = {
                    region.name: _write_region(
                        variables,
                        places[subject, region.name].start,
                        _standardised_blocks(contents, subject, own[own.region == region.name], subject_responses),
                    )
                    for region in REGIONS
                }
                del subject_responses  # or the next subject's would be read beside them
                logger.info("%s: %d neuroids", subject_name(subject), len(own))
    except RuntimeError as error:  # how netCDF reports a failed write
        free = shutil.disk_usage(folder).free
        raise PackagingError(
            f"{folder.parent} could not be written to ({error}); {free:,} bytes are free there. Make room."
        ) from error
    for path in paths.values():
        logger.info("%s: %.1f MB", path.name, path.stat().st_size / 1e6)
    return nan_counts, shapes


def _standardised_blocks(
    contents: Contents, subject: int, neuroids: pd.DataFrame, responses: np.ndarray
) -> Iterator[dict[str, np.ndarray]]:
    """Yield the globally standardised train averages and test repetitions of a region, a block of neuroids at a time."""
    train = np.searchsorted(contents.images, contents.splits["train"])
    test = np.searchsorted(contents.needed_images, contents.splits["test"])
    region = neuroids.region.iloc[0] if len(neuroids) else ""
    for start in range(0, len(neuroids), COLUMNS_AT_A_TIME):
        block = neuroids[start : start + COLUMNS_AT_A_TIME]
        block_responses = responses[:, :, block.column]
        if contents.prepared is None:
            averages = average_repetitions(block_responses)
        else:
            averages = contents.prepared.of(subject, region, contents.images)[:, block.number]
        is_on_train = contents.method.standardize_on == "train"
        statistics = GlobalStatistics.of(averages[train] if is_on_train else averages)
        repetitions = block_responses[test, :N_REPETITIONS].reshape(-1, len(block))
        yield {"train": statistics.standardise(averages[train]), "test": statistics.standardise(repetitions)}


def _write_region(
    variables: dict[str, netCDF4.Variable], start: int, blocks: Iterator[dict[str, np.ndarray]]
) -> dict[str, int]:
    """Write a region's blocks with zeros for NaN, and count the NaN."""
    counts = dict.fromkeys((*SPLITS, "neuroids"), 0)
    for block in blocks:
        stop = start + block["train"].shape[1]
        invalid = {split: np.isnan(values) for split, values in block.items()}
        for split, values in block.items():
            values[invalid[split]] = 0
            variables[split][:, start:stop, 0] = values
            counts[split] += int(invalid[split].sum())
        counts["neuroids"] += int(np.any([mask.any(axis=0) for mask in invalid.values()], axis=0).sum())
        start = stop
    return counts


def _drop_invalid(subject: int, neuroids: pd.DataFrame, responses: np.ndarray, contents: Contents) -> pd.DataFrame:
    """Leave out the neuroids with an invalid trial; of prepared averages, those with an invalid average."""
    keep = ~np.isnan(responses[:, :N_REPETITIONS]).any(axis=(0, 1))[neuroids.column]
    if contents.prepared is not None:
        averages = [contents.prepared.of(subject, region.name, contents.images) for region in REGIONS]
        keep &= np.concatenate([~np.isnan(values).any(axis=0) for values in averages])
    if not keep.any():
        raise PackagingError(
            f"{subject_name(subject)} has no vertex whose needed trials are all valid: nothing is left."
        )
    return neuroids[keep]


def describe(contents: Contents, tree: TreeInspection, inputs: list[str], image_format: str) -> dict[str, Any]:
    """Return the facts of a release: what it is, how it was made, and of what.

    Raw files go by their place in NSD's public bucket, so that the record is the same for either layout.
    """
    paths = [*inputs, tree.tree.design_path]
    paths += [tree.tree.labels_path(atlas, hemisphere) for atlas in ATLASES for hemisphere in HEMISPHERES]
    paths += [tree.tree.ncsnr_path(subject, hemisphere) for subject in tree.trials for hemisphere in HEMISPHERES]
    if contents.prepared is not None:
        paths += [prepared_path(region.name) for region in REGIONS]
    return {
        "name": contents.name,
        "subjects": list(tree.trials),
        "options": asdict(contents.method) | {"image_format": image_format},
        "from_region_assemblies": contents.prepared is not None,
        "n_vertices": tree.region_map.n_vertices,
        "n_trials_per_session": tree.n_trials_per_session,
        "sessions": {subject_name(subject): len(sessions) for subject, sessions in tree.sessions.items()},
        "inputs": {
            tree.tree.official_path(path): tree.tree.storage.size(path)
            for path in sorted(paths, key=tree.tree.official_path)
        },
    }


def _require_space(folder: Path, n_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < n_bytes:
        raise PackagingError(
            f"{folder.parent} has {free:,} bytes free, but the assemblies take {n_bytes:,}: no space left. Make room."
        )
