"""Work spread over processes of this machine or of a cluster, by dask.distributed."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, Self, TypeVar

from ..errors import PackagingError

if TYPE_CHECKING:
    import distributed

SCHEDULER_TIMEOUT = "30s"

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
        except distributed.scheduler.KilledWorker as error:
            raise PackagingError(
                f"Several workers died while they worked on the same task ({error}). Give each more memory."
            ) from error
        finally:
            client.cancel(futures)

    def _connect(self) -> distributed.Client:
        if self._client is None:
            self._client = self._exits.enter_context(_open_client(self.n_workers, self.scheduler))
            if self.scheduler is None:
                self._exits.callback(self._client.shutdown)
        return self._client


def _open_client(n_workers: int, scheduler: str | None) -> distributed.Client:
    import distributed

    # Not as the default client: dask would send all later work of this process to it, even after it is closed.
    try:
        if scheduler is None:
            with _terminal_signals_blocked():
                return distributed.Client(
                    n_workers=n_workers, threads_per_worker=1, dashboard_address=None, set_as_default=False
                )
        return distributed.Client(scheduler, timeout=SCHEDULER_TIMEOUT, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise PackagingError(f"No dask scheduler answers at {scheduler} ({error}). Is it running?") from error


@contextmanager
def _terminal_signals_blocked() -> Iterator[None]:
    """Block the signals that a terminal sends to all of its processes. Processes that start meanwhile never receive them.

    Otherwise Ctrl-C also ends the workers, and this process waits a minute for them to answer. It receives the signal
    when the block ends.
    """
    resource_tracker.ensure_running()  # its start would unblock SIGINT again
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
