"""Images and tables of images, compared with the raw files, and images of two releases compared with each other."""

import os
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from allen2022_surface_packaging.errors import PackagingError
from allen2022_surface_packaging.nsd.tree import open_tree
from allen2022_surface_packaging.release import Manifest, ReleaseFolder
from allen2022_surface_packaging.verify.expectation import read_expectation
from allen2022_surface_packaging.verify.raw import read_design
from allen2022_surface_packaging.verify.stimuli import compare_stimuli, find_stimulus_problems, read_pixels
from verify.planted import IMAGES, ORIGINS, SPLIT, STIMULUS_INFO, TEST_TABLE, TRAIN_TABLE


@pytest.fixture
def find(tiny_copy, tiny_copy_of_tree):
    """A function that compares the copy of a release with the copy of its tree."""

    def find_problems():
        folder, tree = ReleaseFolder(tiny_copy), open_tree(tiny_copy_of_tree)
        expected = read_expectation(tree, Manifest.read(folder), read_design(tree.design))
        return find_stimulus_problems(folder, expected)

    return find_problems


def change_information(tree_path, change):
    path = tree_path / STIMULUS_INFO
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    change(table)
    table.to_csv(path, index=False)


def nsd_ids_of(release):
    return pd.read_csv(release / SPLIT)["nsd_id"].tolist()


def test_sound_stimuli_have_no_problem(find):
    assert find() == []


@pytest.mark.parametrize("column", ["cocoSplit", "cropBox"])
def test_origins_are_not_expected_where_one_image_has_none(find, tiny_copy, tiny_copy_of_tree, column):
    rows = nsd_ids_of(tiny_copy)[:1]
    change_information(
        tiny_copy_of_tree, lambda table: table.__setitem__(column, table[column].mask(table.index.isin(rows), ""))
    )

    assert find() == [f"{ORIGINS} is there, but the raw files give none."]
    (tiny_copy / ORIGINS).unlink()
    assert find() == []


def test_origins_are_expected_where_all_images_have_them(find, tiny_copy):
    (tiny_copy / ORIGINS).unlink()

    assert find() == [f"{ORIGINS} is missing, but the raw files give it."]


@pytest.mark.parametrize("is_row_missing", [True, False])
def test_coco_ids_are_not_expected_where_one_image_has_none(find, tiny_copy, tiny_copy_of_tree, is_row_missing):
    row = nsd_ids_of(tiny_copy)[0]
    if is_row_missing:
        change_information(tiny_copy_of_tree, lambda table: table.drop(index=row, inplace=True))
    else:
        change_information(
            tiny_copy_of_tree, lambda table: table.__setitem__("cocoId", table["cocoId"].where(table.index != row, ""))
        )

    columns = "['stimulus_id', 'nsd_id', 'coco_id'], but the raw files give ['stimulus_id', 'nsd_id']."
    assert find() == [
        *(f"{name} has the columns {columns}" for name in (TRAIN_TABLE, TEST_TABLE)),
        f"{ORIGINS} is there, but the raw files give none.",
    ]


@pytest.mark.parametrize("column", ["cocoSplit", "cropBox"])
def test_table_of_images_without_a_column_gives_no_origins(find, tiny_copy, tiny_copy_of_tree, column):
    change_information(tiny_copy_of_tree, lambda table: table.drop(columns=column, inplace=True))

    (tiny_copy / ORIGINS).unlink()
    assert find() == []


def test_missing_brick_is_a_problem_of_every_image(find, tiny_copy, tiny_copy_of_tree):
    (tiny_copy_of_tree / IMAGES).unlink()

    problems = find()

    assert len(problems) == len(nsd_ids_of(tiny_copy))
    assert all(f"equals no extracted image of {tiny_copy_of_tree}, and" in problem for problem in problems)


def test_image_of_another_shape_or_kind_is_a_problem(find, tiny_copy):
    path, other = sorted((tiny_copy / "stimuli_train").iterdir())[:2]
    Image.new("RGB", (9, 7)).save(path)
    other.write_bytes(b"damaged")

    problems = find()

    assert problems[0] == f"{path} has the shape (7, 9, 3), but image {int(path.stem[4:])} of imgBrick has (8, 8, 3)."
    assert problems[1].startswith(f"{other} is not an image (")
    assert len(problems) == 2


@pytest.mark.parametrize("kind", ["pipe", "folder", "missing"])
def test_only_regular_files_are_read(tmp_path, kind):
    path = tmp_path / "image.png"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()

    with pytest.raises(PackagingError, match=r"image\.png"):
        read_pixels(path)


def test_image_of_too_many_pixels_is_refused(tmp_path, monkeypatch):
    Image.new("RGB", (30, 30)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)

    with pytest.raises(PackagingError, match=r"bomb\.png is not an image \(.*decompression bomb"):
        read_pixels(tmp_path / "bomb.png")


# --- two sides ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def sides(tmp_path):
    """Two sides of two images each, which are equal."""

    def make_side(name):
        paths = {}
        for number, stimulus_id in enumerate(("nsd_00001", "nsd_00002")):
            paths[stimulus_id] = tmp_path / name / f"{stimulus_id}.png"
            paths[stimulus_id].parent.mkdir(exist_ok=True)
            pixels = np.full((4, 5, 3), 10 * number, dtype=np.uint8)
            Image.fromarray(pixels).save(paths[stimulus_id])
        table = pd.DataFrame({"stimulus_id": list(paths), "nsd_id": [1, 2], "filename": [f"{name}1", f"{name}2"]})
        return SimpleNamespace(stimuli=table, image_paths=paths)

    return make_side("here"), make_side("there")


def test_equal_images_do_not_differ(sides):
    assert compare_stimuli("test", *sides) == []


def test_images_of_the_same_pixels_do_not_differ(sides):
    here, _ = sides
    path = here.image_paths["nsd_00001"]
    before = path.read_bytes()
    Image.open(path).copy().save(path, compress_level=0)
    assert path.read_bytes() != before

    assert compare_stimuli("test", *sides) == []


def test_image_with_the_largest_difference_is_described(sides):
    here, _ = sides
    for stimulus_id, value in (("nsd_00001", 3), ("nsd_00002", 17)):
        pixels = np.asarray(Image.open(here.image_paths[stimulus_id])).copy()
        pixels[2, 1, 0] += value
        Image.fromarray(pixels).save(here.image_paths[stimulus_id])

    (difference,) = compare_stimuli("test", *sides)

    assert (difference.n_differing, difference.n_compared, difference.largest) == (2, 2, 17)
    assert difference.description == (
        "nsd_00002: pixel (row 2, column 1) is [27, 10, 10] here, [10, 10, 10] there; 1 pixels differ"
    )


@pytest.mark.parametrize(
    ("change", "sign"),
    [
        (lambda path: path.unlink(), "is missing, or not a regular file"),
        (lambda path: path.write_bytes(b"damaged"), "is not an image"),
        (lambda path: Image.new("RGB", (4, 4)).save(path), "shape (4, 4, 3) here, (4, 5, 3) there"),
    ],
)
def test_image_that_cannot_be_compared_differs_most(sides, change, sign):
    here, _ = sides
    change(here.image_paths["nsd_00001"])

    (difference,) = compare_stimuli("test", *sides)

    assert (difference.n_differing, difference.largest) == (1, np.inf)
    assert sign in difference.description


def test_columns_other_than_file_names_are_compared(sides):
    sides[0].stimuli["nsd_id"] = [1, 7]

    (difference,) = compare_stimuli("test", *sides)

    assert (difference.kind, difference.description) == ("stimulus column nsd_id", "nsd_00002: 7 here, 2 there")
