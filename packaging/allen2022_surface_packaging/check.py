"""An NSD tree before a build: what it lacks, how to fetch that, and what the build will take, as text for people."""

from __future__ import annotations

import math
import re
import shlex
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from .arrays import AnyArray
from .assemble.estimates import estimate_build
from .errors import PackagingError, printable
from .facts import (
    HEMISPHERES,
    N_IMAGES,
    N_NATIVE_VERTICES,
    N_REPETITIONS,
    N_TRIALS_PER_SESSION,
    N_VERTICES_OF_FSAVERAGE,
    NATIVE,
    NATIVE_ATLASES,
    SUBJECTS,
    TERMS_URL,
    subject_name,
)
from .files import free_bytes
from .nsd.files import MGH_DATA_OFFSET, copy_labels, read_label_names, read_labels, read_native_index
from .nsd.inputs import BETAS, IMAGES, NCSNR, InputFile
from .nsd.inspection import Inspection, inspect_tree
from .nsd.storage import Folder
from .nsd.tree import BETAS_SUFFIXES, NSDTree, find_tree
from .progress import format_bytes
from .recipe import Recipe

N_LISTED_FILES = 10  # more missing files are grouped
N_COPIED_FILES = 4  # of one folder; more are fetched by one command
SMALL_DOWNLOAD = "--recipe Allen2022_fmri_surface_small_download"
BUCKET_URL = "s3://natural-scenes-dataset"
FILE_BYTES = {  # of a file in the bucket, NSD Data Manual; the others are small
    BETAS: MGH_DATA_OFFSET + 4 * N_VERTICES_OF_FSAVERAGE * N_TRIALS_PER_SESSION,
    NCSNR: MGH_DATA_OFFSET + 4 * N_VERTICES_OF_FSAVERAGE,
    IMAGES: N_IMAGES * 425 * 425 * 3,
}


def check_tree(nsd_root: str, recipes: Sequence[Recipe]) -> Iterator[str]:
    """Yield what there is to say about a tree and some recipes, a paragraph at a time.

    Raises
    ------
    PackagingError
        At the end, if anything is missing or malformed; or if `nsd_root` cannot be a tree.
    """
    tree = find_tree(nsd_root)
    if isinstance(tree.storage, Folder) and not tree.storage.root.exists():
        raise PackagingError(
            f"{tree} does not exist. Make the folder: then `check` says how to fetch NSD's files into it."
        )
    inspections = [inspect_tree(tree, recipe) for recipe in recipes]
    is_empty = all(len(inspection.missing) == len(inspection.inputs) for inspection in inspections)
    yield f"{tree}: {tree.layout.name} layout" + (", but no file is there. Is it the right folder?" if is_empty else "")
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
    yield estimate_build([inspection.require_sound() for inspection in inspections])
    yield "no problems found"


def _describe_inspection(recipe: Recipe, inspection: Inspection) -> Iterator[str]:
    repetitions = inspection.repetitions.clip(upper=N_REPETITIONS)
    if repetitions.empty:
        return
    images = ", ".join(f"{len(nsd_ids)} {split}" for split, nsd_ids in inspection.splits.items())
    yield (
        f"{recipe.name}, {inspection.n_vertices:,} vertices per hemisphere\n"
        f"complete images (seen {N_REPETITIONS} times by every subject): {(repetitions == N_REPETITIONS).all(axis=1).sum()}\n"
        f"images of the release: {images or 'none can be chosen'}"
    )
    faulty, rows = {*inspection.missing, *inspection.damaged}, []
    for subject in recipe.subjects:
        betas = [one for one in inspection.inputs if one.kind == BETAS and one.subject == subject]
        counts = repetitions[subject].value_counts().reindex(range(N_REPETITIONS + 1), fill_value=0)
        rows.append(
            {
                "subject": subject_name(subject),
                "sessions": len({one.session for one in betas}),
                "betas files": f"{sum(one not in faulty for one in betas)}/{len(betas)}",
                "shared images seen 0/1/2/3 times": "/".join(map(str, counts)),
            }
        )
    yield pd.DataFrame(rows).to_string(index=False, max_colwidth=shutil.get_terminal_size().columns)


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
    if tree.is_simulated:
        option = " --nativesurface" if any(one.file.path.endswith(BETAS_SUFFIXES[NATIVE]) for one in inputs) else ""
        return f"The tree is simulated. NSD's files do not fit it: write it again with `allen2022-surface simulate{option}`."
    if not isinstance(tree.storage, Folder):
        return f"NSD's public bucket is {BUCKET_URL}. Copy the files from there, or build from there."
    root = tree.storage.root
    existing = next(parent for parent in (root.absolute(), *root.absolute().parents) if parent.exists())
    n_bytes, n_free = sum(map(_count_bytes, inputs)), free_bytes(existing)
    size = f"about {format_bytes(n_bytes)}" if n_bytes else "some megabytes at most"
    free = f", {'but only ' * (n_free < n_bytes)}{format_bytes(n_free)} are free" if n_free < math.inf else ""
    lines = [
        f"Fetch them: {size}{free}. You need the AWS command line (pip install awscli), but no account. NSD's terms apply: {TERMS_URL}",
        "",
        *list_fetch_commands(root, inputs),
    ]
    if any(not one.is_optional for one in inputs):
        again = f"allen2022-surface build {BUCKET_URL} RELEASE"
        lines += ["", f"Or build without a download, with the same recipes and subjects: {again}"]
    if any(one.kind == BETAS and not one.file.path.endswith(BETAS_SUFFIXES[NATIVE]) for one in inputs):
        lines.append(
            f'With files = "{NATIVE}" in the recipe, that reads a tenth of the bytes, as {SMALL_DOWNLOAD} does.'
        )
    return "\n".join(lines)


def _count_bytes(one: InputFile) -> int:
    """Return the size of a file in the bucket, or 0 if it is small."""
    if one.kind == BETAS and one.file.path.endswith(BETAS_SUFFIXES[NATIVE]):
        return 2 * N_NATIVE_VERTICES[one.subject][HEMISPHERES.index(one.hemisphere)] * N_TRIALS_PER_SESSION
    return FILE_BYTES.get(one.kind, 0)


def list_fetch_commands(root: Path, inputs: Iterable[InputFile]) -> list[str]:
    """List the shell commands that fetch files into the tree at `root`, in its layout.

    A few files of a folder are copied one by one. Of more files, one command fetches every session that is not there yet.

    References
    ----------
    AWS CLI Command Reference, "Use of Exclude and Include Filters": a later filter goes before an earlier one.
    """
    folders: dict[tuple[str, Path], list[str]] = {}
    for one in inputs:
        source, target = PurePosixPath(one.file.official_path), root / one.file.path
        folders.setdefault((f"{BUCKET_URL}/{source.parent}", target.parent), []).append(source.name)
    commands = []
    for (url, path), names in folders.items():
        if len(names) <= N_COPIED_FILES:
            commands += [f"aws s3 cp --no-sign-request {url}/{name} {shlex.quote(str(path / name))}" for name in names]
        else:
            patterns = dict.fromkeys(re.sub(r"_session\d\d", "_session*", name) for name in names)
            filters = " ".join(f"--include '{pattern}'" for pattern in patterns)
            commands.append(
                f"aws s3 sync --no-sign-request --size-only {url} {shlex.quote(str(path))} \\\n    --exclude '*' {filters}"
            )
    return commands


def describe_labels(nsd_root: str, atlas: str) -> str:
    """List the labels of an atlas of a tree, a row each: number, name, and the vertices of fsaverage with it.

    They are those of each hemisphere, or of an atlas that NSD drew for each subject, those of each subject.

    Raises
    ------
    PackagingError
        If the tree lacks the atlas, or it is damaged.
    """
    tree = find_tree(nsd_root)
    owners = [
        subject
        for subject in (SUBJECTS if atlas in NATIVE_ATLASES else (0,))
        if any(tree.labels(atlas, hemisphere, subject).exists() for hemisphere in HEMISPHERES)
    ]
    if not owners:
        raise PackagingError(f"{nsd_root} has no atlas {atlas}. Its atlases: {', '.join(tree.atlases()) or 'none'}.")
    names: dict[str, set[int]] = {}
    parts: dict[str, list[AnyArray]] = {}
    for subject in owners:
        table = tree.label_names(atlas, subject)
        names |= read_label_names(table) if table.exists() else {}
        for hemisphere in HEMISPHERES:
            file, index = tree.labels(atlas, hemisphere, subject), tree.native_index(subject, hemisphere)
            labels = read_labels(file)
            labels = copy_labels(file, labels, index, read_native_index(index)) if subject else labels
            parts.setdefault(subject_name(subject) if subject else hemisphere, []).append(labels)
    rows = pd.DataFrame({column: pd.Series(np.concatenate(some)).value_counts() for column, some in parts.items()})
    rows = rows.reindex(sorted({*rows.index[rows.index > 0], *set().union(*names.values())})).fillna(0).astype(int)
    spelled = [" or ".join(name for name, numbers in names.items() if label in numbers) for label in rows.index]
    rows.insert(0, "name", spelled)
    return rows.rename(index=int).rename_axis("label").reset_index().to_string(index=False)
