"""Work spread over processes of this machine or of a cluster, by dask.distributed."""

from __future__ import annotations

import logging
import re
import signal
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import resource_tracker
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, TypeVar

from ..errors import PackagingError, one_line

if TYPE_CHECKING:
    import distributed

SCHEDULER_TIMEOUT = "30s"
PATIENCE_SECONDS = 45  # without a result, before it is asked whether there are workers
NO_WORKERS_TIMEOUT = "distributed.scheduler.no-workers-timeout"
ANY_LOCAL_PORT = "127.0.0.1:0"  # of the scheduler's pages; its usual port may be taken by another build

Item = TypeVar("Item")
Result = TypeVar("Result")


def run_tasks(
    task: Callable[[Item], Result],
    items: Sequence[Item],
    scratch_path: Path,
    *,
    n_workers: int = 1,
    scheduler: str | None = None,
) -> Generator[Result, None, None]:
    """Run a task on every item, and yield the results as they are ready. If a worker dies, another one takes over.

    Processes that were started end with the last result, or when the generator is closed.

    Parameters
    ----------
    scratch_path : folder for files of dask, which may stay there if this process is killed
    n_workers : processes to start on this machine, unless a scheduler is named; 1 is this process
    scheduler : address of a running dask.distributed scheduler, optional

    Raises
    ------
    PackagingError
        If the scheduler cannot be reached, it has no workers, they lack this package, they keep dying, or the task raises
        one.
    """
    if scheduler is None and (n_workers == 1 or len(items) < 2):
        yield from map(task, items)
        return
    import distributed  # here, because its import takes a second that a single worker does not need

    for name in ("distributed", "distributed.client"):  # errors of workers arrive as exceptions
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with _connect_to(scheduler) if scheduler else _start_workers(n_workers, scratch_path) as client:
        _require_package(client)
        futures = client.map(task, items, pure=False)
        try:
            for future in _as_completed(futures, client):
                yield future.result()
        except (distributed.scheduler.KilledWorker, distributed.scheduler.NoWorkerError) as error:
            raise PackagingError(
                f"Several workers died while they worked on the same task, or all as soon as they were started "
                f"({one_line(error)}). Give each more memory."
            ) from error
        except distributed.CancelledError as error:
            raise PackagingError(
                f"The connection to the dask scheduler {scheduler or 'of this build'} was lost ({one_line(error)}). Run the "
                "same command again with a scheduler that runs; the build continues."
            ) from error
        finally:
            client.cancel(futures)


def _connect_to(scheduler: str) -> distributed.Client:
    import distributed

    if re.search(r"[\s@]", scheduler):  # dask would try for a minute
        raise PackagingError("That is not the address of a scheduler, expected one like tcp://host:8786.")
    try:  # not as the default client: dask would send all later work of this process to it
        return distributed.Client(scheduler, timeout=SCHEDULER_TIMEOUT, set_as_default=False)
    except (OSError, ValueError) as error:
        raise PackagingError(f"No dask scheduler answers at {scheduler} ({one_line(error)}). Is it running?") from error


def _as_completed(
    futures: Sequence[distributed.Future[Result]], client: distributed.Client
) -> Iterator[distributed.Future[Result]]:
    """Yield futures as they are completed. Raise a `PackagingError` if for a while there is none, and no worker."""
    import distributed

    pending = set(futures)
    while pending:
        try:
            for future in distributed.as_completed(pending, loop=client.loop, timeout=PATIENCE_SECONDS):
                pending.remove(future)
                yield future
        except TimeoutError:
            if not client.nthreads():
                raise PackagingError(
                    "The dask scheduler has no workers. Start some (dask worker ADDRESS), and run the same command again; the "
                    "build continues."
                ) from None


def _require_package(client: distributed.Client) -> None:
    """Raise a `PackagingError` if the scheduler or a worker lacks this package: tasks would wait for ever."""
    name = "allen2022_surface_packaging:__version__"
    versions = {
        f"worker {address}": found for address, found in client.run(resolve_name, name, on_error="return").items()
    }
    try:
        versions["scheduler"] = client.run_on_scheduler(resolve_name, name)
    except ModuleNotFoundError as error:
        versions["scheduler"] = error
    for place, found in versions.items():
        if isinstance(found, str | ModuleNotFoundError) and found != resolve_name(name):
            raise PackagingError(
                f"The dask {place} lacks allen2022_surface_packaging {resolve_name(name)} ({found}). "
                "Install it where the scheduler and all workers run."
            )


@contextmanager
def _start_workers(n_workers: int, scratch_path: Path) -> Iterator[distributed.Client]:
    """Yield a client of processes on this machine, which end with the block."""
    import dask
    import distributed

    options = {
        "temporary-directory": str(scratch_path),
        "distributed.worker.use-file-locking": False,  # the disk may have no locks
        # Without the timeout, workers that die as soon as they are started are started for ever.
        NO_WORKERS_TIMEOUT: dask.config.get(NO_WORKERS_TIMEOUT, None) or "40s",  # less than the patience
    }
    try:
        with _interrupts_blocked(), dask.config.set(options):
            client = distributed.Client(
                n_workers=n_workers,
                threads_per_worker=1,
                dashboard_address=ANY_LOCAL_PORT,
                set_as_default=False,
                silence_logs=logging.CRITICAL,  # a worker that is stopped would complain
            )
    except (OSError, RuntimeError, ValueError) as error:
        raise PackagingError(
            f"{n_workers} workers cannot be started ({one_line(error)}). Start fewer, or none with --workers 1."
        ) from error
    with client:
        try:
            yield client
        finally:
            client.shutdown()


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Block the signals that a terminal sends to all of its processes. Workers that start meanwhile never receive them.

    Otherwise Ctrl-C also ends the workers, and this process waits a minute for them to answer. It receives the signal
    when the block ends.
    """
    # Python's resource tracker ignores SIGINT, but a SIGHUP would end it, and its start would unblock SIGINT.
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
