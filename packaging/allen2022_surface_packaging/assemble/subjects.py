"""One subject from its cached sessions to final values, a few vertices at a time, so that memory stays small.

A worker writes the values of a subject to a file of its own, block by block of vertices. The first process copies them to
the places of the neuroids in the assemblies.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..arrays import BoolArray, FloatArray, IntArray
from ..errors import PackagingError
from ..facts import HEMISPHERES
from ..files import naming
from ..nsd.plan import Plan
from ..nsd.storage import FolderFile
from ..release import SPLITS
from .entries import BLOCK_VERTICES
from .responses import average_repetitions, find_valid_vertices, standardise_images
from .sessions import SessionCache, SubjectResponses

MOST_VERTICES = 8 * BLOCK_VERTICES  # at a time; more gain no speed
MOST_RESPONSES = 16 * 2**20  # at a time, single trials of all vertices
BAND_VALUES = 8 * 2**20  # that are copied at a time
MOST_THREADS = 4


@dataclass(frozen=True, eq=False)
class SubjectTask:
    """Everything that a worker needs to compute the values of one subject.

    Attributes
    ----------
    vertices : per hemisphere, ascending
    averaged : rows of the images in `responses` whose repetitions are averaged
    train, statistics : rows of the train images, and of those of the second standardisation, among the averaged ones
    test : rows of the test images in `responses`
    averages : prepared averages of shape (n_averaged_images, n_vertices), or None
    is_validity_needed : whether vertices with NaN are to be found
    path : the file to write
    """

    subject: int
    responses: SubjectResponses
    vertices: dict[str, IntArray]
    averaged: IntArray
    train: IntArray
    statistics: IntArray
    test: IntArray
    averages: FloatArray | None
    is_validity_needed: bool
    path: Path


@dataclass(frozen=True, eq=False)
class SubjectValues:
    """The values of one subject in the file that a worker wrote.

    Attributes
    ----------
    blocks : first column and number of columns of each block
    n_rows : the number of presentations, by split
    n_invalid : how many values of each column were NaN or infinite, by split, arrays of shape (n_columns,)
    is_valid : whether each column had no NaN among the trials that the release needs, of shape (n_columns,); all True
        unless the task asks for it
    """

    subject: int
    path: Path
    blocks: list[tuple[int, int]]
    n_rows: dict[str, int]
    n_invalid: dict[str, IntArray]
    is_valid: BoolArray

    def bands(self, split: str) -> Iterator[tuple[int, FloatArray]]:
        """Yield some presentations of a split at a time: the first one, and the values of shape (n_rows, n_columns)."""
        n_columns = len(self.is_valid)
        n_band = max(1, BAND_VALUES // n_columns)
        n_rows, n_all_rows = self.n_rows[split], sum(self.n_rows.values())
        first_row = 0 if split == SPLITS[0] else self.n_rows[SPLITS[0]]
        with naming(self.path), FolderFile(self.path) as file:
            for start in range(0, n_rows, n_band):
                band = np.empty((min(n_band, n_rows - start), n_columns), dtype=np.float32)
                for column, width in self.blocks:
                    part = np.empty((len(band), width), dtype=np.float32)
                    offset = 4 * (column * n_all_rows + (first_row + start) * width)
                    if file.read_at(offset, part.data.cast("B")) != part.nbytes:
                        raise PackagingError(f"{self.path} ended early. Is the disk sound? Start again.")
                    band[:, column : column + width] = part
                yield start, band


def plan_subject(plan: Plan, cache: SessionCache, subject: int, averages: FloatArray | None, path: Path) -> SubjectTask:
    """Describe how the values of a subject are computed; `averages` are the prepared ones, if there are any."""
    images, averaged = plan.single_trial_images, plan.averaged_images
    statistics = averaged if plan.recipe.standardize_on == "all" else plan.splits["train"]
    return SubjectTask(
        subject=subject,
        responses=cache.responses_of(plan, subject),
        vertices=plan.region_map.vertices,
        averaged=np.searchsorted(images, averaged),
        train=np.searchsorted(averaged, plan.splits["train"]),
        statistics=np.searchsorted(averaged, statistics),
        test=np.searchsorted(images, plan.splits["test"]),
        averages=averages,
        is_validity_needed=plan.recipe.nan_policy == "drop",
        path=path,
    )


def compute_subject(item: SubjectTask) -> SubjectValues:
    """Average and standardise the responses of a subject, and write the values with zeros for NaN and infinite ones.

    Raises
    ------
    PackagingError
        If a cached session is damaged and its betas cannot be read.
    """
    blocks = list(_list_blocks(item))
    counts: dict[str, list[IntArray]] = {split: [] for split in SPLITS}
    valid, n_rows = [], {}
    with naming(item.path), item.path.open("wb", buffering=0) as file, ThreadPoolExecutor(_n_threads()) as threads:
        for values, block_valid in _ahead(threads, item, blocks):
            for split in SPLITS:
                invalid = ~np.isfinite(values[split])
                counts[split].append(invalid.sum(axis=0))
                if invalid.any():
                    values[split][invalid] = 0
                _write(file.fileno(), values[split])
                n_rows[split] = len(values[split])
            valid.append(block_valid)
    return SubjectValues(
        item.subject,
        item.path,
        [(block.column, len(block.vertices)) for block in blocks],
        n_rows,
        {split: np.concatenate(split_counts) for split, split_counts in counts.items()},
        np.concatenate(valid),
    )


@dataclass(frozen=True, eq=False)
class _Block:
    """Some vertices of one hemisphere, and the column of the first of them."""

    hemisphere: str
    vertices: IntArray
    column: int


def _list_blocks(item: SubjectTask) -> Iterator[_Block]:
    n_trials = len(item.responses.images) * item.responses.n_repetitions
    n_blocks = MOST_RESPONSES // (n_trials * BLOCK_VERTICES)
    width = min(MOST_VERTICES, max(1, n_blocks) * BLOCK_VERTICES)
    column = 0
    for hemisphere in HEMISPHERES:
        vertices = item.vertices[hemisphere]
        for start in range(0, len(vertices), width):
            block = _Block(hemisphere, vertices[start : start + width], column)
            column += len(block.vertices)
            yield block


def _ahead(
    threads: ThreadPoolExecutor, item: SubjectTask, blocks: list[_Block]
) -> Iterator[tuple[dict[str, FloatArray], BoolArray]]:
    """Compute blocks on several threads, and yield them in order; no more than one per thread is kept."""
    waiting = deque(blocks)
    ahead = deque(threads.submit(_compute_block, item, waiting.popleft()) for _ in blocks[: _n_threads()])
    while ahead:
        result = ahead.popleft().result()
        if waiting:
            ahead.append(threads.submit(_compute_block, item, waiting.popleft()))
        yield result


def _compute_block(item: SubjectTask, block: _Block) -> tuple[dict[str, FloatArray], BoolArray]:
    """Return the standardised values of some vertices by split, and which of the vertices are valid."""
    n_columns = len(block.vertices)
    responses = _widen(item.responses.read(block.hemisphere, block.vertices))
    is_valid = np.ones(responses.shape[2], dtype=bool)
    if item.is_validity_needed:
        is_valid &= find_valid_vertices(responses, *item.responses.shown_trials())
    if item.averages is None:
        averages = average_repetitions(_rows(responses, item.averaged))
    else:
        averages = _widen(item.averages[:, block.column : block.column + n_columns])
        is_valid &= ~np.isnan(averages).any(axis=0)
    values = standardise_images(averages, responses[item.test], train=item.train, statistics_over=item.statistics)
    return {split: np.ascontiguousarray(values[split][:, :n_columns]) for split in SPLITS}, is_valid[:n_columns]


def _widen(values: FloatArray) -> FloatArray:
    """Repeat a single column, because NumPy sums it in another order than the columns of a matrix."""
    return np.repeat(values, 2, axis=-1) if values.shape[-1] == 1 else values


def _rows(values: FloatArray, rows: IntArray) -> FloatArray:
    """Return some rows; all of them without a copy."""
    return values if len(rows) == len(values) else values[rows]


def _write(descriptor: int, values: FloatArray) -> None:
    buffer = values.data.cast("B")
    while buffer:
        buffer = buffer[os.write(descriptor, buffer) :]


def _n_threads() -> int:
    return min(MOST_THREADS, len(os.sched_getaffinity(0)))
