"""The arguments of the command line: one function per command."""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from . import __version__
from .facts import BETAS_VERSIONS, SUBJECTS, TERMS_URL, subject_name
from .nsd.size import TreeSize
from .nsd.tree import IMAGE_FORMATS, LAYOUTS
from .recipe import LARGEST_SEED, NAN_POLICIES, PUBLISHED_DATASETS, STATISTICS
from .s3_errors import without_secrets

USUAL_ORDER = """\
the usual order:
  demo                       everything once, small, without NSD's files
  check  NSD_ROOT            what is there, what is missing and how to fetch it, how long a build takes
  build  NSD_ROOT RELEASE    read the betas, write a release
  verify RELEASE             check the release
  report RELEASE             write a page about the release
  upload RELEASE --bucket BUCKET/PREFIX --dry-run

`allen2022-surface COMMAND --help` explains a command, with an example.
"""


def parse(command_line: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse a command line. Exit with status 2 if it is wrong.

    Returns
    -------
    namespace
        Besides the options: ``command``, the name of the command, ``parser``, its parser, and ``log_level``.
    """
    parser = argparse.ArgumentParser(
        prog="allen2022-surface",
        description="Package the Natural Scenes Dataset on the cortical surface for Brain-Score.",
        epilog=USUAL_ORDER,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    _add_verbosity(parser, default=logging.INFO)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    for name, (description, examples, add_arguments) in COMMANDS.items():
        command = _add_command(commands, name, description, examples)
        command.set_defaults(parser=command)
        add_arguments(command)
    if "_ARGCOMPLETE" in os.environ:  # set by the shell while it completes a command
        import argcomplete

        argcomplete.autocomplete(parser)
    command_line = sys.argv[1:] if command_line is None else command_line
    for argument in command_line:
        shown = without_secrets(argument)
        if "://" in argument and shown != " ".join(argument.split()):  # before any message can hold it
            parser.error(
                f"the address {shown} held a password, a signature or a token. Leave it out: AWS credentials come from its "
                "configuration"
            )
    return parser.parse_args(command_line)


def _add_command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, description: str, examples: str = ""
) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name,
        help=description,
        description=description,
        epilog=f"examples:\n{examples}" if examples else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_verbosity(command, default=argparse.SUPPRESS)  # it keeps what stands before the name of the command
    return command


def _add_verbosity(command: argparse.ArgumentParser, *, default: int | str) -> None:
    verbosity = command.add_mutually_exclusive_group()
    for option, level, help in (
        ("verbose", logging.DEBUG, "say more, with the time of day"),
        ("quiet", logging.WARNING, "print results and problems only, no progress"),
    ):
        verbosity.add_argument(
            f"-{option[0]}",
            f"--{option}",
            action="store_const",
            const=level,
            dest="log_level",
            default=default,
            help=help,
        )


def _add_simulate(command: argparse.ArgumentParser) -> None:
    command.add_argument("nsd_root", metavar="NSD_ROOT", type=_path, help="the folder to write")
    _add_subjects(command, default=SUBJECTS, default_text="all 8")
    _add_number(command, "--sessions", help="sessions of the longest subject (default 4; with --expdesign 40)")
    _add_number(command, "--trials", help="trials per session (default 300; with --expdesign 750)")
    _add_number(command, "--vertices", most=10**6, default=TreeSize.n_vertices, help="default %(default)s")
    _add_number(command, "--image-size", default=TreeSize.image_size, help="in pixels (default %(default)s)")
    command.add_argument("--layout", choices=list(LAYOUTS), default=TreeSize.layout, help="default %(default)s")
    _add_number(command, "--seed", least=0, most=LARGEST_SEED, default=TreeSize.seed, help="default %(default)s")
    command.add_argument(
        "--betas",
        nargs="+",
        choices=BETAS_VERSIONS,
        default=TreeSize.betas,
        help=f"the versions to write (default {' '.join(TreeSize.betas)})",
    )
    command.add_argument("--expdesign", type=_path, metavar="FILE", help="follow this nsd_expdesign.mat")


def _add_check(command: argparse.ArgumentParser) -> None:
    _add_nsd_root(command)
    _add_recipe(command)
    _add_subjects(command, default=None, default_text="those of the recipe")


def _add_build(command: argparse.ArgumentParser) -> None:
    _add_nsd_root(command)
    command.add_argument(
        "release",
        metavar="RELEASE",
        type=_netcdf_path,
        help="the folder of the release; with several recipes a folder of releases, each with the name of its recipe",
    )
    _add_recipe(command)
    _add_subjects(command, default=None, default_text="those of the recipe")
    workers = command.add_mutually_exclusive_group()
    _add_number(workers, "--workers", default=1, help="processes on this machine (default 1)")
    workers.add_argument("--scheduler", metavar="ADDRESS", help="a running dask.distributed scheduler, tcp://...")
    command.add_argument(
        "--cache",
        metavar="DIR",
        type=os.path.expanduser,
        help="keep the responses of each session here; 'none' keeps nothing (default: a folder beside RELEASE)",
    )
    command.add_argument(
        "--image-format", choices=IMAGE_FORMATS, help="of extracted images (default png; jpg loses quality)"
    )
    command.add_argument(
        "--standardize-on",
        choices=STATISTICS,
        help="images over which the second standardisation computes mean and deviation (default: as in the recipe)",
    )
    command.add_argument(
        "--nan-policy",
        choices=NAN_POLICIES,
        help="fill NaN with zero, or drop vertices with NaN (default: as in the recipe)",
    )
    command.add_argument(
        "--from-region-assemblies", action="store_true", help="take the averages from NSD_ROOT/assemblies"
    )
    command.add_argument(
        "--name",
        help="name of the release: letters, digits and underscores; needed if a published recipe is changed",
    )
    command.add_argument("--overwrite", action="store_true", help="replace a release at RELEASE")


def _add_recipes(command: argparse.ArgumentParser) -> None:
    actions = command.add_subparsers(metavar="ACTION", dest="action")
    _add_command(actions, "list", "List the recipes that ship with a line each (the default).")
    for name, description in (
        ("show", "Print a recipe, to copy and change it."),
        ("check", "List every fault of a recipe file."),
    ):
        action = _add_command(actions, name, description)
        _complete(action.add_argument("recipe", metavar="NAME|FILE", type=os.path.expanduser), _recipe_choices)


def _add_verify(command: argparse.ArgumentParser) -> None:
    _add_release(command)
    command.add_argument(
        "--nsd-root",
        metavar="NSD_ROOT",
        type=os.path.expanduser,
        help="recompute values from these raw files, by independent code",
    )
    command.add_argument("--all", action="store_true", help="recompute every value (default: a sample of vertices)")
    _add_number(command, "--seed", least=0, most=LARGEST_SEED, help="seed of the sample (default 0)")
    command.add_argument(
        "--against",
        metavar="RELEASE2|IDENTIFIER",
        type=os.path.expanduser,
        help="compare with another release, or with an object of artifacts.json",
    )


def _add_upload(command: argparse.ArgumentParser) -> None:
    _add_release(command)
    command.add_argument(
        "--bucket",
        required=True,
        metavar="BUCKET[/PREFIX]",
        help="a bucket that keeps versions; boto3's settings give region, profile and endpoint",
    )
    _add_artifacts(command, "record the objects here (default: the plugin's artifacts.json)")
    command.add_argument("--dry-run", action="store_true", help="print what would be sent, and stop")
    command.add_argument("--overwrite", action="store_true", help="replace objects with other content")
    command.add_argument(
        "--accept-nsd-terms",
        action="store_true",
        help="I have accepted NSD's terms and conditions, which forbid giving its data to anybody who has not accepted "
        f"them, and I make sure that nobody else can read the bucket. The terms: {TERMS_URL}",
    )


def _add_pack(command: argparse.ArgumentParser) -> None:
    _add_release(command)
    command.add_argument("folder", metavar="FOLDER", type=_netcdf_path, help="the folder to write")


def _add_record(command: argparse.ArgumentParser) -> None:
    _add_release(command)
    command.add_argument("ids", metavar="IDS", type=_path, help="the version_ids.csv that pack wrote, filled in")
    _add_artifacts(command, "record the objects here (default: the plugin's artifacts.json)")


def _add_export(command: argparse.ArgumentParser) -> None:
    command.add_argument("vision_checkout", metavar="VISION_CHECKOUT", type=_path, help="a clone of brain-score/vision")
    _add_artifacts(command, "export the plugin with this file (default: the plugin's artifacts.json)")
    command.add_argument(
        "--release", type=_path, nargs="+", metavar="RELEASE", default=(), help="state the ceilings of these releases"
    )
    command.add_argument("--overwrite", action="store_true", help="replace the plugin of an earlier export")


def _add_nothing(command: argparse.ArgumentParser) -> None:
    """The command has no argument of its own."""


def _add_doctor(command: argparse.ArgumentParser) -> None:
    command.add_argument("identifier", nargs="?", help="an identifier that Brain-Score does not find or load")


def _add_demo(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "directory",
        metavar="DIRECTORY",
        type=_path,
        nargs="?",
        help="keep everything here (default: a temporary folder)",
    )


def _add_nsd_root(command: argparse.ArgumentParser) -> None:
    # Not a Path, which would remove a slash from the address of a bucket.
    help = "an NSD tree in the official or flat layout: a folder, or s3://bucket[/prefix]"
    command.add_argument("nsd_root", metavar="NSD_ROOT", type=os.path.expanduser, help=help)


def _add_artifacts(command: argparse.ArgumentParser, help: str) -> None:
    command.add_argument("--artifacts", type=_path, metavar="FILE", help=help)


def _add_release(command: argparse.ArgumentParser) -> None:
    command.add_argument("release", metavar="RELEASE", type=_netcdf_path, help="the folder of the release")


def _add_number(
    command: argparse._ActionsContainer,
    option: str,
    *,
    least: int = 1,
    most: int = 10_000,
    default: int | None = None,
    help: str,
) -> None:
    """Add a whole number. A larger one is a mistake, for which no machine has the memory."""

    def number(text: str) -> int:
        value = int(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"must be from {least} to {most:,}, but got {value}")
        return value

    command.add_argument(option, type=number, metavar="N", default=default, help=help)


def _add_recipe(command: argparse.ArgumentParser) -> None:
    action = command.add_argument(
        "--recipe",
        metavar="NAME|FILE",
        type=os.path.expanduser,
        action="append",
        help="what the release holds: a recipe that ships (see `recipes`) or a TOML file; may be given several times "
        f"(default {PUBLISHED_DATASETS[0].name})",
    )
    _complete(action, _recipe_choices)


def _add_subjects(command: argparse.ArgumentParser, *, default: tuple[int, ...] | None, default_text: str) -> None:
    action = command.add_argument(
        "--subjects",
        type=_subjects,
        nargs="+",
        metavar="N",
        default=default,
        action=_Subjects,
        help=f"such as 1 2 5 7, or 1,2, or 1-8, or subj01 (default: {default_text})",
    )
    _complete(action, lambda **_: [str(subject) for subject in SUBJECTS])


class _Subjects(argparse.Action):
    """Joins and sorts the subjects, and refuses one that is named twice."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        assert isinstance(values, list)
        subjects = [subject for part in values for subject in part]
        repeated = [subject for subject in subjects if subjects.count(subject) > 1]
        if repeated:
            parser.error(f"{option_string} names {subject_name(repeated[0])} more than once")
        setattr(namespace, self.dest, tuple(sorted(subjects)))


def _subjects(text: str) -> list[int]:
    """Read one subject or several, such as ``1``, ``subj01``, ``1,2`` or ``1-8``."""
    subjects: list[int] = []
    for part in text.strip(",").split(","):
        ends = re.fullmatch(r"(?:subj)?0?([1-8])(?:-(?:subj)?0?([1-8]))?", part.strip(), re.IGNORECASE)
        if ends is None or int(ends[1]) > int(ends[2] or ends[1]):
            raise argparse.ArgumentTypeError(
                f"{text!r} is no subject, expected numbers from {SUBJECTS[0]} to {SUBJECTS[-1]}, "
                "such as 1 2, or 1,2, or 1-8, or subj01"
            )
        subjects += range(int(ends[1]), int(ends[2] or ends[1]) + 1)
    return subjects


def _path(text: str) -> Path:
    return Path(os.path.expanduser(text))  # noqa: PTH111, an unknown user's home is not an error yet


def _netcdf_path(text: str) -> Path:
    if any("\ud800" <= letter <= "\udfff" for letter in text):  # as Python keeps bytes that are not text
        raise argparse.ArgumentTypeError(
            f"{ascii(text)} is not text in UTF-8, as the NetCDF library needs it. Rename it"
        )
    return _path(text)


def _complete(action: argparse.Action, choices: Callable[..., list[str]]) -> None:
    """Offer choices when the shell completes an argument."""
    action.completer = choices  # type: ignore[attr-defined]  # argcomplete's way


def _recipe_choices(prefix: str, **_: object) -> list[str]:
    """Return the recipes that ship, and the files that begin with `prefix`."""
    from argcomplete.completers import FilesCompleter

    from .recipe import SUFFIX, list_recipes

    return [*list_recipes(), *FilesCompleter([SUFFIX.removeprefix(".")])(prefix)]


COMMANDS: dict[str, tuple[str, str, Callable[[argparse.ArgumentParser], None]]] = {
    "simulate": (
        "Write a synthetic NSD tree.",
        """\
  allen2022-surface simulate ~/simulated_nsd --subjects 1,2 --sessions 3""",
        _add_simulate,
    ),
    "check": (
        "List what is there, what is missing and what is malformed; say how to fetch it, and what a build takes.",
        """\
  allen2022-surface check /data/nsd --subjects 1,2,5,7
  allen2022-surface check /data/nsd --recipe streams --recipe kastner""",
        _add_check,
    ),
    "build": (
        "Build a release from an NSD tree.",
        """\
  allen2022-surface build /data/nsd /data/releases/Allen2022_fmri_surface
  allen2022-surface build s3://natural-scenes-dataset ~/releases --recipe streams --recipe kastner --workers 4""",
        _add_build,
    ),
    "recipes": (
        "List the recipes that ship, print one, or check a recipe file.",
        """\
  allen2022-surface recipes show streams > my_recipe.toml
  allen2022-surface recipes check my_recipe.toml""",
        _add_recipes,
    ),
    "verify": (
        "Check a release: its files, shapes, coordinates, images and values.",
        """\
  allen2022-surface verify /data/releases/Allen2022_fmri_surface --nsd-root /data/nsd""",
        _add_verify,
    ),
    "report": (
        "Write RELEASE/report.html, a page about the release.",
        """\
  allen2022-surface report /data/releases/Allen2022_fmri_surface""",
        _add_release,
    ),
    "upload": (
        "Upload a release to S3, and record its objects for the loaders.",
        """\
  allen2022-surface upload /data/releases/Allen2022_fmri_surface --bucket my-bucket/nsd --dry-run""",
        _add_upload,
    ),
    "pack": (
        "Write the objects as files for the upload form of Brain-Score's website.",
        """\
  allen2022-surface pack /data/releases/Allen2022_fmri_surface /data/to_upload""",
        _add_pack,
    ),
    "record": (
        "Record the version ids of files that the website has stored.",
        """\
  allen2022-surface record /data/releases/Allen2022_fmri_surface /data/to_upload/version_ids.csv""",
        _add_record,
    ),
    "export": (
        "Write the plugin into a clone of brain-score/vision, for a pull request.",
        """\
  allen2022-surface export ../vision --release /data/releases/Allen2022_fmri_surface""",
        _add_export,
    ),
    "link": (
        "Link the plugin into the installed brainscore_vision, so that load_dataset finds its identifiers.",
        """\
  allen2022-surface link""",
        _add_nothing,
    ),
    "unlink": (
        "Remove that link.",
        """\
  allen2022-surface unlink""",
        _add_nothing,
    ),
    "list": (
        "List all identifiers: where the data of each comes from now, its size, and whether it is on this machine.",
        """\
  allen2022-surface list""",
        _add_nothing,
    ),
    "doctor": (
        "Say what is installed, linked, set, found and cached, with advice about what is wrong.",
        """\
  allen2022-surface doctor
  allen2022-surface doctor Allen2022_fmri_surface.V4.test""",
        _add_doctor,
    ),
    "demo": (
        "Simulate, build, verify, link, load and compute ceilings, in a minute.",
        """\
  allen2022-surface demo my_demo""",
        _add_demo,
    ),
}
