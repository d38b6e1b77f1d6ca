"""Which vertices belong to the regions of a recipe, and the neuroids that they become."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..arrays import AnyArray, DoubleArray, IntArray
from ..errors import PackagingError
from ..facts import HEMISPHERES
from ..recipe import CORTEX, LONGEST_NAME, Recipe, Region, is_region_name
from .files import read_label_names, read_vertices
from .storage import RawFile
from .tree import NSDTree

N_NAMED_LABELS = 12  # of an atlas, in a message
LARGEST_LABEL = 2**31 - 1  # of an int32, the largest whole numbers that an MGH file holds


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
        found = {}
        for hemisphere in HEMISPHERES:
            mask = np.zeros(self.n_vertices, dtype=bool)
            for region in self.regions:
                mask[region.vertices[hemisphere]] = True
            found[hemisphere] = np.flatnonzero(mask)
        return found

    @property
    def n_read_vertices(self) -> int:
        """The number of vertices in both hemispheres that belong to at least one region."""
        return sum(len(vertices) for vertices in self.vertices.values())

    def columns(self, region: LabelledRegion) -> IntArray:
        """Return the position of every vertex of a region, lh before rh, in `vertices` of lh followed by rh."""
        offsets = dict(zip(HEMISPHERES, (0, len(self.vertices["lh"])), strict=True))
        return np.concatenate([offsets[h] + np.searchsorted(self.vertices[h], region.vertices[h]) for h in HEMISPHERES])


def read_regions(tree: NSDTree, recipe: Recipe) -> RegionMap:
    """Read the atlases and find the vertices of every region of a recipe.

    Raises
    ------
    PackagingError
        If a label file is missing or damaged, the files disagree on the vertex count, an atlas lacks a label of the
        recipe, or two regions have the same name. The message is the first fault.
    """
    region_map, faults = find_regions(tree, recipe)
    if region_map is None:
        raise PackagingError(faults[0])
    return region_map


def find_regions(tree: NSDTree, recipe: Recipe) -> tuple[RegionMap | None, list[str]]:
    """Do what `read_regions` does, but go on after a fault.

    Returns
    -------
    the regions, or None if there is a fault; and the faults, a line each
    """
    atlases: dict[str, _Atlas] = {}
    regions: list[LabelledRegion] = []
    faults: list[str] = []
    n_vertices = 0
    for atlas in recipe.atlases:
        try:
            atlases[atlas] = _read_atlas(tree, recipe, atlas)
        except PackagingError as error:
            faults.append(str(error))
    try:
        n_vertices = _common_length(tree, recipe, atlases)
    except PackagingError as error:
        faults.append(str(error))
    for number, region in enumerate(recipe.regions, start=1):
        if region.atlas in atlases or region.atlas == CORTEX:
            try:
                regions += _resolve(f"{recipe}: region {number}", region, n_vertices, atlases.get(region.atlas))
            except PackagingError as error:
                faults.append(str(error))
    names = [region.name for region in regions]
    for name in dict.fromkeys(name for name in names if names.count(name) > 1):
        faults.append(f"{recipe}: region {name} occurs twice, expected every region once. Rename one.")
    return (None if faults else RegionMap(n_vertices, tuple(regions))), faults


@dataclass(frozen=True, eq=False)
class _Atlas:
    """An atlas: the label of every vertex by hemisphere, and the names of the labels where its colour table has them."""

    files: dict[str, RawFile]
    labels: dict[str, AnyArray]
    names: dict[int, str]

    @cached_property
    def present(self) -> list[int]:
        """The labels above 0 that at least one vertex has, ascending."""
        values = np.unique(np.concatenate(list(self.labels.values())))
        return [int(value) for value in values if value > 0]

    def find(self, label: int | str) -> int | None:
        """Return the number of a label that the colour table names or that at least one vertex has, or None."""
        if isinstance(label, str):
            return next((number for number, name in self.names.items() if name == label), None)
        is_known = label in self.names or any((values == label).any() for values in self.labels.values())
        return label if is_known else None

    def describe(self) -> str:
        """Return the labels that may be chosen, for messages."""
        known = [f"{label} ({self.names[label]})" if label in self.names else str(label) for label in self.present]
        more = [f"and {len(known) - N_NAMED_LABELS} more"] if len(known) > N_NAMED_LABELS else []
        return ", ".join(known[:N_NAMED_LABELS] + more) or "none"

    def vertices(self, labels: tuple[int, ...]) -> dict[str, IntArray]:
        """Return per hemisphere the vertices with one of some labels, ascending."""
        return {hemisphere: np.flatnonzero(np.isin(values, labels)) for hemisphere, values in self.labels.items()}


def _read_atlas(tree: NSDTree, recipe: Recipe, atlas: str) -> _Atlas:
    files = {hemisphere: tree.labels(atlas, hemisphere) for hemisphere in HEMISPHERES}
    missing = [str(file) for file in files.values() if not file.exists()]
    if missing:
        number = next(n for n, region in enumerate(recipe.regions, start=1) if region.atlas == atlas)
        raise PackagingError(
            f"{recipe}: region {number}, atlas is {atlas!r}, but {' and '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} missing. Download it ({files['lh'].official_path}) or choose another."
        )
    labels = {hemisphere: _read_labels(file) for hemisphere, file in files.items()}
    return _Atlas(files, labels, read_label_names(tree.label_names(atlas)))


def _read_labels(file: RawFile) -> AnyArray:
    """Read the label of every vertex. A vertex outside the atlas may be NaN; every other label is a whole number."""
    labels = read_vertices(file)
    is_label = np.isnan(labels) | ((labels == np.trunc(labels)) & (np.abs(labels) <= LARGEST_LABEL))
    if not is_label.all():
        vertex = int(np.flatnonzero(~is_label)[0])
        raise PackagingError(
            f"{file} holds {labels[vertex]} at vertex {vertex}, expected whole numbers, which are labels. Is it an atlas? "
            f"If so, download it again ({file.official_path})."
        )
    return labels


def _common_length(tree: NSDTree, recipe: Recipe, atlases: dict[str, _Atlas]) -> int:
    """Return the number of vertices of one hemisphere, on which all files must agree."""
    lengths = [(atlas.files[h], len(values)) for atlas in atlases.values() for h, values in atlas.labels.items()]
    if not lengths:  # the whole cortex needs no atlas
        file = tree.ncsnr(recipe.subjects[0], "lh", recipe.betas)
        lengths = [(file, len(read_vertices(file)))]
    first_file, n_vertices = lengths[0]
    for file, length in lengths:
        if length != n_vertices:
            raise PackagingError(
                f"{file} holds {length:,} vertices, but {first_file} holds {n_vertices:,}. All labels must be on fsaverage."
            )
    return n_vertices


def _resolve(key: str, region: Region, n_vertices: int, atlas: _Atlas | None) -> Iterator[LabelledRegion]:
    """Yield the regions that an entry of a recipe stands for."""
    if region.atlas == CORTEX or atlas is None:
        every = {hemisphere: np.arange(n_vertices) for hemisphere in HEMISPHERES}
        yield LabelledRegion(region.name, region.atlas, (), every)
        return
    labels = _find_labels(key, region, atlas)
    names = _name_each(key, region, atlas, labels) if region.each else {region.name: labels}
    for name, region_labels in names.items():
        resolved = LabelledRegion(name, region.atlas, region_labels, atlas.vertices(region_labels))
        if not resolved.n_vertices:
            raise _label_error(key, region, atlas, ", ".join(map(str, region_labels)))
        yield resolved


def _name_each(key: str, region: Region, atlas: _Atlas, labels: tuple[int, ...]) -> dict[str, tuple[int]]:
    """Return one region for each of some labels, by its name: that of the label, without characters that ids do not allow."""
    regions: dict[str, tuple[int]] = {}
    for label in labels:
        name = re.sub(r"[^A-Za-z0-9_-]", "_", atlas.names.get(label, f"{region.atlas}_{label}"))
        if not is_region_name(name):
            raise PackagingError(
                f"{key}, each is true, but the name of the label {label} has {len(name)} letters, expected at most {LONGEST_NAME}. "
                "Write an entry for it, with a name."
            )
        if name in regions:
            raise PackagingError(
                f"{key}, each is true, but the labels {regions[name][0]} and {label} would both be the region {name}. Write "
                "an entry for each of them, with a name."
            )
        regions[name] = (label,)
    return regions


def _find_labels(key: str, region: Region, atlas: _Atlas) -> tuple[int, ...]:
    """Return the numbers of the labels of a region, ascending; all labels above 0 if it names none."""
    numbers = {label: atlas.find(label) for label in region.labels}
    missing = [label for label, number in numbers.items() if number is None]
    if missing or not (numbers or atlas.present):
        raise _label_error(key, region, atlas, ", ".join(repr(label) for label in missing) or "empty")
    found = sorted(number for number in numbers.values() if number is not None)
    if len(set(found)) < len(found):
        raise PackagingError(f"{key}, labels is {list(region.labels)}, but two of them are one label. List it once.")
    return tuple(found) or tuple(atlas.present)


def _label_error(key: str, region: Region, atlas: _Atlas, found: str) -> PackagingError:
    return PackagingError(
        f"{key}, labels is {found}, expected labels of vertices in {atlas.files['lh']} or rh: {atlas.describe()}. "
        f"Is it NSD's {region.atlas} atlas?"
    )


def read_ncsnr(tree: NSDTree, region_map: RegionMap, subject: int, hemisphere: str, version: str) -> DoubleArray:
    """Read the noise-ceiling signal-to-noise ratio of the vertices of one hemisphere that belong to a region.

    Parameters
    ----------
    version : of the betas, whose folder holds the file

    Returns
    -------
    array of shape (n_read_vertices,)
        Unitless.

    Raises
    ------
    PackagingError
        If the file is missing, damaged, not float32 or of another vertex count than the labels.
    """
    file = tree.ncsnr(subject, hemisphere, version)
    values = read_vertices(file)
    if values.dtype != np.float32:
        raise PackagingError(f"{file} holds {values.dtype}, expected float32. Download it again.")
    if len(values) != region_map.n_vertices:
        raise PackagingError(
            f"{file} holds {len(values):,} vertices, but the labels have {region_map.n_vertices:,}. "
            "Was it downloaded from fsaverage/ and not from nativesurface/?"
        )
    return values[region_map.vertices[hemisphere]].astype(np.float64)
