"""Run the command line: ``python -m allen2022_surface_packaging``."""

from .cli import main

main()
