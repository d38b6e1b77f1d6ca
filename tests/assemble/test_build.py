"""Releases are compared as whole files, and with the plain reference of `reference.py`."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pandas as pd
import pytest
import xarray
from PIL import Image

import reference
from allen2022_surface_packaging.assemble import sessions
from allen2022_surface_packaging.assemble.pipeline import build_release
from allen2022_surface_packaging.errors import PackagingError
from allen2022_surface_packaging.facts import SUBJECTS
from allen2022_surface_packaging.nsd import inspection
from allen2022_surface_packaging.nsd.simulation import TreeSize, simulate_tree
from allen2022_surface_packaging.recipe import make_recipe
from allen2022_surface_packaging.release import Manifest, ReleaseFolder
from support import hashes

NEUROID_COORDINATES = ["neuroid_id", "subject", "hemisphere", "vertex_index", "region", "nc_testset"]
TWO_SUBJECTS = make_recipe((3, 8), name="Two")


def open_split(release: Path, split: str) -> xarray.DataArray:
    (path,) = release.glob(f"*_{split}.nc")
    return xarray.open_dataarray(path).load()


def assert_equals_reference(release: Path, expected: dict) -> None:
    for split in ("train", "test"):
        assembly = open_split(release, split)
        assert assembly.dtype == np.float32
        np.testing.assert_allclose(assembly.values[:, :, 0], expected[split], rtol=0, atol=1e-5)
        n_repetitions = 3 if split == "test" else 1
        assert assembly["nsd_id"].values.tolist() == list(np.repeat(expected[f"{split}_ids"], n_repetitions))
        neuroids = list(zip(*(assembly[name].values.tolist() for name in NEUROID_COORDINATES), strict=True))
        assert neuroids == expected["neuroids"]


def test_release_holds_the_files_that_the_design_lists(release):
    assert Manifest.read(ReleaseFolder(release)).name == "Allen2022_fmri_surface"
    assert {path.name for path in release.iterdir()} == {
        "Allen2022_fmri_surface_train.nc",
        "Allen2022_fmri_surface_test.nc",
        "stimuli_train",
        "stimuli_test",
        "stimulus_metadata_train.csv",
        "stimulus_metadata_test.csv",
        "train_test_split.csv",
        "stimulus_origin.csv",
        "release.json",
    }


def test_release_of_eight_subjects_equals_the_reference(nsd_tree, release):
    expected = reference.reference_release(nsd_tree, SUBJECTS)

    assert_equals_reference(release, expected)
    counts = [c for regions in Manifest.read(ReleaseFolder(release)).nan_counts.values() for c in regions.values()]
    n_nan = {"train": sum(c.train for c in counts), "test": sum(c.test for c in counts)}
    assert n_nan == expected["n_nan"]
    assert min(n_nan.values()) > 0


def test_release_of_four_subjects_equals_the_reference(nsd_tree, four_subject_release):
    assert_equals_reference(four_subject_release, reference.reference_release(nsd_tree, (1, 2, 5, 7)))


def test_release_of_any_two_subjects_equals_the_reference(nsd_tree, tmp_path):
    build_release(nsd_tree, tmp_path / "r", make_recipe((8, 3), name="Two"))

    assert_equals_reference(tmp_path / "r", reference.reference_release(nsd_tree, (3, 8)))


def test_release_standardised_on_train_images_equals_the_reference(nsd_tree, tmp_path):
    build_release(nsd_tree, tmp_path / "r", make_recipe((3, 8), name="Two", standardize_on="train"))

    assert_equals_reference(tmp_path / "r", reference.reference_release(nsd_tree, (3, 8), standardize_on="train"))


def test_vertices_with_nan_are_dropped_when_asked(nsd_tree, tmp_path):
    build_release(nsd_tree, tmp_path / "r", make_recipe((3, 8), name="Two", nan_policy="drop"))

    expected = reference.reference_release(nsd_tree, (3, 8), drop=True)
    assert expected["n_nan"] == {"train": 0, "test": 0}
    assert_equals_reference(tmp_path / "r", expected)


def test_broken_vertices_are_zero_in_the_release(nsd_tree, release):
    """Each hemisphere has one vertex of each kind. The betas show which."""
    test = open_split(release, "test")
    kinds = set()
    for subject in (1, 4):
        for hemisphere in ("lh", "rh"):
            files = reference.session_files(nsd_tree, subject, hemisphere)
            betas = [np.asarray(nibabel.load(path).dataobj)[:, 0, 0, :] for path in files]
            in_hemisphere = (test["subject"].values == f"subj{subject:02d}") & (test["hemisphere"].values == hemisphere)
            always_nan = np.flatnonzero(np.all([np.isnan(b).all(axis=1) for b in betas], axis=0))
            constant = np.flatnonzero(np.all([np.ptp(b, axis=1) == 0 for b in betas], axis=0))
            for kind, vertices in (("always NaN", always_nan), ("constant", constant)):
                columns = in_hemisphere & np.isin(test["vertex_index"].values, vertices)
                if columns.any():
                    kinds.add(kind)
                    assert (test.values[:, columns] == 0).all()
    assert kinds == {"always NaN", "constant"}


def test_v4_and_it_both_keep_their_shared_vertices(release):
    train = open_split(release, "train")
    hemisphere = train.isel(neuroid=(train["subject"] == "subj01") & (train["hemisphere"] == "lh"))
    v4, it = (hemisphere.isel(neuroid=hemisphere["region"] == region) for region in ("V4", "IT"))
    shared_vertices = sorted(set(v4["vertex_index"].values) & set(it["vertex_index"].values))

    assert shared_vertices
    for vertex in shared_vertices:
        v4_values, it_values = (region.isel(neuroid=region["vertex_index"] == vertex).values for region in (v4, it))
        np.testing.assert_array_equal(v4_values, it_values)


def test_flat_layout_gives_the_same_bytes(release, tmp_path):
    simulate_tree(tmp_path / "flat", TreeSize(layout="flat"))
    build_release(tmp_path / "flat", tmp_path / "release", make_recipe())

    assert hashes(tmp_path / "release") == hashes(release)


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_bytes_are_the_same_under_any_hash_seed(nsd_tree, release, tmp_path, hash_seed):
    command = [sys.executable, "-m", "allen2022_surface_packaging", "build", nsd_tree, tmp_path / "r"]
    subprocess.run([*command, "--cache", "none"], check=True, env=os.environ | {"PYTHONHASHSEED": hash_seed})

    assert hashes(tmp_path / "r") == hashes(release)


def test_sessions_without_a_needed_trial_are_not_read(release):
    betas = [path for path in Manifest.read(ReleaseFolder(release)).inputs if "betas_session" in path]

    assert len(betas) == 2 * 3 * 8  # the fourth session of subjects 1, 2, 5 and 7 shows no complete image
    assert not [path for path in betas if "session04" in path]


def test_each_betas_header_is_read_once_per_step(nsd_tree, tmp_path, monkeypatch):
    """Once by the inspection, and once more when the session is standardised."""
    counts = {inspection: Counter(), sessions: Counter()}
    for module, n_reads in counts.items():
        read_betas_shape = module.read_betas_shape

        def count_and_read(file, read_betas_shape=read_betas_shape, n_reads=n_reads):
            n_reads[str(file)] += 1
            return read_betas_shape(file)

        monkeypatch.setattr(module, "read_betas_shape", count_and_read)

    build_release(nsd_tree, tmp_path / "r", TWO_SUBJECTS)

    assert len(counts[inspection]) == len(counts[sessions]) == 2 * 2 * 3
    assert set(counts[inspection].values()) == set(counts[sessions].values()) == {1}


def test_images_equal_the_pixels_of_imgbrick(nsd_tree, release):
    with h5py.File(nsd_tree / "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5") as file:
        for split in ("train", "test"):
            for row in pd.read_csv(release / f"stimulus_metadata_{split}.csv").itertuples():
                image = np.asarray(Image.open(release / f"stimuli_{split}" / row.image_file_name))
                np.testing.assert_array_equal(image, file["imgBrick"][row.nsd_id])


def test_tables_list_the_images_with_coco_ids(nsd_tree, release):
    stimulus_info = pd.read_csv(nsd_tree / "nsddata/experiments/nsd/nsd_stim_info_merged.csv").set_index("nsdId")
    table = pd.read_csv(release / "stimulus_metadata_test.csv")

    assert list(table) == ["stimulus_id", "nsd_id", "image_file_name", "coco_id"]
    assert table.coco_id.tolist() == stimulus_info.cocoId[table.nsd_id].tolist()
    split = pd.read_csv(release / "train_test_split.csv")
    assert split.nsd_id.is_monotonic_increasing
    assert split.nsd_id[split.split == "test"].tolist() == table.nsd_id.tolist()


def test_origin_of_the_images_stands_in_a_table_of_its_own(nsd_tree, release):
    stimulus_info = pd.read_csv(nsd_tree / "nsddata/experiments/nsd/nsd_stim_info_merged.csv").set_index("nsdId")
    origins = pd.read_csv(release / "stimulus_origin.csv")

    assert origins.nsd_id.tolist() == pd.read_csv(release / "train_test_split.csv").nsd_id.tolist()
    assert origins.coco_split.tolist() == stimulus_info.cocoSplit[origins.nsd_id].tolist()
    assert set(origins.coco_split) == {"train2017", "val2017"}
    boxes = [f"(0, 0, {row.crop_left}, {row.crop_right})" for row in origins.itertuples()]
    assert boxes == stimulus_info.cropBox[origins.nsd_id].tolist()


def test_table_of_origins_is_left_out_when_a_crop_box_is_missing(tree_copy, tmp_path):
    path = tree_copy / "nsddata/experiments/nsd/nsd_stim_info_merged.csv"
    pd.read_csv(path, index_col=0).drop(columns="cropBox").to_csv(path)
    build_release(tree_copy, tmp_path / "r", TWO_SUBJECTS)

    assert not (tmp_path / "r" / "stimulus_origin.csv").exists()
    assert "coco_id" in pd.read_csv(tmp_path / "r" / "stimulus_metadata_test.csv")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[:200] + b"\xff\xfe" + content[200:], "is not NSD's table of images"),
        (lambda content: b"", "is not NSD's table of images"),
        (lambda content: content.replace(b"nsdId", b"nsdid"), "lacks the column nsdId"),
        (lambda content: content.replace(b"(0, 0,", b"(0,"), "is not NSD's table of images"),
        (lambda content: content.replace(b"(0, 0,", b"(0, 7,"), "cropBox is .* expected four fractions"),
        (lambda content: content + content.splitlines()[-1], "an nsdId is empty or occurs twice"),
    ],
)
def test_damaged_table_of_images_is_refused_in_one_line(tree_copy, tmp_path, damage, message):
    path = tree_copy / "nsddata/experiments/nsd/nsd_stim_info_merged.csv"
    path.write_bytes(damage(path.read_bytes()))

    with pytest.raises(PackagingError, match=message) as caught:
        build_release(tree_copy, tmp_path / "r", TWO_SUBJECTS)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_coco_column_is_left_out_when_an_id_is_missing(tree_copy, tmp_path):
    path = tree_copy / "nsddata/experiments/nsd/nsd_stim_info_merged.csv"
    pd.read_csv(path, index_col=0).iloc[5:].to_csv(path)
    build_release(tree_copy, tmp_path / "r", TWO_SUBJECTS)

    for split in ("train", "test"):
        table = pd.read_csv(tmp_path / "r" / f"stimulus_metadata_{split}.csv")
        assert list(table) == ["stimulus_id", "nsd_id", "image_file_name"]


def test_images_are_jpeg_when_asked(nsd_tree, tmp_path):
    build_release(nsd_tree, tmp_path / "r", TWO_SUBJECTS, image_format="jpg")

    names = pd.read_csv(tmp_path / "r" / "stimulus_metadata_test.csv").image_file_name
    assert Image.open(tmp_path / "r" / "stimuli_test" / names[0]).format == "JPEG"
    assert Manifest.read(ReleaseFolder(tmp_path / "r")).image_format == "jpg"


@pytest.fixture
def tree_with_extracted_images(tree_copy, release):
    """A tree with the JPEG images that the published packaging leaves, and without `imgBrick`."""
    for split in ("train", "test"):
        folder = tree_copy / "brainscore" / f"stimuli_{split}"
        folder.mkdir(parents=True)
        for path in (release / f"stimuli_{split}").iterdir():
            Image.open(path).save(folder / f"stimulus_{path.stem}.jpg", quality=95)
    (tree_copy / "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5").unlink()
    return tree_copy


def test_extracted_images_are_copied_when_all_are_present(tree_with_extracted_images, tmp_path):
    build_release(tree_with_extracted_images, tmp_path / "r", make_recipe())

    for split in ("train", "test"):
        for row in pd.read_csv(tmp_path / "r" / f"stimulus_metadata_{split}.csv").itertuples():
            copied = tmp_path / "r" / f"stimuli_{split}" / row.image_file_name
            source = tree_with_extracted_images / "brainscore" / f"stimuli_{split}" / f"stimulus_{copied.name}"
            assert copied.read_bytes() == source.read_bytes()
    assert Manifest.read(ReleaseFolder(tmp_path / "r")).image_format == "jpg"


def test_imgbrick_is_needed_when_one_extracted_image_is_missing(tree_with_extracted_images, tmp_path):
    next((tree_with_extracted_images / "brainscore/stimuli_test").iterdir()).unlink()

    with pytest.raises(PackagingError, match="nsd_stimuli.hdf5 is missing"):
        build_release(tree_with_extracted_images, tmp_path / "r", make_recipe())


def test_release_is_replaced_only_when_asked(nsd_tree, release_copy):
    (release_copy / "train_test_split.csv").write_text("mine")
    with pytest.raises(PackagingError, match="exists already"):
        build_release(nsd_tree, release_copy, make_recipe())
    assert (release_copy / "train_test_split.csv").read_text() == "mine"

    build_release(nsd_tree, release_copy, make_recipe(), overwrite=True)
    assert (release_copy / "train_test_split.csv").read_text() != "mine"


def test_folder_is_never_overwritten_unless_it_is_a_release(nsd_tree, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")

    with pytest.raises(PackagingError, match="is not a release"):
        build_release(nsd_tree, tmp_path, make_recipe(), overwrite=True)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"subjects": (1, 2)}, "needs a --name"),
        ({"subjects": SUBJECTS, "nan_policy": "drop"}, "needs a --name"),
        ({"subjects": (1, 2), "name": "Allen2022_fmri_surface"}, "belongs to a published dataset of other content"),
        ({"subjects": (1, 2), "name": "../up"}, "letters, digits and underscores"),
    ],
)
def test_unpublished_choices_are_refused_without_a_new_name(choices, message):
    with pytest.raises(ValueError, match=message):
        make_recipe(**choices)
