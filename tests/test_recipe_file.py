"""Recipe files: every fault is one line with the file, the key, what was found and what was expected."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allen2022_surface_packaging.errors import PackagingError
from allen2022_surface_packaging.recipe import PUBLISHED_DATASETS, Recipe, Region, change_recipe, make_recipe
from allen2022_surface_packaging.recipe_file import list_recipes, parse_recipe, read_recipe, recipe_text
from support import run_cli

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
OWN = SOUND.replace("[5, 1]", "[5]").replace("[split]\nfraction = 0.5\nseed = 7", '[images]\npool = "own"')


def test_recipe_is_read_with_all_its_parts():
    recipe, faults = parse_recipe("mine.toml", SOUND)

    assert faults == []
    assert recipe == Recipe(
        name="mine",
        description="Ventral and lateral",
        subjects=(1, 5),
        betas="betas_fithrf",
        regions=(Region("high", "streams", ("ventral", 6)), Region("", "Kastner2015", each=True)),
        train_fraction=0.5,
        split_seed=7,
        standardize_on="train",
        nan_policy="drop",
    )


def test_parts_that_are_left_out_are_the_published_ones():
    recipe, _ = parse_recipe("x", 'name = "x"\nsubjects = [1]\n[[region]]\nname = "V1"\natlas = "streams"')

    assert recipe == Recipe("x", (1,), (Region("V1", "streams"),))


def test_own_images_are_standardised_over_train_unless_said_otherwise():
    recipe, faults = parse_recipe("x", OWN.replace('[standardise]\nover = "train"', ""))

    assert faults == []
    assert (recipe.pool, recipe.standardize_on) == ("own", "train")


FAULTS = {
    "unknown key": (SOUND.replace("betas =", "beta ="), "mine.toml: beta is unknown, expected only name, desc"),
    "unknown key of a region": (
        SOUND.replace('atlas = "streams"', 'atlas = "streams"\nlabel = 5'),
        "mine.toml: region 1, label is unknown, expected only each, name, atlas, labels.",
    ),
    "unknown key of a table": (SOUND.replace("seed", "sed"), "mine.toml: split.sed is unknown"),
    "unknown table": (SOUND + "[extra]", "mine.toml: extra is unknown"),
    "missing key": (SOUND.replace('name = "mine"', ""), "mine.toml: name is missing, expected a text."),
    "missing regions": ('name = "x"\nsubjects = [1]', "region is missing, expected tables"),
    "no region": ('name = "x"\nsubjects = [1]\nregion = []', "region is none, expected one [[region]] or more"),
    "missing atlas": (SOUND.replace('atlas = "streams"', ""), "region 1, atlas is missing, expected a text."),
    "wrong type": (SOUND.replace("[5, 1]", '"5, 1"'), "subjects is '5, 1', expected a list of whole numbers."),
    "true for a number": (SOUND.replace("[5, 1]", "[true]"), "subjects is [True], expected a list of whole numbers."),
    "table as a value": (
        "split = 3\n" + SOUND.replace("[split]\nfraction = 0.5\nseed = 7", ""),
        "split is 3, expected a table.",
    ),
    "wrong type of labels": (SOUND.replace('["ventral", 6]', "5"), "region 1, labels is 5, expected a list of"),
    "empty labels": (SOUND.replace('["ventral", 6]', "[]"), "region 1, labels is [], expected a list of"),
    "subject twice": (SOUND.replace("[5, 1]", "[5, 5]"), "subjects is [5, 5], expected ascending numbers from 1 to 8"),
    "unknown subject": (
        SOUND.replace("[5, 1]", "[0, 9]"),
        "subjects is [0, 9], expected ascending numbers from 1 to 8",
    ),
    "no subject": (SOUND.replace("[5, 1]", "[]"), "subjects is [], expected ascending numbers"),
    "unknown betas": (SOUND.replace("betas_fithrf", "b3"), "betas is 'b3', expected one of betas_fithrf_GLMdenoise_RR"),
    "unknown pool": (OWN.replace('"own"', '"all"'), "images.pool is 'all', expected one of shared, own."),
    "unknown statistics": (
        SOUND.replace('over = "train"', 'over = "test"'),
        "standardise.over is 'test', expected one of",
    ),
    "unknown policy": (SOUND.replace('"drop"', '"keep"'), "invalid.policy is 'keep', expected one of zero, drop."),
    "impossible fraction": (SOUND.replace("0.5", "1"), "split.fraction is 1, expected a number between 0 and 1."),
    "fraction that is no number": (SOUND.replace("0.5", "nan"), "split.fraction is nan, expected a number between"),
    "negative seed": (SOUND.replace("seed = 7", "seed = -1"), "split.seed is -1, expected a whole number from 0"),
    "region twice": (
        SOUND.replace("[[region]]\natlas", '[[region]]\nname = "high"\natlas = "a"\n[[region]]\natlas'),
        "region 2, name is 'high' again, expected every region once.",
    ),
    "region with each and a name": (
        SOUND.replace("each = true", 'each = true\nname = "K"'),
        "region 2, name is 'K' with each = true, expected a name, or each = true",
    ),
    "region without a name": (SOUND.replace('name = "high"', ""), "region 1, name is missing, expected a text."),
    "name of a region": (SOUND.replace('"high"', '"a b"'), "region 1, name is 'a b', expected letters, digits"),
    "name of an atlas": (
        SOUND.replace('"streams"', '"../x"'),
        "region 1, atlas is '../x', expected the name of an atlas",
    ),
    "label twice": (
        SOUND.replace('["ventral", 6]', "[6, 6]"),
        "region 1, labels is [6, 6], expected every label once.",
    ),
    "labels of the cortex": (SOUND.replace('"streams"', '"cortex"'), "region 1, labels is labels of the whole cortex"),
    "own images of several subjects": (
        OWN.replace("[5]", "[5, 1]"),
        "images.pool is 'own' for subj01, subj05, expected one subject",
    ),
    "own images standardised over all": (
        OWN.replace('over = "train"', 'over = "all"'),
        "standardise.over is 'all', exp",
    ),
    "own images with a split": (OWN + "[split]\nseed = 1", "split is given, expected no such table with images.pool"),
    "name": (SOUND.replace('"mine"', '"my recipe"'), "name is 'my recipe', expected letters, digits and underscores."),
    "published name": (
        SOUND.replace('"mine"', '"Allen2022_fmri_surface"'),
        "name is 'Allen2022_fmri_surface', expected another name, because this one belongs to a published dataset",
    ),
    "unknown key of two lines": ('"a\\nb" = 1\n' + SOUND, "mine.toml: 'a\\nb' is unknown, expected only name, desc"),
    "number of too many digits": (SOUND.replace("7", "9" * 5000), "mine.toml is not TOML (Exceeds the limit"),
    "number beyond 64 bits": (SOUND.replace("7", "9" * 20), "split.seed is 99999999999999999999, expected a whole"),
    "number below 64 bits": (
        SOUND.replace('["ventral", 6]', f"[{-(2**63) - 1}]"),
        "region 1, labels is [-9223372036854775809], expected a list of whole numbers",
    ),
    "hexadecimal number of too many digits": (
        SOUND.replace("[5, 1]", f"[5, 0x{'f' * 5000}]"),
        "mine.toml: subjects is too long a number, expected a list of whole numbers.",
    ),
    "not TOML": ("name = ", "mine.toml is not TOML"),
    "deeply nested": ("x = " + "[" * 5000, "mine.toml is not TOML"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_one_line(fault):
    text, message = FAULTS[fault]
    recipe, faults = parse_recipe("mine.toml", text)

    assert recipe is None
    assert len(faults) == 1
    assert message in faults[0]
    assert faults[0].startswith("mine.toml")
    assert "\n" not in faults[0]


def test_every_fault_is_found_at_once():
    text = SOUND.replace('name = "mine"', "").replace("0.5", '"half"').replace("seed", "sed")
    _, faults = parse_recipe("mine.toml", text)

    assert [fault.split(" is ")[0] for fault in faults] == [
        "mine.toml: name",
        "mine.toml: split.fraction",
        "mine.toml: split.sed",
    ]


def test_wrong_type_does_not_hide_faults_of_other_keys():
    text = """
        name = "my recipe"
        subjects = [1, 2]
        betas = 7
        [[region]]
        name = "V1"
        labels = [1, 1]
        [[region]]
        name = "V1"
        atlas = "streams"
        each = 1
        [images]
        pool = "own"
    """
    _, faults = parse_recipe("mine.toml", text)

    assert [fault.split(" is ")[0].removeprefix("mine.toml: ") for fault in faults] == [
        *("betas", "region 1, atlas", "region 2, each", "name", "images.pool"),
        *("region 1, labels", "region 2, name"),
    ]


def test_published_name_is_judged_only_when_every_part_is_known():
    text = recipe_text("Allen2022_fmri_surface")[1].replace('betas = "betas_fithrf_GLMdenoise_RR"', "betas = 7")
    _, faults = parse_recipe("mine.toml", text)

    assert faults == ["mine.toml: betas is 7, expected a text."]


@pytest.mark.parametrize("dataset", PUBLISHED_DATASETS, ids=lambda dataset: dataset.name)
def test_published_recipes_ship_with_the_published_choices(dataset):
    assert read_recipe(dataset.name) == Recipe(
        dataset.name, dataset.subjects, description=read_recipe(dataset.name).description
    )


def test_change_of_subjects_takes_the_published_name_that_fits():
    recipe = change_recipe(read_recipe("Allen2022_fmri_surface"), subjects=(7, 5, 2, 1))

    assert recipe.name == "Allen2022_fmri_surface_4subj"


def test_changed_recipe_of_another_name_keeps_it():
    recipe = change_recipe(read_recipe("streams"), subjects=(3,), nan_policy="drop")

    assert (recipe.name, recipe.subjects, recipe.nan_policy) == ("streams", (3,), "drop")


def test_changed_recipe_never_keeps_a_published_name():
    with pytest.raises(ValueError, match="needs a --name"):
        change_recipe(make_recipe(), nan_policy="drop")
    with pytest.raises(ValueError, match="belongs to a published dataset"):
        change_recipe(read_recipe("streams"), name="Allen2022_fmri_surface")


def test_file_that_is_not_text_is_refused(tmp_path):
    (tmp_path / "x.toml").write_bytes(b"\xff\xfe\x00")

    with pytest.raises(PackagingError, match="x.toml is not text in UTF-8"):
        read_recipe(str(tmp_path / "x.toml"))


def test_message_is_the_first_fault_and_says_how_many_there_are(tmp_path):
    path = tmp_path / "x.toml"
    path.write_text(SOUND.replace("seed", "sed"))
    with pytest.raises(PackagingError, match=r"split\.sed is unknown, expected only fraction, seed\.$"):
        read_recipe(str(path))

    path.write_text(SOUND.replace('name = "mine"', "").replace("seed", "sed"))
    with pytest.raises(PackagingError, match=r"name is missing.* \(2 faults in all: `recipes check` lists them\.\)$"):
        read_recipe(str(path))


def test_unknown_recipe_is_refused_with_those_that_ship():
    with pytest.raises(PackagingError, match="nor the name of a recipe that ships: Allen2022_fmri_surface, .*streams"):
        read_recipe("stream")


def test_recipes_are_listed_with_a_line_each():
    result = run_cli("recipes")

    assert result.returncode == 0
    assert [line.split()[0] for line in result.stdout.splitlines()] == list_recipes()
    assert "Each of the 180 areas of the HCP_MMP1 parcellation" in result.stdout
    assert run_cli("recipes", "list").stdout == result.stdout


def test_shown_recipe_can_be_saved_and_read(tmp_path):
    result = run_cli("recipes", "show", "kastner")

    (tmp_path / "copy.toml").write_text(result.stdout)
    assert read_recipe(str(tmp_path / "copy.toml")) == read_recipe("kastner")
    assert result.stdout == recipe_text("kastner")[1]


def test_faults_of_a_file_are_listed_by_the_command(tmp_path):
    (tmp_path / "x.toml").write_text(SOUND.replace('name = "mine"', "").replace("seed", "sed"))

    result = run_cli("recipes", "check", tmp_path / "x.toml")

    assert result.returncode == 1
    assert result.stdout.count("problem: ") == 2
    assert f"{tmp_path / 'x.toml'}: split.sed is unknown" in result.stdout
    assert run_cli("recipes", "check", "kastner").stdout == "no problems found\n"


NAMES = st.from_regex(r"[A-Za-z0-9_-]{1,8}", fullmatch=True)
LABELS = st.one_of(st.integers(-3, 200), st.text(max_size=5))


@st.composite
def regions(draw, name):
    atlas = draw(st.sampled_from(["Kastner2015", "streams", "a.b-c_1", "cortex"]))
    if atlas == "cortex":
        return Region(name, "cortex")
    labels = tuple(draw(st.lists(LABELS, max_size=4, unique=True)))
    return Region("", atlas, labels, each=True) if draw(st.booleans()) else Region(name, atlas, labels)


@st.composite
def recipes(draw):
    """Draw a recipe that may be built."""
    names = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    subjects = tuple(sorted(draw(st.sets(st.integers(1, 8), min_size=1))))
    recipe = Recipe(
        name=draw(st.from_regex(r"[A-Za-z0-9_]{1,12}", fullmatch=True)),
        subjects=subjects,
        regions=tuple(draw(regions(name)) for name in names),
        betas=draw(st.sampled_from(["betas_fithrf_GLMdenoise_RR", "betas_fithrf", "betas_assumehrf"])),
        standardize_on=draw(st.sampled_from(["all", "train"])),
        nan_policy=draw(st.sampled_from(["zero", "drop"])),
        train_fraction=draw(st.floats(0.001, 0.999)),
        split_seed=draw(st.integers(0, 2**32 - 1)),
        description=draw(st.text(max_size=20)),
    )
    if len(subjects) == 1 and draw(st.booleans()):
        return replace(recipe, pool="own", standardize_on="train", train_fraction=0.8, split_seed=42)
    return recipe


def document_of(recipe):
    """Return the tables of a recipe as TOML would hold them, with every part stated."""
    each_and_names = [{"each": True} if region.each else {"name": region.name} for region in recipe.regions]
    labels = [{"labels": list(region.labels)} if region.labels else {} for region in recipe.regions]
    document = {
        "name": recipe.name,
        "description": recipe.description,
        "subjects": list(recipe.subjects),
        "betas": recipe.betas,
        "region": [
            {"atlas": region.atlas} | keys | numbers
            for region, keys, numbers in zip(recipe.regions, each_and_names, labels, strict=True)
        ],
        "images": {"pool": recipe.pool},
        "standardise": {"over": recipe.standardize_on},
        "invalid": {"policy": recipe.nan_policy},
    }
    if recipe.pool == "shared":
        document["split"] = {"fraction": recipe.train_fraction, "seed": recipe.split_seed}
    return document


def to_toml(value):
    """Write a value as TOML; tables as inline ones."""
    match value:
        case dict():
            return "{" + ", ".join(f"{quote(key)} = {to_toml(item)}" for key, item in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(to_toml, value)) + "]"
        case bool():
            return str(value).lower()
        case str():
            return quote(value)
    return repr(value)


def quote(text):
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def text_of(document):
    return "".join(f"{quote(key)} = {to_toml(value)}\n" for key, value in document.items())


@given(recipes())
def test_any_valid_recipe_is_read_as_it_was_written(recipe):
    read, faults = parse_recipe("mine.toml", text_of(document_of(recipe)))

    assert faults == []
    assert read == recipe
    assert (read.description, read.source) == (recipe.description, "mine.toml")


VALUES = st.recursive(
    st.one_of(
        st.none().map(lambda _: "2021-05-27"),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=5),
        st.sampled_from(["own", "train", "streams", "cortex", 0.5, 42, [1], [1, 1], [[]], {"pool": "own"}]),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=5,
)
KEYS = st.one_of(
    st.sampled_from(
        ["name", "description", "subjects", "betas", "region", "images", "split", "standardise", "invalid"]
    ),
    st.text(max_size=5),
)


def assert_faults_are_lines(text):
    recipe, faults = parse_recipe("mine.toml", text)
    assert (recipe is None) == bool(faults)
    for fault in faults:
        assert fault.startswith("mine.toml")
        assert len(fault.splitlines()) == 1
    return faults


@given(recipes(), st.dictionaries(KEYS, VALUES, min_size=1, max_size=3))
def test_any_other_values_give_a_recipe_or_faults_of_one_line(recipe, changes):
    assert_faults_are_lines(text_of(document_of(recipe) | changes))


@given(recipes(), st.dictionaries(st.sampled_from(["name", "atlas", "labels", "each", "x\ny"]), VALUES, min_size=1))
def test_any_other_region_gives_a_recipe_or_faults_of_one_line(recipe, changes):
    document = document_of(recipe)
    document["region"][-1] |= changes
    assert_faults_are_lines(text_of(document))


@given(st.data())
def test_any_damaged_text_gives_a_recipe_or_faults_of_one_line(data):
    text = data.draw(st.sampled_from([SOUND, OWN]))
    start = data.draw(st.integers(0, len(text)))
    stop = data.draw(st.integers(start, min(len(text), start + 20)))
    assert_faults_are_lines(text[:start] + data.draw(st.text(max_size=5)) + text[stop:])


@given(recipes(), st.data())
def test_any_part_that_is_missing_or_unknown_is_a_fault(recipe, data):
    document = document_of(recipe)
    key = data.draw(st.sampled_from(["name", "subjects", "region"]))
    del document[key]
    unknown = data.draw(st.text(max_size=8).filter(lambda text: text not in document))
    document = {unknown: 1} | document if unknown != key else document
    faults = assert_faults_are_lines(text_of(document))

    assert sum(f"mine.toml: {key} is missing, expected" in fault for fault in faults) == 1
    assert sum("is unknown, expected only name, description" in fault for fault in faults) == (unknown != key)


@pytest.mark.parametrize("name", ["~nobody-of-this-name/recipe.toml", "~/missing.toml"])
def test_recipe_in_a_home_folder_that_is_not_there_is_named(name):
    with pytest.raises(PackagingError, match=f"^{name} is neither a recipe file nor the name of a recipe that ships"):
        read_recipe(name)
