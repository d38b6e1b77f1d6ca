"""An NSD tree before a build: what it lacks, how to fetch that, and what the build will take, as text for people."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from .assemble.estimates import estimate_build
from .errors import PackagingError, printable
from .facts import N_REPETITIONS, TERMS_URL, subject_name
from .nsd.fetching import BUCKET_URL, FILE_BYTES, list_fetch_commands
from .nsd.inputs import InputFile
from .nsd.inspection import Inspection, inspect_tree
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
    yield f"{tree}: {tree.layout.name} layout" if Path(nsd_root).exists() else f"{tree} does not exist yet"
    for recipe, inspection in zip(recipes, inspections, strict=True):
        yield from _describe_inspection(recipe, inspection)
    # Several recipes may need one file. It is optional only if it is optional for all of them.
    absent = [one for inspection in inspections for one in inspection.missing]
    missing = {one.file: one for one in sorted(absent, key=lambda one: not one.is_optional)}
    required = [one for one in missing.values() if not one.is_optional]
    damaged = {one: line for inspection in inspections for one, line in inspection.damaged.items()}
    others = dict.fromkeys([*damaged.values(), *(line for i in inspections for line in i.contradictions)])
    lines = [f"problem: {printable(line)}" for line in others]
    if len(required) > N_LISTED_FILES:
        yield _describe_missing(inspections, required)
    else:
        lines = [f"problem: {one.file} is missing" for one in required] + lines
    lines += [f"optional: {one.file} is missing ({one.kind})" for one in missing.values() if one.is_optional]
    if lines:
        yield "\n".join(lines)
    if missing or damaged:
        yield _describe_fetching(tree, [*missing.values(), *damaged])
    n_problems = len(required) + len(others)
    if n_problems:
        raise PackagingError(f"{n_problems} problem{'s' * (n_problems > 1)} in {nsd_root}, listed above.")
    yield str(estimate_build([inspection.require_sound() for inspection in inspections]))
    yield "no problems found"


def _describe_inspection(recipe: Recipe, inspection: Inspection) -> Iterator[str]:
    if inspection.subjects is None:
        return
    images = ", ".join(f"{len(nsd_ids)} {split}" for split, nsd_ids in inspection.splits.items())
    yield (
        f"{recipe.name}, {inspection.n_vertices:,} vertices per hemisphere\n"
        f"complete images (seen {N_REPETITIONS} times by every subject): {inspection.n_complete_images}\n"
        f"images of the release: {images or 'none can be chosen'}"
    )
    yield inspection.subjects.to_string(index=False, max_colwidth=shutil.get_terminal_size().columns)


def _describe_missing(inspections: Sequence[Inspection], missing: Sequence[InputFile]) -> str:
    """Say in a row per folder of a subject, or else per kind of file, how many files are missing, and which."""
    inputs = {one.file: one for inspection in inspections for one in inspection.inputs if not one.is_optional}
    groups: dict[str, list[InputFile]] = {}
    for one in inputs.values():
        folder = PurePosixPath(one.file.official_path).parent.name
        groups.setdefault(f"{subject_name(one.subject)} {folder}" if one.subject else one.kind, []).append(one)
    files, rows = {one.file for one in missing}, [("needed", "missing", "")]
    for title, members in groups.items():
        absent = [one for one in members if one.file in files]
        sessions = sorted({one.session for one in absent if one.session})
        names = [f"{len(sessions)} sessions from {sessions[0]} to {sessions[-1]}"] if sessions else []
        names += [PurePosixPath(one.file.path).name for one in absent if not one.session]
        if absent:
            rows.append((title, f"{len(absent)} of {len(members)}", ", ".join(names)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(f"{text:{w}}" for text, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def _describe_fetching(tree: NSDTree, inputs: Sequence[InputFile]) -> str:
    """Say how to get some files."""
    if tree.simulation_mark.exists():
        return "The tree is simulated. NSD's files do not fit it: write it again with `allen2022-surface simulate`."
    if not isinstance(tree.storage, Folder):
        return f"NSD's public bucket is {BUCKET_URL}. Copy the files from there, or build from there."
    root = tree.storage.root
    existing = next(parent for parent in (root.absolute(), *root.absolute().parents) if parent.exists())
    n_bytes, n_free = sum(FILE_BYTES.get(one.kind, 0) for one in inputs), shutil.disk_usage(existing).free
    lines = [
        f"Fetch them: about {format_bytes(n_bytes)}, {'but only ' * (n_free < n_bytes)}{format_bytes(n_free)} are free. You need "
        f"the AWS command line (pip install awscli), but no account. NSD's terms apply: {TERMS_URL}",
        "",
        *list_fetch_commands(root, inputs),
    ]
    if any(not one.is_optional for one in inputs):
        lines += ["", f"Or build without a download: allen2022-surface build {BUCKET_URL} RELEASE"]
    return "\n".join(lines)
