"""Run ``python -m brainscore_allen2022_surface link`` or ``unlink``."""

import argparse
import sys

from .links import link, unlink

parser = argparse.ArgumentParser(
    prog="python -m brainscore_allen2022_surface", description="Link the plugin into Brain-Score."
)
parser.add_argument("command", choices=["link", "unlink"])
command = {"link": link, "unlink": unlink}[parser.parse_args().command]
try:
    print(command())
except OSError as error:
    print(f"brainscore_allen2022_surface: {error}", file=sys.stderr)
    sys.exit(1)
