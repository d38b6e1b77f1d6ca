"""Work spread over processes of this machine or of a cluster, by dask.distributed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TypeVar

from ..errors import PackagingError

if TYPE_CHECKING:
    import distributed

SCHEDULER_TIMEOUT = "30s"

Item_contra = TypeVar("Item_contra", contravariant=True)
Common_contra = TypeVar("Common_contra", contravariant=True)
Result_co = TypeVar("Result_co", covariant=True)


class Task(Protocol[Item_contra, Common_contra, Result_co]):
    """A function of an item, and of an object that is the same for all items."""

    def __call__(self, item: Item_contra, *, common: Common_contra) -> Result_co:
        """Run the task."""


def run_on_workers(
    task: Task[Item_contra, Common_contra, Result_co],
    items: Sequence[Item_contra],
    *,
    common: Common_contra,
    n_workers: int,
    scheduler: str | None,
) -> Iterator[Result_co]:
    """Run a task on every item, and yield the results as they are ready.

    If a worker dies, another one takes over its items.

    Parameters
    ----------
    common : sent to each worker once
    n_workers : processes to start on this machine, unless a scheduler is named
    scheduler : address of a running dask.distributed scheduler, optional

    Raises
    ------
    PackagingError
        If the scheduler cannot be reached, workers keep dying, or the task raises one.
    """
    import distributed  # here, because its import takes a second that a single worker does not need

    with _open_client(n_workers, scheduler) as client:
        futures = client.map(task, items, common=client.scatter(common, broadcast=True), pure=False)
        try:
            for future in distributed.as_completed(futures, loop=client.loop):
                yield future.result()
        except distributed.scheduler.KilledWorker as error:
            raise PackagingError(
                f"Several workers died while they worked on the same session ({error}). Give each more memory."
            ) from error
        finally:
            client.cancel(futures)
            if scheduler is None:
                client.shutdown()


@contextmanager
def _open_client(n_workers: int, scheduler: str | None) -> Iterator[distributed.Client]:
    import distributed

    # Not as the default client: dask would send all later work of this process to it, even after it is closed.
    try:
        if scheduler is None:
            client = distributed.Client(
                n_workers=n_workers, threads_per_worker=1, dashboard_address=None, set_as_default=False
            )
        else:
            client = distributed.Client(scheduler, timeout=SCHEDULER_TIMEOUT, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise PackagingError(f"No dask scheduler answers at {scheduler} ({error}). Is it running?") from error
    with client:
        yield client
