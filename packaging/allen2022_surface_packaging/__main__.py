# PYTHON_ARGCOMPLETE_OK
"""Run the command line: ``python -m allen2022_surface_packaging``."""

import sys

from .errors import describe_missing
from .signals import ending_signals


@ending_signals()  # also while the other modules are imported
def main() -> None:
    """Run the command line, and exit."""
    try:
        from .cli import main as run
    except ModuleNotFoundError as error:  # a copy of this package may run where its requirements are not installed
        sys.exit(f"allen2022-surface: {describe_missing(error)}")
    run()


if __name__ == "__main__":
    main()
