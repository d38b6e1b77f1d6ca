"""Work in a process of its own: what it returns and raises, and what is reported when it dies or hangs."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from allen2022_surface_packaging.apart import CrashError, run_apart, write_apart
from allen2022_surface_packaging.errors import PackagingError
from support import die


def test_result_of_a_large_task_comes_back():
    values = np.arange(3_000_000)

    np.testing.assert_array_equal(run_apart(lambda: values + 1), values + 1)


def test_task_runs_in_another_process():
    assert run_apart(os.getpid) != os.getpid()


def test_exception_of_the_task_is_raised():
    with pytest.raises(ValueError, match="invalid literal"):
        run_apart(lambda: int("x"))


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL])
def test_death_of_the_process_is_reported(number):
    with pytest.raises(CrashError, match="HDF5 crashed"):
        run_apart(lambda: die(number))


def test_result_that_cannot_be_sent_is_reported():
    with pytest.raises(CrashError):
        run_apart(threading.Lock)


def test_process_that_hangs_is_killed(tmp_path):
    def hang():
        (tmp_path / "pid").write_text(str(os.getpid()))
        time.sleep(600)

    with pytest.raises(CrashError, match="no answer within 1 seconds"):
        run_apart(hang, timeout=1)

    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_process_ends_by_itself_when_nobody_waits_for_it_any_more():
    """The first process may be killed meanwhile, so that it cannot end the other one."""

    def remaining_seconds():
        return signal.alarm(0)

    assert 1 <= run_apart(remaining_seconds, timeout=5) <= 6


def test_nothing_that_a_library_prints_is_shown(capfd):
    run_apart(lambda: os.write(2, b"HDF5-DIAG: Error detected") + os.write(1, b"open objects"))

    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        (lambda: die(signal.SIGSEGV), "HDF5 crashed"),
        (lambda: {}["NetCDF: HDF error"], "NetCDF: HDF error"),
        (lambda: Path("/no/such/file").stat(), "No such file or directory"),
    ],
)
def test_file_that_cannot_be_written_is_named(tmp_path, task, reason):
    with pytest.raises(PackagingError, match=f"{tmp_path}/file.nc could not be written .*{reason}.* Free some space"):
        write_apart(tmp_path / "file.nc", task)


SIGNAL_AFTER_FORK = """
import os, signal
from allen2022_surface_packaging.apart import run_apart
from allen2022_surface_packaging.signals import ending_signals
os.register_at_fork(after_in_parent=lambda: os.kill(os.getpid(), signal.SIGTERM))
with ending_signals():
    run_apart(lambda: None)
    print("the signal was lost")
"""


def test_signal_right_after_the_fork_ends_the_program():
    run = subprocess.run([sys.executable, "-c", SIGNAL_AFTER_FORK], capture_output=True, text=True, timeout=60)

    assert (run.returncode, run.stdout) == (143, "")
    assert run.stderr == "allen2022-surface: Stopped by SIGTERM.\n"
