"""Everything that an NSD tree tells without its responses: what is missing or malformed, and the plan of a release."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import ParamSpec, TypeVar

import numpy as np
import pandas as pd

from ..arrays import AnyArray, DoubleArray, IntArray
from ..errors import PackagingError
from ..facts import (
    HEMISPHERES,
    N_NATIVE_VERTICES,
    N_TRIALS_PER_SESSION,
    N_VERTICES_OF_FSAVERAGE,
    NATIVE,
    stimulus_name,
    subject_name,
)
from ..recipe import Recipe
from .files import (
    BetasShape,
    Design,
    read_betas_shape,
    read_brick_shape,
    read_design,
    read_label_names,
    read_labels,
    read_native_index,
    read_origins,
    read_vertices,
)
from .inputs import (
    BETAS,
    DESIGN,
    EXTRACTED,
    IMAGES,
    LABEL_NAMES,
    LABELS,
    NATIVE_INDEX,
    NCSNR,
    ORIGINS,
    PREPARED,
    InputFile,
    list_inputs,
)
from .native import read_native_shape
from .plan import Plan, Session
from .regions import RegionMap, find_regions
from .storage import RawFile
from .tree import IMAGE_FORMATS, NSDTree
from .trials import choose_images, count_repetitions, list_trials

Content = TypeVar("Content")
Arguments = ParamSpec("Arguments")


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
    repetitions : of each shared image and subject, from `count_repetitions`; empty if the tree is too broken
    splits : `nsd_id` of the train and of the test images, ascending; empty if the images cannot be chosen
    plan : the plan of the release; None if there is any problem
    """

    inputs: list[InputFile]
    missing: list[InputFile] = field(default_factory=list)
    damaged: dict[InputFile, str] = field(default_factory=dict)
    contradictions: list[str] = field(default_factory=list)
    n_vertices: int = 0
    repetitions: pd.DataFrame = field(default_factory=pd.DataFrame)
    splits: dict[str, IntArray] = field(default_factory=dict)
    plan: Plan | None = None

    @property
    def problems(self) -> list[str]:
        """All problems, a line each."""
        advice = {
            LABELS: "Download it ({}), or choose another atlas.",
            LABEL_NAMES: "Download it ({}), or write an entry for each region, with a name and numbers as labels.",
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
        advice = " Was it downloaded from fsaverage/ and not from nativesurface/?" if unit == "vertices" else ""
        self.contradictions += [
            f"{one.file} holds {n:,} {unit}, expected {expected:,}, as most files do.{advice}"
            for one, n in counts.items()
            if n != expected
        ]
        return expected

    def compare_vertices(
        self,
        counts: Mapping[InputFile, int],
        native_index: Mapping[tuple[int, str], IntArray],
        *,
        has_native_betas: bool,
    ) -> None:
        """Set `n_vertices`, and note every file whose vertices are not those of its surface, by its number of vertices.

        The labels drawn on a subject's own surface lie there, and so do native betas. How many vertices it has is known for
        NSD; in a smaller tree most files of a surface tell, or the highest one that fsaverage copies.
        """
        kinds = (LABELS, BETAS) if has_native_betas else (LABELS,)
        native = {one: n for one, n in counts.items() if one.subject and one.kind in kinds}
        self.n_vertices = self.compare("vertices", {one: n for one, n in counts.items() if one not in native})
        is_whole = self.n_vertices == N_VERTICES_OF_FSAVERAGE
        for one in (one for one in counts if one.kind == NATIVE_INDEX):
            surface = one.subject, one.hemisphere
            counted = {other: n for other, n in native.items() if (other.subject, other.hemisphere) == surface}
            n_known = N_NATIVE_VERTICES[one.subject][HEMISPHERES.index(one.hemisphere)]
            n_copied = int(native_index[surface].max()) + 1
            n_alike = max(Counter(counted.values()).most_common(1), default=(0, 0))[0]
            n_expected = n_known if is_whole else max(n_copied, n_alike)
            if n_copied > n_expected:
                self.damaged[one] = (
                    f"{one.file} refers to vertex {n_copied:,} (1-based), but the surface of {subject_name(one.subject)} has "
                    f"{n_expected:,}. Is it a file of another subject or hemisphere? Download it again."
                )
            self.damaged |= {
                other: f"{other.file} holds {n:,} vertices, expected {n_expected:,}, as on the surface of "
                f"{subject_name(one.subject)}. Is it a file of another subject or hemisphere, or of fsaverage? Download it again."
                for other, n in counted.items()
                if n != n_expected
            }

    def attempt(
        self, find: Callable[Arguments, Content], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Content | None:
        """Return what a function finds; note a `PackagingError` as a contradiction, and return None."""
        try:
            return find(*args, **kwargs)
        except PackagingError as error:
            self.contradictions.append(str(error))
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
    found = Inspection([InputFile(tree.design, DESIGN)])
    design = next(iter(found.read(DESIGN, read_design).values()), None)
    is_reduced = tree.is_simulated if design is None else not design.is_full_size
    found.inputs = list_inputs(tree, recipe, is_reduced=is_reduced, from_region_assemblies=from_region_assemblies)
    n_sessions = {s: max(one.session for one in found.inputs if one.subject == s) for s in recipe.subjects}
    # Every file by itself
    labels, names = found.read(LABELS, read_labels), found.read(LABEL_NAMES, read_label_names)
    shapes = found.read(BETAS, read_native_shape if recipe.files == NATIVE else read_betas_shape)
    ncsnr, maps = found.read(NCSNR, read_vertices), found.read(NATIVE_INDEX, read_native_index)
    found.read(PREPARED, RawFile.exists)
    for atlas in dict.fromkeys(one.name for one in found.missing if one.kind == LABELS):
        near = difflib.get_close_matches(atlas, tree.atlases(), n=1, cutoff=0.8)
        if near and near[0] != atlas:
            found.contradictions.append(f"{recipe}: the tree has no atlas {atlas}. Did you mean {near[0]}?")
    # What the files say together
    counts = {one: len(values) for one, values in (labels | ncsnr | maps).items()}
    counts |= {one: shape.n_vertices for one, shape in shapes.items()}
    native_index = {(one.subject, one.hemisphere): index for one, index in maps.items()}
    found.compare_vertices(counts, native_index, has_native_betas=recipe.files == NATIVE)
    n_trials = {one: shape.n_trials for one, shape in shapes.items()}
    shape = BetasShape(found.n_vertices, found.compare("trials", n_trials, 0 if is_reduced else N_TRIALS_PER_SESSION))
    region_map = _find_regions(found, recipe, labels, native_index, names)
    trials = found.attempt(list_trials, design, n_sessions, shape.n_trials) if design and shapes else None
    if design and trials:
        found.repetitions = count_repetitions(design, trials)
        found.splits = found.attempt(choose_images, recipe, design, trials, found.repetitions) or {}
    images = np.sort(np.concatenate(list(found.splits.values()))) if found.splits else np.array([], dtype=np.int64)
    extracted, image_bytes = _find_pictures(found, images, (image_format,) if image_format else IMAGE_FORMATS)
    origins = found.read(ORIGINS, partial(read_origins, nsd_ids=images.tolist()))

    if design and trials and region_map and not found.problems:
        single_trial_images = found.splits["test"] if from_region_assemblies else images
        sessions = tuple(_list_sessions(found.inputs, recipe, design, trials, shape, native_index, single_trial_images))
        found.plan = Plan(
            recipe=recipe,
            region_map=region_map,
            sessions=sessions,
            n_sessions=n_sessions,
            n_trials_per_session=shape.n_trials,
            fewest_repetitions=found.repetitions.min(axis=1),
            splits=found.splits,
            ncsnr=_select_ncsnr(ncsnr, region_map),
            origins=next(iter(origins.values()), {}),
            image_brick=tree.images,
            extracted_images=extracted,
            image_bytes=image_bytes,
            image_format=Path(extracted[images[0]].path).suffix[1:] if extracted else image_format or IMAGE_FORMATS[0],
            prepared_assemblies={one.name: one.file for one in found.inputs if one.kind == PREPARED},
            inputs=tuple(_list_used(found, sessions, extracted)),
            is_simulated=tree.is_simulated,
        )
    return found


def _find_regions(
    found: Inspection,
    recipe: Recipe,
    labels: Mapping[InputFile, AnyArray],
    native_index: Mapping[tuple[int, str], IntArray],
    names: Mapping[InputFile, Mapping[str, set[int]]],
) -> RegionMap | None:
    """Find the regions, if the labels of all atlases are sound.

    A vertex of fsaverage has the label of the vertex of the subject's surface that it copies, if the atlas was drawn there.
    """
    lacking = {one.kind for one in (*found.missing, *found.damaged) if not one.is_optional}
    if not found.n_vertices or lacking & {LABELS, LABEL_NAMES, NATIVE_INDEX}:
        return None
    tables: dict[str, dict[str, set[int]]] = {}
    for one, table in names.items():
        known = tables.setdefault(one.name, {})
        if any(known.setdefault(name, numbers) != numbers for name, numbers in table.items()):
            found.contradictions.append(
                f"{one.file} gives a name to other labels than {one.name}.mgz.ctab of another subject. Download both again."
            )
    return found.attempt(
        find_regions,
        recipe,
        {
            (one.name, one.subject, one.hemisphere): (
                values[native_index[one.subject, one.hemisphere]] if one.subject else values
            )
            for one, values in labels.items()
        },
        tables,
        found.n_vertices,
    )


def _find_pictures(found: Inspection, nsd_ids: IntArray, formats: Sequence[str]) -> tuple[dict[int, RawFile], int]:
    """Find the extracted image of each `nsd_id`, in the first format that is there, or else look at NSD's own images.

    Returns
    -------
    the extracted images; none unless all are there
    the bytes of the extracted images, or of the pixels of NSD's own
    """
    present = {Path(one.file.path).name: one.file for one in found.inputs if one.kind == EXTRACTED}
    extracted = {}
    for nsd_id in nsd_ids.tolist():
        # The published packaging calls its files stimulus_nsd_03049.jpg.
        names = [f"{prefix}{stimulus_name(nsd_id)}.{suffix}" for suffix in formats for prefix in ("", "stimulus_")]
        name = next((name for name in names if name in present), None)
        if name:
            extracted[nsd_id] = present[name]
    if len(nsd_ids) and len(extracted) == len(nsd_ids):
        found.inputs = [one for one in found.inputs if one.kind != IMAGES]
        return extracted, sum(file.size() for file in extracted.values())
    n_bytes = 0
    for one, (n_images, *image_shape) in found.read(
        IMAGES, partial(read_brick_shape, nsd_ids=nsd_ids.tolist())
    ).items():
        n_bytes = len(nsd_ids) * int(np.prod(image_shape))
        if len(nsd_ids) and nsd_ids[-1] >= n_images:
            found.contradictions.append(
                f"{one.file}: imgBrick holds {n_images:,} images, but the design asks for image {nsd_ids[-1]} (0-based). Do "
                "design and images belong together?"
            )
    return {}, n_bytes


def _list_sessions(
    inputs: Sequence[InputFile],
    recipe: Recipe,
    design: Design,
    trials: Mapping[int, pd.DataFrame],
    shape: BetasShape,
    native_index: Mapping[tuple[int, str], IntArray],
    needed_images: IntArray,
) -> Iterator[Session]:
    """Yield the sessions with at least one trial of the needed images, each with all its trials of the pool.

    Trials of shared images that are incomplete stay, so that releases of other subjects share the session cache.
    """
    betas = {(one.subject, one.session, one.hemisphere): one.file for one in inputs if one.kind == BETAS}
    for subject, subject_trials in trials.items():
        if recipe.pool == "shared":
            subject_trials = subject_trials[subject_trials["nsd_id"].isin(design.shared_images)]
        needed = subject_trials[subject_trials["nsd_id"].isin(needed_images)]
        for number in needed["session"].unique().tolist():
            session_trials = subject_trials[subject_trials["session"] == number]
            yield Session(
                subject=subject,
                number=number,
                betas={hemisphere: betas[subject, number, hemisphere] for hemisphere in HEMISPHERES},
                shape=shape,
                native_index={h: native_index[subject, h] for h in HEMISPHERES if recipe.files == NATIVE},
                trials=session_trials["trial"].to_numpy(np.int64),
                nsd_ids=session_trials["nsd_id"].to_numpy(np.int64),
                repetitions=session_trials["repetition"].to_numpy(np.int64),
            )


def _select_ncsnr(ncsnr: Mapping[InputFile, AnyArray], region_map: RegionMap) -> dict[int, DoubleArray]:
    """Return the values of each subject at the vertices of regions, those of lh before those of rh."""
    selected: dict[int, list[AnyArray]] = {}
    for one, values in ncsnr.items():
        selected.setdefault(one.subject, []).append(values[region_map.vertices[one.subject][one.hemisphere]])
    return {subject: np.concatenate(parts, dtype=np.float64) for subject, parts in selected.items()}


def _list_used(found: Inspection, sessions: Iterable[Session], extracted: Mapping[int, RawFile]) -> list[RawFile]:
    """List the files that a release is made from, ordered by their paths in NSD's bucket."""
    chosen = {*extracted.values(), *(file for session in sessions for file in session.betas.values())}
    files = [
        one.file
        for one in found.inputs
        if one not in found.missing and (one.kind not in (BETAS, EXTRACTED) or one.file in chosen)
    ]
    return sorted(files, key=lambda file: file.official_path)
