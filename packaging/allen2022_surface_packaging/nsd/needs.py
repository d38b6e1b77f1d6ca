"""Which files of NSD a recipe needs, which of them a tree lacks, and how to say so in a few lines."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..facts import HEMISPHERES, subject_names
from ..recipe import Recipe
from .storage import RawFile
from .tree import NSDTree

DESIGN, COCO, LABELS, LABEL_NAMES = "experiment design", "COCO ids", "labels", "names of labels"
IMAGES, NCSNR, BETAS = "images", "noise ceilings", "betas"


@dataclass(frozen=True)
class NeededFile:
    """A file that a recipe needs.

    Attributes
    ----------
    kind : for people, such as "betas"
    name : what it is among the files of its kind, for people: an atlas, or empty
    subject, session : of betas and noise ceilings; a session is 1-based
    is_optional : whether a release can be built without it
    """

    file: RawFile
    kind: str
    name: str = ""
    subject: int | None = None
    session: int | None = None
    hemisphere: str = ""
    is_optional: bool = False


def list_needed(
    tree: NSDTree, recipe: Recipe, n_sessions: Mapping[int, int], *, images_are_extracted: bool = False
) -> list[NeededFile]:
    """List the files that a recipe needs.

    Parameters
    ----------
    n_sessions : the sessions of each subject that must be there
    images_are_extracted : whether the tree holds the images as files, so that `imgBrick` is not needed
    """
    needed = [
        NeededFile(tree.design, DESIGN),
        NeededFile(tree.stimulus_info, COCO, is_optional=True),
    ]
    needed += [
        NeededFile(tree.labels(atlas, hemisphere), LABELS, atlas, hemisphere=hemisphere)
        for atlas, hemisphere in itertools.product(recipe.atlases, HEMISPHERES)
    ]
    spelled = {r.atlas for r in recipe.regions if any(isinstance(label, str) for label in r.labels)}
    needed += [
        NeededFile(tree.label_names(atlas), LABEL_NAMES, atlas, is_optional=atlas not in spelled)
        for atlas in recipe.atlases_with_names
    ]
    needed += [] if images_are_extracted else [NeededFile(tree.images, IMAGES)]
    needed += [
        NeededFile(tree.ncsnr(subject, hemisphere, recipe.betas), NCSNR, subject=subject, hemisphere=hemisphere)
        for subject, hemisphere in itertools.product(recipe.subjects, HEMISPHERES)
    ]
    needed += [
        NeededFile(
            tree.betas(subject, hemisphere, session, recipe.betas),
            BETAS,
            recipe.betas,
            subject,
            session,
            hemisphere,
        )
        for subject in recipe.subjects
        for session, hemisphere in itertools.product(range(1, n_sessions.get(subject, 0) + 1), HEMISPHERES)
    ]
    return needed


def join_needed(lists: Iterable[Sequence[NeededFile]]) -> list[NeededFile]:
    """Join what several recipes need, each file once; a file is optional only if it is optional for all of them."""
    joined: dict[RawFile, NeededFile] = {}
    for one in itertools.chain.from_iterable(lists):
        if one.file not in joined or joined[one.file].is_optional:
            joined[one.file] = one
    return list(joined.values())


def describe_missing(needed: Sequence[NeededFile], missing: Sequence[NeededFile]) -> list[tuple[str, str, str]]:
    """Say in a row per kind of file how many are missing, out of how many, and which.

    Returns
    -------
    the kind, such as "betas"; the numbers, such as "56 of 568"; and which, such as "subj04: sessions 3-30"
    """
    kinds = dict.fromkeys((one.kind, one.name if one.kind == BETAS else "") for one in needed)
    rows = []
    for kind, version in kinds:
        of_kind = [one for one in needed if (one.kind, one.name if one.kind == BETAS else "") == (kind, version)]
        absent = [one for one in missing if one in of_kind]
        if absent:
            title = (version or kind) + " (optional)" * all(one.is_optional for one in absent)
            rows.append((title, f"{len(absent)} of {len(of_kind)}", _describe_kind(of_kind, absent)))
    return rows


def _describe_kind(needed: Sequence[NeededFile], missing: Sequence[NeededFile]) -> str:
    """Say which files of one kind are missing."""
    if missing[0].subject is None:
        return ", ".join(dict.fromkeys(one.name or one.file.path for one in missing))
    subjects = list(dict.fromkeys(one.subject for one in missing if one.subject is not None))
    texts: dict[str, list[int]] = {}
    for subject in subjects:
        texts.setdefault(_describe_subject(subject, needed, missing), []).append(subject)
    return "; ".join(f"{subject_names(members)}{text}" for text, members in texts.items())


def _describe_subject(subject: int, needed: Sequence[NeededFile], missing: Sequence[NeededFile]) -> str:
    """Say which files of a subject are missing: nothing more if all are."""
    absent = [one for one in missing if one.subject == subject]
    if len(absent) == sum(one.subject == subject for one in needed):
        return ""
    if absent[0].session is None:
        return f" ({', '.join(one.hemisphere for one in absent)})"
    hemispheres: dict[int, list[str]] = {}
    for one in absent:
        assert one.session is not None
        hemispheres.setdefault(one.session, []).append(one.hemisphere)
    parts = []
    for members in (list(HEMISPHERES), *([hemisphere] for hemisphere in HEMISPHERES)):
        sessions = [session for session, present in hemispheres.items() if present == members]
        if sessions:
            side = "" if len(members) > 1 else f" ({members[0]} only)"
            parts.append(f"{number_ranges(sessions)}{side}")
    return f": sessions {', '.join(parts)}"


def number_ranges(numbers: Sequence[int]) -> str:
    """Write ascending numbers for people, such as ``1-3, 7``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
