"""The session cache: every session is read once, and its standardised responses survive a killed build."""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..arrays import FloatArray, IntArray
from ..atomic import write_whole
from ..errors import PackagingError
from ..nsd.facts import HEMISPHERES, N_REPETITIONS, subject_name
from ..nsd.files import read_betas, read_betas_shape
from ..nsd.plan import Plan, Session
from ..progress import follow
from .cluster import run_on_workers
from .responses import METHOD_VERSION, standardise_session

logger = logging.getLogger(__name__)

DIGEST_BYTES = hashlib.sha1().digest_size
ENTRY_HEADER_BYTES = 256  # more than the header of a NumPy file takes


class SessionCache:
    """The standardised responses of the sessions of a plan, one file (an entry) per session.

    The name of an entry depends on everything that it is computed from, so that an outdated entry is never used. Several
    builds may share a cache.
    """

    def __init__(self, plan: Plan, path: Path) -> None:
        self.plan = plan
        self.path = path
        self.vertices = plan.region_map.vertices
        self.entries = {
            session: _Entry(session, path / entry_name(session, self.vertices)) for session in plan.sessions
        }

    def prepare(self, *, n_workers: int = 1, scheduler: str | None = None) -> None:
        """Compute all missing entries: in this process, on `n_workers` processes, or on a dask.distributed cluster.

        Raises
        ------
        PackagingError
            If a betas file is missing, damaged or of another shape than the rest of the tree, the scheduler cannot be
            reached, or workers keep dying.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        missing = [entry for entry in self.entries.values() if not entry.path.is_file()]
        n_present = len(self.entries) - len(missing)
        if n_present:
            logger.info("%d of %d sessions are in %s already", n_present, len(self.entries), self.path)
        computed: Iterable[str]
        if scheduler is not None or (n_workers > 1 and len(missing) > 1):
            absolute = [_Entry(entry.session, entry.path.resolve()) for entry in missing]
            n_workers = min(n_workers, len(missing))
            computed = run_on_workers(
                _compute_entry, absolute, common=self.vertices, n_workers=n_workers, scheduler=scheduler
            )
        else:
            computed = (_compute_entry(entry, common=self.vertices) for entry in missing)
        for name in follow(computed, n_items=len(missing), title="sessions standardised", unit="session"):
            logger.debug("%s is standardised", name)

    def read(self, subject: int) -> FloatArray:
        """Return the responses of a subject to the images whose single trials the plan needs.

        A damaged entry is computed again.

        Returns
        -------
        array of shape (n_images, n_repetitions, n_read_vertices of lh + rh)
            Unitless; see `standardise_session`. NaN for a repetition that was not shown.

        Raises
        ------
        PackagingError
            If an entry is damaged and its betas cannot be read.
        """
        images = self.plan.single_trial_images
        sessions = [session for session in self.plan.sessions if session.subject == subject]
        n_repetitions = max(N_REPETITIONS, *(int(session.repetitions.max()) + 1 for session in sessions))
        shape = (len(images), n_repetitions, self.plan.region_map.n_read_vertices)
        responses = np.full(shape, np.nan, dtype=np.float32)
        for session in sessions:
            needed = np.isin(session.nsd_ids, images)
            rows = np.searchsorted(images, session.nsd_ids[needed])
            responses[rows, session.repetitions[needed]] = self._read_entry(session)[needed]
        return responses

    def _read_entry(self, session: Session) -> FloatArray:
        entry = self.entries[session]
        responses = read_entry(entry.path)
        if responses is None:
            logger.warning("%s is damaged or missing; it is computed again", entry.path)
            _compute_entry(entry, common=self.vertices)
            responses = read_entry(entry.path)
        if responses is None:
            raise PackagingError(
                f"{entry.path} is damaged as soon as it is written. Is the disk sound? Choose --cache."
            )
        return responses


@dataclass(frozen=True, eq=False)
class _Entry:
    """The place of a session in the cache."""

    session: Session
    path: Path


def standardise_hemispheres(session: Session, vertices: dict[str, IntArray]) -> FloatArray:
    """Read the betas of a session, and standardise the vertices of both hemispheres.

    Returns
    -------
    array of shape (n_shared_trials, n_read_vertices of lh + rh)
        Unitless; see `standardise_session`.

    Raises
    ------
    PackagingError
        If a betas file is missing, damaged or of another shape than the rest of the tree.
    """

    def standardise(hemisphere: str) -> FloatArray:
        file = session.betas[hemisphere]
        shape = read_betas_shape(file)
        if shape != session.shape:
            raise PackagingError(
                f"{file} holds {shape}, expected {session.shape} as in the rest of the tree. Download it again."
            )
        blocks = read_betas(file, shape)
        return standardise_session(blocks, vertices=vertices[hemisphere], kept_trials=session.trials)

    with ThreadPoolExecutor(len(HEMISPHERES)) as threads:  # one computes while the other waits for its file
        return np.hstack(list(threads.map(standardise, HEMISPHERES)))


def entry_name(session: Session, vertices: dict[str, IntArray]) -> str:
    """Return the file name of an entry, which depends on everything that the entry is computed from.

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
        key.update(file.stamp().encode())
        key.update(np.ascontiguousarray(vertices[hemisphere], dtype=np.int64).tobytes())
    key.update(np.asarray(session.trials, dtype=np.int64).tobytes())
    return f"{subject_name(session.subject)}_session{session.number:02d}_{key.hexdigest()[:20]}.npy.sha1"


def read_entry(path: Path) -> FloatArray | None:
    """Read an entry. Return None if it is missing or damaged."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    array, digest = memoryview(content)[:-DIGEST_BYTES], content[-DIGEST_BYTES:]
    if hashlib.sha1(array).digest() != digest:
        return None
    header = io.BytesIO(content[:ENTRY_HEADER_BYTES])
    np.lib.format.read_magic(header)
    shape, _, dtype = np.lib.format.read_array_header_1_0(header)
    return np.frombuffer(array, dtype, offset=header.tell()).reshape(shape)


def _compute_entry(item: _Entry, *, common: dict[str, IntArray]) -> str:
    """Compute and write an entry, and return the name of its session; `common` are the vertices of each hemisphere."""
    responses = standardise_hemispheres(item.session, common)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(responses))
    digest = hashlib.sha1(header.getvalue())
    digest.update(responses.data)
    write_whole(item.path, (header.getvalue(), responses.data, digest.digest()), sync=False)
    return str(item.session)
