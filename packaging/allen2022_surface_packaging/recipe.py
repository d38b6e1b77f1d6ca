"""Recipes: what a release is to hold, as data."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from .nsd.facts import SUBJECTS


@dataclass(frozen=True)
class Region:
    """A Brain-Score region: the labels of an NSD fsaverage atlas that make it up."""

    name: str
    atlas: str
    labels: tuple[int, ...]


PUBLISHED_REGIONS = (
    Region("V1", "Kastner2015", (1, 2)),  # V1v, V1d
    Region("V2", "Kastner2015", (3, 4)),  # V2v, V2d
    Region("V4", "Kastner2015", (7,)),  # hV4
    Region("IT", "streams", (5,)),  # ventral stream, as in the Algonauts 2023 challenge
)


@dataclass(frozen=True)
class Recipe:
    """Everything that changes a value of a release. The defaults are the published procedure.

    Attributes
    ----------
    name : of the release; letters, digits and underscores
    subjects : ascending, from 1 to 8
    regions : in the order in which a release holds them
    standardize_on : "all" or "train"
        The complete images over which the second standardisation takes its mean and deviation.
    nan_policy : "zero" or "drop"
        Fill NaN with zero, or leave out every vertex with a NaN among the trials that the release needs.
    """

    name: str
    subjects: tuple[int, ...] = SUBJECTS
    regions: tuple[Region, ...] = PUBLISHED_REGIONS
    standardize_on: str = "all"
    nan_policy: str = "zero"

    @property
    def atlases(self) -> tuple[str, ...]:
        """The atlases of the regions, without repeats."""
        return tuple(dict.fromkeys(region.atlas for region in self.regions))


@dataclass(frozen=True)
class PublishedDataset:
    """A dataset that Brain-Score knows by name, and its numbers of images as counted on NSD's design."""

    name: str
    subjects: tuple[int, ...]
    n_images: dict[str, int]  # by split


PUBLISHED_DATASETS = (
    PublishedDataset("Allen2022_fmri_surface", SUBJECTS, {"train": 412, "test": 103}),
    PublishedDataset("Allen2022_fmri_surface_4subj", (1, 2, 5, 7), {"train": 800, "test": 200}),
)
# Of one subject, counted on NSD's atlases.
N_NEUROIDS_OF_PUBLISHED_REGIONS = {"V1": 4276, "V2": 3391, "V4": 914, "IT": 19_065}


def published_dataset(name: str) -> PublishedDataset | None:
    """Return the published dataset of a name, or None if no published dataset has that name."""
    return next((dataset for dataset in PUBLISHED_DATASETS if dataset.name == name), None)


def make_recipe(
    subjects: Sequence[int] = SUBJECTS,
    *,
    name: str | None = None,
    standardize_on: str = "all",
    nan_policy: str = "zero",
) -> Recipe:
    """Make a recipe, named as Brain-Score names it where it is one of the two published choices.

    Raises
    ------
    ValueError
        If a name is needed but missing, contains other characters than letters, digits and underscores, or belongs to
        a published dataset with other content.
    """
    subjects = tuple(sorted(subjects))
    is_published_method = (standardize_on, nan_policy) == ("all", "zero")
    published = {dataset.subjects: dataset.name for dataset in PUBLISHED_DATASETS} if is_published_method else {}
    name = name or published.get(subjects)
    if name is None:
        raise ValueError(
            "A release of other subjects than 1-8 or 1, 2, 5, 7, or of another method than the published one, "
            "needs a --name."
        )
    if not re.fullmatch(r"[A-Za-z0-9_]+", name):
        raise ValueError(f"--name must be made of letters, digits and underscores, but got {name!r}.")
    if published_dataset(name) and name != published.get(subjects):
        raise ValueError(f"--name {name} belongs to another choice of subjects or method. Choose another name.")
    return Recipe(name, subjects, standardize_on=standardize_on, nan_policy=nan_policy)
