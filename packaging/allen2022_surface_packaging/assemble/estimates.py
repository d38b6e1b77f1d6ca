"""What a build will read, write and take, estimated from the plan and from a short read of the tree."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np

from ..arrays import BoolArray
from ..facts import FSAVERAGE, HEMISPHERES, N_REPETITIONS, NATIVE
from ..nsd.files import read_betas
from ..nsd.native import read_native_betas
from ..nsd.plan import Plan, Session
from ..progress import format_bytes, format_seconds
from ..release import SPLITS
from .sessions import list_needed

# Measured with one worker on two cores and files in memory: docs/performance.md, "What a build costs".
START_SECONDS = 2.0
COMPUTED_BYTES_PER_SECOND = 4.9e9  # betas that are gathered and standardised: 983 MB of a session in 0.20 s
SECONDS_PER_VALUE = 1.2e-7  # of the assemblies
SECONDS_PER_IMAGE_BYTE = 0.03 / (425 * 425 * 3)  # written as PNG
# Measured with the gaps that are read in vain, and the index: docs/performance.md, "From the subjects' own surfaces".
NATIVE_BYTES_PER_BYTE = 2.3
NATIVE_VERTICES_PER_VERTEX = 1.4  # of fsaverage
COORDINATE_BYTES = 54  # of a neuroid in an assembly
BYTES_PER_VALUE = 4

MEASURED_SECONDS = 3.0  # at most
MEASURED_VERTICES = 2000  # of a subject's own surface
SMALL_TREE_BYTES = 10**9  # below, opening files would be measured rather than reading


def estimate_build(plans: Sequence[Plan]) -> str:
    """Say what a build of one or several releases from nothing reads, takes and needs, with one worker.

    Each betas file is read once, however many recipes need it, as fast as a session is read now, or as fast as betas can be
    computed. The numbers for all other work were measured on one machine. Compressed images may be smaller.

    Raises
    ------
    PackagingError
        If a file cannot be read.
    """
    needed = list(list_needed(plans))
    counts = [_count_bytes(session, mask) for session, _, mask in needed]
    read_bytes, other_bytes = map(sum, zip(*counts, strict=True))
    image_bytes = sum(plan.image_bytes for plan in plans)
    n_values, n_neuroids = sum(map(count_values, plans)), sum(map(_count_neuroids, plans))
    release_bytes = BYTES_PER_VALUE * n_values + len(SPLITS) * COORDINATE_BYTES * n_neuroids + image_bytes
    cache_bytes = BYTES_PER_VALUE * sum(len(trials) * int(mask.sum()) for _, trials, mask in needed)
    speed, how = np.inf, "computed from the sizes; the tree is too small to measure how fast it is read"
    if read_bytes >= SMALL_TREE_BYTES:
        speed = measure_reading(needed[len(needed) // 2][0])
        how = f"reading at {format_bytes(speed)}/s, as measured just now on one session"
    computing_seconds = max(read_bytes, other_bytes) / COMPUTED_BYTES_PER_SECOND  # measured on those of fsaverage
    other_work_seconds = START_SECONDS + SECONDS_PER_VALUE * n_values + SECONDS_PER_IMAGE_BYTE * image_bytes
    seconds, other_seconds = (
        other_work_seconds + max(computing_seconds, n_bytes / speed) for n_bytes in (read_bytes, other_bytes)
    )
    other_files = NATIVE if other_bytes < read_bytes else FSAVERAGE
    return (
        f"a build\n    reads  {format_bytes(read_bytes)}, {len(HEMISPHERES) * len(needed):,} betas files\n"
        f"    takes  about {format_seconds(seconds)} with one worker ({how})\n"
        f"    needs  {format_bytes(release_bytes)} for the release at most, {format_bytes(cache_bytes)} for the cache\n"
        f'    or reads {format_bytes(other_bytes)} in about {format_seconds(other_seconds)} with files = "{other_files}" in '
        "the recipe"
    )


def _count_bytes(session: Session, mask: BoolArray) -> tuple[int, int]:
    """Return how many bytes of betas a build reads of a session, and how many it would read of the other files."""
    n_read_vertices = min(NATIVE_BYTES_PER_BYTE * int(mask.sum()), NATIVE_VERTICES_PER_VERTEX * len(mask))
    native = round(2 * session.shape.n_trials * n_read_vertices)
    if session.native_index:
        return native, 4 * session.shape.n_trials * len(mask)
    return sum(file.size() for file in session.betas.values()), native


def measure_reading(session: Session) -> float:
    """Read the betas of a session as a build does, at most for some seconds, and return the bytes per second."""
    start = time.monotonic()

    def read(hemisphere: str) -> float:
        file = session.betas[hemisphere]
        # A build reads more than the memory of this machine holds. Not every system and disk forgets a file.
        with suppress(AttributeError, OSError), file.open() as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        if session.native_index:
            vertices = np.unique(session.native_index[hemisphere])[:MEASURED_VERTICES]
            blocks = read_native_betas(file, session.shape.n_trials, vertices)
            return NATIVE_BYTES_PER_BYTE * sum(block.nbytes / 2 for block in blocks)
        n_read = 0
        for block in read_betas(file, session.shape):
            n_read += block.nbytes
            if time.monotonic() > start + MEASURED_SECONDS:
                break
        return n_read

    with ThreadPoolExecutor(len(HEMISPHERES)) as threads:
        n_read = sum(threads.map(read, HEMISPHERES))
    return n_read / max(time.monotonic() - start, 1e-6)


def count_values(plan: Plan) -> int:
    """Return the number of values in both assemblies of a release, if no neuroid is left out."""
    return (len(plan.splits["train"]) + N_REPETITIONS * len(plan.splits["test"])) * _count_neuroids(plan)


def _count_neuroids(plan: Plan) -> int:
    return sum(sum(region.n_vertices.values()) for region in plan.region_map.regions)
