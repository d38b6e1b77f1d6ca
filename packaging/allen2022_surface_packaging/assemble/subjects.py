"""The assemblies of a release, one subject after the other and a few neuroids at a time, so that memory stays small."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Self

import numpy as np

from ..arrays import BoolArray, FloatArray, IntArray
from ..errors import PackagingError
from ..facts import N_REPETITIONS, subject_name
from ..nsd.plan import Plan
from ..release import SPLITS, FilledCounts, ReleaseFolder, list_presentations
from .assembly import AssemblyFile, create_assembly
from .neuroids import RegionNeuroids, list_coordinates, list_neuroids
from .prepared import read_prepared
from .responses import average_repetitions, standardise_images
from .sessions import CachedSession, SessionCache

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
    images : whose single trials are needed, ascending
    averages : prepared averages of all vertices of each region; empty if they are to be computed
    """

    plan: Plan
    images: IntArray
    sessions: list[CachedSession]
    averages: dict[str, FloatArray]

    @classmethod
    def open(cls, plan: Plan, cache: SessionCache, number: int) -> Self:
        return cls(plan, plan.single_trial_images, cache.sessions_of(plan, number), read_prepared(plan, number))

    @property
    def n_repetitions(self) -> int:
        return max(N_REPETITIONS, *(int(session.repetitions.max()) + 1 for session in self.sessions))

    @property
    def width(self) -> int:
        """How many neuroids are computed at a time."""
        return max(1, min(MOST_NEUROIDS, MOST_RESPONSES // (len(self.images) * self.n_repetitions)))

    def compute(self, block: RegionNeuroids) -> dict[str, FloatArray]:
        """Return the standardised values of some neuroids, by split."""
        responses = np.full((len(self.images), self.n_repetitions, len(block)), np.nan, dtype=np.float32)
        for session in self.sessions:  # a repetition that was not shown stays NaN
            responses[session.rows, session.repetitions] = session.read(block.vertices).T
        averaged, splits = self.plan.averaged_images, self.plan.splits
        if self.averages:
            averages = self.averages[block.region][:, block.numbers]
        else:
            averages = average_repetitions(responses[np.searchsorted(self.images, averaged)])
        test_responses = responses[np.searchsorted(self.images, splits["test"])]
        return standardise_images(averages, test_responses, train=np.searchsorted(averaged, splits["train"]))

    def find_valid(self, block: RegionNeuroids) -> BoolArray:
        """Return which of some neuroids have no NaN in what their values are computed from."""
        is_valid = np.ones(len(block), dtype=bool)
        for session in self.sessions:
            is_valid &= ~np.isnan(session.read(block.vertices)).any(axis=1)
        if self.averages:
            is_valid &= ~np.isnan(self.averages[block.region][:, block.numbers]).any(axis=0)
        return is_valid


def write_assemblies(plan: Plan, cache: SessionCache, folder: ReleaseFolder) -> AssemblyRecord:
    """Write the train and test assemblies of a release from the cached sessions.

    Raises
    ------
    PackagingError
        If a prepared assembly is damaged, the disk is full, or no vertex of a subject is valid and invalid ones are dropped.
    """
    groups = list_neuroids(plan.region_map, plan.ncsnr)
    if plan.recipe.nan_policy == "drop":
        groups = _keep_valid(plan, cache, groups)
    presentations = {split: list_presentations(split, plan.splits[split]) for split in SPLITS}
    neuroids = list_coordinates(groups)
    nan_counts = {}
    with ThreadPoolExecutor(min(MOST_THREADS, len(os.sched_getaffinity(0)))) as threads, ExitStack() as exits:
        files = {
            split: exits.enter_context(
                create_assembly(
                    folder.assembly_path(plan.recipe.name, split),
                    identifier=f"{plan.recipe.name}.{split}",
                    presentations=presentations[split],
                    neuroids=neuroids.items(),
                )
            )
            for split in SPLITS
        }
        for number in plan.recipe.subjects:
            subject = _Subject.open(plan, cache, number)
            blocks, starts = zip(*_list_blocks(groups, number, subject.width), strict=True)
            write = partial(_write_block, subject, files)
            counts = {region.name: np.zeros(3, dtype=int) for region in plan.region_map.regions}
            for block, block_counts in zip(blocks, threads.map(write, blocks, starts), strict=True):
                counts[block.region] += block_counts
            nan_counts[subject_name(number)] = {name: FilledCounts(*n.tolist()) for name, n in counts.items()}
            logger.info("%s: %d neuroids", subject_name(number), sum(map(len, blocks)))
    shapes = {split: (len(presentations[split]), sum(map(len, groups)), 1) for split in SPLITS}
    for split, file in files.items():
        logger.info("%s: %s, %.1f MB", file.path.name, shapes[split], file.path.stat().st_size / 1e6)
    return AssemblyRecord(shapes, nan_counts)


def _keep_valid(plan: Plan, cache: SessionCache, groups: Sequence[RegionNeuroids]) -> list[RegionNeuroids]:
    """Return the neuroids without those that have an invalid trial."""
    kept: dict[int, list[RegionNeuroids]] = {}
    for number in plan.recipe.subjects:
        subject = _Subject.open(plan, cache, number)
        subject_groups = (group for group in groups if group.subject == number)
        kept[number] = [group.select(np.flatnonzero(subject.find_valid(group))) for group in subject_groups]
        if not any(map(len, kept[number])):
            raise PackagingError(
                f"{subject_name(number)} has no vertex whose trials are all valid, so nothing is left. Keep "
                "invalid vertices (--nan-policy zero), or choose other subjects."
            )
    return [kept[group.subject].pop(0) for group in groups]


def _list_blocks(groups: Sequence[RegionNeuroids], subject: int, width: int) -> Iterator[tuple[RegionNeuroids, int]]:
    """Yield some neuroids of a subject at a time, and the position of the first one in the assembly."""
    starts = itertools.accumulate(map(len, groups), initial=0)
    for group, start in zip(groups, starts, strict=False):
        if group.subject == subject:
            for first in range(0, len(group), width):
                yield group.select(slice(first, first + width)), start + first


def _write_block(subject: _Subject, files: Mapping[str, AssemblyFile], block: RegionNeuroids, start: int) -> IntArray:
    """Write the values of some neuroids, with zeros for NaN and infinite ones.

    Returns
    -------
    how many values of train and of test were NaN or infinite, and how many neuroids have any
    """
    n_invalid = {}
    for split, values in subject.compute(block).items():
        is_invalid = ~np.isfinite(values)
        values[is_invalid] = 0
        files[split].write(0, start, values)
        n_invalid[split] = is_invalid.sum(axis=0)
    train, test = (n_invalid[split] for split in SPLITS)
    return np.array([train.sum(), test.sum(), np.count_nonzero(train + test)])
