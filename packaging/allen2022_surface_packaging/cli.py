"""The command line: ``allen2022-surface COMMAND``."""

from __future__ import annotations

import argparse
import errno
import logging
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from . import __version__
from .build.pipeline import CACHE_NAME, Method, build_release
from .errors import PackagingError
from .nsd.files import LAYOUTS, SUBJECTS, TERMS, subject_name
from .nsd.simulation import Recipe, simulate_tree
from .nsd.trials import N_REPETITIONS
from .release import release_name
from .verify.soundness import inspect_tree, verify_release

logger = logging.getLogger(__name__)

REPORT_PACKAGES = ("jinja2", "matplotlib", "nilearn")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; leave with status 0 if done, 1 if the input or the world is at fault, 2 on wrong usage."""
    options = _make_parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        sys.exit(options.run(options, options.parser))
    except PackagingError as error:
        _fail(str(error))
    except OSError as error:
        hint = " Make room and start again." if error.errno == errno.ENOSPC else ""
        place = f"{error.filename}: " if error.filename else ""
        _fail(f"{place}{error.strerror or error}.{hint}")
    except KeyboardInterrupt:
        _fail("Interrupted.", status=130)


def _fail(message: str, status: int = 1) -> None:
    print(f"allen2022-surface: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(status)


def _simulate(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    n_sessions = options.sessions or (40 if options.expdesign else Recipe.n_sessions)
    n_trials = options.trials or (750 if options.expdesign else Recipe.n_trials)
    recipe = Recipe(
        subjects=options.subjects,
        n_sessions=n_sessions,
        n_trials=n_trials,
        n_vertices=options.vertices,
        image_size=options.image_size,
        layout=options.layout,
        seed=options.seed,
    )
    simulate_tree(Path(options.nsd_root), recipe, expdesign_path=options.expdesign)
    print(f"A synthetic NSD tree is in {options.nsd_root}")
    return 0


def _check(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    inspection, problems = inspect_tree(options.nsd_root, options.subjects)
    if inspection is not None:
        print(
            f"{inspection.tree}: {inspection.tree.layout.name} layout, {inspection.region_map.n_vertices:,} vertices\n"
        )
        print(_table(inspection.subjects))
        n_complete = int((inspection.fewest >= N_REPETITIONS).sum())
        print(f"\ncomplete images (seen {N_REPETITIONS} times by every subject): {n_complete}")
    for problem in problems:
        print(f"problem: {problem}")
    if problems:
        raise PackagingError(f"{len(problems)} problem{'s' * (len(problems) > 1)} in {options.nsd_root}, listed above.")
    print("no problems found")
    return 0


def _build(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    method = Method(standardize_on=options.standardize_on, nan_policy=options.nan_policy)
    try:
        release_name(options.subjects, name=options.name, is_published_method=method == Method())
    except ValueError as error:
        parser.error(str(error))
    cache_path = None
    if options.cache != "none":
        cache_path = Path(options.cache) if options.cache else options.release.absolute().parent / CACHE_NAME
    build_release(
        options.nsd_root,
        options.release,
        subjects=options.subjects,
        method=method,
        name=options.name,
        image_format=options.image_format,
        from_region_assemblies=options.from_region_assemblies,
        overwrite=options.overwrite,
        cache_path=cache_path,
        n_workers=options.workers,
        scheduler=options.scheduler,
    )
    print(f"The release is in {options.release}")
    return 0


# What only some commands need is imported by them: together it takes longer than a small build.


def _verify(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    from .verify.comparison import write_verification

    if options.nsd_root is None and (options.all or options.seed is not None):
        parser.error("--all and --seed are of --nsd-root: they choose the values to recompute from it")
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
        raise PackagingError(f"{options.release} is not sound: {len(problems)} problem{'s' * (len(problems) > 1)}.")
    print(f"{options.release} is sound")
    if differences:
        others = [str(other) for other in (options.nsd_root, options.against) if other is not None]
        raise PackagingError(
            f"{options.release} differs from {' and '.join(others)} in {len(differences)} ways, listed above."
        )
    return 0


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
        print(f"\n{_table(pd.DataFrame(comparison.differences))}\n")
    for split, counts in comparison.filled.items():
        print(f"{split}, cells that are zero or NaN: {', '.join(f'{n:,} {where}' for where, n in counts.items())}")
    findings["against"] = {"other": options.against, "verdict": comparison.verdict} | vars(comparison)
    return comparison.problems


def _upload(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    from .publish.upload import publish_release

    if not (options.accept_nsd_terms or options.dry_run):
        parser.error(f"upload passes NSD's data on: read {TERMS}, then add --accept-nsd-terms (or --dry-run)")
    logging.getLogger("botocore").setLevel(logging.WARNING)  # else it tells where it found credentials
    publish_release(
        options.release,
        options.bucket,
        artifacts_path=options.artifacts,
        overwrite=options.overwrite,
        dry_run=options.dry_run,
        tell=print,
    )
    return 0


def _report(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    try:
        from .report.page import write_report  # needs what only the extra [report] brings
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in REPORT_PACKAGES:
            raise
        raise PackagingError(
            f"A report needs {error.name}, which is not installed. pip install 'brainscore_allen2022_surface[report]'"
        ) from error
    print(f"The report is in {write_report(options.release)}")
    return 0


def _export(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    from .publish.export import export_plugin

    print(export_plugin(options.vision_checkout, overwrite=options.overwrite))
    return 0


def _demo(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    from .demo import run_demo  # needs brainscore_vision, which no other command does

    run_demo(options.directory)
    return 0


def _table(table: pd.DataFrame) -> str:
    return table.to_string(index=False, max_colwidth=shutil.get_terminal_size().columns)


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="allen2022-surface",
        description="Package the Natural Scenes Dataset on the cortical surface for Brain-Score.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, run: Callable[..., int], help: str, *paths: tuple[str, str]) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=help, description=help)
        for path, what in paths:
            # A tree may lie in a bucket, and a Path would lose a slash of its address.
            command.add_argument(path.lower(), metavar=path, type=str if path == "NSD_ROOT" else Path, help=what)
        command.set_defaults(run=run, parser=command)
        return command

    nsd_root = ("NSD_ROOT", "an NSD tree in the official or flat layout: a folder, or s3://bucket[/prefix]")
    release = ("RELEASE", "the folder of the release")

    simulate = add("simulate", _simulate, "Write a synthetic NSD tree.", ("NSD_ROOT", "the folder to write"))
    _add_subjects(simulate)
    simulate.add_argument(
        "--sessions", type=_positive, metavar="N", help="sessions at most (default 4; with --expdesign 40)"
    )
    simulate.add_argument(
        "--trials", type=_positive, metavar="N", help="trials per session (default 300; with --expdesign 750)"
    )
    simulate.add_argument(
        "--vertices", type=_positive, metavar="N", default=Recipe.n_vertices, help="default %(default)s"
    )
    simulate.add_argument(
        "--image-size", type=_positive, metavar="N", default=Recipe.image_size, help="default %(default)s"
    )
    simulate.add_argument("--layout", choices=list(LAYOUTS), default=Recipe.layout, help="default %(default)s")
    simulate.add_argument("--seed", type=int, metavar="N", default=Recipe.seed, help="default %(default)s")
    simulate.add_argument("--expdesign", type=Path, metavar="FILE", help="follow this nsd_expdesign.mat")

    check = add("check", _check, "Tell what is there, what is missing and what is malformed.", nsd_root)
    _add_subjects(check)

    build = add("build", _build, "Build a release from an NSD tree.", nsd_root, release)
    _add_subjects(build)
    workers = build.add_mutually_exclusive_group()
    workers.add_argument(
        "--workers", type=_positive, metavar="N", default=1, help="processes on this machine (default 1)"
    )
    workers.add_argument("--scheduler", metavar="ADDRESS", help="a running dask.distributed scheduler, tcp://...")
    build.add_argument("--cache", metavar="DIR", help="keeps what was read; 'none' for none (default: beside RELEASE)")
    build.add_argument("--image-format", choices=["png", "jpg"], help="of extracted images (default png; jpg is lossy)")
    build.add_argument(
        "--standardize-on", choices=["all", "train"], default="all", help="images for the global statistics"
    )
    build.add_argument(
        "--nan-policy", choices=["zero", "drop"], default="zero", help="fill NaN, or drop their vertices"
    )
    build.add_argument("--from-region-assemblies", action="store_true", help="take averages from NSD_ROOT/assemblies")
    build.add_argument(
        "--name", help="of the release, letters, digits and underscores; needed for other subjects or another method"
    )
    build.add_argument("--overwrite", action="store_true", help="replace a release that is there")

    verify = add("verify", _verify, "Hold a release against what it should be.", release)
    verify.add_argument("--nsd-root", metavar="NSD_ROOT", help="recompute values from these raw files, by another path")
    verify.add_argument("--all", action="store_true", help="recompute every value (default: a sample of vertices)")
    verify.add_argument("--seed", type=int, metavar="N", help="of the sample (default 0)")
    verify.add_argument(
        "--against", metavar="RELEASE2|IDENTIFIER", help="compare with a release, or an object of artifacts.json"
    )

    upload = add("upload", _upload, "Publish a release to S3, and record its objects for the loaders.", release)
    upload.add_argument(
        "--bucket",
        required=True,
        metavar="BUCKET[/PREFIX]",
        help="a versioned bucket; region, profile and endpoint are boto3's",
    )
    upload.add_argument(
        "--artifacts", type=Path, metavar="FILE", help="record the objects here (default: the plugin's artifacts.json)"
    )
    upload.add_argument("--dry-run", action="store_true", help="print what would be sent, and stop")
    upload.add_argument("--overwrite", action="store_true", help="replace objects of another content")
    upload.add_argument(
        "--accept-nsd-terms",
        action="store_true",
        help="I have accepted NSD's terms and conditions, which forbid passing its data on to anybody who has not "
        f"accepted them, and see to it that only those who have can read the bucket. The terms: {TERMS}",
    )

    add("report", _report, "Write RELEASE/report.html, a page on what is in it.", release)

    checkout = ("VISION_CHECKOUT", "a clone of brain-score/vision")
    export = add(
        "export", _export, "Write the plugin into a clone of brain-score/vision, for a pull request.", checkout
    )
    export.add_argument("--overwrite", action="store_true", help="replace the plugin of an earlier export")

    demo = add("demo", _demo, "Simulate, build, verify, link, load and compute ceilings, in a minute.")
    demo.add_argument(
        "directory", metavar="DIRECTORY", type=Path, nargs="?", help="keep everything here (default: nowhere)"
    )
    return parser


def _add_subjects(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--subjects",
        type=int,
        nargs="+",
        metavar="N",
        choices=SUBJECTS,
        default=SUBJECTS,
        action=_Distinct,
        help="default: all 8",
    )


class _Distinct(argparse.Action):
    """Sorts numbers, and refuses a repeated one."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:  # type: ignore[no-untyped-def]
        if len(set(values)) < len(values):
            parser.error(f"{option_string} names {subject_name(max(values, key=values.count))} more than once")
        setattr(namespace, self.dest, tuple(sorted(values)))


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, but got {value}")
    return value
