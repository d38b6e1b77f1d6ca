"""The arguments of the command line: one function per command."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from . import __version__
from .nsd.facts import BETAS_VERSIONS, SUBJECTS, TERMS_URL, subject_name
from .nsd.inspection import IMAGE_FORMATS
from .nsd.simulation import TreeSize
from .nsd.tree import LAYOUTS
from .recipe import NAN_POLICIES, PUBLISHED_DATASETS, STATISTICS


def parse(command_line: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse a command line. Exit with status 2 if it is wrong.

    Returns
    -------
    namespace
        Besides the options: ``command``, the name of the command, and ``parser``, its parser.
    """
    parser = argparse.ArgumentParser(
        prog="allen2022-surface",
        description="Package the Natural Scenes Dataset on the cortical surface for Brain-Score.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    _add_simulate(_add_command(commands, "simulate", "Write a synthetic NSD tree."))
    _add_check(_add_command(commands, "check", "List what is there, what is missing and what is malformed."))
    _add_build(_add_command(commands, "build", "Build a release from an NSD tree."))
    _add_recipes(_add_command(commands, "recipes", "List the recipes that ship, print one, or check a recipe file."))
    _add_verify(_add_command(commands, "verify", "Check a release: its files, shapes, coordinates, images and values."))
    _add_report(_add_command(commands, "report", "Write RELEASE/report.html, a page about the release."))
    _add_upload(_add_command(commands, "upload", "Upload a release to S3, and record its objects for the loaders."))
    _add_pack(
        _add_command(commands, "pack", "Write the objects as files for the upload form of Brain-Score's website.")
    )
    _add_record(_add_command(commands, "record", "Record the version ids of files that the website has stored."))
    _add_export(
        _add_command(commands, "export", "Write the plugin into a clone of brain-score/vision, for a pull request.")
    )
    _add_demo(_add_command(commands, "demo", "Simulate, build, verify, link, load and compute ceilings, in a minute."))
    return parser.parse_args(command_line)


def _add_command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, help: str
) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=help, description=help)
    command.set_defaults(parser=command)
    return command


def _add_simulate(command: argparse.ArgumentParser) -> None:
    command.add_argument("nsd_root", metavar="NSD_ROOT", help="the folder to write")
    _add_subjects(command)
    _add_number(command, "--sessions", help="sessions of the longest subject (default 4; with --expdesign 40)")
    _add_number(command, "--trials", help="trials per session (default 300; with --expdesign 750)")
    _add_number(command, "--vertices", default=TreeSize.n_vertices, help="default %(default)s")
    _add_number(command, "--image-size", default=TreeSize.image_size, help="in pixels (default %(default)s)")
    command.add_argument("--layout", choices=list(LAYOUTS), default=TreeSize.layout, help="default %(default)s")
    command.add_argument("--seed", type=int, metavar="N", default=TreeSize.seed, help="default %(default)s")
    command.add_argument(
        "--betas",
        nargs="+",
        choices=BETAS_VERSIONS,
        default=TreeSize.betas,
        help=f"the versions to write (default {' '.join(TreeSize.betas)})",
    )
    command.add_argument("--expdesign", type=Path, metavar="FILE", help="follow this nsd_expdesign.mat")


def _add_check(command: argparse.ArgumentParser) -> None:
    _add_nsd_root(command)
    _add_recipe(command)
    _add_subjects(command, default=None, help="default: those of the recipe")


def _add_build(command: argparse.ArgumentParser) -> None:
    _add_nsd_root(command)
    command.add_argument(
        "release",
        metavar="RELEASE",
        type=Path,
        help="the folder of the release; with several recipes a folder of releases, each with the name of its recipe",
    )
    _add_recipe(command)
    _add_subjects(command, default=None, help="in place of those of the recipe")
    workers = command.add_mutually_exclusive_group()
    _add_number(workers, "--workers", default=1, help="processes on this machine (default 1)")
    workers.add_argument("--scheduler", metavar="ADDRESS", help="a running dask.distributed scheduler, tcp://...")
    command.add_argument(
        "--cache",
        metavar="DIR",
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
    actions.add_parser("list", help="list the recipes that ship with a line each (the default)")
    show = actions.add_parser("show", help="print a recipe, to copy and change it")
    show.add_argument("recipe", metavar="NAME|FILE")
    check = actions.add_parser("check", help="list every fault of a recipe file")
    check.add_argument("recipe", metavar="NAME|FILE")


def _add_verify(command: argparse.ArgumentParser) -> None:
    _add_release(command)
    command.add_argument(
        "--nsd-root", metavar="NSD_ROOT", help="recompute values from these raw files, by independent code"
    )
    command.add_argument("--all", action="store_true", help="recompute every value (default: a sample of vertices)")
    command.add_argument("--seed", type=int, metavar="N", help="seed of the sample (default 0)")
    command.add_argument(
        "--against",
        metavar="RELEASE2|IDENTIFIER",
        help="compare with another release, or with an object of artifacts.json",
    )


def _add_report(command: argparse.ArgumentParser) -> None:
    _add_release(command)


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
    command.add_argument("folder", metavar="FOLDER", type=Path, help="the folder to write")


def _add_record(command: argparse.ArgumentParser) -> None:
    _add_release(command)
    command.add_argument("ids", metavar="IDS", type=Path, help="the version_ids.csv that pack wrote, filled in")
    _add_artifacts(command, "record the objects here (default: the plugin's artifacts.json)")


def _add_export(command: argparse.ArgumentParser) -> None:
    command.add_argument("vision_checkout", metavar="VISION_CHECKOUT", type=Path, help="a clone of brain-score/vision")
    _add_artifacts(command, "export the plugin with this file (default: the plugin's artifacts.json)")
    command.add_argument(
        "--release", type=Path, nargs="+", metavar="RELEASE", default=(), help="state the ceilings of these releases"
    )
    command.add_argument("--overwrite", action="store_true", help="replace the plugin of an earlier export")


def _add_demo(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "directory",
        metavar="DIRECTORY",
        type=Path,
        nargs="?",
        help="keep everything here (default: a temporary folder)",
    )


def _add_nsd_root(command: argparse.ArgumentParser) -> None:
    # Not a Path, which would remove a slash from the address of a bucket.
    help = "an NSD tree in the official or flat layout: a folder, or s3://bucket[/prefix]"
    command.add_argument("nsd_root", metavar="NSD_ROOT", help=help)


def _add_artifacts(command: argparse.ArgumentParser, help: str) -> None:
    command.add_argument("--artifacts", type=Path, metavar="FILE", help=help)


def _add_release(command: argparse.ArgumentParser) -> None:
    command.add_argument("release", metavar="RELEASE", type=Path, help="the folder of the release")


def _add_number(command: argparse._ActionsContainer, option: str, *, default: int | None = None, help: str) -> None:
    command.add_argument(option, type=_positive, metavar="N", default=default, help=help)


def _add_recipe(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--recipe",
        metavar="NAME|FILE",
        action="append",
        help="what the release holds: a recipe that ships (see `recipes`) or a TOML file; may be given several times "
        f"(default {PUBLISHED_DATASETS[0].name})",
    )


def _add_subjects(
    command: argparse.ArgumentParser, *, default: tuple[int, ...] | None = SUBJECTS, help: str = "default: all 8"
) -> None:
    command.add_argument(
        "--subjects",
        type=int,
        nargs="+",
        metavar="N",
        choices=SUBJECTS,
        default=default,
        action=_Subjects,
        help=help,
    )


class _Subjects(argparse.Action):
    """Sorts the subjects, and refuses one that is named twice."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        assert isinstance(values, list)
        repeated = [subject for subject in values if values.count(subject) > 1]
        if repeated:
            parser.error(f"{option_string} names {subject_name(repeated[0])} more than once")
        setattr(namespace, self.dest, tuple(sorted(values)))


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, but got {value}")
    return value
