"""Work spread over processes of this machine or of a cluster, by dask.distributed."""

from __future__ import annotations

import logging
import re
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from multiprocessing import resource_tracker
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Self, TypeVar

from ..errors import PackagingError, one_line

if TYPE_CHECKING:
    import distributed

SCHEDULER_TIMEOUT = "30s"
NO_WORKERS_TIMEOUT = "distributed.scheduler.no-workers-timeout"
ANY_LOCAL_PORT = "127.0.0.1:0"  # of the scheduler's pages; its usual port may be taken by another build

Item = TypeVar("Item")
Result = TypeVar("Result")


class Workers:
    """Runs tasks: in this process, on processes of this machine, or on a dask.distributed cluster.

    Processes are started when the first tasks need them, and stopped at the end of the block.

    Parameters
    ----------
    n_workers : processes to start on this machine, unless a scheduler is named; 1 is this process
    scheduler : address of a running dask.distributed scheduler, optional
    """

    def __init__(self, n_workers: int = 1, scheduler: str | None = None) -> None:
        self.n_workers = n_workers
        self.scheduler = scheduler
        self._client: distributed.Client | None = None
        self._exits = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._exits.close()

    def run(self, task: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """Run a task on every item, and yield the results as they are ready.

        If a worker dies, another one takes over its items.

        Raises
        ------
        PackagingError
            If the scheduler cannot be reached, workers keep dying, or the task raises one.
        """
        if self.scheduler is None and (self.n_workers == 1 or len(items) < 2):
            return map(task, items)
        return self._run_elsewhere(task, items)

    def _run_elsewhere(self, task: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        import distributed  # here, because its import takes a second that a single worker does not need

        client = self._connect()
        futures = client.map(task, items, pure=False)
        try:
            for future in distributed.as_completed(futures, loop=client.loop):
                yield future.result()
        except (distributed.scheduler.KilledWorker, distributed.scheduler.NoWorkerError) as error:
            raise PackagingError(
                f"Several workers died while they worked on the same task, or all as soon as they were started "
                f"({one_line(error)}). Give each more memory."
            ) from error
        except distributed.client.FutureCancelledError as error:
            raise PackagingError(
                f"The connection to the dask scheduler {self.scheduler or 'of this build'} was lost ({error.reason}). Run the "
                "same command again with a scheduler that runs; the build continues."
            ) from error
        finally:
            client.cancel(futures)

    def _connect(self) -> distributed.Client:
        if self._client is None:
            self._client = self._exits.enter_context(_open_client(self.n_workers, self.scheduler))
        return self._client


def _open_client(n_workers: int, scheduler: str | None) -> AbstractContextManager[distributed.Client]:
    # Not as the default client: dask would send all later work of this process to it, even after it is closed.
    return _start_workers(n_workers) if scheduler is None else _connect_to(scheduler)


@contextmanager
def _start_workers(n_workers: int) -> Iterator[distributed.Client]:
    """Yield a client of processes on this machine, which end with the block."""
    import dask
    import distributed

    _hide_errors()
    with TemporaryDirectory(prefix="allen2022_surface_", ignore_cleanup_errors=True) as folder:
        # Without the timeout, workers that die as soon as they are started are started for ever.
        timeout = dask.config.get(NO_WORKERS_TIMEOUT, None) or "60s"
        settings = {"temporary-directory": folder, NO_WORKERS_TIMEOUT: timeout}
        try:
            # A start that is interrupted never ends.
            with _terminal_signals_blocked(), dask.config.set(settings):
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


def _connect_to(scheduler: str) -> distributed.Client:
    import distributed

    if re.search(r"[\s@]", scheduler):  # dask would try for a minute
        raise PackagingError("That is not the address of a scheduler, expected one like tcp://host:8786.")
    _hide_errors()
    try:
        return distributed.Client(scheduler, timeout=SCHEDULER_TIMEOUT, set_as_default=False)
    except (OSError, ValueError) as error:
        raise PackagingError(f"No dask scheduler answers at {scheduler} ({error}). Is it running?") from error


def _hide_errors() -> None:
    """Hide what dask logs beside the exceptions that it raises: errors, and tracebacks of any level."""
    for name in list(logging.root.manager.loggerDict):
        if name.split(".")[0] == "distributed":
            logging.getLogger(name).addFilter(_is_no_error)


def _is_no_error(record: logging.LogRecord) -> bool:
    return record.levelno < logging.ERROR and not record.exc_info


@contextmanager
def _terminal_signals_blocked() -> Iterator[None]:
    """Block the signals that a terminal sends to all of its processes. Processes that start meanwhile never receive them.

    Otherwise Ctrl-C also ends the workers, and this process waits a minute for them to answer. It receives the signal
    when the block ends.
    """
    # Python's resource tracker ignores SIGINT, but a SIGHUP would end it.
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        resource_tracker.ensure_running()  # its start would unblock SIGINT
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
