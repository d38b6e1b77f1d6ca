"""Work on several processes: it is all done, whatever dies, and every failure is one line."""

import logging
import os
import signal

import dask
import distributed
import pytest

from allen2022_surface_packaging.assemble import cluster
from allen2022_surface_packaging.assemble.cluster import run_tasks
from allen2022_surface_packaging.errors import PackagingError
from support import run_cli


def double(number):
    return 2 * number


def fail_at_3(number):
    if number == 3:
        raise PackagingError("number 3 is damaged")
    return number


def append_line(path):
    with path.open("a") as file:
        file.write("done\n")


@pytest.fixture(scope="module")
def scheduler():
    """The address of a scheduler with two workers that are threads of this process."""
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None) as local:
        yield local.scheduler.listeners[0].contact_address


@pytest.mark.parametrize("is_elsewhere", [False, True])
def test_results_are_all_there_and_an_error_is_raised(scheduler, is_elsewhere, tmp_path):
    where = {"scheduler": scheduler} if is_elsewhere else {}

    assert sorted(run_tasks(double, range(20), tmp_path, **where)) == list(range(0, 40, 2))
    with pytest.raises(PackagingError, match="^number 3 is damaged$"):
        list(run_tasks(fail_at_3, range(6), tmp_path, **where))
    assert sorted(run_tasks(double, range(3), tmp_path, **where)) == [0, 2, 4]  # the scheduler goes on
    assert dask.config.get("scheduler", None) is None  # else dask sends all later work of this process to it


def test_equal_items_are_each_run(scheduler, tmp_path):
    """Dask runs a pure function once for equal arguments, but a task writes a file."""
    assert list(run_tasks(append_line, [tmp_path / "log"] * 2, tmp_path, scheduler=scheduler)) == [None, None]
    assert (tmp_path / "log").read_text() == "done\ndone\n"


@pytest.mark.timeout(60)
def test_processes_are_stopped_at_the_end(tmp_path):
    pids = set(
        run_tasks(eval, ["__import__('os').getpid()"] * 8, tmp_path, n_workers=2)
    )  # they cannot import this file

    assert os.getpid() not in pids
    assert 1 <= len(pids) <= 2
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, []) & {signal.SIGINT, signal.SIGHUP}
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("tcp://127.0.0.1:9", "No dask scheduler answers at tcp://127.0.0.1:9 ("),
        ("no address", "is not the address of a scheduler, expected one like tcp://host:8786"),
    ],
)
def test_scheduler_that_does_not_answer_is_named(nsd_tree, tmp_path, monkeypatch, address, message):
    monkeypatch.setattr(cluster, "SCHEDULER_TIMEOUT", "1s")
    result = run_cli("build", nsd_tree, tmp_path / "r", "--scheduler", address, "--cache", "none")

    assert result.returncode == 1
    assert message in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_workers_that_cannot_be_started_are_named(monkeypatch, tmp_path):
    def fail(**options):
        raise OSError("no port")

    monkeypatch.setattr(distributed, "Client", fail)
    with pytest.raises(PackagingError, match=r"^3 workers cannot be started \(no port\)\. Start fewer, or none with"):
        list(run_tasks(double, [1, 2], tmp_path, n_workers=3))


@pytest.mark.parametrize("name", ["client", "nanny", "scheduler", "worker"])
def test_errors_that_dask_logs_beside_those_that_it_raises_are_hidden(scheduler, name, tmp_path):
    list(run_tasks(double, [4], tmp_path, scheduler=scheduler))

    assert not logging.getLogger(f"distributed.{name}").isEnabledFor(logging.ERROR)
