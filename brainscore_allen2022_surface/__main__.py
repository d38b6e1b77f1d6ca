"""The commands ``python -m brainscore_allen2022_surface link | unlink | list | doctor``."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
import warnings
from collections.abc import Sequence

from .doctor import ADVICE_INDENT, examine
from .inventory import describe_inventory
from .links import find_copy_problem, link, unlink
from .sources import SimulatedDataWarning

PROGRAM = "python -m brainscore_allen2022_surface"
INTERRUPTED = 130


def main(command_line: Sequence[str] | None = None) -> None:
    """Run the command that the command line names, and exit.

    The exit status is 0 if the command is done, 1 if it fails or `doctor` finds a problem, and 2 for wrong usage.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # for letters in paths that its encoding lacks
    warnings.simplefilter("ignore", SimulatedDataWarning)  # `list` and `doctor` say it themselves
    status: str | int | None
    try:
        options = _parse(command_line)
        status = COMMANDS[options.command](options)
    except SystemExit as error:  # of the parser
        status = error.code
    except BrokenPipeError:  # as in `list | head`
        status = 1
    except MemoryError:
        status = _fail("The memory of this machine is too small. Close other programs.")
    except (OSError, ValueError) as error:
        status = _fail(str(error))
    except KeyboardInterrupt:
        _fail("Interrupted.")
        status = INTERRUPTED
    sys.exit(_flush_output(status))


def _fail(message: str) -> int:
    """Print an error as one line, if there is a place for it, and return the exit status."""
    if sys.stderr is not None:  # else `print` would write to stdout
        with contextlib.suppress(OSError):
            print(f"brainscore_allen2022_surface: {_printable(message)}", file=sys.stderr)
    return 1


def _flush_output(status: str | int | None) -> str | int | None:
    """Write what is left of the output, and return the exit status. Python itself would complain in words of its own."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            if stream is sys.stdout:
                status = status or 1
                if not isinstance(error, BrokenPipeError):
                    _fail(f"The output cannot be written ({error.strerror}).")
    return status


def _printable(text: str) -> str:
    """Return a text in one line, whatever a name in it holds."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(text.split()))


def _link(options: argparse.Namespace) -> int:
    print(link())
    problem = find_copy_problem()
    if problem:
        print(f"brainscore_allen2022_surface: warning: {problem}", file=sys.stderr)
    return 0


def _unlink(options: argparse.Namespace) -> int:
    print(unlink())
    return 0


def _list(options: argparse.Namespace) -> int:
    print(describe_inventory())
    return 0


def _doctor(options: argparse.Namespace) -> int:
    findings = examine(options.identifier)
    width = max(len(finding.subject) for finding in findings)
    for finding in findings:
        print(f"{'!' if finding.advice else ' '} {finding.subject:{width}}  {finding.state}")
        if finding.advice:
            print(f"{ADVICE_INDENT}{finding.advice}")
    n_problems = sum(bool(finding.advice) for finding in findings)
    print(f"\n{n_problems or 'No'} problem{'' if n_problems == 1 else 's'} found.")
    return 1 if n_problems else 0


COMMANDS = {"link": _link, "unlink": _unlink, "list": _list, "doctor": _doctor}


def _parse(command_line: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description="The data plugin of the Natural Scenes Dataset on the cortical surface."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, summary in {
        "link": "link this plugin into the installed brainscore_vision, so that load_dataset finds its identifiers",
        "unlink": "remove the link",
        "list": "list all identifiers: where the data of each comes from now, its size, and whether it is on this machine",
        "doctor": "say what is installed, linked, set, found and cached, with advice about what is wrong",
    }.items():
        example = f"example: {PROGRAM} {name}"
        if name == "doctor":
            example += f"\n         {PROGRAM} doctor Allen2022_fmri_surface.V4.test"
        command = commands.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            epilog=example,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if name == "doctor":
            command.add_argument("identifier", nargs="?", help="an identifier that Brain-Score does not find or load")
    return parser.parse_args(command_line)


if __name__ == "__main__":
    main()
