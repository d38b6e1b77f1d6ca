"""A release from an NSD tree, from the first raw file to the last hash."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pandas as pd

from .assembly import create_assembly, order_neuroids, presentations
from .checks import TreeInspection, inspect_tree
from .errors import PackagingError
from .nsd import HEMISPHERES, subject_name
from .prepared import PreparedAverages, prepared_path, read_prepared_averages
from .regions import ATLASES, REGIONS, read_ncsnr, subject_neuroids
from .release import SPLITS, assembly_file, new_folder, refuse_existing, release_name, write_manifest
from .responses import GlobalStatistics, average_repetitions
from .sessions import Session, prepare_sessions, session_responses
from .stimuli import write_stimuli
from .trials import N_REPETITIONS, complete_images, split_images

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
    inspection = inspect_or_raise(nsd_root, subjects)
    images = complete_images(inspection.fewest)
    splits = split_images(images)
    prepared = (
        read_prepared_averages(inspection.tree, inspection.region_map, subjects, inspection.fewest)
        if from_region_assemblies
        else None
    )
    logger.info("%d complete images: %d train, %d test", len(images), len(splits["train"]), len(splits["test"]))

    with new_folder(release_path) as folder:
        stimulus_inputs = write_stimuli(inspection.tree, folder, splits, image_format)
        responses = ResponseReader(inspection, cache_path or folder / "cache", splits["test"] if prepared else images)
        prepare_sessions(
            responses.sessions,
            inspection.region_map.vertices,
            responses.cache_path,
            n_workers=n_workers,
            scheduler=scheduler,
        )
        facts = write_assemblies(folder, name, inspection, responses, prepared, images, splits, method)
        if cache_path is None:
            shutil.rmtree(responses.cache_path)
        inputs = [path for session in responses.sessions for path in session.paths()] + stimulus_inputs
        write_manifest(
            folder,
            {"name": name, "subjects": subjects, "options": asdict(method) | {"image_format": image_format or "png"}}
            | {"from_region_assemblies": from_region_assemblies}
            | facts
            | {"inputs": describe_inputs(inspection, inputs, prepared)},
        )


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
    folder: Path,
    name: str,
    inspection: TreeInspection,
    responses: ResponseReader,
    prepared: PreparedAverages | None,
    images: np.ndarray,
    splits: dict[str, np.ndarray],
    method: Method,
) -> dict[str, Any]:
    """Write the train and test assemblies, a subject at a time, so that memory does not grow with their number.

    Returns
    -------
    the facts of the assemblies for `release.json`
    """
    region_map = inspection.region_map
    neuroids_of = {
        subject: subject_neuroids(region_map, subject, read_ncsnr(inspection.tree, region_map, subject))
        for subject in inspection.trials
    }
    if method.nan_policy == "drop":
        neuroids_of = {
            s: _drop_invalid(s, table, responses.read(s), prepared, images) for s, table in neuroids_of.items()
        }
    neuroids, places = order_neuroids(neuroids_of)
    presentation = {split: presentations(split, splits[split]) for split in SPLITS}
    _require_space(folder, 4 * len(neuroids) * sum(len(table) for table in presentation.values()))

    nan_counts: dict[str, dict[str, dict[str, int]]] = {}
    paths = {split: folder / assembly_file(name, split) for split in SPLITS}
    coordinates = {
        s: {"presentation": presentation[s], "neuroids": neuroids, "identifier": f"{name}.{s}"} for s in SPLITS
    }
    try:
        with (
            create_assembly(paths["train"], **coordinates["train"]) as train,
            create_assembly(paths["test"], **coordinates["test"]) as test,
        ):
            for subject, table in neuroids_of.items():
                subject_responses = responses.read(subject)
                nan_counts[subject_name(subject)] = {}
                for region in REGIONS:
                    columns = table.column[table.region == region.name].to_numpy()
                    averages = prepared.of(subject, region.name, images) if prepared else None
                    if averages is not None:
                        averages = averages[:, table.number[table.region == region.name]]
                    nan_counts[subject_name(subject)][region.name] = _write_region(
                        {"train": train, "test": test},
                        places[subject, region.name].start,
                        _standardised_blocks(
                            subject_responses, responses.nsd_ids, columns, averages, images, splits, method
                        ),
                    )
                logger.info("%s: %d neuroids", subject_name(subject), len(table))
    except RuntimeError as error:  # how netCDF reports a failed write
        free = shutil.disk_usage(folder).free
        raise PackagingError(
            f"{folder.parent} could not be written to ({error}); {free:,} bytes are free there."
        ) from error
    for path in paths.values():
        logger.info("%s: %.1f MB", path.name, path.stat().st_size / 1e6)
    return {
        "n_vertices": region_map.n_vertices,
        "n_trials_per_session": inspection.n_trials_per_session,
        "sessions": {subject_name(subject): len(sessions) for subject, sessions in inspection.sessions.items()},
        "shapes": {split: [len(presentation[split]), len(neuroids), 1] for split in SPLITS},
        "nan_counts": nan_counts,
    }


def _standardised_blocks(
    responses: np.ndarray,
    response_ids: np.ndarray,
    columns: np.ndarray,
    averages: np.ndarray | None,
    images: np.ndarray,
    splits: dict[str, np.ndarray],
    method: Method,
) -> Iterator[dict[str, np.ndarray]]:
    """Yield the globally standardised train averages and test repetitions of a region, a block of neuroids at a time."""
    train_rows, test_rows = (np.searchsorted(images, splits[split]) for split in SPLITS)
    test_responses = np.searchsorted(response_ids, splits["test"])
    for start in range(0, len(columns), COLUMNS_AT_A_TIME):
        block = slice(start, start + COLUMNS_AT_A_TIME)
        block_responses = responses[:, :, columns[block]]
        block_averages = average_repetitions(block_responses) if averages is None else averages[:, block]
        statistics = GlobalStatistics.of(
            block_averages[train_rows] if method.standardize_on == "train" else block_averages
        )
        repetitions = block_responses[test_responses, :N_REPETITIONS].reshape(-1, block_averages.shape[1])
        assert len(test_rows) * N_REPETITIONS == len(repetitions)
        yield {
            "train": statistics.standardise(block_averages[train_rows]),
            "test": statistics.standardise(repetitions),
        }


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


def _drop_invalid(
    subject: int, neuroids: pd.DataFrame, responses: np.ndarray, prepared: PreparedAverages | None, images: np.ndarray
) -> pd.DataFrame:
    valid = ~np.isnan(responses[:, :N_REPETITIONS]).any(axis=(0, 1))
    keep = valid[neuroids.column]
    if prepared is not None:
        averages = [prepared.of(subject, region.name, images) for region in REGIONS]
        keep &= np.concatenate([~np.isnan(values).any(axis=0) for values in averages])
    if not keep.any():
        raise PackagingError(
            f"{subject_name(subject)} has no vertex whose needed trials are all valid: nothing is left."
        )
    return neuroids[keep]


def describe_inputs(inspection: TreeInspection, paths: list[str], prepared: PreparedAverages | None) -> dict[str, int]:
    """Return the size of every raw file used, by its place in NSD's public bucket, the same for either layout."""
    tree = inspection.tree
    paths = paths + [tree.design_path]
    paths += [tree.labels_path(atlas, hemisphere) for atlas in ATLASES for hemisphere in HEMISPHERES]
    paths += [tree.ncsnr_path(subject, hemisphere) for subject in inspection.trials for hemisphere in HEMISPHERES]
    if prepared is not None:
        paths += [prepared_path(region.name) for region in REGIONS]
    return {tree.official_path(path): tree.storage.size(path) for path in sorted(paths, key=tree.official_path)}


def _require_space(folder: Path, n_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < n_bytes:
        raise PackagingError(
            f"{folder.parent} has {free:,} bytes free, but the assemblies take {n_bytes:,}: no space left. Make room."
        )
