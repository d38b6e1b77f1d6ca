"""Work on this process, on processes of this machine, and on a cluster."""

import logging
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import dask
import distributed
import pytest

from allen2022_surface_packaging.assemble import cluster
from allen2022_surface_packaging.assemble.cluster import Workers
from allen2022_surface_packaging.errors import PackagingError


def double(number):
    return 2 * number


def fail_at_3(number):
    if number == 3:
        raise PackagingError("number 3 is damaged")
    return number


@pytest.fixture(scope="module")
def scheduler():
    """The address of a scheduler with two workers that are threads of this process."""
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None) as local:
        yield local.scheduler.listeners[0].contact_address


@pytest.fixture
def refused_client(monkeypatch):
    """Fail if processes are started or a cluster is connected."""
    monkeypatch.setattr(cluster, "_open_client", None)


@pytest.mark.parametrize(("n_workers", "items"), [(1, [1, 2, 3]), (4, [1]), (4, [])])
def test_one_worker_or_item_needs_no_process(refused_client, n_workers, items):
    with Workers(n_workers) as workers:
        assert list(workers.run(double, items)) == [2 * item for item in items]


def test_one_worker_is_the_default(refused_client):
    with Workers() as workers:
        assert list(workers.run(double, [1, 2])) == [2, 4]


def test_one_worker_yields_each_result_before_the_next_item(refused_client):
    """So that values of a subject can be copied and removed before the next one is computed."""
    done = []
    results = Workers().run(done.append, [1, 2])
    assert done == []
    next(results)
    assert done == [1]


@pytest.mark.parametrize(("n_workers", "n_items"), [(2, 2), (1, 0)])
def test_two_workers_and_a_scheduler_are_used(monkeypatch, n_workers, n_items):
    asked = []

    def refuse(*arguments):
        asked.append(arguments)
        raise PackagingError("no client")

    monkeypatch.setattr(cluster, "_open_client", refuse)
    scheduler = None if n_workers == 2 else "tcp://there"
    with pytest.raises(PackagingError, match="no client"), Workers(n_workers, scheduler) as workers:
        list(workers.run(double, range(n_items)))

    assert asked == [(n_workers, scheduler)]


def test_results_of_a_cluster_are_all_there(scheduler):
    with Workers(scheduler=scheduler) as workers:
        assert sorted(workers.run(double, range(20))) == list(range(0, 40, 2))
        assert sorted(workers.run(double, range(3))) == [0, 2, 4]  # with the same client
        assert dask.config.get("scheduler", None) is None  # else dask sends all later work to it


def append_line(path):
    with path.open("a") as file:
        file.write("done\n")


def test_equal_items_are_each_run_on_a_cluster(scheduler, tmp_path):
    """Dask runs a pure function once for equal arguments, but a task writes a file."""
    with Workers(scheduler=scheduler) as workers:
        assert list(workers.run(append_line, [tmp_path / "log"] * 2)) == [None, None]

    assert (tmp_path / "log").read_text() == "done\ndone\n"


def test_error_on_a_cluster_is_raised(scheduler):
    with Workers(scheduler=scheduler) as workers, pytest.raises(PackagingError, match="^number 3 is damaged$"):
        list(workers.run(fail_at_3, range(6)))


def test_error_in_this_process_is_raised():
    with Workers() as workers, pytest.raises(PackagingError, match="^number 3 is damaged$"):
        list(workers.run(fail_at_3, range(6)))


def test_work_is_cancelled_when_nobody_waits_for_it(scheduler, monkeypatch):
    cancelled = []
    cancel = distributed.Client.cancel
    monkeypatch.setattr(
        distributed.Client, "cancel", lambda self, futures: (cancelled.append(len(futures)), cancel(self, futures))[1]
    )
    with Workers(scheduler=scheduler) as workers, pytest.raises(PackagingError):
        list(workers.run(fail_at_3, range(6)))

    assert cancelled == [6]


def test_scheduler_of_others_goes_on_after_the_block(scheduler):
    for _ in range(2):
        with Workers(scheduler=scheduler) as workers:
            assert list(workers.run(double, [4])) == [8]


@pytest.mark.parametrize(
    "error",
    [
        distributed.scheduler.KilledWorker("compute_entry-1", SimpleNamespace(address="tcp://worker:1"), 3),
        distributed.scheduler.NoWorkerError("compute_entry-1", 3.0),
    ],
)
def test_workers_that_keep_dying_are_named_in_one_line(scheduler, monkeypatch, error):
    def die(self):
        raise error

    monkeypatch.setattr(distributed.Future, "result", die)
    with (
        Workers(scheduler=scheduler) as workers,
        pytest.raises(PackagingError, match=r"Several workers died .*compute_entry-1.*Give each more memory\.$"),
    ):
        list(workers.run(double, [1, 2]))


@pytest.mark.parametrize(("address", "name"), [("tcp://there:1", "tcp://there:1"), (None, "of this build")])
def test_lost_connection_is_named_in_one_line(scheduler, monkeypatch, address, name):
    def lose(self):
        raise distributed.client.FutureCancelledError("compute_entry-1", "scheduler-connection-lost")

    with Workers(scheduler=scheduler) as workers:
        workers._connect()
        workers.scheduler, workers.n_workers = address, 2
        monkeypatch.setattr(distributed.Future, "result", lose)
        with pytest.raises(PackagingError) as raised:
            list(workers.run(double, [1, 2]))
    assert str(raised.value) == (
        f"The connection to the dask scheduler {name} was lost (scheduler-connection-lost). Run the same command again with a "
        "scheduler that runs; the build continues."
    )


@pytest.mark.parametrize(
    "error", [OSError("no port"), RuntimeError("no worker"), TimeoutError("late"), ValueError("0")]
)
def test_workers_that_cannot_be_started_are_named(monkeypatch, error):
    def fail(**options):
        assert dask.config.get("distributed.scheduler.no-workers-timeout") == "60s"
        assert Path(dask.config.get("temporary-directory")).is_dir()
        assert options == {
            "n_workers": 3,
            "threads_per_worker": 1,
            "dashboard_address": "127.0.0.1:0",
            "set_as_default": False,
            "silence_logs": logging.CRITICAL,
        }
        raise error

    monkeypatch.setattr(distributed, "Client", fail)
    logger = logging.getLogger("distributed.nanny")
    logger.filters.clear()
    message = rf"^3 workers cannot be started \({error}\)\. Start fewer, or none with --workers 1\.$"
    with pytest.raises(PackagingError, match=message), Workers(3) as workers:
        list(workers.run(double, [1, 2]))
    assert logger.filters


@pytest.mark.parametrize("error", [OSError("unreachable"), TimeoutError("too late"), ValueError("no port")])
def test_scheduler_that_does_not_answer_is_named(monkeypatch, error):
    def fail(address, *, timeout, set_as_default):
        assert (address, timeout, set_as_default) == ("tcp://there:1", "30s", False)
        raise error

    monkeypatch.setattr(distributed, "Client", fail)
    message = rf"^No dask scheduler answers at tcp://there:1 \({error}\)\. Is it running\?$"
    with pytest.raises(PackagingError, match=message), Workers(scheduler="tcp://there:1") as workers:
        list(workers.run(double, [1, 2]))


@pytest.mark.timeout(60)
def test_processes_are_started_once_and_stopped_at_the_end():
    code = ["__import__('os').getpid()"] * 8  # these processes cannot import this file
    with Workers(2) as workers:
        assert workers._client is None  # not before they are needed
        pids = set(workers.run(eval, code))
        pids |= set(workers.run(eval, code))
        client = workers._client
        (first, second) = (info["nthreads"] for info in client.scheduler_info()["workers"].values())
        assert distributed.client._get_global_client() is None

    assert not signal.pthread_sigmask(signal.SIG_BLOCK, []) & {signal.SIGINT, signal.SIGHUP}
    assert (first, second) == (1, 1)
    assert os.getpid() not in pids
    assert 1 <= len(pids) <= 2
    assert client.status == "closed"
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.parametrize("name", ["batched", "client", "nanny", "scheduler", "worker"])
def test_errors_and_tracebacks_that_dask_logs_are_hidden(scheduler, caplog, name):
    with Workers(scheduler=scheduler) as workers:
        list(workers.run(double, [4]))
    logger = logging.getLogger(f"distributed.{name}")

    logger.error("test: an error that is raised too")
    try:
        raise OSError
    except OSError:
        logger.warning("test: a traceback", exc_info=True)
    logger.warning("test: a warning")

    assert [message for message in caplog.messages if message.startswith("test:")] == ["test: a warning"]
