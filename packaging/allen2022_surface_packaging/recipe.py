"""Recipes: what a release is to hold, as data, read from TOML files. Those in `recipes/` ship with this package."""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_type_hints

from .errors import PackagingError, one_line
from .facts import BETAS_VERSIONS, DEFAULT_BETAS, FSAVERAGE, NATIVE, SUBJECTS
from .files import read_file

SHIPPED_PATH = Path(__file__).with_name("recipes")
LONGEST_NAME = 80  # of a release and of a region: the name of an object holds both, and has at most 255 characters
REGION_NAME_PATTERN = rf"\A[A-Za-z0-9_-]{{1,{LONGEST_NAME}}}\Z"  # it stands in identifiers of neuroids and objects
FAMILY = "own"  # its file holds {subject}, and becomes a recipe of each subject
FAMILY_SUBJECTS = {f"subj{subject:02d}_{FAMILY}": subject for subject in SUBJECTS}
CORTEX = "cortex"  # in place of the name of an atlas: every vertex
POOLS = ("shared", "own")
STATISTICS = ("all", "train")
NAN_POLICIES = ("zero", "drop")
COPIES_POLICIES = ("keep", "drop")
FILES = (FSAVERAGE, NATIVE)
LARGEST_SEED = 2**32 - 1  # of NumPy's RandomState


@dataclass(frozen=True)
class Region:
    """A region: the labels of an atlas that make it up, on fsaverage or on each subject's own surface.

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

    @property
    def needs_names(self) -> bool:
        """Whether the colour table of the atlas is needed, which names the labels."""
        return self.each or any(isinstance(label, str) for label in self.labels)


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
    files : "fsaverage" or "nativesurface"
        Read the responses from the files on fsaverage, or from those that these were copied from, on the subject's own
        surface: about a tenth of the bytes for the published regions, rounded to 1/300 percent signal change.
    regions : in the order in which a release holds them
    pool : "shared" or "own"
        The images: those that every subject chosen saw three times, split into train and test. Or, of one subject, as
        train those that no other subject saw, and as test the shared images that it saw three times.
    train_fraction, split_seed : the share of the train images among the shared ones, and the seed of the split
    standardize_on : "all" or "train"
        The images over which the second standardisation takes its mean and deviation.
    nan_policy : "zero" or "drop"
        Fill NaN with zero, or leave out every vertex of a subject that is NaN in a trial of an image of the release, or in
        another trial of such a session. Other sessions do not count: the images, and so the subjects, decide which do.
    copies : "keep" or "drop"
        Of the vertices of a region of a subject that have the same responses, keep all, or the first.
    source : the file of the recipe, for messages; not part of a release
    """

    name: str
    subjects: tuple[int, ...] = SUBJECTS
    regions: tuple[Region, ...] = PUBLISHED_REGIONS
    standardize_on: str = "all"
    nan_policy: str = "zero"
    copies: str = "keep"
    betas: str = DEFAULT_BETAS
    files: str = FSAVERAGE
    pool: str = "shared"
    train_fraction: float = 0.8
    split_seed: int = 42
    description: str = field(default="", compare=False)
    source: str = field(default="", compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.source or 'recipe'} ({self.name})"

    @property
    def keeps_all(self) -> bool:
        """Whether no vertex of a region is left out."""
        return (self.nan_policy, self.copies) == ("zero", "keep")

    @property
    def atlases(self) -> tuple[str, ...]:
        """The atlases of the regions, without repeats and without the whole cortex."""
        return tuple(dict.fromkeys(region.atlas for region in self.regions if region.atlas != CORTEX))


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


def make_recipe(subjects: Sequence[int] = SUBJECTS, *, name: str | None = None, **method: str) -> Recipe:
    """Make a recipe of the published regions, named as Brain-Score names it if it is one of the two published choices.

    `method` may hold `standardize_on` and `nan_policy`.

    Raises
    ------
    ValueError
        As `change_recipe`.
    """
    return change_recipe(Recipe(PUBLISHED_DATASETS[0].name), subjects=subjects, name=name, **method)


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
    if name is None and published_dataset(recipe.name) and changed != recipe:
        name = published_name(changed)
        if name is None:
            raise ValueError(
                "A release of other subjects than 1-8 or 1, 2, 5, 7, or of another method than the published one, "
                "needs a --name."
            )
    changed = replace(changed, name=name or recipe.name)
    fault = find_fault(changed)
    if fault:
        raise ValueError(f"The recipe cannot be changed so: {fault}.")
    return changed


def published_name(recipe: Recipe) -> str | None:
    """Return the name under which Brain-Score publishes the content of a recipe, or None."""
    published = (Recipe(dataset.name, dataset.subjects) for dataset in PUBLISHED_DATASETS)
    return next((other.name for other in published if replace(recipe, name=other.name) == other), None)


def find_fault(recipe: Recipe) -> str | None:
    """Return the first part of a recipe that cannot be: its key, what was found and what was expected; or None."""
    for key, found, is_right, expected in _checks(recipe):
        if not is_right:
            return f"{key} is {found!r}, expected {expected}"
    return None


def _checks(recipe: Recipe) -> Iterator[tuple[str, object, bool, str]]:
    """Yield the key of every part, its value, whether it is right, and what is expected."""
    name, subjects, is_own = recipe.name, list(recipe.subjects), recipe.pool == "own"
    is_name = re.fullmatch(rf"[A-Za-z0-9_]{{1,{LONGEST_NAME}}}", name) is not None
    yield "name", name, is_name, f"letters, digits and underscores, at most {LONGEST_NAME}"
    is_ascending = bool(subjects) and subjects == sorted(set(subjects) & set(SUBJECTS))
    yield "subjects", subjects, is_ascending, "ascending numbers from 1 to 8, each once"
    for key, value, allowed in (
        ("betas", recipe.betas, BETAS_VERSIONS),
        ("files", recipe.files, FILES),
        ("images.pool", recipe.pool, POOLS),
        ("standardise.over", recipe.standardize_on, STATISTICS),
        ("invalid.policy", recipe.nan_policy, NAN_POLICIES),
        ("copies.policy", recipe.copies, COPIES_POLICIES),
    ):
        yield key, value, value in allowed, f"one of {', '.join(allowed)}"
    yield "subjects", subjects, not is_own or len(subjects) == 1, "one subject, because images.pool is 'own'"
    is_leak_free = not is_own or recipe.standardize_on == "train"
    yield "standardise.over", recipe.standardize_on, is_leak_free, "'train', because images.pool is 'own'"
    fraction, seed = recipe.train_fraction, recipe.split_seed
    yield "split.fraction", fraction, 0 < fraction < 1, "a number between 0 and 1"
    yield "split.seed", seed, 0 <= seed <= LARGEST_SEED, f"a whole number from 0 to {LARGEST_SEED}"
    yield "region", "missing", bool(recipe.regions), "one [[region]] or more"
    names = [region.name for region in recipe.regions]
    for number, region in enumerate(recipe.regions, start=1):
        key, labels = f"region {number}", list(region.labels)
        is_named = not region.name if region.each else re.search(REGION_NAME_PATTERN, region.name) is not None
        expected = f"letters, digits, underscores and hyphens, at most {LONGEST_NAME}; with each = true no name"
        yield f"{key}, name", region.name, is_named, expected
        yield f"{key}, name", region.name, region.each or names.count(region.name) == 1, "every name once"
        is_atlas = re.fullmatch(r"[A-Za-z0-9_.-]+", region.atlas) is not None
        yield f"{key}, atlas", region.atlas, is_atlas, "the name of an atlas, such as Kastner2015, or cortex"
        is_whole = region.atlas != CORTEX or not (labels or region.each)
        yield f"{key}, atlas", region.atlas, is_whole, "no labels and no each with the whole cortex"
        yield f"{key}, labels", labels, len(set(labels)) == len(labels), "every label once"
    is_published = published_dataset(name) is None or name == published_name(recipe)
    yield "name", name, is_published, "another name, because this one belongs to a published dataset of other content"


# The keys of a recipe file, and the attributes that they fill
RECIPE_KEYS = {
    "name": "name",
    "description": "description",
    "subjects": "subjects",
    "betas": "betas",
    "files": "files",
    "region": "regions",
    "images.pool": "pool",
    "split.fraction": "train_fraction",
    "split.seed": "split_seed",
    "standardise.over": "standardize_on",
    "invalid.policy": "nan_policy",
    "copies.policy": "copies",
}
TABLES = ("images", "split", "standardise", "invalid", "copies")
REGION_KEYS = {key: key for key in ("name", "atlas", "labels", "each")}


def list_recipes() -> list[str]:
    """Return the names of the recipes that ship with this package, sorted."""
    return sorted({path.stem for path in SHIPPED_PATH.glob("[!.]*.toml")} - {FAMILY} | set(FAMILY_SUBJECTS))


def expand_families(names: Sequence[str]) -> list[str]:
    """Return names of recipes with the recipes of all subjects in place of the name of their family."""
    return [member for name in names for member in (FAMILY_SUBJECTS if name == FAMILY else [name])]


def recipe_text(name_or_path: str) -> tuple[str, str]:
    """Return the file of a recipe and its text: one that ships, by its name, or a TOML file.

    Raises
    ------
    PackagingError
        If there is neither, or the file is not text.
    """
    if name_or_path == FAMILY:
        raise PackagingError(
            f"{FAMILY} stands for several recipes: {', '.join(FAMILY_SUBJECTS)}. Name one of them here."
        )
    is_shipped, subject = name_or_path in list_recipes(), FAMILY_SUBJECTS.get(name_or_path)
    path = SHIPPED_PATH / f"{FAMILY if subject else name_or_path}.toml" if is_shipped else Path(name_or_path)
    if not path.is_file():
        names = list(list_recipes())
        raise PackagingError(
            f"{name_or_path} is neither a recipe file nor the name of a recipe that ships{_meant(name_or_path, names)}: "
            f"{', '.join(names)}."
        )
    try:
        text = read_file(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PackagingError(f"{path} is not text in UTF-8 ({one_line(error)}). Expected a recipe in TOML.") from error
    source = f"{name_or_path}.toml" if is_shipped else str(path)
    return source, text.replace("{subject}", str(subject)) if subject else text


def format_recipe(recipe: Recipe) -> str:
    """Write a recipe as the text of a recipe file, from which `read_recipe` gives it again."""
    tables: dict[str, dict[str, object]] = {}
    for key, attribute in RECIPE_KEYS.items():
        table, _, name = key.rpartition(".")
        if key != "region" and (table != "split" or recipe.pool == "shared"):
            tables.setdefault(f"[{table}]" if table else "", {})[name] = getattr(recipe, attribute)
    parts = [*tables.items(), *(("[[region]]", vars(region)) for region in recipe.regions)]
    texts = []
    for heading, values in parts:  # JSON writes texts, numbers and lists as TOML does
        given = {name: value for name, value in values.items() if value not in ("", ()) and value is not False}
        lines = [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in given.items()]
        texts.append("\n".join([heading, *lines]).strip())
    return "\n\n".join(texts) + "\n"


def _meant(word: str, known: Iterable[str]) -> str:
    """Ask for the known word that is nearest to one; an empty text if none is near."""
    return "".join(f" (did you mean {close}?)" for close in difflib.get_close_matches(word, list(known), n=1))


def read_recipe(name_or_path: str) -> Recipe:
    """Read a recipe: one that ships, by its name, or a TOML file.

    Raises
    ------
    PackagingError
        If there is no such recipe, or it has a fault: the key, what was found and what was expected.
    """
    source, text = recipe_text(name_or_path)
    if re.search(r"^\s*\[region\]", text, re.MULTILINE):
        raise PackagingError(f"{source}: [region] is one table, expected [[region]] with two brackets for each region.")
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # a ValueError also for a number of thousands of digits
        raise PackagingError(
            f"{source} is not TOML ({one_line(error)}). Expected a recipe, such as `recipes show` prints."
        ) from error
    try:
        recipe = replace(_read_document(document), source=source)
        fault = find_fault(recipe)
        if fault:
            raise ValueError(fault)
    except ValueError as error:
        raise PackagingError(f"{source}: {one_line(error)}. See `recipes show NAME` for one that works.") from error
    return recipe


def _read_document(document: Mapping[str, Any]) -> Recipe:
    """Read a recipe file. Raise a `ValueError` for a key that is unknown, missing, or of another type."""
    values: dict[str, object] = {}
    for key, value in document.items():
        is_table = key in TABLES and isinstance(value, dict)
        values |= {f"{key}.{name}": inner for name, inner in value.items()} if is_table else {key: value}
    if isinstance(values.get("region"), list):
        values["region"] = [
            Region(**{"name": ""} | _read_table(f"region {number}, ", table, Region, REGION_KEYS, required=("atlas",)))
            for number, table in enumerate(document["region"], start=1)
        ]
    if values.get("images.pool") == "own":
        values.setdefault("standardise.over", "train")
        if "split" in document:
            raise ValueError("split is given, expected no such table with images.pool = 'own'")
    recipe = Recipe(**_read_table("", values, Recipe, RECIPE_KEYS, required=("name", "subjects", "region")))
    return replace(recipe, subjects=tuple(sorted(recipe.subjects)))


def _read_table(
    title: str, table: object, record: type, keys: Mapping[str, str], *, required: Sequence[str]
) -> dict[str, Any]:
    """Return the attributes of a record that a table gives. `keys` has the attribute of each key."""
    if not isinstance(table, dict):
        raise ValueError(f"{title}is {table!r}, expected a table")
    import msgspec  # not by `doctor`, which runs where packages are missing

    types, attributes = get_type_hints(record), {}
    for key, value in table.items():
        if key not in keys:
            raise ValueError(f"{title}{key} is unknown{_meant(key, keys)}, expected only {', '.join(keys)}")
        if value == []:
            raise ValueError(f"{title}{key} is empty. Leave it out, or name one")
        try:
            attributes[keys[key]] = msgspec.convert(value, types[keys[key]])
        except msgspec.ValidationError as error:
            raise ValueError(f"{title}{key} is {value!r}: {str(error).partition(' - at ')[0]}") from error
    for key in required:
        if key not in table:
            raise ValueError(f"{title}{key} is missing")
    return attributes
