"""What a command prints, also where it cannot be written: stdout and stderr may be closed, full, or a pipe without a reader."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import TextIO


class OutputError(Exception):
    """Standard output cannot be written. The cause is an `OSError` that names no file."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


def tell(text: str, *, end: str = "\n") -> None:
    """Print a result.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    try:
        print(text, end=end, flush=True)
    except OSError as error:
        raise OutputError(error) from error


def print_error(message: str) -> None:
    """Print a line to stderr. If it cannot be written, the exit status alone tells of the error."""
    if sys.stderr is not None:  # else `print` would write to stdout
        with suppress(OSError):
            print(message, file=sys.stderr)
        flush(sys.stderr)


def escape_unknown_letters(stream: object) -> None:
    """Let a stream escape letters that its encoding lacks, as Python does on stderr, in place of raising an exception."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")


def flush(stream: TextIO | None) -> OSError | None:
    """Write what a stream still holds, if it is open. If that fails, give it up, as well as all that follows.

    Otherwise Python would try again whenever a process is started and at the end, and fail.
    """
    if stream is None:
        return None
    try:
        stream.flush()
    except OSError as error:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        return error
    return None
