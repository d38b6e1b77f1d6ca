"""Run the command line: ``python -m allen2022_surface_packaging``."""

from .cli import main

if __name__ == "__main__":
    main()
