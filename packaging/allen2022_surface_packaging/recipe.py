"""Recipes: what a release is to hold, as data. `recipe_file` reads them from TOML."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from .facts import BETAS_VERSIONS, DEFAULT_BETAS, SUBJECTS, subject_name

LONGEST_NAME = 80  # of a release and of a region: the name of an object holds both, and has at most 255 characters
CORTEX = "cortex"  # in place of the name of an atlas: every vertex
POOLS = ("shared", "own")
STATISTICS = ("all", "train")
NAN_POLICIES = ("zero", "drop")
TRAIN_FRACTION = 0.8
SPLIT_SEED = 42
LARGEST_SEED = 2**32 - 1  # of NumPy's RandomState


@dataclass(frozen=True)
class Region:
    """A region: the labels of an atlas on fsaverage that make it up.

    Attributes
    ----------
    name : empty if `each`
    atlas : such as "Kastner2015", for the files ``lh.Kastner2015.mgz`` and ``rh.Kastner2015.mgz``; "cortex" for every vertex
    labels : numbers, or names from the colour table of the atlas; empty for all labels above 0
    each : whether every label becomes a region with the name of the label
    """

    name: str
    atlas: str
    labels: tuple[int | str, ...] = ()
    each: bool = False


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
    description : a line for people; not part of a release
    subjects : ascending, from 1 to 8
    betas : the version of the single-trial responses, as NSD names it
    regions : in the order in which a release holds them
    pool : "shared" or "own"
        The images: those that every subject chosen saw three times, split into train and test. Or, of one subject, as
        train those that no other subject saw, and as test the shared images that it saw three times.
    train_fraction, split_seed : the share of the train images among the shared ones, and the seed of the split
    standardize_on : "all" or "train"
        The images over which the second standardisation takes its mean and deviation.
    nan_policy : "zero" or "drop"
        Fill NaN with zero, or leave out every vertex with a NaN among the trials that the release needs.
    source : the file of the recipe, for messages; not part of a release
    """

    name: str
    subjects: tuple[int, ...] = SUBJECTS
    regions: tuple[Region, ...] = PUBLISHED_REGIONS
    standardize_on: str = "all"
    nan_policy: str = "zero"
    betas: str = DEFAULT_BETAS
    pool: str = "shared"
    train_fraction: float = TRAIN_FRACTION
    split_seed: int = SPLIT_SEED
    description: str = field(default="", compare=False)
    source: str = field(default="", compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.source or 'recipe'} ({self.name})"

    @property
    def atlases(self) -> tuple[str, ...]:
        """The atlases of the regions, without repeats and without the whole cortex."""
        return tuple(dict.fromkeys(region.atlas for region in self.regions if region.atlas != CORTEX))

    @property
    def atlases_with_names(self) -> tuple[str, ...]:
        """The atlases whose colour tables the recipe relies on, without repeats."""
        named = [r.atlas for r in self.regions if r.each or any(isinstance(label, str) for label in r.labels)]
        return tuple(dict.fromkeys(named))


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
    """Make a recipe of the published regions, named as Brain-Score names it if it is one of the two published choices.

    Raises
    ------
    ValueError
        As `change_recipe`.
    """
    published = Recipe(PUBLISHED_DATASETS[0].name)
    return change_recipe(published, subjects=subjects, name=name, standardize_on=standardize_on, nan_policy=nan_policy)


def change_recipe(
    recipe: Recipe,
    *,
    subjects: Sequence[int] | None = None,
    name: str | None = None,
    standardize_on: str | None = None,
    nan_policy: str | None = None,
) -> Recipe:
    """Change parts of a recipe. What is None stays.

    Without a new name a changed recipe keeps its name, unless that is the name of a published dataset: then it takes the
    published name that belongs to the new content.

    Raises
    ------
    ValueError
        If a name is needed but missing, contains other characters than letters, digits and underscores, or belongs to
        a published dataset with other content; or if the parts do not fit together.
    """
    changed = replace(
        recipe,
        subjects=recipe.subjects if subjects is None else tuple(sorted(subjects)),
        standardize_on=standardize_on or recipe.standardize_on,
        nan_policy=nan_policy or recipe.nan_policy,
    )
    if name is None and published_dataset(recipe.name) and content_of(changed) != content_of(recipe):
        name = published_name(changed)
        if name is None:
            raise ValueError(
                "A release of other subjects than 1-8 or 1, 2, 5, 7, or of another method than the published one, "
                "needs a --name."
            )
    changed = replace(changed, name=name or recipe.name)
    faults = [f"{key} is {value}, expected {expected}" for key, value, expected in recipe_faults(changed)]
    if faults:
        raise ValueError(f"The recipe cannot be changed so: {'; '.join(faults)}.")
    return changed


def content_of(recipe: Recipe) -> Recipe:
    """Return a recipe without its name, which changes no value."""
    return replace(recipe, name="")


def published_name(recipe: Recipe) -> str | None:
    """Return the name under which Brain-Score publishes the content of a recipe, or None."""
    content = content_of(recipe)
    names = (d.name for d in PUBLISHED_DATASETS if content == content_of(Recipe(d.name, d.subjects)))
    return next(names, None)


def recipe_faults(recipe: Recipe) -> Iterator[tuple[str, str, str]]:
    """Yield the key, what was found and what was expected for every fault that a recipe shows without an NSD tree."""
    if not re.fullmatch(r"[A-Za-z0-9_]+", recipe.name):
        yield "name", repr(recipe.name), "letters, digits and underscores"
    elif len(recipe.name) > LONGEST_NAME:
        yield "name", f"of {len(recipe.name)} letters", f"at most {LONGEST_NAME}, because names of files hold it"
    elif published_dataset(recipe.name) and recipe.name != published_name(recipe):
        yield (
            "name",
            repr(recipe.name),
            "another name, because this one belongs to a published dataset of other content",
        )
    yield from _subject_faults(recipe)
    yield from _choice_faults(recipe)
    yield from _region_faults(recipe)


def _subject_faults(recipe: Recipe) -> Iterator[tuple[str, str, str]]:
    subjects = recipe.subjects
    if not subjects or list(subjects) != sorted(set(subjects)) or not set(subjects) <= set(SUBJECTS):
        yield "subjects", str(list(subjects)), "ascending numbers from 1 to 8, each once"
    elif recipe.pool == "own" and len(subjects) != 1:
        names = ", ".join(subject_name(subject) for subject in subjects)
        yield "images.pool", f"'own' for {names}", "one subject, because no two subjects have own images in common"


def _choice_faults(recipe: Recipe) -> Iterator[tuple[str, str, str]]:
    choices = {
        "betas": (recipe.betas, BETAS_VERSIONS),
        "images.pool": (recipe.pool, POOLS),
        "standardise.over": (recipe.standardize_on, STATISTICS),
        "invalid.policy": (recipe.nan_policy, NAN_POLICIES),
    }
    for key, (value, allowed) in choices.items():
        if value not in allowed:
            yield key, repr(value), f"one of {', '.join(allowed)}"
    if recipe.pool == "own" and recipe.standardize_on == "all":
        yield "standardise.over", "'all'", "'train', because no test image of the pool 'own' may enter the statistics"
    if not 0 < recipe.train_fraction < 1:
        yield "split.fraction", str(recipe.train_fraction), "a number between 0 and 1"
    if not 0 <= recipe.split_seed <= LARGEST_SEED:
        yield "split.seed", str(recipe.split_seed), f"a whole number from 0 to {LARGEST_SEED}"


def _region_faults(recipe: Recipe) -> Iterator[tuple[str, str, str]]:
    if not recipe.regions:
        yield "region", "none", "one [[region]] or more"
    seen: set[str] = set()
    for number, region in enumerate(recipe.regions, start=1):
        key = f"region {number}"
        if region.each == bool(region.name):
            found = f"{region.name!r} with each = {str(region.each).lower()}"
            yield f"{key}, name", found, "a name, or each = true, which takes the names of the labels"
        elif region.name and not is_region_name(region.name):
            yield f"{key}, name", repr(region.name), f"letters, digits, underscores and hyphens, at most {LONGEST_NAME}"
        if region.name and region.name in seen:
            yield f"{key}, name", f"{region.name!r} again", "every region once"
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", region.atlas):
            yield f"{key}, atlas", repr(region.atlas), "the name of an atlas, such as Kastner2015, or cortex"
        if region.atlas == CORTEX and (region.labels or region.each):
            yield f"{key}, labels", "labels of the whole cortex", "no labels and no each"
        if len(set(region.labels)) != len(region.labels):
            yield f"{key}, labels", str(list(region.labels)), "every label once"
        seen.add(region.name)


def is_region_name(name: str) -> bool:
    """Return whether a name can stand in identifiers of neuroids and objects."""
    return re.fullmatch(r"[A-Za-z0-9_-]+", name) is not None and len(name) <= LONGEST_NAME
