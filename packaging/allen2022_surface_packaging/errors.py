"""The exception that users of this package see."""


class PackagingError(Exception):
    """The input is invalid, or a file system or network operation failed.

    The message is one line: what was found, what was expected, where, and what to do. The command line prints it and
    exits with status 1.
    """


def one_line(error: BaseException) -> str:
    """Return the message of an exception without line breaks, or the name of its type if it has no message."""
    return " ".join(str(error).split()) or type(error).__name__
