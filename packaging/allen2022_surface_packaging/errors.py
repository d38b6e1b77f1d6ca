"""The one exception of this package that is meant for its users."""


class PackagingError(Exception):
    """The input or the world is at fault.

    The message is one line: what was found, what was expected, where, and what to do. The command line prints it and
    exits with status 1.
    """
