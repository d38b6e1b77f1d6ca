"""Recipes as data: the published ones, what may be changed, and what does not fit together."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allen2022_surface_packaging.recipe import (
    N_NEUROIDS_OF_PUBLISHED_REGIONS,
    PUBLISHED_DATASETS,
    PUBLISHED_REGIONS,
    Recipe,
    Region,
    change_recipe,
    is_region_name,
    make_recipe,
    published_dataset,
    published_name,
    recipe_faults,
)

EIGHT, FOUR = "Allen2022_fmri_surface", "Allen2022_fmri_surface_4subj"
MINE = Recipe("mine", (1, 4))


def test_published_facts_are_those_of_brain_score():
    assert [(dataset.name, dataset.subjects, dataset.n_images) for dataset in PUBLISHED_DATASETS] == [
        (EIGHT, (1, 2, 3, 4, 5, 6, 7, 8), {"train": 412, "test": 103}),
        (FOUR, (1, 2, 5, 7), {"train": 800, "test": 200}),
    ]
    assert [(region.name, region.atlas, region.labels, region.each) for region in PUBLISHED_REGIONS] == [
        ("V1", "Kastner2015", (1, 2), False),
        ("V2", "Kastner2015", (3, 4), False),
        ("V4", "Kastner2015", (7,), False),
        ("IT", "streams", (5,), False),
    ]
    assert N_NEUROIDS_OF_PUBLISHED_REGIONS == {"V1": 4276, "V2": 3391, "V4": 914, "IT": 19_065}


def test_defaults_are_the_published_procedure():
    recipe = Recipe("x")

    assert (recipe.subjects, recipe.regions) == ((1, 2, 3, 4, 5, 6, 7, 8), PUBLISHED_REGIONS)
    assert (recipe.betas, recipe.pool) == ("betas_fithrf_GLMdenoise_RR", "shared")
    assert (recipe.train_fraction, recipe.split_seed) == (0.8, 42)
    assert (recipe.standardize_on, recipe.nan_policy) == ("all", "zero")
    assert make_recipe() == Recipe(EIGHT)


def test_description_and_source_are_no_part_of_the_content():
    other = replace(MINE, description="for people", source="/home/me/mine.toml")

    assert other == MINE
    assert "/home/me" not in repr(other)
    assert (str(MINE), str(other)) == ("recipe (mine)", "/home/me/mine.toml (mine)")


def test_atlases_are_listed_once_without_the_cortex():
    regions = (Region("a", "streams"), Region("b", "cortex"), Region("c", "Kastner2015"), Region("d", "streams"))

    assert replace(MINE, regions=regions).atlases == ("streams", "Kastner2015")


@pytest.mark.parametrize(
    ("recipe", "name"),
    [(Recipe("x"), EIGHT), (Recipe("x", (1, 2, 5, 7)), FOUR), (Recipe("x", (1, 2)), None)]
    + [
        (replace(Recipe("x"), **change), None)
        for change in ({"split_seed": 1}, {"nan_policy": "drop"}, {"regions": ()})
    ],
)
def test_content_has_its_published_name(recipe, name):
    assert published_name(recipe) == name
    assert published_dataset(EIGHT) is PUBLISHED_DATASETS[0]
    assert published_dataset("x") is None


@pytest.mark.parametrize(
    ("recipe", "changes", "expected"),
    [
        (Recipe(EIGHT), {}, Recipe(EIGHT)),
        (Recipe(EIGHT), {"subjects": (7, 1, 5, 2)}, Recipe(FOUR, (1, 2, 5, 7))),
        (Recipe(FOUR, (1, 2, 5, 7)), {"subjects": range(1, 9)}, Recipe(EIGHT)),
        (Recipe(EIGHT), {"subjects": (3,), "name": "x"}, Recipe("x", (3,))),
        (Recipe(EIGHT), {"name": "x"}, Recipe("x")),
        (MINE, {"subjects": (2,)}, Recipe("mine", (2,))),
        (MINE, {"standardize_on": "train"}, Recipe("mine", (1, 4), standardize_on="train")),
        (MINE, {"nan_policy": "drop"}, Recipe("mine", (1, 4), nan_policy="drop")),
    ],
)
def test_change_keeps_the_rest_and_takes_the_name_that_fits(recipe, changes, expected):
    assert change_recipe(recipe, **changes) == expected


def test_recipe_of_published_regions_takes_every_choice():
    recipe = make_recipe((4, 1), name="x", standardize_on="train", nan_policy="drop")

    assert recipe == Recipe("x", (1, 4), standardize_on="train", nan_policy="drop")


@pytest.mark.parametrize(
    ("recipe", "changes", "message"),
    [
        (Recipe(EIGHT), {"subjects": (3,)}, r"^A release of other subjects than 1-8 .* needs a --name\.$"),
        (Recipe(EIGHT), {"standardize_on": "train"}, "needs a --name"),
        (MINE, {"name": EIGHT}, r"^The recipe cannot be changed so: name is 'Allen.*belongs to a published dataset"),
        (MINE, {"subjects": ()}, r"changed so: subjects is \[\], expected ascending numbers from 1 to 8, each once\."),
        (MINE, {"subjects": (1, 1), "name": "a b"}, r"name is 'a b', .*; subjects is \[1, 1\]"),
    ],
)
def test_change_that_does_not_fit_is_refused(recipe, changes, message):
    with pytest.raises(ValueError, match=message):
        change_recipe(recipe, **changes)


def keys_of(recipe):
    return [key for key, _, _ in recipe_faults(recipe)]


def test_sound_recipe_has_no_fault():
    assert keys_of(MINE) == keys_of(Recipe(EIGHT)) == keys_of(Recipe(FOUR, (1, 2, 5, 7))) == []
    assert keys_of(replace(MINE, subjects=(4,), pool="own", standardize_on="train")) == []


REGION = Region("a", "streams", (1,))


@pytest.mark.parametrize(
    ("changes", "keys"),
    [
        ({"name": ""}, ["name"]),
        ({"name": "a-b"}, ["name"]),
        ({"name": "a\n"}, ["name"]),
        ({"name": EIGHT}, ["name"]),
        ({"subjects": (4, 1)}, ["subjects"]),
        ({"subjects": (1, 9)}, ["subjects"]),
        ({"subjects": (0, 1)}, ["subjects"]),
        ({"pool": "own", "standardize_on": "train"}, ["images.pool"]),
        ({"pool": "own", "subjects": (1,)}, ["standardise.over"]),
        ({"pool": "other"}, ["images.pool"]),
        ({"betas": "b3"}, ["betas"]),
        ({"standardize_on": "test"}, ["standardise.over"]),
        ({"nan_policy": "keep"}, ["invalid.policy"]),
        ({"train_fraction": 0}, ["split.fraction"]),
        ({"train_fraction": 0.0001}, []),
        ({"train_fraction": 0.9999}, []),
        ({"train_fraction": 1}, ["split.fraction"]),
        ({"split_seed": -1}, ["split.seed"]),
        ({"split_seed": 0}, []),
        ({"split_seed": 2**32 - 1}, []),
        ({"split_seed": 2**32}, ["split.seed"]),
        ({"regions": ()}, ["region"]),
        ({"regions": (REGION, replace(REGION, name=""))}, ["region 2, name"]),
        ({"regions": (replace(REGION, each=True),)}, ["region 1, name"]),
        ({"regions": (replace(REGION, each=True, name=""), replace(REGION, each=True, name=""))}, []),
        ({"regions": (replace(REGION, name="a.b"),)}, ["region 1, name"]),
        ({"regions": (REGION, REGION)}, ["region 2, name"]),
        ({"regions": (replace(REGION, atlas="../x"),)}, ["region 1, atlas"]),
        ({"regions": (replace(REGION, atlas=""),)}, ["region 1, atlas"]),
        ({"regions": (Region("a", "cortex"),)}, []),
        ({"regions": (Region("a", "cortex", (1,)),)}, ["region 1, labels"]),
        ({"regions": (Region("", "cortex", each=True),)}, ["region 1, labels"]),
        ({"regions": (Region("a", "streams", (1, 1)),)}, ["region 1, labels"]),
        ({"regions": (Region("a", "streams", (1, "1")),)}, []),
    ],
)
def test_each_part_that_does_not_fit_is_a_fault(changes, keys):
    assert keys_of(replace(MINE, **changes)) == keys


@given(st.text(max_size=6))
def test_names_of_regions_are_letters_digits_underscores_and_hyphens(name):
    allowed = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")

    assert is_region_name(name) is (bool(name) and set(name) <= allowed)


@pytest.mark.parametrize("n_letters", [80, 81])
def test_names_are_short_enough_for_the_names_of_files(n_letters):
    region = Region("b" * n_letters, "streams", (5,))
    recipe = replace(make_recipe((1,), name="a"), name="a" * n_letters, regions=(region,))

    faults = [key for key, _, _ in recipe_faults(recipe)]

    assert faults == (["name", "region 1, name"] if n_letters > 80 else [])
