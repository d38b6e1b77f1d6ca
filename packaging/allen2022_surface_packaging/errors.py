"""The exception that users of this package see."""

PROJECTS = {"PIL": "Pillow"}  # on PyPI, where the name is not that of the module


class PackagingError(Exception):
    """The input is invalid, or a file system or network operation failed.

    The message is one line: what was found, what was expected, where, and what to do. The command line prints it and
    exits with status 1.
    """


def one_line(error: BaseException) -> str:
    """Return the message of an exception without line breaks, or the name of its type if it has no message."""
    return " ".join(str(error).split()) or type(error).__name__


def describe_missing(error: ModuleNotFoundError) -> str:
    """Say which package is not installed, and how to install it."""
    package = (error.name or "a package").split(".")[0]
    return f"{package} is not installed. Install it: pip install {PROJECTS.get(package, package)}"
