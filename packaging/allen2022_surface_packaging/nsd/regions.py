"""Which vertices belong to the regions of a recipe, and the neuroids that they become."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..arrays import AnyArray, IntArray
from ..errors import PackagingError
from ..facts import HEMISPHERES
from ..recipe import CORTEX, LONGEST_NAME, Recipe, Region

N_NAMED_LABELS = 12  # of an atlas, in a message


@dataclass(frozen=True, eq=False)
class LabelledRegion:
    """A region of a release, whose labels are numbers that the atlas has.

    Attributes
    ----------
    labels : ascending; empty for the whole cortex
    vertices : per hemisphere the vertices of the region, ascending
    """

    name: str
    atlas: str
    labels: tuple[int, ...]
    vertices: dict[str, IntArray]

    @property
    def n_vertices(self) -> int:
        """The number of vertices in both hemispheres."""
        return sum(len(vertices) for vertices in self.vertices.values())


@dataclass(frozen=True, eq=False)
class RegionMap:
    """The regions on fsaverage, the same for every subject.

    Attributes
    ----------
    n_vertices : int
        Vertices of one hemisphere.
    regions : in the order of the recipe. They may share vertices, as V4 and IT do.
    """

    n_vertices: int
    regions: tuple[LabelledRegion, ...]

    @cached_property
    def vertices(self) -> dict[str, IntArray]:
        """Per hemisphere the vertices that belong to at least one region, ascending."""
        return {h: np.unique(np.concatenate([region.vertices[h] for region in self.regions])) for h in HEMISPHERES}


def find_regions(
    recipe: Recipe,
    labels: Mapping[tuple[str, str], AnyArray],
    names: Mapping[str, Mapping[str, set[int]]],
    n_vertices: int,
) -> RegionMap:
    """Find the vertices of every region of a recipe.

    Parameters
    ----------
    labels : the label of every vertex, by atlas and hemisphere; NaN or a number below 1 outside the atlas
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
            regions.append(LabelledRegion(region.name, CORTEX, (), every))
        else:
            atlas = {hemisphere: labels[region.atlas, hemisphere] for hemisphere in HEMISPHERES}
            regions += _resolve(f"{recipe}: region {number}", region, atlas, names.get(region.atlas, {}))
    for name, n in Counter(region.name for region in regions).items():
        if n > 1:
            raise PackagingError(f"{recipe}: region {name} occurs twice, expected every region once. Rename one.")
    return RegionMap(n_vertices, tuple(regions))


def _resolve(
    key: str, region: Region, atlas: Mapping[str, AnyArray], names: Mapping[str, set[int]]
) -> Iterator[LabelledRegion]:
    """Yield the regions that an entry of a recipe stands for, from the labels of an atlas by hemisphere and their names."""
    present = {int(label) for label in np.unique(np.concatenate(list(atlas.values()))) if not np.isnan(label)}
    known = present.union(*names.values())  # a label that only the colour table has must come with others
    chosen = {label: names.get(label, set()) if isinstance(label, str) else {label} for label in region.labels}
    unknown = ", ".join(repr(label) for label, numbers in chosen.items() if not numbers & known)
    labels = sorted(set().union(*chosen.values()) if chosen else {label for label in present if label > 0})
    if unknown or not labels:
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
        vertices = {hemisphere: np.flatnonzero(np.isin(values, part)) for hemisphere, values in atlas.items()}
        if not any(map(len, vertices.values())):
            raise _label_error(key, region, f"{part[0]}, which no vertex has", present, names)
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
