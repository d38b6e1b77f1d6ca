"""Every session read once and kept: standardised responses of its shared images, in a cache that survives a kill."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import PackagingError
from ..nsd.files import HEMISPHERES, NSDTree, read_betas, read_betas_shape, subject_name
from ..progress import follow
from .responses import METHOD_VERSION, standardise_session

logger = logging.getLogger(__name__)

DIGEST_BYTES = hashlib.sha1().digest_size
ENTRY_HEADER_BYTES = 256  # more than NumPy's own header of a table takes
SCHEDULER_TIMEOUT = "30s"


@dataclass(frozen=True)
class Session:
    """One session of one subject, and the trials of it (0-based, ascending) that showed a shared image."""

    tree: NSDTree
    subject: int
    session: int
    shared_trials: tuple[int, ...]
    n_vertices: int
    n_trials: int

    def __str__(self) -> str:
        return f"{subject_name(self.subject)} session {self.session:02d}"

    def paths(self) -> list[str]:
        """Return the betas files of the session, lh and rh."""
        return [self.tree.betas_path(self.subject, hemisphere, self.session) for hemisphere in HEMISPHERES]


def session_responses(session: Session, vertices: dict[str, np.ndarray], cache_path: Path) -> np.ndarray:
    """Return the standardised responses of a session, from the cache or else from the betas, and then cached.

    Returns
    -------
    array of shape (n_shared_trials, n_read_vertices of lh + rh)
        Unitless float32; see `standardise_session`.

    Raises
    ------
    PackagingError
        If a betas file is missing, damaged or of another shape than the rest of the tree.
    """
    entry_path = cache_path / _entry_name(session, vertices)
    responses = _read_entry(entry_path)
    if responses is None:
        with ThreadPoolExecutor(len(HEMISPHERES)) as threads:  # one computes while the other waits for its file
            responses = np.hstack(
                list(
                    threads.map(lambda hemisphere: _standardise_hemisphere(session, vertices, hemisphere), HEMISPHERES)
                )
            )
        _write_entry(entry_path, responses)
    return responses


def prepare_sessions(
    sessions: Sequence[Session],
    vertices: dict[str, np.ndarray],
    cache_path: Path,
    *,
    n_workers: int = 1,
    scheduler: str | None = None,
) -> None:
    """Bring every session into the cache: here, on `n_workers` processes, or on a running dask.distributed cluster.

    A worker that dies has its sessions done again by another; a kill loses only the sessions under way.

    Raises
    ------
    PackagingError
        If a betas file is at fault, the scheduler cannot be reached, or workers keep dying.
    """
    cache_path.mkdir(parents=True, exist_ok=True)
    missing = [session for session in sessions if _read_entry(cache_path / _entry_name(session, vertices)) is None]
    if len(missing) < len(sessions):
        logger.info("%d of %d sessions are in %s already", len(sessions) - len(missing), len(sessions), cache_path)
    done: Iterable[str]
    if scheduler is not None or (n_workers > 1 and len(missing) > 1):
        done = _prepare_on_cluster(missing, vertices, cache_path.resolve(), min(n_workers, len(missing)), scheduler)
    else:
        done = (_prepare(session, vertices, cache_path) for session in missing)
    for name in follow(done, n_items=len(missing), what="sessions standardised", unit="session"):
        logger.debug("%s is standardised", name)


def _prepare(session: Session, vertices: dict[str, np.ndarray], cache_path: Path) -> str:
    session_responses(session, vertices, cache_path)
    return str(session)


def _prepare_on_cluster(
    sessions: Sequence[Session],
    vertices: dict[str, np.ndarray],
    cache_path: Path,
    n_workers: int,
    scheduler: str | None,
) -> Iterable[str]:
    import distributed  # here, because its import takes a second that a single worker need not spend

    try:
        if scheduler is None:
            client = distributed.Client(n_workers=n_workers, threads_per_worker=1, dashboard_address=None)
        else:
            client = distributed.Client(scheduler, timeout=SCHEDULER_TIMEOUT)
    except (OSError, TimeoutError, ValueError) as error:
        raise PackagingError(f"No dask scheduler answers at {scheduler} ({error}). Is it running?") from error
    with client:
        futures = client.map(
            _prepare, sessions, vertices=client.scatter(vertices, broadcast=True), cache_path=cache_path, pure=False
        )
        try:
            for future in distributed.as_completed(futures):
                yield future.result()
        except distributed.scheduler.KilledWorker as error:
            raise PackagingError(
                f"Workers died over the same session again and again ({error}). Too little memory?"
            ) from error
        finally:
            client.cancel(futures)
            if scheduler is None:
                client.shutdown()


def _standardise_hemisphere(session: Session, vertices: dict[str, np.ndarray], hemisphere: str) -> np.ndarray:
    path = session.tree.betas_path(session.subject, hemisphere, session.session)
    shape = read_betas_shape(session.tree, path)
    if shape != (session.n_vertices, session.n_trials):
        raise PackagingError(
            f"{session.tree.storage.locate(path)} holds {shape[0]:,} vertices x {shape[1]} trials, "
            f"expected {session.n_vertices:,} x {session.n_trials} as in the rest of the tree."
        )
    blocks = read_betas(session.tree, path, n_vertices=session.n_vertices, n_trials=session.n_trials)
    return standardise_session(
        blocks, vertices=vertices[hemisphere], kept_trials=np.asarray(session.shared_trials, dtype=np.int64)
    )


def _entry_name(session: Session, vertices: dict[str, np.ndarray]) -> str:
    """Name an entry after all that it is made from, so that a stale one is never found."""
    key = hashlib.sha1(f"method {METHOD_VERSION}".encode())
    for hemisphere, path in zip(HEMISPHERES, session.paths(), strict=True):
        if not session.tree.storage.exists(path):
            raise PackagingError(f"{session.tree.storage.locate(path)} is missing. Download it.")
        key.update(session.tree.storage.stamp(path).encode())
        key.update(np.ascontiguousarray(vertices[hemisphere], dtype=np.int64).tobytes())
    key.update(np.asarray(session.shared_trials, dtype=np.int64).tobytes())
    return f"{subject_name(session.subject)}_session{session.session:02d}_{key.hexdigest()[:20]}.npy.sha1"


def _read_entry(path: Path) -> np.ndarray | None:
    """Read an entry, or return None if there is none or it is damaged."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    array, digest = memoryview(content)[:-DIGEST_BYTES], content[-DIGEST_BYTES:]
    if hashlib.sha1(array).digest() != digest:
        logger.warning("%s is damaged and made anew", path)
        return None
    header = io.BytesIO(content[:ENTRY_HEADER_BYTES])
    np.lib.format.read_magic(header)
    shape, _, kind = np.lib.format.read_array_header_1_0(header)
    return np.frombuffer(array, kind, offset=header.tell()).reshape(shape)


def _write_entry(path: Path, responses: np.ndarray) -> None:
    """Write an entry whole or not at all, its digest at its end."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(responses))
    digest = hashlib.sha1(header.getvalue())
    digest.update(responses.data)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".partial")
    try:
        with os.fdopen(handle, "wb") as file:
            for content in (header.getvalue(), responses.data, digest.digest()):
                file.write(content)
        Path(partial).replace(path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise
