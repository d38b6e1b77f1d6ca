"""The assemblies of a release, one subject after the other and a few neuroids at a time, so that memory stays small."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Self

import numpy as np
import pandas as pd

from ..arrays import BoolArray, DoubleArray, FloatArray, IntArray
from ..errors import PackagingError
from ..facts import HEMISPHERES, N_REPETITIONS, noise_ceiling, subject_name
from ..nsd.plan import Plan
from ..nsd.regions import RegionMap
from ..progress import format_bytes
from ..release import NEUROID_COORDINATES, SPLITS, FilledCounts, ReleaseFolder, list_presentations
from .assembly import create_assembly
from .prepared import read_prepared
from .responses import average_repetitions, standardise_images
from .sessions import CachedSession, SessionCache, both_hemispheres

logger = logging.getLogger(__name__)

MOST_NEUROIDS = 1024  # at a time
MOST_RESPONSES = 4 * 2**20  # at a time, single trials of all neuroids
MOST_THREADS = 8


@dataclass(frozen=True)
class AssemblyRecord:
    """The assemblies of a release: their shapes by split, and how many values were NaN by subject and region."""

    shapes: dict[str, tuple[int, int, int]]
    nan_counts: dict[str, dict[str, FilledCounts]]


@dataclass(frozen=True, eq=False)
class _Subject:
    """What the values of one subject are computed from.

    Attributes
    ----------
    neuroids : rows of the table of neuroids
    averages : prepared averages of all vertices of each region; empty if they are to be computed
    """

    plan: Plan
    neuroids: pd.DataFrame
    sessions: list[CachedSession]
    averages: dict[str, FloatArray]

    @classmethod
    def open(cls, plan: Plan, cache: SessionCache, number: int, neuroids: pd.DataFrame) -> Self:
        rows = neuroids[neuroids["subject"] == subject_name(number)]
        return cls(plan, rows, cache.sessions_of(plan, number), read_prepared(plan, number))

    @property
    def n_repetitions(self) -> int:
        return max(N_REPETITIONS, *(int(session.repetitions.max()) + 1 for session in self.sessions))

    def blocks(self) -> Iterator[pd.DataFrame]:
        """Yield some neuroids of a region at a time."""
        n_responses = len(self.plan.single_trial_images) * self.n_repetitions  # of a neuroid
        width = max(1, min(MOST_NEUROIDS, MOST_RESPONSES // n_responses))
        for _, neuroids in self.neuroids.groupby("region", sort=False):
            for first in range(0, len(neuroids), width):
                yield neuroids[first : first + width]

    def compute(self, block: pd.DataFrame) -> dict[str, FloatArray]:
        """Return the standardised values of some neuroids, by split."""
        images, averaged, splits = self.plan.single_trial_images, self.plan.averaged_images, self.plan.splits
        responses = np.full((len(images), self.n_repetitions, len(block)), np.nan, dtype=np.float32)
        for session in self.sessions:  # a repetition that was not shown stays NaN
            responses[session.rows, session.repetitions] = session.read(block["vertex"].to_numpy()).T
        averages = self.read_averages(block)
        if averages is None:
            averages = average_repetitions(responses[np.searchsorted(images, averaged)])
        test_responses = responses[np.searchsorted(images, splits["test"])]
        return standardise_images(averages, test_responses, train=np.searchsorted(averaged, splits["train"]))

    def read_averages(self, block: pd.DataFrame) -> FloatArray | None:
        """Return the prepared averages of some neuroids, of shape (n_images, n_neuroids)."""
        return self.averages[block["region"].iloc[0]][:, block["number"].to_numpy()] if self.averages else None

    def read_all(self, block: pd.DataFrame) -> FloatArray:
        """Return everything that the values of some neuroids are computed from, of shape (n_values, n_neuroids)."""
        used = [session.read(block["vertex"].to_numpy()).T for session in self.sessions]
        averages = self.read_averages(block)
        return np.concatenate(used if averages is None else [*used, averages])


def list_neuroids(region_map: RegionMap, ncsnr: Mapping[int, DoubleArray]) -> pd.DataFrame:
    """List the neuroids of all subjects in the order of the assembly: by region, subject, hemisphere and vertex.

    Parameters
    ----------
    ncsnr : arrays of shape (n_read_vertices of lh + rh,)
        Noise-ceiling signal-to-noise ratio by subject, unitless.

    Returns
    -------
    table with the neuroid coordinates of an assembly as columns, and two more
        ``vertex`` numbers the vertices through both hemispheres, and ``number`` those of the region through lh, then rh.
    """
    parts = []
    read_vertices = {s: both_hemispheres(read, region_map.n_vertices) for s, read in region_map.vertices.items()}
    for region in region_map.regions:
        for subject, values in ncsnr.items():
            start, of_region = subject_name(subject), region.vertices[subject]
            vertices = both_hemispheres(of_region, region_map.n_vertices)
            columns = np.searchsorted(read_vertices[subject], vertices)
            hemispheres = np.repeat(HEMISPHERES, [len(of_region[h]) for h in HEMISPHERES]).tolist()
            ids = [f"{start}_{hemisphere}_{region.name}_v{n:05d}" for n, hemisphere in enumerate(hemispheres)]
            part = {
                "neuroid_id": ids,
                "subject": start,
                "hemisphere": hemispheres,
                "vertex_index": vertices % region_map.n_vertices,
                "region": region.name,
                "nc_testset": noise_ceiling(values[columns]),
                "vertex": vertices,
                "number": np.arange(len(vertices)),
            }
            parts.append(pd.DataFrame(part))
    return pd.concat(parts, ignore_index=True)


def write_assemblies(plan: Plan, cache: SessionCache, folder: ReleaseFolder) -> AssemblyRecord:
    """Write the train and test assemblies of a release from the cached sessions.

    Raises
    ------
    PackagingError
        If a prepared assembly is damaged, the disk is full, or no vertex of a subject is valid and invalid ones are dropped.
    """
    neuroids = list_neuroids(plan.region_map, plan.ncsnr)
    if not plan.recipe.keeps_all:
        neuroids = _choose_neuroids(plan, cache, neuroids)
    shapes, nan_counts = {}, {}
    paths = {split: folder.assembly_path(plan.recipe.name, split) for split in SPLITS}
    with ThreadPoolExecutor(min(MOST_THREADS, os.cpu_count() or 1)) as threads, ExitStack() as exits:
        writers = {}
        for split, path in paths.items():
            presentations = list_presentations(split, plan.splits[split])
            shapes[split] = (len(presentations), len(neuroids), 1)
            created = create_assembly(
                path,
                identifier=f"{plan.recipe.name}.{split}",
                presentations=presentations,
                neuroids=neuroids[list(NEUROID_COORDINATES)],
            )
            writers[split] = exits.enter_context(created)
        for number in plan.recipe.subjects:
            subject = _Subject.open(plan, cache, number, neuroids)
            blocks = list(subject.blocks())
            counts = {region.name: np.zeros(3, dtype=int) for region in plan.region_map.regions}
            for block, n_invalid in zip(
                blocks, threads.map(partial(_write_block, subject, writers), blocks), strict=True
            ):
                counts[block["region"].iloc[0]] += n_invalid
            nan_counts[subject_name(number)] = {name: FilledCounts(*n.tolist()) for name, n in counts.items()}
            logger.info("%s: %d neuroids", subject_name(number), len(subject.neuroids))
    for split, path in paths.items():
        logger.info("%s: %s, %s", path.name, shapes[split], format_bytes(path.stat().st_size))
    return AssemblyRecord(shapes, nan_counts)


def _choose_neuroids(plan: Plan, cache: SessionCache, neuroids: pd.DataFrame) -> pd.DataFrame:
    """Leave out the neuroids that have an invalid trial, or that are copies, as the recipe says."""
    is_kept = np.ones(len(neuroids), dtype=bool)
    for number in plan.recipe.subjects:
        subject = _Subject.open(plan, cache, number, neuroids)
        seen: set[tuple[str, bytes]] = set()
        for block in subject.blocks():
            responses = subject.read_all(block)
            if plan.recipe.nan_policy == "drop":
                is_kept[block.index] = ~np.isnan(responses).any(axis=0)
            if plan.recipe.copies == "drop":
                is_kept[block.index] &= _find_new(block["region"].iloc[0], responses, seen)
        if len(subject.neuroids) and not is_kept[subject.neuroids.index].any():
            raise PackagingError(
                f"{subject_name(number)} has no vertex whose trials are all valid, so nothing is left. Keep "
                "invalid vertices (--nan-policy zero), or choose other subjects."
            )
    return neuroids[is_kept].reset_index(drop=True)


def _find_new(region: str, responses: FloatArray, seen: set[tuple[str, bytes]]) -> BoolArray:
    """Return which neuroids are no copies of those that were seen in their region. Constant ones, such as NaN, are none."""
    is_new: BoolArray = ~(np.fmax.reduce(responses, axis=0) > np.fmin.reduce(responses, axis=0))
    for row, values in enumerate(responses.T):
        key = region, hashlib.sha1(values.tobytes()).digest()
        is_new[row] |= key not in seen
        seen.add(key)
    return is_new


def _write_block(
    subject: _Subject, writers: Mapping[str, Callable[[int, int, FloatArray], None]], block: pd.DataFrame
) -> IntArray:
    """Write the values of some neuroids, with zeros for NaN and infinite ones.

    Returns
    -------
    how many values of train and of test were NaN or infinite, and how many neuroids have any
    """
    n_invalid = {}
    for split, values in subject.compute(block).items():
        is_invalid = ~np.isfinite(values)
        values[is_invalid] = 0
        writers[split](0, block.index[0], values)
        n_invalid[split] = is_invalid.sum(axis=0)
    train, test = (n_invalid[split] for split in SPLITS)
    return np.array([train.sum(), test.sum(), np.count_nonzero(train + test)])
