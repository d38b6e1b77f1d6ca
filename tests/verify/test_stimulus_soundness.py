"""Tables of images and the images themselves, of a release in which one thing is changed."""

import warnings

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from allen2022_surface_packaging.nsd.tree import EXTRACTED_FOLDERS
from allen2022_surface_packaging.release import Manifest, ReleaseFolder
from allen2022_surface_packaging.verify.stimuli import compare_pixels
from allen2022_surface_packaging.verify.stimulus_soundness import find_stimulus_problems
from verify.planted import ORIGINS, SPLIT, TEST_TABLE, TRAIN_TABLE, manifest, set_cell, table, without_coco_ids

CROPS = ("crop_top", "crop_bottom", "crop_left", "crop_right")


@pytest.fixture
def find(tiny_copy):
    """A function that changes a table of the release, and returns the problems."""

    def find_problems(name=None, change=None):
        if name:
            table(name)(change)(tiny_copy)
        folder = ReleaseFolder(tiny_copy)
        return list(find_stimulus_problems(folder, Manifest.read(folder)))

    return find_problems


def test_sound_tables_have_no_problem(find):
    assert find() == []


@pytest.mark.parametrize("column", CROPS)
@pytest.mark.parametrize(("crop", "is_sound"), [(0, True), (0.999, True), (1, False), (-0.001, False)])
def test_less_than_the_whole_image_was_cropped(find, column, crop, is_sound):
    problems = find(ORIGINS, set_cell(2, column, str(crop)))

    assert len(problems) == (not is_sound)
    assert all(f"a part of an image that was cropped is {min(crop, 0.0)} to " in problem for problem in problems)


@pytest.mark.parametrize(("name", "row"), [(SPLIT, 1), (ORIGINS, 1), (TRAIN_TABLE, 1), (TEST_TABLE, 1)])
def test_wrong_stimulus_id_is_named_with_its_row(find, name, row):
    problems = find(name, set_cell(row, "stimulus_id", "nsd_99999_longer"))

    assert f"{name}: stimulus_id of row {row} is nsd_99999_longer, expected nsd_" in problems[0]


@pytest.mark.parametrize(
    ("name", "column"),
    [
        *((name, "stimulus_id") for name in (SPLIT, ORIGINS, TRAIN_TABLE, TEST_TABLE)),
        *((name, "image_file_name") for name in (TRAIN_TABLE, TEST_TABLE)),
    ],
)
def test_numbers_in_place_of_names_are_told_without_a_warning(find, name, column):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        problems = find(name, lambda t: t.assign(**{column: range(7, 7 + len(t))}))

    assert any(problem.startswith(f"{name}: {column} of row 0 is 7, expected nsd_") for problem in problems)


@pytest.mark.parametrize("name", [TRAIN_TABLE, TEST_TABLE])
@pytest.mark.parametrize(
    "change", [lambda t: t[1:], lambda t: t.iloc[::-1], lambda t: t.assign(nsd_id=t["nsd_id"].astype(int) + 1)]
)
def test_table_of_other_images_than_the_split_is_named(find, name, change):
    assert f"{name} and {SPLIT} list different images." in find(name, change)


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_damaged_image_is_named(find, tiny_copy, split):
    paths = sorted((tiny_copy / f"stimuli_{split}").iterdir())
    for path in (paths[0], paths[2]):
        path.write_bytes(b"damaged")
    paths[1].unlink()
    paths[1].mkdir()

    problems = [problem for problem in find() if "is not an image (" in problem]

    assert [problem.split()[0] for problem in problems] == [str(paths[0]), str(paths[2])]


def test_each_table_without_coco_ids_is_named(find, tiny_copy):
    table(TRAIN_TABLE, TEST_TABLE)(without_coco_ids)(tiny_copy)

    assert find() == [f"{name} lacks the column coco_id, but {ORIGINS} has it." for name in (TRAIN_TABLE, TEST_TABLE)]


@pytest.mark.parametrize(("lacking", "other"), [(TRAIN_TABLE, TEST_TABLE), (TEST_TABLE, TRAIN_TABLE)])
def test_coco_ids_of_the_other_table_are_compared_all_the_same(find, tiny_copy, lacking, other):
    table(lacking)(without_coco_ids)(tiny_copy)

    problems = find(other, set_cell(0, "coco_id", "7"))

    assert "Only one of the two stimulus tables has the column coco_id." in problems
    assert any(problem.startswith(f"{other}: coco_id of row 0 is 7, but {ORIGINS} has ") for problem in problems)


def test_other_coco_split_is_named(find):
    assert find(ORIGINS, set_cell(0, "coco_split", "test2017")) == [
        f"{ORIGINS} has the COCO splits ['test2017', 'train2017', 'val2017'], expected ['train2017', 'val2017']."
    ]


def test_images_of_another_format_than_the_manifest_says_are_named(find, tiny_copy):
    """The images were copied from files that an earlier packaging extracted as JPEG."""
    nsd_ids = pd.read_csv(tiny_copy / SPLIT)["nsd_id"]
    extracted = {f"{EXTRACTED_FOLDERS[0]}/nsd_{nsd_id:05d}.jpg": 5 for nsd_id in nsd_ids}
    manifest(lambda content: content["inputs"].update(extracted))(tiny_copy)

    line = "release.json says that images are png, but inputs hold jpg."
    assert find().count(line) == 1


def test_image_of_another_size_is_named_beside_the_first(find, tiny_copy):
    paths = sorted((tiny_copy / "stimuli_test").iterdir())
    Image.new("RGB", (9, 8)).save(paths[0])

    first = min((tiny_copy / "stimuli_train").iterdir())
    assert find() == [f"{paths[0]} is 9 x 8 pixels, but {first.name} is 8 x 8 pixels."]


@pytest.mark.parametrize(
    ("mode", "file_format", "sign"), [("L", "png", "is L, expected RGB."), ("RGB", "jpeg", "JPEG")]
)
def test_image_of_another_kind_is_named(find, tiny_copy, mode, file_format, sign):
    path = min((tiny_copy / "stimuli_test").iterdir())
    Image.new(mode, (8, 8)).save(path, format=file_format)

    problems = find()

    assert len(problems) == 1
    assert str(path) in problems[0]
    assert sign in problems[0]


@pytest.mark.parametrize(("channel", "row", "column"), [(0, 0, 0), (1, 2, 4), (2, 1, 3)])
def test_largest_difference_of_pixels_is_located(rng, channel, row, column):
    expected = rng.integers(100, 120, (3, 5, 3)).astype(np.uint8)
    actual = expected.copy()
    assert compare_pixels(actual, expected) is None

    actual[row, column, channel] += 100
    actual[2, 0] -= 5
    difference = compare_pixels(actual, expected)

    assert (difference.row, difference.column, difference.largest, difference.n_pixels) == (row, column, 100, 2)
    assert difference.actual == actual[row, column].tolist()
    assert difference.expected == expected[row, column].tolist()
