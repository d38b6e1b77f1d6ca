"""The session cache: every betas file is read once for all recipes, and its responses survive a killed build.

An entry of the cache is one file with the standardised responses of one session: four arrays in NumPy's format, one after
the other. The first one, of shape (n_vertices, n_trials), is mapped into memory, so that a few vertices of many sessions are
read without the rest. The others say which trials and vertices these are, and when the betas files were modified.

Vertices of both hemispheres are numbered through: those of rh follow the last one of lh.
"""

from __future__ import annotations

import hashlib
import io
import logging
import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ..arrays import BoolArray, FloatArray, IntArray, map_array
from ..errors import PackagingError
from ..facts import HEMISPHERES, subject_name
from ..files import Bytes, write_whole
from ..nsd.bucket import FileStatus
from ..nsd.files import read_betas
from ..nsd.native import read_native_betas
from ..nsd.plan import Plan, Session
from ..nsd.storage import RawFile
from ..progress import follow
from .cluster import run_tasks
from .responses import METHOD_VERSION, standardise_session

logger = logging.getLogger(__name__)

SUFFIX = ".npy"
TRANSPOSED_VERTICES = 512  # at a time
HOUR = 3600 * 10**9  # in nanoseconds
ROUNDED_UNITS = tuple(10**k for k in range(10))  # of the times of disks: 1 ns to 1 s; FAT rounds to 2 s


@dataclass(frozen=True, eq=False)
class Entry:
    """An entry of the cache without its responses.

    Attributes
    ----------
    offset : where the responses begin, in bytes
    trials, vertices : ascending; trials are 0-based
    times : when the betas files of lh and rh were modified, in nanoseconds
    """

    path: Path
    offset: int
    trials: IntArray
    vertices: IntArray
    times: IntArray

    @classmethod
    def open(cls, path: Path) -> Self | None:
        """Open an entry. Return None if there is none, or if it is damaged, cut short or something else."""
        try:
            with path.open("rb") as file:
                np.lib.format.read_magic(file)
                shape, _, dtype = np.lib.format.read_array_header_1_0(file)
                offset = file.tell()
                file.seek(4 * math.prod(shape), os.SEEK_CUR)
                trials, vertices, times = np.load(file), np.load(file), np.load(file)
        except Exception:  # NumPy raises many kinds for a damaged file
            return None
        is_whole = dtype == np.float32 and shape == (len(vertices), len(trials)) and len(times) == len(HEMISPHERES)
        return cls(path, offset, trials, vertices, times) if is_whole else None

    def covers(self, task: SessionTask) -> bool:
        """Return whether the entry holds what a task needs, from the same files."""
        return (
            all(map(_are_same_time, self.times.tolist(), task.times.tolist()))
            and bool(np.isin(task.trials, self.trials).all())
            and bool(np.isin(task.vertices, self.vertices).all())
        )


def _are_same_time(one: int, other: int) -> bool:
    """Return whether two times in nanoseconds are the same where a disk rounds them, or is mounted with summer time."""
    difference = min(abs(one - other), abs(abs(one - other) - HOUR))
    return any(difference <= 2 * unit and 0 in (one % unit, other % unit) for unit in ROUNDED_UNITS)


@dataclass(frozen=True, eq=False)
class SessionTask:
    """What the cache must hold of a session: the trials and vertices that any of several recipes needs.

    Attributes
    ----------
    trials : array of shape (n_trials,), 0-based within the session, ascending
    mask : whether each vertex is needed, in packed bits, because a task may be sent to another machine
    stamps : of the betas files when the build started, by hemisphere
    path : the entry
    """

    session: Session
    stamps: dict[str, FileStatus]
    trials: IntArray
    mask: NDArray[np.uint8]
    path: Path

    @property
    def vertices(self) -> IntArray:
        """The vertices, ascending."""
        return np.flatnonzero(np.unpackbits(self.mask))

    @property
    def times(self) -> IntArray:
        """When the betas files were modified, in nanoseconds."""
        return np.array([self.stamps[hemisphere].time_ns for hemisphere in HEMISPHERES])


class SessionCache:
    """The standardised responses of the sessions of some plans, one entry per session.

    The name of an entry depends on everything that it is computed from, but for the times of the files, which it holds. So
    an outdated entry is never used, and the tree may be on another disk. An entry with more vertices or trials than needed
    serves as well. Several builds may share a cache.
    """

    def __init__(self, plans: Sequence[Plan], folder: Path) -> None:
        self.path = folder.absolute()
        self.path.mkdir(parents=True, exist_ok=True)
        self.tasks: dict[RawFile, SessionTask] = {}  # by the betas of lh
        self.missing: list[SessionTask] = []
        present = sorted(self.path.glob(f"subj*{SUFFIX}"), key=lambda path: path.stat().st_size)
        for session, trials, mask in list_needed(plans):
            stamps, packed = {h: session.betas[h].stamp() for h in HEMISPHERES}, np.packbits(mask)
            name = f"{subject_name(session.subject)}_session{session.number:02d}"
            files = [(session.betas[h].official_path, stamp.size, stamp.etag) for h, stamp in stamps.items()]
            maps = [session.native_index[h].tobytes() for h in session.native_index]
            key = f"{name}_{_digest(f'method {METHOD_VERSION} {files}'.encode(), *maps)}"
            new_path = self.path / f"{key}_{_digest(trials.tobytes(), packed.tobytes(), str(stamps).encode())}{SUFFIX}"
            task = SessionTask(session, stamps, trials, packed, new_path)
            entries = (Entry.open(path) for path in present if path.name.startswith(key))
            found = next((entry for entry in entries if entry and entry.covers(task)), None)
            self.tasks[session.betas["lh"]] = replace(task, path=found.path) if found else task
            self.missing += [] if found else [task]

    def count_missing_bytes(self) -> int:
        """Return the size of the responses that `prepare` will write."""
        return sum(4 * len(task.trials) * len(task.vertices) for task in self.missing)

    def prepare(self, scratch_path: Path, *, n_workers: int = 1, scheduler: str | None = None) -> None:
        """Compute all missing entries, by `run_tasks`.

        Raises
        ------
        PackagingError
            If a betas file is missing, ends early or was changed meanwhile, the scheduler cannot be reached, or workers
            keep dying.
        """
        if self.path != scratch_path.absolute():
            n_present = len(self.tasks) - len(self.missing)
            logger.info(
                "%s keeps the responses of each session; %d of %d are there", self.path, n_present, len(self.tasks)
            )
        tasks = run_tasks(compute_entry, self.missing, scratch_path, n_workers=n_workers, scheduler=scheduler)
        with closing(tasks) as computed:
            for name in follow(computed, n_items=len(self.missing), title="sessions standardised", unit="session"):
                logger.debug("%s is standardised", name)

    def sessions_of(self, plan: Plan, subject: int) -> list[CachedSession]:
        """Return access to the responses of a subject that a plan needs."""
        sessions = []
        for session in plan.sessions:
            if session.subject == subject:
                task = self.tasks[session.betas["lh"]]
                if (entry := Entry.open(task.path)) is None:
                    raise PackagingError(
                        f"{task.path} is not there, although it was written. Do all workers see this folder? Start the build again."
                    )
                is_needed = np.isin(session.nsd_ids, plan.single_trial_images)
                rows = np.searchsorted(plan.single_trial_images, session.nsd_ids[is_needed])
                sessions.append(CachedSession(entry, session.trials[is_needed], rows, session.repetitions[is_needed]))
        return sessions


@dataclass(frozen=True, eq=False)
class CachedSession:
    """The trials of one session that a release needs, with the row (of the image) and the repetition of each."""

    entry: Entry
    trials: IntArray
    rows: IntArray
    repetitions: IntArray

    def read(self, vertices: IntArray) -> FloatArray:
        """Read the standardised responses of some vertices: an array of shape (n_vertices, n_trials), unitless."""
        # Mapped for this reading only, because mapped pages count as memory of this process. Not with np.load, which
        # parses a header: threads that parse at the same time make Python 3.11 fail now and then (python/cpython#106905).
        shape = (len(self.entry.vertices), len(self.entry.trials))
        responses = map_array(self.entry.path, "<f4", self.entry.offset, shape)
        selected: FloatArray = responses[np.searchsorted(self.entry.vertices, vertices)]
        return selected[:, np.searchsorted(self.entry.trials, self.trials)]


def compute_entry(task: SessionTask) -> str:
    """Read a session, standardise it, write its entry, and return its name.

    Raises
    ------
    PackagingError
        If a betas file is missing, ends early, or changed meanwhile.
    """
    session, vertices = task.session, task.vertices
    n_left = int(np.searchsorted(vertices, session.shape.n_vertices))
    vertices_of = {"lh": vertices[:n_left], "rh": vertices[n_left:] - session.shape.n_vertices}

    def standardise(hemisphere: str) -> FloatArray:
        file = session.betas[hemisphere]
        if not file.exists():
            raise PackagingError(
                f"{file} was there when the build started. Do all workers see it? Start the build again."
            )
        responses = _standardise(session, hemisphere, vertices_of[hemisphere], task.trials)
        if file.stamp() != task.stamps[hemisphere]:  # of which the name of the entry is made
            raise PackagingError(f"{file} was changed while the build ran. Start it again.")
        return responses

    with ThreadPoolExecutor(len(HEMISPHERES)) as threads:  # one computes while the other waits for its file
        responses = list(threads.map(standardise, HEMISPHERES))
    write_whole(task.path, _entry_content(responses, task.trials, vertices, task.times))
    return str(session)


def _standardise(session: Session, hemisphere: str, vertices: IntArray, trials: IntArray) -> FloatArray:
    """Return the standardised responses of a hemisphere, of shape (n_trials, n_vertices)."""
    file = session.betas[hemisphere]
    if not session.native_index:
        return standardise_session(read_betas(file, session.shape), vertices=vertices, kept_trials=trials)
    blocks = read_native_betas(file, session.shape.n_trials, session.native_index[hemisphere][vertices])
    return standardise_session(blocks, vertices=np.arange(len(vertices)), kept_trials=trials)


def _entry_content(
    responses: Sequence[FloatArray], trials: IntArray, vertices: IntArray, times: IntArray
) -> Iterator[Bytes]:
    """Yield the bytes of an entry; `responses` are those of lh and of rh, each of shape (n_trials, n_vertices)."""
    header = {"descr": "<f4", "fortran_order": False, "shape": (len(vertices), len(trials))}
    first, rest = io.BytesIO(), io.BytesIO()
    np.lib.format.write_array_header_1_0(first, header)
    yield first.getvalue()
    for values in responses:
        for start in range(0, values.shape[1], TRANSPOSED_VERTICES):
            yield np.ascontiguousarray(values[:, start : start + TRANSPOSED_VERTICES].T, dtype="<f4").data.cast("B")
    for numbers in (trials.astype(np.int32), vertices.astype(np.int32), times):
        np.save(rest, numbers)
    yield rest.getvalue()


def list_needed(plans: Sequence[Plan]) -> Iterator[tuple[Session, IntArray, BoolArray]]:
    """Yield every session of some plans, the trials that any of them needs, and whether each vertex is needed."""
    users: dict[RawFile, list[tuple[Session, Plan]]] = {}
    for plan in plans:
        for session in plan.sessions:
            users.setdefault(session.betas["lh"], []).append((session, plan))
    for sessions_and_plans in users.values():
        session = sessions_and_plans[0][0]
        mask = np.zeros(len(HEMISPHERES) * session.shape.n_vertices, dtype=bool)
        for _, plan in sessions_and_plans:
            mask[both_hemispheres(plan.region_map.vertices[session.subject], session.shape.n_vertices)] = True
        yield session, np.unique(np.concatenate([one.trials for one, _ in sessions_and_plans])), mask


def both_hemispheres(vertices: dict[str, IntArray], n_vertices: int) -> IntArray:
    """Number vertices through both hemispheres, each of which has `n_vertices`."""
    return np.concatenate([vertices["lh"], n_vertices + vertices["rh"]])


def _digest(*parts: bytes) -> str:
    return hashlib.sha1(b"".join(parts)).hexdigest()[:20]
