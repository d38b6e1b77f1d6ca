"""The images of a release and the tables that list them."""

import io
import shutil
from pathlib import Path

import h5py
import pandas as pd
import pytest
from PIL import Image

from allen2022_surface_packaging.assemble.pipeline import build_release
from allen2022_surface_packaging.errors import PackagingError
from allen2022_surface_packaging.facts import DEFAULT_BETAS
from allen2022_surface_packaging.nsd.simulation import TreeSize, simulate_tree
from allen2022_surface_packaging.recipe import make_recipe
from allen2022_surface_packaging.release import Manifest, ReleaseFolder

RECIPE = make_recipe((1,), name="one")
BRICK = "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5"
TABLE = "nsddata/experiments/nsd/nsd_stim_info_merged.csv"
SPLITS = ("train", "test")


@pytest.fixture(scope="module")
def small_tree(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("stimuli") / "nsd"
    simulate_tree(root, TreeSize((1,), n_sessions=2, n_trials=60, n_vertices=162, image_size=8, betas=(DEFAULT_BETAS,)))
    return root


@pytest.fixture(scope="module")
def small_release(small_tree, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("built") / "release"
    build_release(small_tree, path, RECIPE)
    return path


@pytest.fixture
def tree(small_tree, tmp_path) -> Path:
    """A copy of the tree that a test may change."""
    return Path(shutil.copytree(small_tree, tmp_path / "nsd"))


def read_table(release: Path, split: str) -> pd.DataFrame:
    return pd.read_csv(release / f"stimulus_metadata_{split}.csv")


def test_images_are_jpeg_of_quality_95_when_asked(small_tree, tmp_path):
    build_release(small_tree, tmp_path / "r", RECIPE, image_format="jpg")

    row = read_table(tmp_path / "r", "test").iloc[0]
    expected = io.BytesIO()
    with h5py.File(small_tree / BRICK) as file:
        Image.fromarray(file["imgBrick"][row.nsd_id]).save(expected, "JPEG", quality=95)
    assert row.image_file_name == f"nsd_{row.nsd_id:05d}.jpg"
    assert (tmp_path / "r" / "stimuli_test" / row.image_file_name).read_bytes() == expected.getvalue()
    assert Manifest.read(ReleaseFolder(tmp_path / "r")).image_format == "jpg"


@pytest.mark.parametrize(("column", "has_ids"), [("cropBox", True), ("cocoSplit", True), ("cocoId", False)])
def test_columns_that_are_unknown_for_one_image_are_left_out(tree, small_release, tmp_path, column, has_ids):
    nsd_id = read_table(small_release, "train").nsd_id[0]
    table = pd.read_csv(tree / TABLE, index_col=0, dtype=str, keep_default_na=False)
    table.loc[table.nsdId == str(nsd_id), column] = ""
    table.to_csv(tree / TABLE)
    build_release(tree, tmp_path / "r", RECIPE)

    assert not (tmp_path / "r" / "stimulus_origin.csv").exists()
    assert all(("coco_id" in read_table(tmp_path / "r", split)) is has_ids for split in SPLITS)


def test_no_table_of_images_is_needed(tree, tmp_path):
    (tree / TABLE).unlink()
    build_release(tree, tmp_path / "r", RECIPE)

    assert not (tmp_path / "r" / "stimulus_origin.csv").exists()
    assert list(read_table(tmp_path / "r", "test")) == ["stimulus_id", "nsd_id", "image_file_name"]


def encode_image(kind: str, mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (50, 128, 255)).convert(mode).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture
def extracted_tree(tree, small_release) -> Path:
    """A tree with the images that an earlier packaging leaves, some of them JPEG, and without `imgBrick`."""
    for split in SPLITS:
        folder = tree / "brainscore" / f"stimuli_{split}"
        folder.mkdir(parents=True)
        for path in (small_release / f"stimuli_{split}").iterdir():
            Image.open(path).save(folder / f"stimulus_{path.stem}.{'jpg' if split == 'train' else 'png'}")
    (tree / BRICK).unlink()
    return tree


def test_extracted_images_are_copied_under_the_name_of_the_stimulus(extracted_tree, tmp_path):
    build_release(extracted_tree, tmp_path / "r", RECIPE)

    for split in SPLITS:
        for row in read_table(tmp_path / "r", split).itertuples():
            copied = tmp_path / "r" / f"stimuli_{split}" / row.image_file_name
            source = extracted_tree / "brainscore" / f"stimuli_{split}" / f"stimulus_{row.image_file_name}"
            assert copied.read_bytes() == source.read_bytes()


def test_imgbrick_is_needed_when_one_extracted_image_is_missing(extracted_tree, tmp_path):
    next((extracted_tree / "brainscore/stimuli_test").iterdir()).unlink()

    with pytest.raises(PackagingError, match=r"nsd_stimuli\.hdf5 is missing"):
        build_release(extracted_tree, tmp_path / "r", RECIPE)


@pytest.mark.parametrize(
    ("split", "content", "message"),
    [
        ("train", b"\xff\xd8 no image", "cannot be read"),
        ("test", encode_image("PNG")[:-30], "cannot be read"),
        ("train", encode_image("JPEG")[:-100], "cannot be read"),
        ("test", encode_image("JPEG"), "is a file of JPEG with RGB pixels, expected an image of PNG"),
        ("train", encode_image("PNG"), "is a file of PNG with RGB pixels, expected an image of JPEG"),
        ("test", encode_image("PNG", mode="RGBA"), "is a file of PNG with RGBA pixels"),
        ("train", encode_image("JPEG", mode="CMYK"), "is a file of JPEG with CMYK pixels"),
    ],
)
def test_damaged_extracted_image_is_refused(extracted_tree, tmp_path, split, content, message):
    path = next((extracted_tree / f"brainscore/stimuli_{split}").iterdir())
    path.write_bytes(content)

    with pytest.raises(PackagingError, match=rf"{path.name} {message}.*Extract it again"):
        build_release(extracted_tree, tmp_path / "r", RECIPE)
    assert not (tmp_path / "r").exists()
