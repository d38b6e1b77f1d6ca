# PYTHON_ARGCOMPLETE_OK
"""Run the command line: ``python -m allen2022_surface_packaging``."""

import sys

from .errors import describe_missing

try:
    from .cli import main
except ModuleNotFoundError as error:  # a copy of this package may run where its requirements are not installed
    sys.exit(f"allen2022-surface: {describe_missing(error)}")

if __name__ == "__main__":
    main()
