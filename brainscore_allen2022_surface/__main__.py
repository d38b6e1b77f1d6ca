"""The commands ``python -m brainscore_allen2022_surface link`` and ``unlink``."""

import argparse
import sys

from .links import link, unlink


def main() -> None:
    """Run the command that the command line names. The exit status is 1 if it fails."""
    parser = argparse.ArgumentParser(
        prog="python -m brainscore_allen2022_surface",
        description="Link this plugin into the installed brainscore_vision, or remove the link.",
    )
    parser.add_argument("command", choices=["link", "unlink"])
    command = {"link": link, "unlink": unlink}[parser.parse_args().command]
    try:
        print(command())
    except OSError as error:
        print(f"brainscore_allen2022_surface: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
