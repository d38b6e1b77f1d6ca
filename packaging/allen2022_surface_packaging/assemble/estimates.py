"""What a build will read, write and take, estimated from the plan and from a short read of the tree."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np

from ..facts import HEMISPHERES, N_REPETITIONS
from ..nsd.files import read_betas
from ..nsd.plan import Plan, Session
from ..nsd.storage import RawFile
from ..progress import format_bytes, format_seconds
from ..release import SPLITS
from .sessions import list_needed

# Measured with one worker on two cores and files in memory: docs/performance.md, "What a build costs".
START_SECONDS = 2.0
COMPUTED_BYTES_PER_SECOND = 4.9e9  # betas that are gathered and standardised: 983 MB of a session in 0.20 s
SECONDS_PER_VALUE = 1.2e-7  # of the assemblies
SECONDS_PER_IMAGE_BYTE = 0.03 / (425 * 425 * 3)  # written as PNG
COORDINATE_BYTES = 54  # of a neuroid in an assembly
BYTES_PER_VALUE = 4

MEASURED_SECONDS = 3.0  # at most
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
    sessions = [session for plan in plans for session in plan.sessions]
    files = {file for session in sessions for file in session.betas.values()}
    read_bytes, image_bytes = sum(file.size() for file in files), sum(plan.image_bytes for plan in plans)
    n_values, n_neuroids = sum(map(count_values, plans)), sum(map(_count_neuroids, plans))
    release_bytes = BYTES_PER_VALUE * n_values + len(SPLITS) * COORDINATE_BYTES * n_neuroids + image_bytes
    cache_bytes = BYTES_PER_VALUE * sum(len(trials) * int(mask.sum()) for _, trials, mask in list_needed(plans))
    speed, how = np.inf, "computed from the sizes; the tree is too small to measure how fast it is read"
    if read_bytes >= SMALL_TREE_BYTES:
        speed = measure_reading(sessions[len(sessions) // 2])
        how = f"reading at {format_bytes(speed)}/s, as measured just now on one session"
    seconds = START_SECONDS + read_bytes / min(COMPUTED_BYTES_PER_SECOND, speed)
    seconds += SECONDS_PER_VALUE * n_values + SECONDS_PER_IMAGE_BYTE * image_bytes
    return (
        f"a build\n    reads  {format_bytes(read_bytes)}, {len(files):,} betas files\n"
        f"    takes  about {format_seconds(seconds)} with one worker ({how})\n"
        f"    needs  {format_bytes(release_bytes)} for the release at most, {format_bytes(cache_bytes)} for the cache"
    )


def measure_reading(session: Session) -> float:
    """Read the betas of a session as a build does, at most for some seconds, and return the bytes per second."""
    start = time.monotonic()

    def read(file: RawFile) -> int:
        # A build reads more than the memory of this machine holds. Not every system and disk forgets a file.
        with suppress(AttributeError, OSError), file.open() as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        n_read = 0
        for block in read_betas(file, session.shape):
            n_read += block.nbytes
            if time.monotonic() > start + MEASURED_SECONDS:
                break
        return n_read

    with ThreadPoolExecutor(len(HEMISPHERES)) as threads:
        n_read = sum(threads.map(read, session.betas.values()))
    return n_read / max(time.monotonic() - start, 1e-6)


def count_values(plan: Plan) -> int:
    """Return the number of values in both assemblies of a release, if no neuroid is left out."""
    return (len(plan.splits["train"]) + N_REPETITIONS * len(plan.splits["test"])) * _count_neuroids(plan)


def _count_neuroids(plan: Plan) -> int:
    return len(plan.recipe.subjects) * sum(region.n_vertices for region in plan.region_map.regions)
