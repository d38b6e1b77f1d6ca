"""What a build will read, write and take, estimated from the plan and from a short read of the tree."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from ..facts import HEMISPHERES, N_REPETITIONS
from ..nsd.files import count_image_bytes
from ..nsd.plan import Plan, Session
from ..nsd.storage import FolderFile, RawFile
from ..progress import format_bytes, format_seconds
from .entries import BLOCK_VERTICES

# Measured with one worker on two cores and files in memory: docs/performance.md, "What a build costs".
START_SECONDS = 2.0
COMPUTED_BYTES_PER_SECOND = 4.9e9  # betas that are gathered and standardised: 983 MB of a session in 0.20 s
SECONDS_PER_VALUE = 1.2e-7  # of the assemblies: 8 subjects of 1.7 s + 0.75 s for 159 million values
SECONDS_PER_IMAGE_BYTE = 0.03 / (425 * 425 * 3)  # written as PNG
COORDINATE_BYTES = 54  # of a neuroid in an assembly
BYTES_PER_VALUE = 4

N_PIECES = 8  # of betas files that are read to measure the speed
PIECE_BYTES = 8 * 2**20
MEASURED_SECONDS = 3.0  # at most
SMALL_TREE_BYTES = (
    20 * N_PIECES * PIECE_BYTES
)  # below, the measurement says more about opening files than about reading


@dataclass(frozen=True)
class ReadingSpeed:
    """How fast betas were read a moment ago.

    Attributes
    ----------
    n_bytes, n_files : what was read
    """

    n_bytes: int
    n_files: int
    seconds: float

    @property
    def bytes_per_second(self) -> float:
        """The speed."""
        return self.n_bytes / max(self.seconds, 1e-6)


@dataclass(frozen=True)
class Estimate:
    """What a build from nothing takes, with one worker.

    Attributes
    ----------
    read_bytes, n_files : of betas; each file is read once, however many recipes need it
    release_bytes : of all releases, at most, because images may be smaller when they are compressed
    cache_bytes : of the session cache, which stays
    scratch_bytes : beside the cache while the build runs, at most
    speed : the measured one; None if the tree is too small for a measurement
    """

    read_bytes: int
    n_files: int
    release_bytes: int
    cache_bytes: int
    scratch_bytes: int
    seconds: float
    speed: ReadingSpeed | None

    def __str__(self) -> str:
        if self.speed is None:
            how = "computed from the sizes; the tree is too small to measure how fast it is read"
        else:
            how = (
                f"reading at {format_bytes(self.speed.bytes_per_second)}/s, as measured just now on "
                f"{format_bytes(self.speed.n_bytes)} of {self.speed.n_files} files"
            )
        rows = {
            "reads": f"{format_bytes(self.read_bytes)}, {self.n_files:,} betas files",
            "takes": f"about {format_seconds(self.seconds)} with one worker ({how})",
            "needs": f"{format_bytes(self.release_bytes)} for the release at most, "
            f"{format_bytes(self.cache_bytes)} for the cache, {format_bytes(self.scratch_bytes)} more while it runs",
        }
        return "\n".join(["a build", *(f"    {key}  {text}" for key, text in rows.items())])


def estimate_build(plans: Sequence[Plan]) -> Estimate:
    """Estimate a build of one or several releases.

    The betas are read as fast as a few pieces of them are read now, or as fast as they can be computed. The numbers for
    all other work were measured on one machine.

    Raises
    ------
    PackagingError
        If a file cannot be read.
    """
    files = {file.path: file for plan in plans for session in plan.sessions for file in session.betas.values()}
    read_bytes = sum(file.size() for file in files.values())
    n_values = sum(_count_values(plan) for plan in plans)
    image_bytes = sum(map(_count_image_bytes, plans))
    speed = measure_reading(list(files.values())) if read_bytes >= SMALL_TREE_BYTES else None
    bytes_per_second = min(COMPUTED_BYTES_PER_SECOND, speed.bytes_per_second if speed else np.inf)
    seconds = START_SECONDS + read_bytes / bytes_per_second
    seconds += SECONDS_PER_VALUE * n_values + SECONDS_PER_IMAGE_BYTE * image_bytes
    return Estimate(
        read_bytes=read_bytes,
        n_files=len(files),
        release_bytes=sum(map(_count_release_bytes, plans)),
        cache_bytes=_count_cache_bytes(plans),
        scratch_bytes=BYTES_PER_VALUE * max(map(_count_values, plans)),
        seconds=float(seconds),
        speed=speed,
    )


def measure_reading(files: Sequence[RawFile]) -> ReadingSpeed:
    """Read a few pieces of files as a build does, at most for some seconds.

    What the memory of this machine holds of the pieces is dropped first: a build reads more than a memory holds.
    """
    chosen = [files[i] for i in np.unique(np.linspace(0, len(files) - 1, N_PIECES).astype(int))]
    deadline = time.monotonic() + MEASURED_SECONDS
    with chosen[0].open() as file:
        n_threads = len(HEMISPHERES) * max(1, file.n_readers)  # a worker reads two files at a time
    start = time.monotonic()
    with ThreadPoolExecutor(n_threads) as threads:
        n_read = list(threads.map(lambda file: _read_piece(file, deadline), chosen))
    return ReadingSpeed(sum(n_read), sum(n > 0 for n in n_read), time.monotonic() - start)


def _read_piece(file: RawFile, deadline: float) -> int:
    """Read a piece from the middle of a file, and return how many bytes were read until the deadline."""
    with file.open() as opened:
        start = max(0, (file.size() - PIECE_BYTES) // 2)
        if isinstance(opened, FolderFile):
            os.posix_fadvise(opened.fileno(), start, PIECE_BYTES, os.POSIX_FADV_DONTNEED)
        buffer, n_read = memoryview(bytearray(opened.block_bytes)), 0
        while n_read < PIECE_BYTES and time.monotonic() < deadline:
            n = opened.read_at(start + n_read, buffer)
            n_read += n
            if n < len(buffer):  # a file that is smaller than a piece
                break
    return n_read


def _count_neuroids(plan: Plan) -> int:
    return len(plan.recipe.subjects) * sum(region.n_vertices for region in plan.region_map.regions)


def _count_values(plan: Plan) -> int:
    """Return the number of values in both assemblies."""
    n_presentations = len(plan.splits["train"]) + N_REPETITIONS * len(plan.splits["test"])
    return n_presentations * _count_neuroids(plan)


def _count_image_bytes(plan: Plan) -> int:
    """Return the size of all images: of the files if they are copied, else of the pixels, which PNG makes smaller."""
    if plan.extracted_images:
        return sum(file.size() for file in plan.extracted_images.values())
    return len(plan.images) * count_image_bytes(plan.tree.images)


def _count_release_bytes(plan: Plan) -> int:
    coordinate_bytes = len(plan.splits) * COORDINATE_BYTES * _count_neuroids(plan)
    return BYTES_PER_VALUE * _count_values(plan) + coordinate_bytes + _count_image_bytes(plan)


def _count_cache_bytes(plans: Sequence[Plan]) -> int:
    """Return the size of the session cache: of every session the trials and vertices that any of the plans needs."""
    users: dict[str, list[tuple[Session, Plan]]] = {}
    for plan in plans:
        for session in plan.sessions:
            users.setdefault(session.betas[HEMISPHERES[0]].path, []).append((session, plan))
    n_vertices: dict[frozenset[int], int] = {}  # most sessions are needed by the same plans; in whole blocks
    n_values = 0
    for sessions_and_plans in users.values():
        key = frozenset(id(plan) for _, plan in sessions_and_plans)
        if key not in n_vertices:
            maps = [plan.region_map for _, plan in sessions_and_plans]
            unions = [np.unique(np.concatenate([region_map.vertices[h] for region_map in maps])) for h in HEMISPHERES]
            n_vertices[key] = sum(-(-len(vertices) // BLOCK_VERTICES) * BLOCK_VERTICES for vertices in unions)
        trials = np.unique(np.concatenate([session.trials for session, _ in sessions_and_plans]))
        n_values += len(trials) * n_vertices[key]
    return BYTES_PER_VALUE * n_values
