"""Releases against the plain reference of `reference.py`, whole files at a time."""

import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import xarray
from PIL import Image

import reference
from allen2022_surface_packaging.build.pipeline import Method, build_release
from allen2022_surface_packaging.errors import PackagingError
from allen2022_surface_packaging.nsd.files import SUBJECTS
from allen2022_surface_packaging.nsd.simulation import Recipe, simulate_tree
from allen2022_surface_packaging.release import sha1_of

NEUROID_COORDINATES = ["neuroid_id", "subject", "hemisphere", "vertex_index", "region", "nc_testset"]


def open_split(release: Path, split: str) -> xarray.DataArray:
    (path,) = release.glob(f"*_{split}.nc")
    return xarray.open_dataarray(path).load()


def assert_is_reference(release: Path, expected: dict) -> None:
    for split in ("train", "test"):
        assembly = open_split(release, split)
        assert assembly.dtype == np.float32
        np.testing.assert_allclose(assembly.values[:, :, 0], expected[split], rtol=0, atol=1e-5)
        n_repetitions = 3 if split == "test" else 1
        assert assembly["nsd_id"].values.tolist() == list(np.repeat(expected[f"{split}_ids"], n_repetitions))
        neuroids = list(zip(*(assembly[name].values.tolist() for name in NEUROID_COORDINATES), strict=True))
        assert [row[:5] for row in neuroids] == [row[:5] for row in expected["neuroids"]]
        assert [row[5] for row in neuroids] == [row[5] for row in expected["neuroids"]]


def hashes(release: Path) -> dict[str, str]:
    return {str(path.relative_to(release)): sha1_of(path) for path in sorted(release.rglob("*")) if path.is_file()}


def test_a_release_holds_what_the_design_lists(release):
    manifest = json.loads((release / "release.json").read_text())

    assert manifest["name"] == "Allen2022_fmri_surface"
    assert {path.name for path in release.iterdir()} == {
        "Allen2022_fmri_surface_train.nc",
        "Allen2022_fmri_surface_test.nc",
        "stimuli_train",
        "stimuli_test",
        "stimulus_metadata_train.csv",
        "stimulus_metadata_test.csv",
        "train_test_split.csv",
        "release.json",
    }


def test_eight_subjects_agree_with_the_reference(nsd_tree, release):
    expected = reference.reference_release(nsd_tree, SUBJECTS)

    assert_is_reference(release, expected)
    counts = json.loads((release / "release.json").read_text())["nan_counts"]
    for split in ("train", "test"):
        assert sum(c[split] for regions in counts.values() for c in regions.values()) == expected["n_nan"][split] > 0


def test_four_subjects_agree_with_the_reference(nsd_tree, four_subject_release):
    assert_is_reference(four_subject_release, reference.reference_release(nsd_tree, (1, 2, 5, 7)))


def test_a_choice_of_its_own_agrees_with_the_reference(nsd_tree, tmp_path):
    build_release(nsd_tree, tmp_path / "r", subjects=(8, 3), name="Two")

    assert_is_reference(tmp_path / "r", reference.reference_release(nsd_tree, (3, 8)))


def test_global_statistics_of_the_train_images_alone_agree_with_the_reference(nsd_tree, tmp_path):
    build_release(nsd_tree, tmp_path / "r", subjects=(3, 8), name="Two", method=Method(standardize_on="train"))

    assert_is_reference(tmp_path / "r", reference.reference_release(nsd_tree, (3, 8), standardize_on="train"))


def test_vertices_with_nan_can_be_dropped(nsd_tree, tmp_path):
    build_release(nsd_tree, tmp_path / "r", subjects=(3, 8), name="Two", method=Method(nan_policy="drop"))

    expected = reference.reference_release(nsd_tree, (3, 8), drop=True)
    assert expected["n_nan"] == {"train": 0, "test": 0}
    assert_is_reference(tmp_path / "r", expected)


def test_broken_vertices_are_handled_as_the_method_says(nsd_tree, release):
    """Of every kind there is one per hemisphere; the tree is read to find which."""
    test = open_split(release, "test")
    kinds = set()
    for subject in (1, 4):
        for hemisphere in ("lh", "rh"):
            files = reference.session_files(nsd_tree, subject, hemisphere)
            betas = [np.asarray(reference.nibabel.load(path).dataobj)[:, 0, 0, :] for path in files]
            own = (test["subject"].values == f"subj{subject:02d}") & (test["hemisphere"].values == hemisphere)
            always = np.flatnonzero(np.all([np.isnan(b).all(axis=1) for b in betas], axis=0))
            constant = np.flatnonzero(np.all([np.ptp(b, axis=1) == 0 for b in betas], axis=0))
            for kind, vertices in (("always NaN", always), ("constant", constant)):
                columns = own & np.isin(test["vertex_index"].values, vertices)
                if columns.any():
                    kinds.add(kind)
                    assert (test.values[:, columns] == 0).all()
    assert kinds == {"always NaN", "constant"}


def test_v4_and_it_both_keep_the_vertices_that_they_share(release):
    train = open_split(release, "train")
    own = train.isel(neuroid=(train["subject"] == "subj01") & (train["hemisphere"] == "lh"))
    v4, it = (own.isel(neuroid=own["region"] == region) for region in ("V4", "IT"))
    shared = sorted(set(v4["vertex_index"].values) & set(it["vertex_index"].values))

    assert shared
    for vertex in shared:
        one, other = (part.isel(neuroid=part["vertex_index"] == vertex).values for part in (v4, it))
        np.testing.assert_array_equal(one, other)


def test_the_flat_layout_gives_the_same_bytes(release, tmp_path):
    simulate_tree(tmp_path / "flat", Recipe(layout="flat"))
    build_release(tmp_path / "flat", tmp_path / "release", subjects=SUBJECTS)

    assert hashes(tmp_path / "release") == hashes(release)


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_every_run_gives_the_same_bytes_under_any_hash_seed(nsd_tree, release, tmp_path, hash_seed):
    command = [
        sys.executable,
        "-m",
        "allen2022_surface_packaging",
        "build",
        nsd_tree,
        tmp_path / "r",
        "--cache",
        "none",
    ]
    subprocess.run(command, check=True, env=os.environ | {"PYTHONHASHSEED": hash_seed})

    assert hashes(tmp_path / "r") == hashes(release)


def test_sessions_without_a_needed_trial_are_not_read(release):
    manifest = json.loads((release / "release.json").read_text())
    betas = [path for path in manifest["inputs"] if "betas_session" in path]

    assert len(betas) == 2 * 3 * 8  # of subjects 1, 2, 5 and 7 the fourth session holds no complete image
    assert not [path for path in betas if "session04" in path]


def test_images_are_the_pixels_of_imgbrick(nsd_tree, release):
    with h5py.File(nsd_tree / "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5") as file:
        for split in ("train", "test"):
            for row in pd.read_csv(release / f"stimulus_metadata_{split}.csv").itertuples():
                image = np.asarray(Image.open(release / f"stimuli_{split}" / row.image_file_name))
                np.testing.assert_array_equal(image, file["imgBrick"][row.nsd_id])


def test_tables_list_images_with_their_coco_ids(nsd_tree, release):
    info = pd.read_csv(nsd_tree / "nsddata/experiments/nsd/nsd_stim_info_merged.csv").set_index("nsdId")
    table = pd.read_csv(release / "stimulus_metadata_test.csv")

    assert list(table) == ["stimulus_id", "nsd_id", "image_file_name", "coco_id"]
    assert table.coco_id.tolist() == info.cocoId[table.nsd_id].tolist()
    split = pd.read_csv(release / "train_test_split.csv")
    assert split.nsd_id.is_monotonic_increasing
    assert split.nsd_id[split.split == "test"].tolist() == table.nsd_id.tolist()


def test_without_every_coco_id_the_column_is_left_out(own_tree, tmp_path):
    path = own_tree / "nsddata/experiments/nsd/nsd_stim_info_merged.csv"
    pd.read_csv(path, index_col=0).iloc[5:].to_csv(path)
    build_release(own_tree, tmp_path / "r", subjects=(3, 8), name="Two")

    for split in ("train", "test"):
        table = pd.read_csv(tmp_path / "r" / f"stimulus_metadata_{split}.csv")
        assert list(table) == ["stimulus_id", "nsd_id", "image_file_name"]


def test_jpeg_images_are_written_when_asked_for(nsd_tree, tmp_path):
    build_release(nsd_tree, tmp_path / "r", subjects=(3, 8), name="Two", image_format="jpg")

    names = pd.read_csv(tmp_path / "r" / "stimulus_metadata_test.csv").image_file_name
    assert Image.open(tmp_path / "r" / "stimuli_test" / names[0]).format == "JPEG"


@pytest.fixture
def tree_with_extracted_images(own_tree, release):
    """A tree with the JPEG images that the published packaging leaves behind, and no `imgBrick`."""
    for split in ("train", "test"):
        folder = own_tree / "brainscore" / f"stimuli_{split}"
        folder.mkdir(parents=True)
        for path in (release / f"stimuli_{split}").iterdir():
            Image.open(path).save(folder / f"stimulus_{path.stem}.jpg", quality=95)
    (own_tree / "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5").unlink()
    return own_tree


def test_extracted_images_are_reused_when_all_are_there(tree_with_extracted_images, tmp_path):
    build_release(tree_with_extracted_images, tmp_path / "r", subjects=SUBJECTS)

    for split in ("train", "test"):
        for row in pd.read_csv(tmp_path / "r" / f"stimulus_metadata_{split}.csv").itertuples():
            copied = tmp_path / "r" / f"stimuli_{split}" / row.image_file_name
            source = tree_with_extracted_images / "brainscore" / f"stimuli_{split}" / f"stimulus_{copied.name}"
            assert copied.read_bytes() == source.read_bytes()


def test_one_extracted_image_missing_means_extracting_all(tree_with_extracted_images, tmp_path):
    next((tree_with_extracted_images / "brainscore/stimuli_test").iterdir()).unlink()

    with pytest.raises(PackagingError, match="nsd_stimuli.hdf5 is missing"):
        build_release(tree_with_extracted_images, tmp_path / "r", subjects=SUBJECTS)


def test_a_release_is_replaced_only_when_asked_to(nsd_tree, own_release):
    (own_release / "train_test_split.csv").write_text("mine")
    with pytest.raises(PackagingError, match="exists already"):
        build_release(nsd_tree, own_release, subjects=SUBJECTS)
    assert (own_release / "train_test_split.csv").read_text() == "mine"

    build_release(nsd_tree, own_release, subjects=SUBJECTS, overwrite=True)
    assert (own_release / "train_test_split.csv").read_text() != "mine"


def test_only_a_release_is_ever_overwritten(nsd_tree, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")

    with pytest.raises(PackagingError, match="is not a release"):
        build_release(nsd_tree, tmp_path, subjects=SUBJECTS, overwrite=True)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"subjects": (1, 2)}, "needs a --name"),
        ({"subjects": SUBJECTS, "method": Method(nan_policy="drop")}, "needs a --name"),
        ({"subjects": (1, 2), "name": "Allen2022_fmri_surface"}, "belongs to another choice"),
        ({"subjects": (1, 2), "name": "../up"}, "letters, digits and underscores"),
    ],
)
def test_a_choice_that_is_not_brainscores_needs_a_name_of_its_own(nsd_tree, tmp_path, choice, message):
    with pytest.raises(ValueError, match=message):
        build_release(nsd_tree, tmp_path / "r", **choice)
    assert not (tmp_path / "r").exists()
