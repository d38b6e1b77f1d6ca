"""The neuroids of an assembly and their coordinates, as arrays: text as fixed-width bytes, which takes little memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..arrays import AnyArray, BoolArray, DoubleArray, IntArray
from ..facts import HEMISPHERES, noise_ceiling, subject_name
from ..nsd.regions import LabelledRegion, RegionMap

N_DIGITS = 5  # of the number of a neuroid in its region, at least


@dataclass(frozen=True, eq=False)
class RegionNeuroids:
    """The neuroids of one region of one subject, which follow each other in the assembly: lh before rh.

    Attributes
    ----------
    start : the position of the first one in the assembly
    columns : the position of each vertex in `RegionMap.vertices` of lh followed by rh
    numbers : which count the vertices of the region through lh, then rh. Neuroids that are left out leave gaps.
    is_left : whether each neuroid is in lh
    """

    subject: int
    region: str
    start: int
    columns: IntArray
    numbers: IntArray
    is_left: BoolArray
    vertex_index: IntArray
    nc_testset: DoubleArray

    def __len__(self) -> int:
        return len(self.columns)

    @property
    def ids(self) -> AnyArray:
        """The `neuroid_id`, such as ``subj01_lh_V1_v00000``."""
        left, right = self.numbers[self.is_left], self.numbers[~self.is_left]
        parts = zip(HEMISPHERES, (left, right), strict=True)
        return np.concatenate(
            [_numbered(f"{subject_name(self.subject)}_{h}_{self.region}_v", numbers) for h, numbers in parts]
        )


@dataclass(frozen=True, eq=False)
class NeuroidTable:
    """All neuroids of an assembly: by region, then subject."""

    groups: tuple[RegionNeuroids, ...]

    def __len__(self) -> int:
        return sum(map(len, self.groups))

    def of_subject(self, subject: int) -> list[RegionNeuroids]:
        """Return the neuroids of one subject, region by region."""
        return [group for group in self.groups if group.subject == subject]

    def coordinates(self) -> Iterator[tuple[str, AnyArray]]:
        """Yield name and values of every neuroid coordinate, one at a time, because the whole cortex has millions."""
        yield "neuroid_id", self._collect(lambda group: group.ids)
        yield "subject", self._collect(lambda group: np.full(len(group), subject_name(group.subject).encode()))
        yield "hemisphere", self._collect(lambda group: np.where(group.is_left, b"lh", b"rh"))
        yield "vertex_index", self._collect(lambda group: group.vertex_index)
        yield "region", self._collect(lambda group: np.full(len(group), group.region.encode()))
        yield "nc_testset", self._collect(lambda group: group.nc_testset)

    def _collect(self, values_of: Callable[[RegionNeuroids], AnyArray]) -> AnyArray:
        return np.concatenate([values_of(group) for group in self.groups])


def order_neuroids(
    region_map: RegionMap, ncsnr: dict[int, DoubleArray], valid: dict[int, BoolArray] | None = None
) -> NeuroidTable:
    """Put the neuroids of all subjects in the order of the assembly: by region, subject, hemisphere and vertex.

    Parameters
    ----------
    ncsnr : arrays of shape (n_read_vertices of lh + rh,)
        Noise-ceiling signal-to-noise ratio by subject, unitless.
    valid : arrays of shape (n_read_vertices of lh + rh,), optional
        Which vertices to keep, by subject; all if None.
    """
    groups: list[RegionNeuroids] = []
    start = 0
    ceilings = {subject: noise_ceiling(values) for subject, values in ncsnr.items()}
    for members in map(_RegionMembers, region_map.regions):
        columns = region_map.columns(members.region)
        for subject in ncsnr:
            kept = np.arange(len(columns)) if valid is None else np.flatnonzero(valid[subject][columns])
            groups.append(
                RegionNeuroids(
                    subject=subject,
                    region=members.region.name,
                    start=start,
                    columns=columns[kept],
                    numbers=kept,
                    is_left=members.is_left[kept],
                    vertex_index=members.vertex_index[kept],
                    nc_testset=ceilings[subject][columns[kept]],
                )
            )
            start += len(kept)
    return NeuroidTable(tuple(groups))


@dataclass(frozen=True, eq=False)
class _RegionMembers:
    region: LabelledRegion

    @cached_property
    def vertex_index(self) -> IntArray:
        return np.concatenate([self.region.vertices[hemisphere] for hemisphere in HEMISPHERES])

    @cached_property
    def is_left(self) -> BoolArray:
        left, right = (len(self.region.vertices[hemisphere]) for hemisphere in HEMISPHERES)
        return np.repeat([True, False], [left, right])


def _numbered(prefix: str, numbers: IntArray) -> AnyArray:
    """Return the prefix followed by each number, filled up with zeros to five digits, as fixed-width bytes."""
    n_digits = max(N_DIGITS, len(str(numbers.max(initial=0))))
    encoded = prefix.encode()
    texts = np.zeros((len(numbers), len(encoded) + n_digits), dtype=np.uint8)
    texts[:, : len(encoded)] = np.frombuffer(encoded, dtype=np.uint8)
    powers = 10 ** np.arange(n_digits - 1, -1, -1)
    texts[:, len(encoded) :] = numbers[:, None] // powers % 10 + ord("0")
    ids: AnyArray = texts.view(f"S{texts.shape[1]}").ravel()
    if n_digits > N_DIGITS:  # a smaller number has no more than five digits
        short = numbers < 10 ** (n_digits - 1)
        ids[short] = _numbered(prefix, numbers[short])
    return ids
