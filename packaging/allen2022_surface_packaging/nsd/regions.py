"""Which vertices belong to the regions of a recipe, and the neuroids that they become."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..arrays import AnyArray, IntArray
from ..errors import PackagingError
from ..facts import HEMISPHERES, NATIVE_ATLASES, subject_names
from ..recipe import CORTEX, LONGEST_NAME, Recipe, Region

logger = logging.getLogger(__name__)

N_NAMED_LABELS = 12  # of an atlas, in a message


@dataclass(frozen=True, eq=False)
class LabelledRegion:
    """A region of a release, whose labels are numbers that the atlas has.

    Attributes
    ----------
    labels : ascending; empty for the whole cortex
    vertices : by subject and hemisphere the vertices of fsaverage in the region, ascending; one of several subjects may have none
    """

    name: str
    atlas: str
    labels: tuple[int, ...]
    vertices: dict[int, dict[str, IntArray]]

    @property
    def n_vertices(self) -> dict[int, int]:
        """The number of vertices in both hemispheres of each subject."""
        return {subject: sum(map(len, parts.values())) for subject, parts in self.vertices.items()}


@dataclass(frozen=True, eq=False)
class RegionMap:
    """The regions on fsaverage, the same for every subject unless NSD drew the atlas on the subject's own surface.

    Attributes
    ----------
    n_vertices : int
        Vertices of one hemisphere.
    regions : in the order of the recipe. They may share vertices, as V4 and IT do.
    """

    n_vertices: int
    regions: tuple[LabelledRegion, ...]

    @cached_property
    def vertices(self) -> dict[int, dict[str, IntArray]]:
        """By subject and hemisphere the vertices that belong to at least one region, ascending."""
        return {
            subject: {h: np.unique(np.concatenate([r.vertices[subject][h] for r in self.regions])) for h in HEMISPHERES}
            for subject in self.regions[0].vertices
        }


def find_regions(
    recipe: Recipe,
    labels: Mapping[tuple[str, int, str], AnyArray],
    names: Mapping[str, Mapping[str, set[int]]],
    n_vertices: int,
) -> RegionMap:
    """Find the vertices of every region of a recipe. A warning says which subjects lack a region.

    Parameters
    ----------
    labels : the label of every vertex of fsaverage, by atlas, subject and hemisphere; NaN or a number below 1 outside the atlas
        The subject is 0 if the atlas is the same for all.
    names : by atlas the labels of each name, as far as the colour tables have them
    n_vertices : of one hemisphere

    Raises
    ------
    PackagingError
        If an atlas lacks a label of the recipe or the name of one, or two regions have the same name.
    """
    regions: list[LabelledRegion] = []
    for number, region in enumerate(recipe.regions, start=1):
        if region.atlas == CORTEX:
            every = {hemisphere: np.arange(n_vertices) for hemisphere in HEMISPHERES}
            regions.append(LabelledRegion(region.name, CORTEX, (), dict.fromkeys(recipe.subjects, every)))
        else:
            atlas = {(subject, h): values for (name, subject, h), values in labels.items() if name == region.atlas}
            table = names.get(region.atlas, {})
            regions += _resolve(f"{recipe}: region {number}", region, recipe.subjects, atlas, table)
    for name, n in Counter(region.name for region in regions).items():
        if n > 1:
            raise PackagingError(f"{recipe}: region {name} occurs twice, expected every region once. Rename one.")
    for found in regions:
        lacking = [subject for subject, n in found.n_vertices.items() if not n]
        if lacking:
            logger.warning("%s: region %s has no vertex in %s", recipe, found.name, subject_names(lacking))
    return RegionMap(n_vertices, tuple(found for found in regions if any(found.n_vertices.values())))


def _resolve(
    key: str,
    region: Region,
    subjects: Sequence[int],
    atlas: Mapping[tuple[int, str], AnyArray],
    names: Mapping[str, set[int]],
) -> Iterator[LabelledRegion]:
    """Yield the regions that an entry of a recipe stands for, from the labels of an atlas and their names.

    The labels are those of each subject, or those of subject 0, and thus of all, by hemisphere.
    """
    present = {int(label) for label in np.unique(np.concatenate(list(atlas.values()))) if not np.isnan(label)}
    known = present.union(*names.values())  # a label that only the colour table has must come with others
    chosen = {label: names.get(label, set()) if isinstance(label, str) else {label} for label in region.labels}
    unknown = ", ".join(repr(label) for label, numbers in chosen.items() if not numbers & known)
    # Of an atlas that was drawn for each subject, all of them may lack a region, which is then said as for one of them.
    offered = known if region.each and (0, "lh") not in atlas else present
    labels = sorted(set().union(*chosen.values()) if chosen else {label for label in offered if label > 0})
    if unknown or not (chosen or max(present, default=0) > 0):
        raise _label_error(key, region, unknown or "empty", present, names)
    parts = {region.name: labels}
    if region.each:
        parts = {name: sorted(numbers & set(labels)) for name, numbers in names.items() if numbers & set(labels)}
        counts = Counter(label for part in parts.values() for label in part)
        for label in labels:
            if counts[label] != 1:
                raise PackagingError(
                    f"{key}, each is true, but {region.atlas}.mgz.ctab has {counts[label]} names for the label {label}, expected "
                    "one. Correct that file, or write an entry for each label, with a name."
                )
    for name, part in sorted(parts.items(), key=lambda item: item[1]):
        if len(name) > LONGEST_NAME:
            raise PackagingError(
                f"{key}, each is true, but the name of the label {part[0]} has {len(name)} letters, expected at most "
                f"{LONGEST_NAME}. Write an entry for it, with a name."
            )
        members = {place: np.flatnonzero(np.isin(values, part)) for place, values in atlas.items()}
        if chosen and not any(map(len, members.values())):
            if region.atlas in NATIVE_ATLASES:
                raise PackagingError(
                    f"{key}: {name} (label {part[0]} of {region.atlas}) has no vertex in {subject_names(subjects)}. Leave it out, or choose other "
                    "subjects."
                )
            raise _label_error(key, region, f"{part[0]}, which no vertex has", present, names)
        own = {s: s if (s, "lh") in members else 0 for s in subjects}
        vertices = {s: {h: members[own[s], h] for h in HEMISPHERES} for s in subjects}
        # Identifiers of neuroids and objects do not allow other characters.
        yield LabelledRegion(re.sub(r"[^A-Za-z0-9_-]", "_", name), region.atlas, tuple(part), vertices)


def _label_error(
    key: str, region: Region, found: str, present: set[int], names: Mapping[str, set[int]]
) -> PackagingError:
    titles = {number: f"{number} ({name})" for name, numbers in names.items() for number in numbers}
    known = [titles.get(label, str(label)) for label in sorted(present) if label > 0]
    more = [f"and {len(known) - N_NAMED_LABELS} more"] if len(known) > N_NAMED_LABELS else []
    return PackagingError(
        f"{key}, labels is {found}, expected labels of vertices: {', '.join(known[:N_NAMED_LABELS] + more) or 'none'}. "
        f"Is it NSD's {region.atlas} atlas?"
    )
