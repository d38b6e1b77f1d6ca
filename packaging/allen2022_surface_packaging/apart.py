"""Work with HDF5 in a process of its own: the library crashes if a disk fails or is full, and hangs on some damaged files."""

from __future__ import annotations

import gc
import math
import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeVar

from .errors import ADVICE, PackagingError, one_line
from .files import naming
from .signals import postponed_signals

READ_SECONDS = 30  # to read a small file, and more for a larger one on a slow disk
SLOWEST_BYTES_PER_SECOND = 10**6

Result = TypeVar("Result")


class CrashError(RuntimeError):  # as the libraries raise when HDF5 fails, so that it is caught with their errors
    """The process died, or did not end in time."""


def run_apart(task: Callable[[], Result], *, timeout: float | None = None) -> Result:
    """Run a task in a fork of this process, which takes a few milliseconds, and return its result.

    Parameters
    ----------
    timeout : seconds, optional

    Raises
    ------
    CrashError
        If the process died, or did not end in time.
    Exception
        That of the task.
    """
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_result, args=(task, sender, timeout))
    try:
        # Python prints and drops an exception of what it runs after a fork, such as `logging`, which releases its lock.
        with postponed_signals():
            process.start()
        sender.close()
        if not receiver.poll(timeout):
            raise CrashError(f"no answer within {timeout:.0f} seconds")
        result: Result | Exception = receiver.recv()
    except EOFError as error:
        raise CrashError("HDF5 crashed") from error
    finally:
        if process.pid is not None:
            process.kill()  # it has nothing left to do, or did not end in time, or this process is interrupted
            process.join()
        receiver.close()
    if isinstance(result, Exception):
        raise result
    return result


def read_apart(n_bytes: int, task: Callable[[], Result]) -> Result:
    """Run a task that reads a file of this size, as `run_apart`, for as long as a slow disk may take.

    Raises
    ------
    CrashError
        If HDF5 crashes or hangs.
    Exception
        That of the task.
    """
    return run_apart(task, timeout=READ_SECONDS + n_bytes / SLOWEST_BYTES_PER_SECOND)


def write_apart(path: Path, task: Callable[[], Result]) -> Result:
    """Run a task that writes a file with HDF5 in a fork of this process, and return its result.

    Raises
    ------
    PackagingError
        If HDF5 cannot write the file.
    OSError
        If the file cannot be opened at all.
    """

    def open_and_run() -> Result:
        with path.open("wb"), path.open("rb"):  # the error of the system says more than that of HDF5
            pass
        return task()

    try:
        with naming(path):
            return run_apart(open_and_run)
    except (KeyError, OSError, RuntimeError) as error:  # of h5py and netCDF4, and `CrashError`
        if isinstance(error, OSError) and error.errno in ADVICE:
            raise
        raise PackagingError(
            f"{path} could not be written ({one_line(error)}). Is the disk sound, and is space left? Free some space and "
            "start again."
        ) from error


def _send_result(task: Callable[[], object], sender: Connection, timeout: float | None) -> None:
    if timeout is not None:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(math.ceil(timeout) + 1)  # it ends even if the first process is killed meanwhile
    gc.freeze()  # else a collection writes to every object, and so copies the memory of the first process
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):  # the libraries print there when they fail
        os.dup2(nowhere, descriptor)
    try:
        result = task()
    except Exception as error:
        result = error
    sender.send(result)
    os._exit(0)  # not through HDF5's end, which crashes after a failure
