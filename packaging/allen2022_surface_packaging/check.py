"""An NSD tree before a build: what it lacks, how to fetch that, and what the build will take, as text for people."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from .assemble.estimates import estimate_build
from .errors import PackagingError, printable
from .facts import N_REPETITIONS, TERMS_URL
from .nsd.fetching import BUCKET_URL, count_bytes, list_sync_commands
from .nsd.inspection import Inspection, inspect_tree
from .nsd.needs import NeededFile, describe_missing, join_needed
from .nsd.storage import Folder
from .nsd.tree import NSDTree, find_tree
from .progress import format_bytes
from .recipe import Recipe

N_LISTED_FILES = 10  # more missing files are grouped


def check_tree(nsd_root: str, recipes: Sequence[Recipe]) -> Iterator[str]:
    """Yield what there is to say about a tree and some recipes, a paragraph at a time.

    Raises
    ------
    PackagingError
        At the end, if anything is missing or malformed; or if `nsd_root` cannot be a tree.
    """
    tree = find_tree(nsd_root)
    inspections = [inspect_tree(tree, recipe) for recipe in recipes]
    yield _describe_tree(tree)
    for recipe, inspection in zip(recipes, inspections, strict=True):
        yield from _describe_inspection(recipe, inspection)
    needed = join_needed(inspection.needed for inspection in inspections)
    absent = [one for one in needed if not one.file.exists()]
    missing = [one for one in absent if not one.is_optional]
    others = _list_other_problems(inspections, missing)
    lines = [f"problem: {printable(problem)}" for problem in others]
    if len(missing) > N_LISTED_FILES:
        yield _table([("needed", "missing", ""), *describe_missing(needed, absent)])
    else:
        lines = [f"problem: {one.file} is missing" for one in missing] + lines
        lines += [f"optional: {one.file} is missing ({one.kind})" for one in absent if one.is_optional]
    if lines:
        yield "\n".join(lines)
    shortened = [one for one in needed if any(line.startswith(f"{one.file} is cut short") for line in others)]
    if absent or shortened:
        yield _describe_fetching(tree, absent + shortened)
    n_problems = len(missing) + len(others)
    if n_problems:
        raise PackagingError(f"{n_problems} problem{'s' * (n_problems > 1)} in {nsd_root}, listed above.")
    yield str(estimate_build([inspection.require_sound() for inspection in inspections]))
    yield "no problems found"


def _describe_tree(tree: NSDTree) -> str:
    storage = tree.storage
    if isinstance(storage, Folder) and not storage.root.exists():
        return f"{tree} does not exist yet"
    if isinstance(storage, Folder) and not any(storage.root.iterdir()):
        return f"{tree} is empty"
    return f"{tree}: {tree.layout.name} layout"


def _describe_inspection(recipe: Recipe, inspection: Inspection) -> Iterator[str]:
    if inspection.subjects is None:
        return
    images = ", ".join(f"{n} {split}" for split, n in inspection.n_images.items()) or "none can be chosen"
    yield (
        f"{recipe.name}, {inspection.n_vertices:,} vertices per hemisphere\n"
        f"complete images (seen {N_REPETITIONS} times by every subject): {inspection.n_complete_images}\n"
        f"images of the release: {images}"
    )
    yield inspection.subjects.to_string(index=False, max_colwidth=shutil.get_terminal_size().columns)


def _list_other_problems(inspections: Sequence[Inspection], missing: Sequence[NeededFile]) -> list[str]:
    """List the problems that are not about a missing file, each once."""
    problems = dict.fromkeys(problem for inspection in inspections for problem in inspection.problems)
    return [problem for problem in problems if not any(str(one.file) in problem for one in missing)]


def _describe_fetching(tree: NSDTree, absent: Sequence[NeededFile]) -> str:
    """Say how to get the files that are absent."""
    if tree.simulation_mark.exists():
        return "The tree is simulated. NSD's files do not fit it: write it again with `allen2022-surface simulate`."
    if not isinstance(tree.storage, Folder):
        return f"NSD's public bucket is {BUCKET_URL}. Copy the files from there, or build from there."
    n_bytes, free_bytes = count_bytes(absent), _free_bytes(tree.storage.root)
    space = (
        f"{format_bytes(free_bytes)} are free"
        if free_bytes > n_bytes
        else f"but only {format_bytes(free_bytes)} are free"
    )
    lines = [
        f"Fetch them: about {format_bytes(n_bytes)}, {space}. You need the AWS command line (pip install awscli), but no "
        f"account. NSD's terms apply: {TERMS_URL}",
        "",
        *list_sync_commands(tree.storage.root, absent),
    ]
    if any(not one.is_optional for one in absent):
        lines += ["", f"Or build without a download: allen2022-surface build {BUCKET_URL} RELEASE"]
    return "\n".join(lines)


def _free_bytes(path: Path) -> int:
    existing = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())
    return shutil.disk_usage(existing).free


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(f"{text:{w}}" for text, w in zip(row, widths, strict=True)).rstrip() for row in rows)
