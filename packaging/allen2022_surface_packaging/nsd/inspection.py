"""Everything that an NSD tree tells without its responses: what is missing or malformed, and the plan of a release."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ParamSpec, TypeVar

import numpy as np
import pandas as pd

from ..arrays import DoubleArray, IntArray
from ..errors import PackagingError
from ..facts import HEMISPHERES, N_SESSIONS, N_TRIALS_PER_SESSION, stimulus_name, subject_name
from ..recipe import Recipe
from .files import BetasShape, Design, check_images, read_betas_shape, read_design, read_vertices
from .needs import NeededFile, list_needed
from .plan import Plan, Session
from .regions import RegionMap, find_regions, read_ncsnr
from .storage import RawFile
from .tree import IMAGE_FORMATS, NSDTree
from .trials import choose_images, complete_images, count_repetitions, fewest_repetitions, list_trials

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Inspection:
    """What an inspection found.

    Attributes
    ----------
    problems : a line each
    needed : the files that the recipe needs, whether they are there or not
    plan : the plan of the release; None if the tree is too broken for one
    subjects : a table for people with a row per subject; None if the tree is too broken for one
    n_vertices : of one hemisphere
    n_complete_images : how many shared images were seen three times by every subject
    n_images : how many images each split has; empty if the images cannot be chosen
    """

    problems: list[str]
    needed: list[NeededFile]
    plan: Plan | None = None
    subjects: pd.DataFrame | None = None
    n_vertices: int = 0
    n_complete_images: int = 0
    n_images: dict[str, int] = field(default_factory=dict)

    def require_sound(self) -> Plan:
        """Return the plan.

        Raises
        ------
        PackagingError
            If there is any problem. The message is the first one.
        """
        if self.plan is None or self.problems:
            n_problems = len(self.problems)
            more = f" ({n_problems} problems in all: `allen2022-surface check` lists them.)" if n_problems > 1 else ""
            raise PackagingError(self.problems[0] + more)
        return self.plan


@dataclass
class _Problems:
    """Collects problems, so that an inspection goes on after the first."""

    lines: list[str] = field(default_factory=list)

    def attempt(self, function: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T | None:
        """Call a function. If it raises a `PackagingError`, note the message and return None."""
        try:
            return function(*arguments, **options)
        except PackagingError as error:
            if str(error) not in self.lines:
                self.lines.append(str(error))
            return None


def inspect_tree(
    tree: NSDTree, recipe: Recipe, *, image_format: str | None = None, from_region_assemblies: bool = False
) -> Inspection:
    """Look at everything that a release needs: headers, sizes, labels and the design, but no responses.

    Parameters
    ----------
    image_format : "png" or "jpg", optional
        Only extracted images of this format are used; without it, of any format.
    from_region_assemblies : bool
        Whether the averages will come from prepared region assemblies.
    """
    problems = _Problems()
    design = _inspect_design(tree, recipe, problems)
    n_sessions = {subject: _count_sessions(tree, recipe, design, subject) for subject in recipe.subjects}
    headers = _inspect_headers(tree, recipe, design, n_sessions, problems)
    if headers is None:
        has_images = bool(tree.extracted_images())
        return Inspection(problems.lines, list_needed(tree, recipe, n_sessions, images_are_extracted=has_images))
    splits = problems.attempt(choose_images, recipe, headers.design, headers.trials)
    images = None if splits is None else np.sort(np.concatenate(list(splits.values())))
    extracted = {} if images is None else find_extracted_images(tree, images, image_format)
    if images is not None and not extracted:
        problems.attempt(check_images, tree.images, images.tolist())
    problems.attempt(_require_content, list(extracted.values()))
    plan = None
    if splits is not None and images is not None and not problems.lines:
        needed = splits["test"] if from_region_assemblies else images
        copied_format = Path(extracted[int(splits["test"][0])].path).suffix[1:] if extracted else None
        plan = Plan(
            tree=tree,
            recipe=recipe,
            region_map=headers.region_map,
            sessions=tuple(_list_sessions(tree, recipe, headers, needed)),
            n_sessions=headers.n_sessions,
            n_trials_per_session=headers.shape.n_trials,
            fewest_repetitions=fewest_repetitions(headers.design, headers.trials),
            splits=splits,
            ncsnr=headers.ncsnr,
            extracted_images=extracted,
            image_format=copied_format or image_format or IMAGE_FORMATS[0],
            from_region_assemblies=from_region_assemblies,
        )
    return Inspection(
        problems.lines,
        list_needed(tree, recipe, n_sessions, images_are_extracted=bool(extracted)),
        plan,
        _describe_subjects(tree, recipe, headers),
        headers.region_map.n_vertices,
        len(complete_images(fewest_repetitions(headers.design, headers.trials))),
        {split: len(nsd_ids) for split, nsd_ids in (splits or {}).items()},
    )


def _require_content(images: list[RawFile]) -> None:
    """Raise a `PackagingError` if a file of an extracted image is empty. The build looks at their pixels."""
    empty = [file for file in images if not file.size()]
    if empty:
        more = f" (and {len(empty) - 1:,} more)" if len(empty) > 1 else ""
        raise PackagingError(f"{empty[0]} is empty{more}, expected an image. Extract it again.")


def find_extracted_images(tree: NSDTree, nsd_ids: IntArray, image_format: str | None = None) -> dict[int, RawFile]:
    """Find the images that an earlier packaging extracted, by `nsd_id`; the result is empty unless all are there.

    Parameters
    ----------
    image_format : "png" or "jpg", optional
        Use only images of this format; without it, of any format.
    """
    formats = (image_format,) if image_format else IMAGE_FORMATS
    present = tree.extracted_images()
    files = {}
    for nsd_id in nsd_ids.tolist():
        # The published packaging calls its files stimulus_nsd_03049.jpg.
        names = [f"{prefix}{stimulus_name(nsd_id)}.{suffix}" for suffix in formats for prefix in ("", "stimulus_")]
        name = next((name for name in names if name in present), None)
        if name is None:
            return {}
        files[nsd_id] = present[name]
    return files


@dataclass(frozen=True, eq=False)
class _Headers:
    """What the design, the labels and the headers tell.

    Attributes
    ----------
    shape : the shape that every betas file must have
    shapes : the shape that each betas file has; None if it is missing or damaged
    trials : all trials of each subject
    """

    design: Design
    region_map: RegionMap
    ncsnr: dict[int, DoubleArray]
    n_sessions: dict[int, int]
    shape: BetasShape
    shapes: dict[RawFile, BetasShape | None]
    trials: dict[int, pd.DataFrame]


def _inspect_headers(
    tree: NSDTree, recipe: Recipe, design: Design | None, n_sessions: dict[int, int], problems: _Problems
) -> _Headers | None:
    """Read labels, headers and noise ceilings; return None if these and the design do not tell which trials there are."""
    region_map = _inspect_regions(tree, recipe, problems)
    shapes = _inspect_betas(tree, recipe, n_sessions, problems)
    ncsnr = _inspect_ncsnr(tree, recipe, region_map, problems)
    shape = _common_shape(design, region_map, [shape for shape in shapes.values() if shape])
    problems.lines += _shape_problems(shapes, shape)
    if design is None or region_map is None or not shape.n_trials:
        return None
    n_longest = max(n_sessions.values())
    if n_longest * shape.n_trials > design.n_trials:
        problems.lines.append(
            f"{tree.design} orders {design.n_trials:,} trials, but {n_longest} sessions of {shape.n_trials} trials are "
            "there. Do design and betas belong together?"
        )
        return None
    trials = {
        subject: list_trials(design, subject, n_sessions=n, n_trials_per_session=shape.n_trials)
        for subject, n in n_sessions.items()
    }
    return _Headers(design, region_map, ncsnr, n_sessions, shape, shapes, trials)


def _inspect_design(tree: NSDTree, recipe: Recipe, problems: _Problems) -> Design | None:
    design = problems.attempt(read_design, tree.design)
    if design is not None and max(recipe.subjects) > len(design.subjectim):
        problems.lines.append(
            f"{tree.design} has {len(design.subjectim)} subjects, expected at least {max(recipe.subjects)}. "
            "Choose other subjects."
        )
        return None
    return design


def _inspect_regions(tree: NSDTree, recipe: Recipe, problems: _Problems) -> RegionMap | None:
    region_map, faults = find_regions(tree, recipe)
    problems.lines += faults
    if region_map is None:  # it stopped at the first bad file of each atlas: look at all of them
        for atlas, hemisphere in itertools.product(recipe.atlases, HEMISPHERES):
            if tree.labels(atlas, hemisphere).exists():
                problems.attempt(read_vertices, tree.labels(atlas, hemisphere))
    return region_map


def _count_sessions(tree: NSDTree, recipe: Recipe, design: Design | None, subject: int) -> int:
    """Return how many sessions must be there: NSD's number, or in a reduced tree the last one that is there."""
    is_nsd = design.is_full_size if design is not None else not tree.simulation_mark.exists()
    if is_nsd:
        return N_SESSIONS[subject]
    return max(tree.sessions_present(subject, recipe.betas), default=0)


def _inspect_betas(
    tree: NSDTree, recipe: Recipe, n_sessions: dict[int, int], problems: _Problems
) -> dict[RawFile, BetasShape | None]:
    shapes: dict[RawFile, BetasShape | None] = {}
    for subject, n in n_sessions.items():
        if n == 0:
            problems.lines.append(
                f"{tree.storage}/{tree.betas_folder(subject, recipe.betas)} holds no betas, expected lh.betas_session01.mgh "
                "and so on. Download them."
            )
        for session, hemisphere in itertools.product(range(1, n + 1), HEMISPHERES):
            file = tree.betas(subject, hemisphere, session, recipe.betas)
            shapes[file] = problems.attempt(read_betas_shape, file)
    return shapes


def _inspect_ncsnr(
    tree: NSDTree, recipe: Recipe, region_map: RegionMap | None, problems: _Problems
) -> dict[int, DoubleArray]:
    if region_map is None:
        return {}
    ncsnr = {}
    for subject in recipe.subjects:
        values = [problems.attempt(read_ncsnr, tree, region_map, subject, h, recipe.betas) for h in HEMISPHERES]
        valid_values = [hemisphere_values for hemisphere_values in values if hemisphere_values is not None]
        if len(valid_values) == len(HEMISPHERES):
            ncsnr[subject] = np.concatenate(valid_values)
    return ncsnr


def _common_shape(design: Design | None, region_map: RegionMap | None, shapes: list[BetasShape]) -> BetasShape:
    """Return the shape that every betas file must have; 0 for what nothing tells."""
    n_trials = _most_common(shape.n_trials for shape in shapes)
    if design is not None and design.is_full_size:
        n_trials = N_TRIALS_PER_SESSION
    n_vertices = region_map.n_vertices if region_map else _most_common(shape.n_vertices for shape in shapes)
    return BetasShape(n_vertices, n_trials)


def _most_common(values: Iterable[int]) -> int:
    counts = Counter(values).most_common(1)
    return counts[0][0] if counts else 0


def _shape_problems(shapes: dict[RawFile, BetasShape | None], expected: BetasShape) -> list[str]:
    return [
        f"{file} holds {shape}, expected {expected.n_vertices:,} vertices (as the labels) x {expected.n_trials} trials "
        "(as the other sessions). Was it downloaded from fsaverage/?"
        for file, shape in shapes.items()
        if shape is not None and shape != expected
    ]


def _list_sessions(tree: NSDTree, recipe: Recipe, headers: _Headers, needed_images: IntArray) -> Iterator[Session]:
    """Yield the sessions with at least one trial of the needed images, each with all its trials of the pool.

    Trials of shared images that are incomplete stay, so that releases of other subjects share the session cache.
    """
    for subject, subject_trials in headers.trials.items():
        if recipe.pool == "shared":
            subject_trials = subject_trials[subject_trials["nsd_id"].isin(headers.design.shared_images)]
        for _, session_trials in subject_trials.groupby("session"):
            if session_trials["nsd_id"].isin(needed_images).any():
                number = int(session_trials["session"].iloc[0])
                yield Session(
                    subject,
                    number,
                    {hemisphere: tree.betas(subject, hemisphere, number, recipe.betas) for hemisphere in HEMISPHERES},
                    headers.shape,
                    *(session_trials[name].to_numpy(np.int64) for name in ("trial", "nsd_id", "repetition")),
                )


def _describe_subjects(tree: NSDTree, recipe: Recipe, headers: _Headers) -> pd.DataFrame:
    rows = []
    for subject, subject_trials in headers.trials.items():
        folder = tree.betas_folder(subject, recipe.betas)
        shapes = [shape for file, shape in headers.shapes.items() if file.path.startswith(f"{folder}/")]
        valid_shapes = {(shape.n_vertices, shape.n_trials) for shape in shapes if shape}
        repetitions = count_repetitions(subject_trials, headers.design.shared_images).clip(upper=3)
        rows.append(
            {
                "subject": subject_name(subject),
                "sessions expected": headers.n_sessions[subject],
                "sessions found": len(tree.sessions_present(subject, recipe.betas)),
                "betas files": f"{sum(shape is not None for shape in shapes)}/{len(shapes)}",
                "vertices x trials": ", ".join(f"{n} x {m}" for n, m in sorted(valid_shapes)) or "-",
                "shared images seen 0/1/2/3 times": "/".join(str(int((repetitions == n).sum())) for n in range(4)),
            }
        )
    return pd.DataFrame(rows)
