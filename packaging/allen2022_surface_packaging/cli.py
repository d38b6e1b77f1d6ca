"""The command line: ``allen2022-surface COMMAND``.

A command is one function. Its docstring is the description in the help text; the decorator holds its arguments and examples.
It imports what it needs: all imports together take half a second, which nobody waits for to read a help text.
"""

from __future__ import annotations

import argparse
import io
import logging
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

from . import __version__
from .errors import describe_error, describe_os_error, printable
from .facts import BETAS_VERSIONS, N_TRIALS_PER_SESSION, TERMS_URL
from .nsd.size import TreeSize
from .nsd.tree import IMAGE_FORMATS, LAYOUTS
from .progress import shown_log
from .recipe import (
    FAMILY,
    LARGEST_SEED,
    NAN_POLICIES,
    PUBLISHED_DATASETS,
    STATISTICS,
    Recipe,
    change_recipe,
    expand_families,
    format_recipe,
    list_recipes,
    read_recipe,
    recipe_text,
)

PROGRAM = "allen2022-surface"
CACHE_NAME = "allen2022_surface_cache"
PLANNED_SESSIONS = 40
SUBJECT_FORMS = "numbers from 1 to 8, such as 1 2 5 7, or 1,2, or 1-8, or subj01"
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

Options: TypeAlias = argparse.Namespace
Command: TypeAlias = Callable[[Options], int | None]  # it returns the exit status; None is 0
Argument: TypeAlias = tuple[str, dict[str, Any]]  # of argparse's `add_argument`

COMMANDS: dict[str, tuple[Command, Sequence[str], Sequence[Argument]]] = {}


def main(command_line: Sequence[str] | None = None) -> None:
    """Run one command, and exit.

    The exit status is 0 if the command is done, 1 if the input is invalid or a file system or network operation failed,
    2 for wrong usage, and 128 + n if the signal n ended the command.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # letters that its encoding lacks, as on stderr
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup does
            signal.signal(number, _interrupt)
    status = _run(sys.argv[1:] if command_line is None else command_line)
    try:
        print(end="", flush=True)
    except OSError as error:  # a disk is full, or the reader has left, as in `check | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python tries and fails again at its end
        if not (status or isinstance(error, BrokenPipeError)):
            _fail(f"The output cannot be written: {describe_os_error(error)}")
        status = status or 1
    sys.exit(status)


def _interrupt(number: int, _: object) -> None:
    raise KeyboardInterrupt(number)


def _run(command_line: Sequence[str]) -> int:
    """Run one command, and return the exit status."""
    try:
        options = parse(command_line)
    except SystemExit as leaving:
        return int(leaving.code or 0)
    try:
        with shown_log(options.log_level):
            return COMMANDS[options.command][0](options) or 0
    except KeyboardInterrupt as error:
        number = signal.Signals(error.args[0] if error.args else signal.SIGINT)
        return _fail("Interrupted." if number == signal.SIGINT else f"Stopped by {number.name}.", 128 + number)
    except BrokenPipeError:
        return 1
    except (Exception, SystemExit) as error:
        message = describe_error(error)
        if message is None:
            raise
        return _fail(message)


def _fail(message: str, status: int = 1) -> int:
    """Print an error as one line, and return the exit status."""
    with suppress(OSError):  # the status alone tells of the error if stderr is full
        print(f"{PROGRAM}: {printable(' '.join(message.split()))}", file=sys.stderr)
    return status


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        """Exit with status 2."""
        self.exit(2, f"{self.prog}: {printable(message.rstrip('.'))}. See: {self.prog} --help\n")


def parse(command_line: Sequence[str]) -> Options:
    """Parse a command line. Exit with status 2 if it is wrong.

    Returns
    -------
    namespace
        Besides the options: ``command``, the name of the command, ``parser``, its parser, and ``log_level``.
    """
    verbosity = Parser(add_help=False, argument_default=argparse.SUPPRESS)
    levels = verbosity.add_mutually_exclusive_group()
    for names, level, meaning in (
        (("-v", "--verbose"), logging.DEBUG, "say more, with the time of day"),
        (("-q", "--quiet"), logging.WARNING, "print results and problems only, no progress"),
    ):
        levels.add_argument(*names, action="store_const", const=level, dest="log_level", help=meaning)
    settings: dict[str, Any] = {"formatter_class": argparse.RawDescriptionHelpFormatter, "parents": [verbosity]}
    description = "Package the Natural Scenes Dataset on the cortical surface for Brain-Score."
    parser = Parser(prog=PROGRAM, description=description, epilog=USUAL_ORDER, **settings)
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    for name, (function, examples, arguments) in COMMANDS.items():
        epilog = "\n".join(["examples:", *(f"  {PROGRAM} {name} {words}".rstrip() for words in examples)])
        command_parser = commands.add_parser(
            name, help=function.__doc__, description=function.__doc__, epilog=epilog, **settings
        )
        command_parser.set_defaults(parser=command_parser)
        for argument_name, argument_settings in arguments:
            command_parser.add_argument(argument_name, **argument_settings)
    if any(re.search(r"://[^/]*@|://.*\?", word) for word in command_line):  # before any message can show it
        parser.error("an address holds a password, a signature or a token. Leave it out, and set AWS_PROFILE")
    return parser.parse_args(command_line, Options(log_level=logging.INFO))


def command(*arguments: Argument, examples: Sequence[str] = ("",)) -> Callable[[Command], Command]:
    """Make a function the command of its name, without an underscore at the end."""

    def register(function: Command) -> Command:
        COMMANDS[function.__name__.rstrip("_")] = (function, examples, arguments)
        return function

    return register


def argument(usage: str, help: str, **settings: Any) -> Argument:
    """Describe an argument for argparse: ``"RELEASE"``, ``"--cache DIR"``, or ``"--all"`` for one without a value."""
    name, _, metavar = usage.partition(" ")
    if not name.startswith("-"):
        name, metavar = name.lower(), name
    if metavar:
        settings = {"metavar": metavar, "type": TYPES.get(metavar, str)} | settings
    elif "choices" not in settings:
        settings["action"] = "store_true"
    return name, settings | {"help": help}


def _path(text: str) -> Path:
    """Read a path on this machine. The NetCDF library takes it only if it is text."""
    path = Path(os.path.expanduser(text))  # noqa: PTH111, an unknown user's home is not an error yet
    try:
        os.fsencode(path.resolve()).decode()
    except UnicodeDecodeError as error:
        raise argparse.ArgumentTypeError(
            f"The path {path.resolve()} is not in UTF-8, so the NetCDF library opens no file there. Rename the folder, or "
            "choose another one."
        ) from error
    return path


def _number(least: int, most: int) -> Callable[[str], int]:
    """Return a function that reads a whole number. A larger one is a mistake, for which no machine has the memory."""

    def number(text: str) -> int:
        value = int(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"must be from {least} to {most:,}, but got {value}")
        return value

    return number


class _Subjects(argparse.Action):
    """Reads subjects such as ``1 2``, ``1,2``, ``1-8`` or ``subj01``, and sorts them."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: Options, values: Any, option_string: str | None = None
    ) -> None:
        subjects: list[int] = []
        for word in re.split(r"[\s,]+", " ".join(values).strip(", ")):
            ends = re.fullmatch(r"(?:subj)?0?([1-8])(?:-(?:subj)?0?([1-8]))?", word, re.IGNORECASE)
            named = range(int(ends[1]), int(ends[2] or ends[1]) + 1) if ends else ()
            if not named or set(named) & set(subjects):
                fault = "names a subject again" if named else "is no subject"
                parser.error(f"argument {option_string}: {word!r} {fault}, expected {SUBJECT_FORMS}")
            subjects += named
        setattr(namespace, self.dest, tuple(sorted(subjects)))


TYPES: dict[str, Callable[[str], Any]] = {  # of the values of arguments, by their names in the help text; or else text
    **dict.fromkeys(("RELEASE", "FOLDER", "DIRECTORY", "FILE", "IDS", "VISION_CHECKOUT"), _path),
    # Not a Path, which would remove a slash from the address of a bucket.
    **dict.fromkeys(("NSD_ROOT", "DIR", "NAME|FILE", "RECIPE", "RELEASE2|IDENTIFIER"), os.path.expanduser),
    "N": _number(1, 10_000),
    "SEED": _number(0, LARGEST_SEED),
}
NSD_ROOT = argument("NSD_ROOT", "an NSD tree: a folder, or s3://bucket[/prefix]")
RELEASE = argument("RELEASE", "the folder of the release")
PUT_SETTINGS = ("ServerSideEncryption", "SSEKMSKeyId", "ACL", "RequestPayer")  # of boto3's `put_object`
RECIPES = (
    argument(
        "--recipe NAME|FILE",
        "what the release holds: a recipe that ships (see `recipes`) or a TOML file; may be given several times; 'own' "
        f"stands for subj01_own to subj08_own (default {PUBLISHED_DATASETS[0].name})",
        action="append",
    ),
    argument("--subjects SUBJECT", f"{SUBJECT_FORMS} (default: the recipe's)", nargs="+", action=_Subjects),
)
ARTIFACTS = argument("--artifacts FILE", "the file of the objects (default: the plugin's artifacts.json)")


@command(
    argument("NSD_ROOT", "the folder to write"),
    argument("--subjects SUBJECT", f"{SUBJECT_FORMS} (default: all 8)", nargs="+", action=_Subjects),
    argument("--sessions N", "of the longest subject (default 4; with --expdesign 40)", dest="n_sessions"),
    argument("--trials N", "per session (default 300; with --expdesign 750)", dest="n_trials"),
    argument("--vertices N", "per hemisphere (default 642)", type=_number(1, 10**6), dest="n_vertices"),
    argument("--image-size N", "in pixels (default 64)"),
    argument("--layout", "default official", choices=list(LAYOUTS)),
    argument("--seed SEED", "default 0"),
    argument("--betas", "the versions to write", nargs="+", choices=BETAS_VERSIONS),
    argument("--nativesurface", "also write the betas on the subjects' own surfaces", dest="has_native_betas"),
    argument("--expdesign FILE", "follow this nsd_expdesign.mat"),
    examples=["~/simulated_nsd --subjects 1,2 --sessions 3"],
)
def simulate(options: Options) -> None:
    """Write a synthetic NSD tree."""
    from .nsd.simulation import simulate_tree

    names = [field.name for field in fields(TreeSize)]
    given = {name: value for name in names if (value := getattr(options, name))}
    planned = {"n_sessions": PLANNED_SESSIONS, "n_trials": N_TRIALS_PER_SESSION} if options.expdesign else {}
    simulate_tree(Path(options.nsd_root), TreeSize(**(planned | given)), expdesign_path=options.expdesign)
    print(f"A synthetic NSD tree is in {options.nsd_root}")


@command(NSD_ROOT, *RECIPES, examples=["/data/nsd --subjects 1,2,5,7", "/data/nsd --recipe streams --recipe kastner"])
def check(options: Options) -> None:
    """List what is there, what is missing and what is malformed; say how to fetch it, and what a build takes."""
    from .check import check_tree

    recipes = _read_recipes(options)
    recipes = [replace(recipe, subjects=options.subjects or recipe.subjects) for recipe in recipes]
    for number, paragraph in enumerate(check_tree(options.nsd_root, recipes)):
        print("\n" * (number > 0) + paragraph)


@command(
    NSD_ROOT,
    argument("RELEASE", "the folder of the release; with several recipes a folder of releases"),
    *RECIPES,
    argument("--workers N", "processes on this machine (default 1)"),
    argument("--scheduler ADDRESS", "a running dask.distributed scheduler, tcp://..."),
    argument("--cache DIR", "keep the responses of each session here; 'none' keeps nothing (default: beside RELEASE)"),
    argument("--image-format", "of extracted images (default png; jpg loses quality)", choices=IMAGE_FORMATS),
    argument("--standardize-on", "images of the second standardisation (default: the recipe's)", choices=STATISTICS),
    argument("--nan-policy", "fill NaN with zero, or drop such vertices (default: the recipe's)", choices=NAN_POLICIES),
    argument("--from-region-assemblies", "take the averages from NSD_ROOT/assemblies"),
    argument("--name NAME", "of the release: letters, digits, underscores; needed if a published recipe is changed"),
    argument("--overwrite", "replace a release at RELEASE"),
    examples=[
        "/data/nsd /data/releases/Allen2022_fmri_surface",
        "s3://natural-scenes-dataset ~/releases --recipe streams --recipe kastner --workers 4",
    ],
)
def build(options: Options) -> None:
    """Build a release from an NSD tree."""
    start = time.monotonic()
    from .assemble.pipeline import build_releases
    from .assemble.summary import describe_build, describe_next

    if options.workers and options.scheduler:
        options.parser.error("--workers starts processes, --scheduler uses running ones: give one of them")
    cache = options.cache or options.release.absolute().parent / CACHE_NAME
    nsd_root = options.nsd_root
    if options.scheduler and Path(nsd_root).exists():
        nsd_root = Path(nsd_root).absolute()  # workers may run in another folder
    names = ("image_format", "from_region_assemblies", "overwrite", "scheduler")
    choices = {name: getattr(options, name) for name in names}
    choices |= {"cache_path": None if cache == "none" else Path(cache), "n_workers": options.workers or 1}
    manifests = build_releases(nsd_root, _choose_recipes(options), **choices)
    print(describe_build(manifests, time.monotonic() - start))
    if options.log_level <= logging.INFO:
        print(f"\n{describe_next(manifests)}")


def _read_recipes(options: Options) -> list[Recipe]:
    """Read the recipes that a command is about."""
    if options.subjects and FAMILY in (options.recipe or ()):
        options.parser.error(
            f"--recipe {FAMILY} makes a release of each subject: name the recipes, as in subj01_{FAMILY}"
        )
    return [read_recipe(name) for name in expand_families(options.recipe or [PUBLISHED_DATASETS[0].name])]


def _choose_recipes(options: Options) -> dict[Path, Recipe]:
    """Return the recipes with the changes that other options ask for, by the folder of the release."""
    recipes = _read_recipes(options)
    if options.name and len(recipes) > 1:
        options.parser.error("--name gives one name, but there are several recipes, each with its own")
    changes = {name: getattr(options, name) for name in ("subjects", "name", "standardize_on", "nan_policy")}
    try:
        recipes = [change_recipe(recipe, **changes) for recipe in recipes]
    except ValueError as error:
        options.parser.error(str(error))
    if len(recipes) == 1:
        return {options.release: recipes[0]}
    by_path = {options.release / recipe.name: recipe for recipe in recipes}
    if len(by_path) < len(recipes):
        options.parser.error("two recipes have the same name, so their releases would have the same folder")
    return by_path


@command(
    argument("ACTION", "default list", choices=("list", "show", "labels"), nargs="?", default="list"),
    argument("RECIPE", "the name or the file of the recipe, a release, or an atlas", nargs="?"),
    argument("NSD_ROOT", "the NSD tree that holds the atlas", nargs="?"),
    examples=[
        "show streams > my_recipe.toml",
        "show /data/releases/Allen2022_fmri_surface > same_again.toml",
        "labels HCP_MMP1 /data/nsd",
    ],
)
def recipes(options: Options) -> None:
    """List the recipes that ship, print one to copy and change, or that of a release, or list the labels of an atlas."""
    match options.action, options.recipe, options.nsd_root:
        case "list", None, None:
            width = max(map(len, list_recipes()))
            for name in list_recipes():
                print(f"{name:{width}}  {read_recipe(name).description}")
        case "show", str(name), None:
            print(_released_recipe(name) or recipe_text(name)[1], end="")
        case "labels", str(atlas), str(nsd_root):
            from .check import describe_labels

            print(describe_labels(nsd_root, atlas))
        case _:
            options.parser.error(
                "expected `recipes`, `recipes show NAME|FILE|RELEASE` or `recipes labels ATLAS NSD_ROOT`"
            )


def _released_recipe(name: str) -> str | None:
    """Return the recipe of a release, named by its folder or its release.json, as the text of a file."""
    folder = Path(name).parent if Path(name).name == "release.json" else Path(name)
    if name in list_recipes() or not folder.is_dir():
        return None
    from .release import Manifest, ReleaseFolder

    manifest = Manifest.read(ReleaseFolder(folder))
    words = " --from-region-assemblies" if manifest.from_region_assemblies else ""
    words += f" --image-format {manifest.image_format}"
    return f"# {PROGRAM} build NSD_ROOT RELEASE --recipe THIS_FILE{words}\n{format_recipe(manifest.recipe)}"


@command(
    RELEASE,
    argument("--nsd-root NSD_ROOT", "recompute values from raw files, by independent code"),
    argument("--all", "recompute every value (default: a sample of vertices)"),
    argument("--seed SEED", "of the sample (default 0)"),
    argument("--against RELEASE2|IDENTIFIER", "compare with another release, or with an object of artifacts.json"),
    examples=["/data/releases/Allen2022_fmri_surface --nsd-root /data/nsd"],
)
def verify(options: Options) -> None:
    """Check a release: its files, shapes, coordinates, images and values."""
    from .verify.verdicts import describe_answers, require_no_problems, verify

    if options.nsd_root is None and (options.all or options.seed is not None):
        options.parser.error("--all and --seed choose the values to recompute, so they need --nsd-root")
    sample = {"every_vertex": options.all, "seed": options.seed or 0}
    answers = verify(options.release, nsd_root=options.nsd_root, against=options.against, **sample)
    for line in describe_answers(options.release, answers):
        print(line)
    require_no_problems(options.release, answers)


@command(
    RELEASE,
    argument("--output FILE", "the file to write (default RELEASE/report.html); an older report is replaced"),
    examples=["/data/releases/Allen2022_fmri_surface", "/shared/release --output ~/report.html"],
)
def report(options: Options) -> None:
    """Write a page about the release, as one HTML file."""
    from .report.page import write_report

    print(f"The report is in {write_report(options.release, options.output)}")


@command(
    RELEASE,
    argument("--bucket BUCKET[/PREFIX]", "a bucket that keeps versions; the rest is set for boto3", required=True),
    ARTIFACTS,
    argument("--dry-run", "print what would be sent, and stop"),
    argument("--overwrite", "replace objects with other content"),
    argument("--sse", "how the bucket requires encryption", choices=("AES256", "aws:kms"), dest=PUT_SETTINGS[0]),
    argument("--sse-kms-key-id ID", "the key of --sse aws:kms", dest=PUT_SETTINGS[1]),
    argument("--acl", "the ACL that the bucket needs", choices=("private", "bucket-owner-full-control"), dest="ACL"),
    argument("--request-payer", "that you pay for the requests", choices=("requester",), dest="RequestPayer"),
    argument(
        "--accept-nsd-terms",
        "I have accepted NSD's terms and conditions, which forbid giving its data to anybody who has not accepted "
        f"them, and I make sure that nobody else can read the bucket. The terms: {TERMS_URL}",
    ),
    examples=["/data/releases/Allen2022_fmri_surface --bucket my-bucket/nsd --dry-run"],
)
def upload(options: Options) -> None:
    """Upload a release to S3, and record its objects for the loaders."""
    from .publish.upload import publish_release

    if not (options.accept_nsd_terms or options.dry_run):
        options.parser.error(
            f"upload gives NSD's data to others: read {TERMS_URL}, then add --accept-nsd-terms (or --dry-run)"
        )
    if options.SSEKMSKeyId and options.ServerSideEncryption == "AES256":
        options.parser.error("--sse-kms-key-id names a key of aws:kms, but --sse is AES256")
    settings = {name: value for name in PUT_SETTINGS if (value := getattr(options, name))}
    if options.SSEKMSKeyId:
        settings["ServerSideEncryption"] = "aws:kms"
    choices = {"artifacts_path": options.artifacts, "overwrite": options.overwrite, "dry_run": options.dry_run}
    print(publish_release(options.release, options.bucket, put_settings=settings, **choices))


@command(
    RELEASE,
    argument("FOLDER", "the folder to write"),
    examples=["/data/releases/Allen2022_fmri_surface /data/to_upload"],
)
def pack(options: Options) -> None:
    """Write the objects as files for the upload form of Brain-Score's website."""
    from .publish.website import PAGE_NAME, pack_release

    pack_release(options.release, options.folder)
    print(f"The files are in {options.folder}. First read {options.folder / PAGE_NAME}")


@command(
    RELEASE,
    argument("IDS", "the version_ids.csv that pack wrote, filled in"),
    ARTIFACTS,
    examples=["/data/releases/Allen2022_fmri_surface /data/to_upload/version_ids.csv"],
)
def record(options: Options) -> None:
    """Record the version ids of files that the website has stored."""
    from .publish.website import record_versions

    print(record_versions(options.release, options.ids, artifacts_path=options.artifacts))


@command(
    argument("VISION_CHECKOUT", "a clone of brain-score/vision"),
    ARTIFACTS,
    argument("--release RELEASE", "state the ceilings of these releases", nargs="+", default=()),
    argument("--overwrite", "replace the plugin of an earlier export"),
    examples=["../vision --release /data/releases/Allen2022_fmri_surface"],
)
def export(options: Options) -> None:
    """Write the plugin into a clone of brain-score/vision, for a pull request."""
    from .publish.export import export_plugin

    choices = {"artifacts_path": options.artifacts, "release_paths": options.release, "overwrite": options.overwrite}
    print(export_plugin(options.vision_checkout, **choices))


@command()
def link(options: Options) -> None:
    """Link the plugin into the installed brainscore_vision, so that load_dataset finds its identifiers."""
    from .link import link

    print(link())


@command()
def unlink(options: Options) -> None:
    """Remove that link."""
    from .link import unlink

    print(unlink())


@command()
def list_(options: Options) -> None:
    """List all identifiers: where the data of each comes from now, its size, and whether it is on this machine."""
    from .doctor import describe_inventory

    print(describe_inventory())


@command(
    argument("IDENTIFIER", "an identifier that Brain-Score does not find or load", nargs="?"),
    examples=["", "Allen2022_fmri_surface.V4.test"],
)
def doctor(options: Options) -> int:
    """Say what is installed, linked, set, found and cached, with advice about what is wrong."""
    from .doctor import describe_findings, examine

    findings = list(examine(options.identifier))
    for line in describe_findings(findings):
        print(line)
    return int(any(finding.advice for finding in findings))


@command(argument("DIRECTORY", "keep everything here (default: a temporary folder)", nargs="?"), examples=["my_demo"])
def demo(options: Options) -> None:
    """Simulate, build, verify, link, load and compute ceilings, in a minute."""
    from .demo import run_demo  # needs brainscore_vision, which no other command needs

    run_demo(options.directory, log_level=options.log_level)
