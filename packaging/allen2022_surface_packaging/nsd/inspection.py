"""Everything that an NSD tree tells without its responses: what is missing or malformed, and the plan of a release."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd

from ..arrays import AnyArray, IntArray
from ..errors import PackagingError
from ..facts import HEMISPHERES, N_REPETITIONS, N_TRIALS_PER_SESSION, stimulus_name, subject_name
from ..recipe import Recipe
from .files import (
    BetasShape,
    Design,
    read_betas_shape,
    read_brick_shape,
    read_design,
    read_label_names,
    read_labels,
    read_origins,
    read_vertices,
)
from .inputs import BETAS, DESIGN, IMAGES, LABEL_NAMES, LABELS, NCSNR, ORIGINS, PREPARED, InputFile, list_inputs
from .plan import Plan, Session
from .regions import find_regions
from .storage import RawFile
from .tree import IMAGE_FORMATS, NSDTree
from .trials import choose_images, count_repetitions, list_trials

Content = TypeVar("Content")


@dataclass
class Inspection:
    """What an inspection found.

    Attributes
    ----------
    inputs : the files that the recipe needs, whether they are there or not
    missing : those that are not there, optional ones included
    damaged : those whose content is wrong, with a line each
    contradictions : what is wrong with several files together, a line each
    n_vertices : of one hemisphere; 0 if no file tells
    n_complete_images : how many shared images were seen three times by every subject
    splits : `nsd_id` of the train and of the test images, ascending; empty if the images cannot be chosen
    subjects : a table for people with a row per subject; None if the tree is too broken for one
    plan : the plan of the release; None if there is any problem
    """

    inputs: list[InputFile]
    missing: list[InputFile] = field(default_factory=list)
    damaged: dict[InputFile, str] = field(default_factory=dict)
    contradictions: list[str] = field(default_factory=list)
    n_vertices: int = 0
    n_complete_images: int = 0
    splits: dict[str, IntArray] = field(default_factory=dict)
    subjects: pd.DataFrame | None = None
    plan: Plan | None = None

    @property
    def problems(self) -> list[str]:
        """All problems, a line each."""
        advice = {
            LABELS: "Download it ({}), or choose another atlas.",
            PREPARED: "Add the assemblies of all regions, or build without --from-region-assemblies.",
        }
        missing = [
            f"{one.file} is missing. {advice.get(one.kind, 'Download it ({}).').format(one.file.official_path)}"
            for one in self.missing
            if not one.is_optional
        ]
        return [*missing, *self.damaged.values(), *self.contradictions]

    def require_sound(self) -> Plan:
        """Return the plan.

        Raises
        ------
        PackagingError
            If there is any problem. The message is the first one.
        """
        if self.plan is None:
            n_problems = len(self.problems)
            more = f" ({n_problems} problems in all: `allen2022-surface check` lists them.)" if n_problems > 1 else ""
            raise PackagingError(self.problems[0] + more)
        return self.plan

    def read(self, kind: str, read: Callable[[RawFile], Content]) -> dict[InputFile, Content]:
        """Read all inputs of a kind. Note those that are missing or damaged, and leave them out."""
        contents = {}
        for one in self.inputs:
            if one.kind == kind and not one.file.exists():
                self.missing.append(one)
            elif one.kind == kind:
                try:
                    contents[one] = read(one.file)
                except PackagingError as error:
                    self.damaged[one] = str(error)
        return contents

    def compare(self, unit: str, counts: Mapping[InputFile, int], expected: int = 0) -> int:
        """Note every file whose count is not the expected one, or without one that of most files, and return that count."""
        expected = expected or max(Counter(counts.values()).most_common(1), default=(0, 0))[0]
        self.contradictions += [
            f"{one.file} holds {n:,} {unit}, expected {expected:,}, as most files do. Was it downloaded from fsaverage/ and not "
            "from nativesurface/?"
            for one, n in counts.items()
            if n != expected
        ]
        return expected

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Note a `PackagingError` as a contradiction, and go on after the block."""
        try:
            yield
        except PackagingError as error:
            self.contradictions.append(str(error))


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
    found = Inspection([InputFile(tree.design, DESIGN)])
    design = next(iter(found.read(DESIGN, read_design).values()), None)
    is_reduced = tree.simulation_mark.exists() if design is None else not design.is_full_size
    found.inputs = list_inputs(tree, recipe, is_reduced=is_reduced, from_region_assemblies=from_region_assemblies)
    n_sessions = {s: max(one.session for one in found.inputs if one.subject == s) for s in recipe.subjects}

    # Every file by itself
    labels, names = found.read(LABELS, read_labels), found.read(LABEL_NAMES, read_label_names)
    ncsnr, shapes = found.read(NCSNR, read_vertices), found.read(BETAS, read_betas_shape)

    # What the files say together
    found.n_vertices = found.compare(
        "vertices",
        {one: len(values) for one, values in (*labels.items(), *ncsnr.items())}
        | {one: shape.n_vertices for one, shape in shapes.items()},
    )
    n_trials = found.compare(
        "trials",
        {one: shape.n_trials for one, shape in shapes.items()},
        N_TRIALS_PER_SESSION if design is not None and design.is_full_size else 0,
    )
    region_map, images = None, np.array([], dtype=np.int64)
    lacking = {one.kind for one in (*found.missing, *found.damaged) if not one.is_optional}
    if found.n_vertices and not lacking & {LABELS, LABEL_NAMES}:
        with found.noting():
            region_map = find_regions(
                recipe,
                {(one.atlas, one.hemisphere): values for one, values in labels.items()},
                {one.atlas: label_names for one, label_names in names.items()},
                found.n_vertices,
            )
    if design is not None and n_trials:
        with found.noting():
            trials = {
                subject: list_trials(design, subject, n_sessions=n, n_trials_per_session=n_trials)
                for subject, n in n_sessions.items()
            }
            repetitions = count_repetitions(design, trials)
            found.subjects = _describe_subjects(found, shapes, repetitions)
            fewest_repetitions = repetitions.min(axis=1)
            found.n_complete_images = int((fewest_repetitions >= N_REPETITIONS).sum())
            found.splits = choose_images(recipe, design, trials, fewest_repetitions)
            images = np.sort(np.concatenate(list(found.splits.values())))

    # The pictures of the images, and where they come from
    extracted = _find_extracted(tree, images, (image_format,) if image_format else IMAGE_FORMATS)
    if extracted:
        found.inputs = [one for one in found.inputs if one.kind != IMAGES]
    image_bytes = sum(file.size() for file in extracted.values())
    for one, (n_images, *image_shape) in found.read(IMAGES, read_brick_shape).items():
        image_bytes = len(images) * int(np.prod(image_shape))
        if len(images) and images[-1] >= n_images:
            found.contradictions.append(
                f"{one.file}: imgBrick holds {n_images:,} images, but the design asks for image {images[-1]} (0-based). Do "
                "design and images belong together?"
            )
    found.read(PREPARED, RawFile.exists)
    origins = found.read(ORIGINS, partial(read_origins, nsd_ids=images.tolist()))

    if design is not None and region_map is not None and not found.problems:
        needed_images = found.splits["test"] if from_region_assemblies else images
        shape = BetasShape(found.n_vertices, n_trials)
        sessions = tuple(_list_sessions(tree, recipe, design, trials, shape, needed_images))
        used_betas = {file for session in sessions for file in session.betas.values()}
        files = [
            one.file
            for one in found.inputs
            if one not in found.missing and (one.kind != BETAS or one.file in used_betas)
        ]
        ncsnr_of_regions: dict[int, list[AnyArray]] = {}
        for one, values in ncsnr.items():
            ncsnr_of_regions.setdefault(one.subject, []).append(values[region_map.vertices[one.hemisphere]])
        copied_format = Path(extracted[int(images[0])].path).suffix[1:] if extracted else None
        found.plan = Plan(
            recipe=recipe,
            region_map=region_map,
            sessions=sessions,
            n_sessions=n_sessions,
            n_trials_per_session=n_trials,
            fewest_repetitions=fewest_repetitions,
            splits=found.splits,
            ncsnr={subject: np.concatenate(parts, dtype=np.float64) for subject, parts in ncsnr_of_regions.items()},
            origins=next(iter(origins.values()), {}),
            image_brick=tree.images,
            extracted_images=extracted,
            image_bytes=image_bytes,
            image_format=copied_format or image_format or IMAGE_FORMATS[0],
            prepared_assemblies={
                region.name: tree.prepared_assembly(region.name)
                for region in region_map.regions
                if from_region_assemblies
            },
            inputs=tuple(sorted([*files, *extracted.values()], key=lambda file: file.official_path)),
            is_simulated=tree.simulation_mark.exists(),
        )
    return found


def _find_extracted(tree: NSDTree, nsd_ids: IntArray, formats: Sequence[str]) -> dict[int, RawFile]:
    """Return the extracted image of each `nsd_id`, in the first format that is there; nothing unless all are there."""
    present, files = tree.extracted_images(), {}
    for nsd_id in nsd_ids.tolist():
        # The published packaging calls its files stimulus_nsd_03049.jpg.
        names = [f"{prefix}{stimulus_name(nsd_id)}.{suffix}" for suffix in formats for prefix in ("", "stimulus_")]
        names = [name for name in names if name in present]
        if not names:
            return {}
        files[nsd_id] = present[names[0]]
    return files


def _list_sessions(
    tree: NSDTree,
    recipe: Recipe,
    design: Design,
    trials: Mapping[int, pd.DataFrame],
    shape: BetasShape,
    needed_images: IntArray,
) -> Iterator[Session]:
    """Yield the sessions with at least one trial of the needed images, each with all its trials of the pool.

    Trials of shared images that are incomplete stay, so that releases of other subjects share the session cache.
    """
    for subject, subject_trials in trials.items():
        if recipe.pool == "shared":
            subject_trials = subject_trials[subject_trials["nsd_id"].isin(design.shared_images)]
        needed = subject_trials[subject_trials["nsd_id"].isin(needed_images)]
        for number in needed["session"].unique().tolist():
            session_trials = subject_trials[subject_trials["session"] == number]
            yield Session(
                subject=subject,
                number=number,
                betas={hemisphere: tree.betas(subject, hemisphere, number, recipe.betas) for hemisphere in HEMISPHERES},
                shape=shape,
                trials=session_trials["trial"].to_numpy(np.int64),
                nsd_ids=session_trials["nsd_id"].to_numpy(np.int64),
                repetitions=session_trials["repetition"].to_numpy(np.int64),
            )


def _describe_subjects(
    found: Inspection, shapes: Mapping[InputFile, BetasShape], repetitions: pd.DataFrame
) -> pd.DataFrame:
    rows = []
    for subject, seen in repetitions.clip(upper=N_REPETITIONS).items():
        files = [one for one in found.inputs if one.kind == BETAS and one.subject == subject]
        sound_shapes = {f"{shapes[one].n_vertices} x {shapes[one].n_trials}" for one in files if one in shapes}
        rows.append(
            {
                "subject": subject_name(files[0].subject),
                "sessions expected": len({one.session for one in files}),
                "sessions found": len({one.session for one in files if one not in found.missing}),
                "betas files": f"{sum(one in shapes for one in files)}/{len(files)}",
                "vertices x trials": ", ".join(sorted(sound_shapes)) or "-",
                "shared images seen 0/1/2/3 times": "/".join(str(int((seen == n).sum())) for n in range(4)),
            }
        )
    return pd.DataFrame(rows)
