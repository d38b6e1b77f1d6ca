"""The command line: ``allen2022-surface COMMAND``."""

from __future__ import annotations

import argparse
import errno
import logging
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from . import arguments
from .build.pipeline import build_release
from .errors import PackagingError, describe_missing
from .nsd.facts import N_REPETITIONS, N_TRIALS_PER_SESSION, TERMS_URL
from .nsd.inspection import inspect_tree
from .nsd.simulation import TreeSize, simulate_tree
from .nsd.tree import open_tree
from .recipe import make_recipe
from .verify.soundness import verify_release

logger = logging.getLogger(__name__)

CACHE_NAME = "allen2022_surface_cache"
PLANNED_SESSIONS = 40
REPORT_PACKAGES = ("jinja2", "matplotlib", "nilearn")


def main(command_line: Sequence[str] | None = None) -> None:
    """Run one command, and exit.

    The exit status is 0 if the command is done, 1 if the input is invalid or a file system or network operation failed,
    and 2 for wrong usage.
    """
    options = arguments.parse(command_line)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("botocore").setLevel(logging.WARNING)  # otherwise it logs where it found credentials
    try:
        COMMANDS[options.command](options)
        sys.exit(0)
    except PackagingError as error:
        _fail(str(error))
    except ModuleNotFoundError as error:
        if (error.name or "").startswith(__package__):
            raise
        _fail(describe_missing(error))
    except OSError as error:
        hint = " Free some space and start again." if error.errno == errno.ENOSPC else ""
        path = f"{error.filename}: " if error.filename else ""
        _fail(f"{path}{error.strerror or error}.{hint}")
    except KeyboardInterrupt:
        _fail("Interrupted.", status=130)


def _fail(message: str, status: int = 1) -> None:
    print(f"allen2022-surface: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(status)


def _simulate(options: argparse.Namespace) -> None:
    follows_nsd = options.expdesign is not None
    size = TreeSize(
        subjects=options.subjects,
        n_sessions=options.sessions or (PLANNED_SESSIONS if follows_nsd else TreeSize.n_sessions),
        n_trials=options.trials or (N_TRIALS_PER_SESSION if follows_nsd else TreeSize.n_trials),
        n_vertices=options.vertices,
        image_size=options.image_size,
        layout=options.layout,
        seed=options.seed,
    )
    simulate_tree(Path(options.nsd_root), size, expdesign_path=options.expdesign)
    print(f"A synthetic NSD tree is in {options.nsd_root}")


def _check(options: argparse.Namespace) -> None:
    tree = open_tree(options.nsd_root)
    inspection = inspect_tree(tree, make_recipe(options.subjects, name="check"))
    if inspection.subjects is not None:
        print(f"{tree}: {tree.layout.name} layout, {inspection.n_vertices:,} vertices\n")
        print(_table(inspection.subjects))
        n_complete = inspection.n_complete_images
        print(f"\ncomplete images (seen {N_REPETITIONS} times by every subject): {n_complete}")
    for problem in inspection.problems:
        print(f"problem: {problem}")
    if inspection.problems:
        raise PackagingError(f"{_count(inspection.problems)} in {options.nsd_root}, listed above.")
    print("no problems found")


def _build(options: argparse.Namespace) -> None:
    try:
        recipe = make_recipe(
            options.subjects,
            name=options.name,
            standardize_on=options.standardize_on,
            nan_policy=options.nan_policy,
        )
    except ValueError as error:
        options.parser.error(str(error))
    cache_path = None
    if options.cache != "none":
        cache_path = Path(options.cache) if options.cache else options.release.absolute().parent / CACHE_NAME
    build_release(
        options.nsd_root,
        options.release,
        recipe,
        image_format=options.image_format,
        from_region_assemblies=options.from_region_assemblies,
        overwrite=options.overwrite,
        cache_path=cache_path,
        n_workers=options.workers,
        scheduler=options.scheduler,
    )
    print(f"The release is in {options.release}")


# Modules that only one command needs are imported by that command: together they take longer than a small build.


def _verify(options: argparse.Namespace) -> None:
    from .verify.comparison import write_verification

    if options.nsd_root is None and (options.all or options.seed is not None):
        options.parser.error("--all and --seed choose the values to recompute, so they need --nsd-root")
    problems = verify_release(options.release)
    findings: dict[str, object] = {"release": {"problems": problems}}
    differences = []
    if options.nsd_root is not None:
        differences += _verify_against_raw_files(options, findings)
    if options.against is not None:
        differences += _verify_against_other(options, findings)
    if len(findings) > 1:
        write_verification(options.release, findings)
    for problem in [*problems, *differences]:
        print(f"problem: {problem}")
    if problems:
        raise PackagingError(f"{options.release} is not sound: {_count(problems)}.")
    print(f"{options.release} is sound")
    if differences:
        others = " and ".join(str(other) for other in (options.nsd_root, options.against) if other is not None)
        raise PackagingError(f"{options.release} differs from {others} in {len(differences)} ways, listed above.")


def _verify_against_raw_files(options: argparse.Namespace, findings: dict[str, object]) -> list[str]:
    from .verify.recomputation import recompute_release

    seed = options.seed or 0
    recomputation = recompute_release(options.release, options.nsd_root, every_vertex=options.all, seed=seed)
    if len(recomputation.differences):
        print(f"recomputed from {options.nsd_root}:\n\n{_table(recomputation.differences)}\n")
    findings["nsd_root"] = {"every_vertex": options.all, "seed": seed} | vars(recomputation)
    return recomputation.problems


def _verify_against_other(options: argparse.Namespace, findings: dict[str, object]) -> list[str]:
    from .verify.comparison import compare_release

    comparison = compare_release(options.release, options.against)
    print(f"{options.release} and {options.against} are {comparison.verdict}")
    if comparison.differences:
        print(f"\n{_table(comparison.table)}\n")
    for split, counts in comparison.filled.items():
        print(f"{split}, cells that are zero or NaN: {', '.join(f'{n:,} {side}' for side, n in counts.items())}")
    findings["against"] = {"other": options.against, "verdict": comparison.verdict} | vars(comparison)
    return comparison.problems


def _report(options: argparse.Namespace) -> None:
    try:
        from .report.page import write_report  # needs the packages of the extra [report]
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in REPORT_PACKAGES:
            raise
        raise PackagingError(
            f"A report needs {error.name}, which is not installed. Install: pip install {' '.join(REPORT_PACKAGES)}"
        ) from error
    print(f"The report is in {write_report(options.release)}")


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
        tell=print,
    )


def _pack(options: argparse.Namespace) -> None:
    from .publish.website import PAGE_NAME, pack_release

    pack_release(options.release, options.folder)
    print(f"The files are in {options.folder}. First read {options.folder / PAGE_NAME}")


def _record(options: argparse.Namespace) -> None:
    from .publish.website import record_versions

    record_versions(options.release, options.ids, artifacts_path=options.artifacts, tell=print)


def _export(options: argparse.Namespace) -> None:
    from .publish.export import export_plugin

    text = export_plugin(
        options.vision_checkout,
        artifacts_path=options.artifacts,
        release_paths=options.release,
        overwrite=options.overwrite,
    )
    print(text)


def _demo(options: argparse.Namespace) -> None:
    from .demo import run_demo  # needs brainscore_vision, which no other command needs

    run_demo(options.directory)


COMMANDS = {
    "simulate": _simulate,
    "check": _check,
    "build": _build,
    "verify": _verify,
    "report": _report,
    "upload": _upload,
    "pack": _pack,
    "record": _record,
    "export": _export,
    "demo": _demo,
}


def _table(table: pd.DataFrame) -> str:
    return table.to_string(index=False, max_colwidth=shutil.get_terminal_size().columns)


def _count(problems: Sequence[str]) -> str:
    return f"{len(problems)} problem{'s' * (len(problems) > 1)}"
