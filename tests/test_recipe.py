"""Recipes: the published ones, what a file may say, and what does not fit together."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allen2022_surface_packaging.errors import PackagingError
from allen2022_surface_packaging.recipe import (
    PUBLISHED_DATASETS,
    PublishedDataset,
    Recipe,
    Region,
    change_recipe,
    list_recipes,
    make_recipe,
    read_recipe,
    recipe_text,
)
from support import run_cli

EIGHT, FOUR = "Allen2022_fmri_surface", "Allen2022_fmri_surface_4subj"
MINE = Recipe("mine", (1, 4))
SOUND = """
name = "mine"
description = "Ventral and lateral"
subjects = [5, 1]
betas = "betas_fithrf"

[[region]]
name = "high"
atlas = "streams"
labels = ["ventral", 6]

[[region]]
atlas = "Kastner2015"
each = true

[split]
fraction = 0.5
seed = 7

[standardise]
over = "train"

[invalid]
policy = "drop"
"""
SPLIT = "[split]\nfraction = 0.5\nseed = 7"
OWN = SOUND.replace("[5, 1]", "[5]").replace(SPLIT, '[images]\npool = "own"')


@pytest.fixture
def read(tmp_path):
    """A function that reads a recipe file of some text."""

    def read(text):
        path = tmp_path / "mine.toml"
        path.write_text(text, encoding="utf-8")
        return read_recipe(str(path))

    return read


def test_defaults_are_the_published_procedure():
    recipe = Recipe("x")

    assert recipe.subjects == (1, 2, 3, 4, 5, 6, 7, 8)
    assert recipe.regions == (
        Region("V1", "Kastner2015", (1, 2)),
        Region("V2", "Kastner2015", (3, 4)),
        Region("V4", "Kastner2015", (7,)),
        Region("IT", "streams", (5,)),
    )
    assert (recipe.betas, recipe.pool) == ("betas_fithrf_GLMdenoise_RR", "shared")
    assert (recipe.train_fraction, recipe.split_seed) == (0.8, 42)
    assert (recipe.standardize_on, recipe.nan_policy) == ("all", "zero")
    assert make_recipe() == Recipe(EIGHT)


def test_published_recipes_ship_with_the_published_choices():
    for name, subjects, n_images in (
        (EIGHT, (1, 2, 3, 4, 5, 6, 7, 8), {"train": 412, "test": 103}),
        (FOUR, (1, 2, 5, 7), {"train": 800, "test": 200}),
    ):
        assert read_recipe(name) == Recipe(name, subjects)
        assert PublishedDataset(name, subjects, n_images) in PUBLISHED_DATASETS


@pytest.mark.parametrize(
    ("recipe", "changes", "expected"),
    [
        (Recipe(EIGHT), {}, Recipe(EIGHT)),
        (Recipe(EIGHT), {"subjects": (7, 1, 5, 2)}, Recipe(FOUR, (1, 2, 5, 7))),
        (Recipe(FOUR, (1, 2, 5, 7)), {"subjects": range(1, 9)}, Recipe(EIGHT)),
        (Recipe(EIGHT), {"subjects": (3,), "name": "x"}, Recipe("x", (3,))),
        (MINE, {"subjects": (2,)}, Recipe("mine", (2,))),
        (MINE, {"nan_policy": "drop"}, Recipe("mine", (1, 4), nan_policy="drop")),
    ],
)
def test_change_keeps_the_rest_and_takes_the_name_that_fits(recipe, changes, expected):
    assert change_recipe(recipe, **changes) == expected


@pytest.mark.parametrize(
    ("recipe", "changes", "message"),
    [
        (Recipe(EIGHT), {"subjects": (3,)}, r"^A release of other subjects than 1-8 .* needs a --name\.$"),
        (Recipe(EIGHT), {"standardize_on": "train"}, "needs a --name"),
        (MINE, {"name": EIGHT}, r"^The recipe cannot be changed so: name is 'Allen.*belongs to a published dataset"),
        (MINE, {"subjects": ()}, r"changed so: subjects is \[\], expected ascending numbers from 1 to 8, each once\."),
        (MINE, {"name": "a b"}, "name is 'a b', expected letters, digits and underscores"),
    ],
)
def test_change_that_does_not_fit_is_refused(recipe, changes, message):
    with pytest.raises(ValueError, match=message):
        change_recipe(recipe, **changes)


def test_recipe_is_read_with_all_its_parts(read):
    recipe = read(SOUND)

    assert recipe == Recipe(
        name="mine",
        subjects=(1, 5),
        betas="betas_fithrf",
        regions=(Region("high", "streams", ("ventral", 6)), Region("", "Kastner2015", each=True)),
        train_fraction=0.5,
        split_seed=7,
        standardize_on="train",
        nan_policy="drop",
    )
    assert recipe.description == "Ventral and lateral"
    assert str(recipe).endswith("/mine.toml (mine)")


def test_parts_that_are_left_out_are_the_published_ones(read):
    recipe = read('name = "x"\nsubjects = [1]\n[[region]]\nname = "V1"\natlas = "streams"\n[split]\n')

    assert recipe == Recipe("x", (1,), (Region("V1", "streams"),))


def test_own_images_are_standardised_over_train_unless_said_otherwise(read):
    recipe = read(OWN.replace('[standardise]\nover = "train"', ""))

    assert (recipe.pool, recipe.standardize_on) == ("own", "train")


FAULTS = {
    "unknown key": (SOUND.replace("betas =", "beta ="), "beta is unknown (did you mean betas?), expected only"),
    "unknown key of a region": (SOUND.replace("labels", "label"), "region 1, label is unknown (did you mean labels?)"),
    "unknown key of a table": (SOUND.replace("seed", "sed"), "split.sed is unknown"),
    "missing key": (SOUND.replace('name = "mine"', ""), "name is missing."),
    "missing regions": ('name = "x"\nsubjects = [1]', "region is missing."),
    "no region": ('name = "x"\nsubjects = [1]\nregion = []', "region is empty."),
    "one bracket": (SOUND.replace("[[region]]", "[region]"), "[region] is one table, expected [[region]] with two"),
    "region that is no table": ('name = "x"\nsubjects = [1]\nregion = [1]', "region 1, is 1, expected a table."),
    "missing atlas": (SOUND.replace('atlas = "streams"', ""), "region 1, atlas is missing."),
    "wrong type": (SOUND.replace("[5, 1]", '"5, 1"'), "subjects is '5, 1': Expected `array`, got `str`."),
    "value for a table": ("split = 3\n" + SOUND.replace(SPLIT, ""), "split is unknown (did you mean split.seed?), exp"),
    "wrong type of a label": (SOUND.replace("6]", "6.0]"), "labels is ['ventral', 6.0]: Expected `int | str`, got"),
    "empty labels": (SOUND.replace('["ventral", 6]', "[]"), "region 1, labels is empty."),
    "subject twice": (SOUND.replace("[5, 1]", "[5, 5]"), "subjects is [5, 5], expected ascending numbers from 1 to 8"),
    "unknown betas": (SOUND.replace("betas_fithrf", "b3"), "betas is 'b3', expected one of betas_fithrf_GLMdenoise_RR"),
    "unknown policy": (SOUND.replace('"drop"', '"keep"'), "invalid.policy is 'keep', expected one of zero, drop."),
    "fraction too large": (SOUND.replace("0.5", "1"), "split.fraction is 1.0, expected a number between 0 and 1."),
    "negative seed": (SOUND.replace("seed = 7", "seed = -1"), "split.seed is -1, expected a whole number from 0"),
    "seed too large": (SOUND.replace("seed = 7", f"seed = {2**32}"), "split.seed is 4294967296, expected a whole"),
    "region twice": (
        SOUND.replace("[[region]]\natlas", '[[region]]\nname = "high"\natlas = "a"\n[[region]]\natlas'),
        "region 1, name is 'high', expected every name once.",
    ),
    "region with each and a name": (SOUND.replace("each", 'name = "K"\neach'), "region 2, name is 'K', expected let"),
    "region without a name": (SOUND.replace('name = "high"', ""), "region 1, name is '', expected letters"),
    "name of a region": (SOUND.replace('"high"', '"a b"'), "region 1, name is 'a b', expected letters, digits"),
    "name of an atlas": (SOUND.replace('"streams"', '"../x"'), "region 1, atlas is '../x', expected the name of an"),
    "label twice": (SOUND.replace('["ventral", 6]', "[6, 6]"), "labels is [6, 6], expected every label once."),
    "labels of the cortex": (SOUND.replace('"streams"', '"cortex"'), "region 1, atlas is 'cortex', expected no labels"),
    "own images of several subjects": (OWN.replace("[5]", "[5, 1]"), "subjects is [1, 5], expected one subject"),
    "own images over all": (OWN.replace('"train"', '"all"'), "standardise.over is 'all', expected 'train', because"),
    "own images with a split": (OWN + SPLIT, "split is given, expected no such table with images.pool = 'own'"),
    "name": (SOUND.replace('"mine"', '"my recipe"'), "name is 'my recipe', expected letters, digits and underscores"),
    "long name": (SOUND.replace('"mine"', f'"{"m" * 81}"'), "mmm', expected letters, digits and underscores, at most"),
    "unknown files": ('files = "volume"\n' + SOUND, "files is 'volume', expected one of fsaverage, nativesurface."),
    "published name of native betas": (
        'files = "nativesurface"\n' + recipe_text(EIGHT)[1],
        f"name is '{EIGHT}', expected",
    ),
    "published name": (SOUND.replace("mine", EIGHT), f"name is '{EIGHT}', expected another name, because this one"),
    "not TOML": ("name = ", "is not TOML (Invalid value"),
    "deeply nested": ("x = " + "[" * 5000, "is not TOML"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_of_a_file_is_one_line(read, tmp_path, fault):
    text, message = FAULTS[fault]

    with pytest.raises(PackagingError) as raised:
        read(text)
    assert str(raised.value).startswith(str(tmp_path / "mine.toml"))
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_file_that_is_no_recipe_is_refused(tmp_path):
    with pytest.raises(
        PackagingError, match=r"^stream is neither .* that ships \(did you mean streams\?\): Allen.*streams"
    ):
        read_recipe("stream")
    (tmp_path / "x.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PackagingError, match=r"x\.toml is not text in UTF-8"):
        read_recipe(str(tmp_path / "x.toml"))


def test_recipes_are_listed_with_a_line_each():
    result = run_cli("recipes")

    assert result.returncode == 0
    assert [line.split()[0] for line in result.stdout.splitlines()] == list_recipes()
    assert "Each of the 180 areas of the HCP_MMP1 parcellation" in result.stdout
    assert run_cli("recipes", "list").stdout == result.stdout


def test_shown_recipe_can_be_saved_and_read(read):
    result = run_cli("recipes", "show", "kastner")

    assert read(result.stdout) == read_recipe("kastner")
    assert result.stdout == recipe_text("kastner")[1]


@pytest.mark.parametrize("subject", [1, 8])
def test_recipe_of_own_images_names_its_subject(subject):
    recipe = read_recipe(f"subj0{subject}_own")

    assert (recipe.name, recipe.subjects, recipe.pool) == (f"subj0{subject}_own", (subject,), "own")
    assert recipe.description.startswith(f"Subject {subject}: ")
    assert "{" not in run_cli("recipes", "show", recipe.name).stdout


def test_family_of_recipes_is_not_shown_as_one():
    result = run_cli("recipes", "show", "own")

    assert result.returncode == 1
    assert "own stands for several recipes: subj01_own, subj02_own" in result.stderr


@given(data=st.data())
def test_any_damaged_text_gives_a_recipe_or_one_line(tmp_path_factory, data):
    text = data.draw(st.sampled_from([SOUND, OWN]))
    start = data.draw(st.integers(0, len(text)))
    stop = data.draw(st.integers(start, min(len(text), start + 20)))
    inserted = data.draw(st.text(st.characters(codec="utf-8"), max_size=5))
    path = tmp_path_factory.getbasetemp() / "damaged.toml"
    path.write_text(text[:start] + inserted + text[stop:], encoding="utf-8")

    try:
        assert read_recipe(str(path)).name
    except PackagingError as error:
        assert str(error).startswith(str(path))
        assert len(str(error).splitlines()) == 1
