"""The session cache: every betas file is read once for all recipes, and its responses survive a killed build."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..arrays import FloatArray, IntArray
from ..errors import PackagingError
from ..facts import HEMISPHERES, N_REPETITIONS, subject_name
from ..nsd.files import read_betas, read_betas_shape
from ..nsd.plan import Plan, Session
from ..progress import follow
from .cluster import Workers
from .entries import SUFFIX, DamagedEntryError, Entry, Vertices, write_entry
from .responses import METHOD_VERSION, standardise_session

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class SessionTask:
    """What the cache must hold of a session: the trials and vertices that any of several recipes needs.

    Attributes
    ----------
    trials : array of shape (n_trials,), 0-based within the session, ascending
    masks : per hemisphere whether each vertex is needed, in packed bits, because a task may be sent to another machine
    path : the entry
    """

    session: Session
    trials: IntArray
    masks: dict[str, NDArray[np.uint8]]
    path: Path

    @property
    def vertices(self) -> Vertices:
        """Per hemisphere the vertices, ascending."""
        return {hemisphere: np.flatnonzero(np.unpackbits(mask)) for hemisphere, mask in self.masks.items()}


class SessionCache:
    """The standardised responses of the sessions of some plans, one file (an entry) per session.

    The name of an entry depends on everything that it is computed from, so that an outdated entry is never used. An
    entry with more vertices or trials than needed serves as well. Several builds may share a cache.
    """

    def __init__(self, plans: Sequence[Plan], path: Path) -> None:
        self.path = path.absolute()
        self.path.mkdir(parents=True, exist_ok=True)
        self.tasks = _list_tasks(plans, self.path)

    def prepare(self, workers: Workers) -> None:
        """Compute all missing entries.

        Raises
        ------
        PackagingError
            If a betas file is missing, damaged, of another shape than the rest of the tree or changed meanwhile, the
            scheduler cannot be reached, or workers keep dying.
        """
        missing = [task for task in self.tasks.values() if not task.path.is_file()]
        n_present = len(self.tasks) - len(missing)
        if n_present:
            logger.info("%d of %d sessions are in %s already", n_present, len(self.tasks), self.path)
        computed: Iterable[str] = workers.run(compute_entry, missing)
        for name in follow(computed, n_items=len(missing), title="sessions standardised", unit="session"):
            logger.debug("%s is standardised", name)
        for task in missing:
            if not task.path.name.startswith(_key(task.session)):
                task.path.unlink(missing_ok=True)  # its name says that it is of the files as they were
                raise PackagingError(
                    f"{' or '.join(map(str, task.session.betas.values()))} was changed while the build ran. Start it again."
                )

    def responses_of(self, plan: Plan, subject: int) -> SubjectResponses:
        """Return access to the responses of a subject that a plan needs."""
        sessions = [session for session in plan.sessions if session.subject == subject]
        n_repetitions = max(N_REPETITIONS, *(int(session.repetitions.max()) + 1 for session in sessions))
        return SubjectResponses(
            images=plan.single_trial_images,
            n_repetitions=n_repetitions,
            sessions=[_select(session, plan.single_trial_images) for session in sessions],
            tasks=[self.tasks[_files_of(session)] for session in sessions],
        )


@dataclass(frozen=True, eq=False)
class SubjectResponses:
    """Access to the standardised responses of one subject. Another process can use it.

    Attributes
    ----------
    images : the `nsd_id` of the images, ascending
    sessions, tasks : the trials of these images by session, and where their responses are
    """

    images: IntArray
    n_repetitions: int
    sessions: list[Session]
    tasks: list[SessionTask]
    entries: dict[Path, Entry] = field(default_factory=dict)

    def read(self, hemisphere: str, vertices: IntArray) -> FloatArray:
        """Return the responses of some vertices. A damaged entry is computed again.

        Returns
        -------
        array of shape (n_images, n_repetitions, n_vertices)
            Unitless; see `standardise_session`. NaN for a repetition that was not shown.

        Raises
        ------
        PackagingError
            If an entry is damaged and its betas cannot be read.
        """
        responses = np.full((len(self.images), self.n_repetitions, len(vertices)), np.nan, dtype=np.float32)
        for session, task in zip(self.sessions, self.tasks, strict=True):
            rows = np.searchsorted(self.images, session.nsd_ids)
            responses[rows, session.repetitions] = self._read_session(task, session.trials, hemisphere, vertices)
        return responses

    def shown_trials(self) -> tuple[IntArray, IntArray]:
        """Return the row and the repetition of every trial."""
        rows = np.concatenate([np.searchsorted(self.images, session.nsd_ids) for session in self.sessions])
        return rows, np.concatenate([session.repetitions for session in self.sessions])

    def _read_session(self, task: SessionTask, trials: IntArray, hemisphere: str, vertices: IntArray) -> FloatArray:
        try:
            return self._entry(task.path).read(trials, hemisphere, vertices)
        except (DamagedEntryError, FileNotFoundError):
            logger.warning("%s is damaged or missing; it is computed again", task.path)
            compute_entry(task)
            self.entries.pop(task.path, None)
        try:
            return self._entry(task.path).read(trials, hemisphere, vertices)
        except DamagedEntryError as error:
            raise PackagingError(
                f"{task.path} is damaged as soon as it is written. Is the disk sound? Choose --cache."
            ) from error

    def _entry(self, path: Path) -> Entry:
        if path not in self.entries:
            self.entries[path] = Entry.open(path)
        return self.entries[path]


def compute_entry(task: SessionTask) -> str:
    """Read a session, standardise it, write its entry, and return its name.

    Raises
    ------
    PackagingError
        If a betas file is missing, damaged or of another shape than the rest of the tree.
    """
    vertices = task.vertices

    def standardise(hemisphere: str) -> FloatArray:
        file = task.session.betas[hemisphere]
        shape = read_betas_shape(file)
        if shape != task.session.shape:
            raise PackagingError(
                f"{file} holds {shape}, expected {task.session.shape} as in the rest of the tree. Download it again."
            )
        return standardise_session(read_betas(file, shape), vertices=vertices[hemisphere], kept_trials=task.trials)

    with ThreadPoolExecutor(len(HEMISPHERES)) as threads:  # one computes while the other waits for its file
        responses = dict(zip(HEMISPHERES, threads.map(standardise, HEMISPHERES), strict=True))
    write_entry(task.path, task.trials, vertices, responses)
    return str(task.session)


def _list_tasks(plans: Sequence[Plan], folder: Path) -> dict[tuple[str, ...], SessionTask]:
    """List what the cache must hold of every session over all plans, by the betas files of the session."""
    users: dict[tuple[str, ...], list[tuple[Session, Plan]]] = {}
    for plan in plans:
        for session in plan.sessions:
            users.setdefault(_files_of(session), []).append((session, plan))
    present = sorted(path.name for path in folder.iterdir() if path.name.endswith(SUFFIX))
    vertex_sets: dict[frozenset[int], Vertices] = {}  # most sessions are needed by the same plans
    masks = {}
    tasks = {}
    for files, sessions_and_plans in users.items():
        plan_set = frozenset(id(plan) for _, plan in sessions_and_plans)
        if plan_set not in vertex_sets:
            maps = [plan.region_map for _, plan in sessions_and_plans]
            vertex_sets[plan_set] = {h: _union([region_map.vertices[h] for region_map in maps]) for h in HEMISPHERES}
            masks[plan_set] = {h: _pack(vertices) for h, vertices in vertex_sets[plan_set].items()}
        trials, vertices = _union([session.trials for session, _ in sessions_and_plans]), vertex_sets[plan_set]
        key = _key(sessions_and_plans[0][0])
        path = _find_entry(folder, [name for name in present if name.startswith(key)], trials, vertices)
        path = path or folder / f"{key}_{_digest(trials, vertices)}{SUFFIX}"
        tasks[files] = SessionTask(sessions_and_plans[0][0], trials, masks[plan_set], path)
    return tasks


def _find_entry(folder: Path, names: list[str], trials: IntArray, vertices: Vertices) -> Path | None:
    """Return the smallest entry that holds some trials and vertices, or None."""
    for path in sorted((folder / name for name in names), key=lambda path: path.stat().st_size):
        try:
            if Entry.open(path).covers(trials, vertices):
                return path
        except (DamagedEntryError, FileNotFoundError):
            continue
    return None


def _files_of(session: Session) -> tuple[str, ...]:
    return tuple(str(session.betas[hemisphere]) for hemisphere in HEMISPHERES)


def _key(session: Session) -> str:
    """Return the first part of the names of a session's entries, which changes if a betas file changes.

    Raises
    ------
    PackagingError
        If a betas file is missing.
    """
    key = hashlib.sha1(f"method {METHOD_VERSION}".encode())
    for hemisphere in HEMISPHERES:
        file = session.betas[hemisphere]
        if not file.exists():
            raise PackagingError(f"{file} is missing. Download it.")
        key.update(os.fsencode(file.stamp()))
    return f"{subject_name(session.subject)}_session{session.number:02d}_{key.hexdigest()[:20]}"


def _digest(trials: IntArray, vertices: Vertices) -> str:
    digest = hashlib.sha1(np.asarray(trials, dtype="<i8").tobytes())
    for hemisphere in HEMISPHERES:
        digest.update(np.asarray(vertices[hemisphere], dtype="<i8").tobytes())
    return digest.hexdigest()[:20]


def _select(session: Session, nsd_ids: IntArray) -> Session:
    """Return a session with only the trials of some images."""
    kept = np.isin(session.nsd_ids, nsd_ids)
    return Session(
        session.subject,
        session.number,
        session.betas,
        session.shape,
        session.trials[kept],
        session.nsd_ids[kept],
        session.repetitions[kept],
    )


def _pack(vertices: IntArray) -> NDArray[np.uint8]:
    mask = np.zeros(int(vertices.max(initial=-1)) + 1, dtype=bool)
    mask[vertices] = True
    return np.packbits(mask)


def _union(arrays: Sequence[IntArray]) -> IntArray:
    return arrays[0] if len(arrays) == 1 else np.unique(np.concatenate(arrays))
