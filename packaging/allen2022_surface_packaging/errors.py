"""The exception that users of this package see."""

from __future__ import annotations

import errno
import traceback
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

ADVICE = {
    errno.ENOSPC: "Free some space and start again.",
    errno.EDQUOT: "Free some space, or ask for a larger quota, and start again.",
    errno.EFBIG: "Choose a file system, or a limit (`ulimit -f`), that allows larger files.",
    errno.EIO: "Is the disk, or the connection to it, sound? Start again.",
    errno.EMFILE: "Allow more open files (`ulimit -n`) and start again.",
    errno.ENFILE: "The machine has too many open files. Wait, and start again.",
    errno.EACCES: "Change the permissions, or choose another folder.",
    errno.EPERM: "Change the permissions, or choose another folder.",
    errno.EROFS: "Choose a folder on another file system.",
    errno.ESTALE: "Is the network disk still there? Start again.",
}
DISK_ADVICE = "Is the disk sound, and is space left? Free some space and start again."
LONGEST_REASON = 200  # characters of a library's message
PROJECTS = {"PIL": "Pillow"}  # on PyPI, where the name is not that of the module


class PackagingError(Exception):
    """The input is invalid, or a file system or network operation failed.

    The message is one line: what was found, what was expected, where, and what to do. The command line prints it and
    exits with status 1.
    """


def raise_if_of_machine(error: BaseException, path: object) -> None:
    """Raise `error` again if its number is one of the system's, such as too many open files, which says nothing about the file.

    Raises
    ------
    OSError
        The error. It names `path` unless it names a file already.
    """
    if isinstance(error, OSError) and error.errno in ADVICE:
        error.filename = error.filename or str(path)
        raise error


@contextmanager
def explaining(file: object, fault: str, advice: str) -> Iterator[None]:
    """Turn whatever libraries raise, which is of many kinds, into a line: the file, its fault, their reason, and what to do.

    Raises
    ------
    PackagingError
        If anything is raised inside.
    OSError
        If the disk failed, or too many files are open, which says nothing about the file.
    """
    try:
        yield
    except PackagingError:
        raise
    except Exception as error:
        raise_if_of_machine(error, file)
        raise PackagingError(f"{file} {fault} ({one_line(error)[:LONGEST_REASON]}). {advice}") from error


def reading(file: object, content: str, advice: str = "Download it again.") -> AbstractContextManager[None]:
    """Explain what libraries raise about the content of a file."""
    return explaining(file, f"is not {content}", advice)


def one_line(error: BaseException) -> str:
    """Return the message of an exception without line breaks, or the name of its type if it has no message."""
    return " ".join(str(error).split()) or type(error).__name__


def printable(text: str) -> str:
    """Escape what cannot be printed on one line, such as a line break or a zero byte that a damaged file holds."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def describe_error(error: BaseException) -> str | None:
    """Write an error that one can foresee in one line; None for any other, which is a mistake in this package."""
    if isinstance(error, PackagingError):
        return str(error)
    if isinstance(error, MemoryError):
        return f"The memory of this machine is too small ({one_line(error)}). Close other programs, or ask for less."
    if isinstance(error, OSError):
        return describe_os_error(error)
    if isinstance(error, ModuleNotFoundError) and not (error.name or "").startswith(__package__):
        return describe_missing(error)
    functions = [frame.f_code.co_name for frame, _ in traceback.walk_tb(error.__traceback__)]
    if "<module>" in functions:  # that of a module while it is imported
        return f"A package cannot be imported ({one_line(error)}). See what is wrong: allen2022-surface doctor"
    return None


def describe_missing(error: ModuleNotFoundError) -> str:
    """Say which package is not installed, and how to install it."""
    package = (error.name or "a package").split(".")[0]
    return f"{package} is not installed. Install it: pip install {PROJECTS.get(package, package)}"


def describe_os_error(error: OSError) -> str:
    """Say in one line which file or folder failed, how, and what to do."""
    paths = " to ".join(str(path) for path in (error.filename, error.filename2) if path)  # two of a copy or a renaming
    place = f"{paths}: " if paths else ""
    return " ".join(f"{place}{error.strerror or error}. {ADVICE.get(error.errno or 0, '')}".split())
