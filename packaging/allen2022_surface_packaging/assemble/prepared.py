"""Prepared region assemblies: session-standardised averages that an earlier packaging left in the tree."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from ..arrays import AnyArray, FloatArray
from ..errors import PackagingError, reading
from ..facts import DEFAULT_BETAS, HEMISPHERES, stimulus_name, subject_name
from ..nsd.bucket import Bucket
from ..nsd.plan import Plan
from ..nsd.regions import LabelledRegion
from ..nsd.storage import RawFile

if TYPE_CHECKING:
    import xarray


def check_prepared(plan: Plan) -> None:
    """Check that the prepared assemblies of all regions belong to the tree.

    Raises
    ------
    PackagingError
        If one is damaged, its subjects, vertices or images disagree with the tree, or the recipe asks for
        other betas or images than those that were prepared.
    """
    if plan.recipe.betas != DEFAULT_BETAS or plan.recipe.pool != "shared":
        raise PackagingError(
            f"{plan.recipe} asks for {plan.recipe.betas} and the images of the pool {plan.recipe.pool!r}, but prepared "
            f"assemblies hold {DEFAULT_BETAS} of shared images. Build without --from-region-assemblies."
        )
    for region in plan.region_map.regions:
        file = plan.prepared_assemblies[region.name]
        if isinstance(file.storage, Bucket):
            raise PackagingError(f"{file} is in a bucket, but prepared assemblies are read from a folder. Copy it.")
        with _opened(file) as assembly:
            if assembly.dims != ("presentation", "neuroid") or assembly.dtype != np.float32:
                raise PackagingError(
                    f"{file} holds {assembly.dtype} of dimensions {assembly.dims}, expected float32 (presentation, neuroid)."
                )
            for name, expected in _list_coordinates(plan, region).items():
                if name not in assembly.coords:
                    if name == "stimulus_id":
                        continue
                    raise PackagingError(f"{file} lacks the coordinate {name}. Is it a prepared region assembly?")
                values, source = assembly[name].values, "as in the design, the labels and the recipe"
                if values.shape != expected.shape:
                    raise PackagingError(
                        f"{file} holds {values.size:,} values of {name}, expected {expected.size:,}, {source}."
                    )
                for i in np.flatnonzero(values != expected)[:1]:
                    raise PackagingError(f"{file}: {name} number {i} is {values[i]}, expected {expected[i]}, {source}.")


def read_prepared(plan: Plan, subject: int) -> dict[str, FloatArray]:
    """Read the averages of a subject: by region an array of shape (n_averaged_images, n_vertices).

    They are unitless, for the images of `Plan.averaged_images` and all vertices of the region. An infinite average counts as
    NaN.

    Raises
    ------
    PackagingError
        If a file is damaged, or was written in part.
    """
    rows = np.searchsorted(plan.fewest_repetitions.index.to_numpy(), plan.averaged_images)
    averages: dict[str, FloatArray] = {}
    for region in plan.region_map.regions if plan.from_region_assemblies else ():
        first = sum(n for other, n in region.n_vertices.items() if other < subject)
        with _opened(plan.prepared_assemblies[region.name]) as assembly:
            averages[region.name] = assembly[:, first : first + region.n_vertices[subject]].values[rows]
        averages[region.name][np.isinf(averages[region.name])] = np.nan
        is_empty = (np.nan_to_num(averages[region.name]) == 0).all(axis=1)
        for row in np.flatnonzero(is_empty)[:1] if region.n_vertices[subject] else ():
            raise PackagingError(
                f"{plan.prepared_assemblies[region.name]} has no average of image {plan.averaged_images[row]} (0-based) and "
                f"{subject_name(subject)}: all are 0 or NaN. Is it, or what it refers to, complete? Prepare it again."
            )
    return averages


def _list_coordinates(plan: Plan, region: LabelledRegion) -> dict[str, AnyArray]:
    """Return the coordinates that the prepared assembly of a region must have."""
    subjects, fewest = plan.recipe.subjects, plan.fewest_repetitions
    vertices = [region.vertices[subject][hemisphere] for subject in subjects for hemisphere in HEMISPHERES]
    sizes = list(map(len, vertices))
    return {
        "nsd_id": fewest.index.to_numpy(),
        "stimulus_id": np.array([stimulus_name(nsd_id) for nsd_id in fewest.index]),
        "min_reps_across_subjects": fewest.to_numpy(),
        "vertex_index": np.concatenate(vertices),
        "hemisphere": np.repeat(HEMISPHERES * len(subjects), sizes),
        "subject": np.repeat([subject_name(subject) for subject in subjects for _ in HEMISPHERES], sizes),
    }


@contextmanager
def _opened(file: RawFile) -> Iterator[xarray.DataArray]:
    import xarray  # here, because its import takes a second that a build from the betas does not need

    with reading(file, "an assembly", "Prepare it again."), xarray.open_dataarray(str(file)) as assembly:
        yield assembly
