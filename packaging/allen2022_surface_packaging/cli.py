# PYTHON_ARGCOMPLETE_OK
"""The command line: ``allen2022-surface COMMAND``."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from . import arguments
from .errors import PackagingError, describe_missing, describe_os_error, one_line, printable
from .facts import N_TRIALS_PER_SESSION, TERMS_URL
from .nsd.size import TreeSize
from .output import OutputError, escape_unknown_letters, flush, print_error, tell
from .progress import shown_log
from .recipe import PUBLISHED_DATASETS, Recipe, change_recipe, list_recipes, read_recipe, recipe_text
from .signals import ending_signals

CACHE_NAME = "allen2022_surface_cache"
PLANNED_SESSIONS = 40
REPORT_PACKAGES = ("jinja2", "nilearn")


def main(command_line: Sequence[str] | None = None) -> None:
    """Run one command, and exit.

    The exit status is 0 if the command is done, 1 if the input is invalid or a file system or network operation failed,
    2 for wrong usage, and 128 + n if the signal n ended the command.
    """
    escape_unknown_letters(sys.stdout)
    try:
        options = arguments.parse(command_line)
        with shown_log(options.log_level), ending_signals():
            COMMANDS[options.command](options)
        status: str | int | None = 0
    except SystemExit as error:
        status = error.code
    except PackagingError as error:
        status = _fail(str(error))
    except ModuleNotFoundError as error:
        if (error.name or "").startswith(__package__):
            raise
        status = _fail(describe_missing(error))
    except MemoryError as error:
        status = _fail(
            f"The memory of this machine is too small ({one_line(error)}). Close other programs, or ask for less."
        )
    except OutputError as error:
        status = _fail_to_write(error.error)
    except OSError as error:
        status = _fail(describe_os_error(error))
    sys.exit(_flush_output(status))


def _fail(message: str) -> int:
    """Print an error as one line, and return the exit status."""
    print_error(f"allen2022-surface: {printable(' '.join(message.split()))}")
    return 1


def _fail_to_write(error: OSError) -> int:
    """Say that the output cannot be written, unless its reader has left, as in `check | head`."""
    if isinstance(error, BrokenPipeError):
        return 1
    return _fail(f"The output cannot be written: {describe_os_error(error)}")


def _flush_output(status: str | int | None) -> str | int | None:
    """Write what is left of the output, and return the exit status. Python itself would complain in words of its own."""
    error = flush(sys.stdout)
    flush(sys.stderr)
    return status if error is None else status or _fail_to_write(error)


# Each command imports what it needs: all together take half a second, which nobody waits for to read a help text.


def _simulate(options: argparse.Namespace) -> None:
    from .nsd.simulation import simulate_tree

    follows_nsd = options.expdesign is not None
    size = TreeSize(
        subjects=options.subjects,
        n_sessions=options.sessions or (PLANNED_SESSIONS if follows_nsd else TreeSize.n_sessions),
        n_trials=options.trials or (N_TRIALS_PER_SESSION if follows_nsd else TreeSize.n_trials),
        n_vertices=options.vertices,
        image_size=options.image_size,
        layout=options.layout,
        seed=options.seed,
        betas=options.betas,
    )
    simulate_tree(options.nsd_root, size, expdesign_path=options.expdesign)
    tell(f"A synthetic NSD tree is in {options.nsd_root}")


def _check(options: argparse.Namespace) -> None:
    from .check import check_tree

    recipes = [read_recipe(name) for name in options.recipe or [PUBLISHED_DATASETS[0].name]]
    recipes = [replace(recipe, subjects=options.subjects or recipe.subjects) for recipe in recipes]
    for number, paragraph in enumerate(check_tree(options.nsd_root, recipes)):
        tell("\n" * (number > 0) + paragraph)


def _build(options: argparse.Namespace) -> None:
    from .assemble.pipeline import build_releases
    from .assemble.summary import describe_build

    start = time.monotonic()
    recipes = _choose_recipes(options)
    cache_path = None
    if options.cache != "none":
        cache_path = Path(options.cache) if options.cache else options.release.absolute().parent / CACHE_NAME
    manifests = build_releases(
        options.nsd_root,
        recipes,
        image_format=options.image_format,
        from_region_assemblies=options.from_region_assemblies,
        overwrite=options.overwrite,
        cache_path=cache_path,
        n_workers=options.workers,
        scheduler=options.scheduler,
    )
    tell(describe_build(manifests, time.monotonic() - start))


def _choose_recipes(options: argparse.Namespace) -> dict[Path, Recipe]:
    """Return the recipes with the changes that other options ask for, by the folder of the release."""
    names = options.recipe or [PUBLISHED_DATASETS[0].name]
    if options.name and len(names) > 1:
        options.parser.error("--name gives one name, but there are several recipes, each with its own")
    changes = {
        "subjects": options.subjects,
        "name": options.name,
        "standardize_on": options.standardize_on,
        "nan_policy": options.nan_policy,
    }
    try:
        recipes = [change_recipe(recipe, **changes) for recipe in map(read_recipe, names)]
    except ValueError as error:
        options.parser.error(str(error))
    if len(recipes) == 1:
        return {options.release: recipes[0]}
    by_path = {options.release / recipe.name: recipe for recipe in recipes}
    if len(by_path) < len(recipes):
        options.parser.error("two recipes have the same name, so their releases would have the same folder")
    return by_path


def _recipes(options: argparse.Namespace) -> None:
    if options.action == "show":
        tell(recipe_text(options.recipe)[1], end="")
    elif options.action == "check":
        read_recipe(options.recipe)
        tell("no problems found")
    else:
        names = list_recipes()
        for name in names:
            tell(f"{name:{max(map(len, names))}}  {read_recipe(name).description}")


def _verify(options: argparse.Namespace) -> None:
    from .verify.verdicts import verify

    if options.nsd_root is None and (options.all or options.seed is not None):
        options.parser.error("--all and --seed choose the values to recompute, so they need --nsd-root")
    verification = verify(
        options.release,
        nsd_root=options.nsd_root,
        every_vertex=options.all,
        seed=options.seed or 0,
        against=options.against,
    )
    for line in verification.lines(width=shutil.get_terminal_size().columns):
        tell(line)
    verification.write()
    verification.require_no_problems()


def _report(options: argparse.Namespace) -> None:
    try:
        from .report.page import write_report  # needs the packages of the extra [report]
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in REPORT_PACKAGES:
            raise
        raise PackagingError(
            f"A report needs {error.name}, which is not installed. Install: pip install {' '.join(REPORT_PACKAGES)}"
        ) from error
    tell(f"The report is in {write_report(options.release)}")


def _upload(options: argparse.Namespace) -> None:
    from .publish.upload import publish_release

    if not (options.accept_nsd_terms or options.dry_run):
        options.parser.error(
            f"upload gives NSD's data to others: read {TERMS_URL}, then add --accept-nsd-terms (or --dry-run)"
        )
    publish_release(
        options.release,
        options.bucket,
        artifacts_path=options.artifacts,
        overwrite=options.overwrite,
        dry_run=options.dry_run,
        tell=tell,
    )


def _pack(options: argparse.Namespace) -> None:
    from .publish.website import PAGE_NAME, pack_release

    pack_release(options.release, options.folder)
    tell(f"The files are in {options.folder}. First read {options.folder / PAGE_NAME}")


def _record(options: argparse.Namespace) -> None:
    from .publish.website import record_versions

    record_versions(options.release, options.ids, artifacts_path=options.artifacts, tell=tell)


def _export(options: argparse.Namespace) -> None:
    from .publish.export import export_plugin

    text = export_plugin(
        options.vision_checkout,
        artifacts_path=options.artifacts,
        release_paths=options.release,
        overwrite=options.overwrite,
    )
    tell(text)


def _link(options: argparse.Namespace) -> None:
    from .link import link

    tell(link())


def _unlink(options: argparse.Namespace) -> None:
    from .link import unlink

    tell(unlink())


def _list(options: argparse.Namespace) -> None:
    from .link import describe_inventory

    tell(describe_inventory())


def _doctor(options: argparse.Namespace) -> None:
    from .link import describe_findings, examine

    findings = examine(options.identifier)
    for line in describe_findings(findings):
        tell(line)
    if any(finding.advice for finding in findings):
        sys.exit(1)


def _demo(options: argparse.Namespace) -> None:
    from .demo import run_demo  # needs brainscore_vision, which no other command needs

    run_demo(options.directory, log_level=options.log_level)


COMMANDS = {
    "simulate": _simulate,
    "check": _check,
    "build": _build,
    "recipes": _recipes,
    "verify": _verify,
    "report": _report,
    "upload": _upload,
    "pack": _pack,
    "record": _record,
    "export": _export,
    "link": _link,
    "unlink": _unlink,
    "list": _list,
    "doctor": _doctor,
    "demo": _demo,
}
